"""From nothing to the motions of a molecule in a Scipion project: simulate, import, analyse, compare with the truth.

    make demo                                                  installs all that it needs first
    scripts/scipion python docs/demo.py --output demo-output   in the Scipion that it made

The steps are those of a user: import the particles of a refinement, then run "covariance analysis". Run it again and
it makes its own project and its own folder anew; nothing else is touched.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

MARKER = ".made-by-solvar-demo"
PROJECT = "SolvarDemo"
PARTICLES = 5000
PIXEL_SIZE = 3.0
RANK = 6
SECONDS_BETWEEN_LOOKS = 2


def main() -> None:
    """Run all steps and sum up what was found."""
    parser = argparse.ArgumentParser(description="Find the motions of a simulated molecule in a Scipion project.")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder that is made anew")
    output = parser.parse_args().output.resolve()
    start_afresh(output)
    load_plugins()
    start = time.monotonic()

    heading(1, f"Simulate {PARTICLES} particles of a molecule with one moving domain")
    data, scores = output / "hinge", output / "evaluation.json"
    engine(
        "simulate", "--output", data, "--phantom", "hinge", "--particles", PARTICLES,
        "--box", 64, "--pixel-size", PIXEL_SIZE, "--snr", 0.1,
    )  # fmt: skip

    heading(2, f"Make the Scipion project {PROJECT} and import the particles as from RELION")
    project = create_project()
    particles = import_particles(project, data / "particles.star")

    heading(3, f"Run the protocol 'covariance analysis' with {RANK} components")
    analysis = analyse(project, particles)

    heading(4, "Compare the result with the truth")
    run = analysis.getRunDir()
    engine("evaluate", run.path.resolve(), data / "truth", "--json", scores)
    show_summary(analysis, json.loads(scores.read_text(encoding="utf-8")))
    show_places(project, analysis)
    print(f"The demo took {(time.monotonic() - start) / 60:.1f} minutes, installation aside.")


def start_afresh(output: Path) -> None:
    """Empty the folder of an earlier demo; never touch a folder that something else has filled."""
    if output.exists() and any(output.iterdir()):
        if not (output / MARKER).is_file():
            sys.exit(f"{output} holds something that is not an earlier demo: choose another with --output.")
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    (output / MARKER).touch()


def load_plugins() -> None:
    """Let Scipion find its plugins, which tells them where their programs are."""
    import pyworkflow

    pyworkflow.Config.getDomain().getPlugins()


def heading(number: int, text: str) -> None:
    """Announce one step."""
    print(f"\n=== {number}. {text}", flush=True)


def engine(*arguments: object) -> None:
    """Show one command of the engine, run it, and stop if it fails."""
    from solvar_plugin import Plugin

    words = shlex.join(str(argument) for argument in arguments)
    print(f"$ solvar-engine {words}", flush=True)
    command = f"{Plugin.getActivation()}{Plugin.getEngineProgram()} {words}"
    result = subprocess.run(command, shell=True, env=Plugin.getEnviron(), stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        sys.exit(f"solvar-engine {arguments[0]} ended with exit code {result.returncode}.")


def create_project() -> Any:
    """Make the demo's project anew and go to its folder, from which Scipion's paths start."""
    from pyworkflow.project import Manager

    manager = Manager()
    if manager.hasProject(PROJECT):
        manager.deleteProject(PROJECT)
    project = manager.createProject(PROJECT)
    os.chdir(project.getPath())
    return project


def import_particles(project: Any, star: Path) -> Any:
    """Import a STAR file of RELION, as a user does in the project window."""
    from pwem.protocols import ProtImportParticles

    protocol = project.newProtocol(
        ProtImportParticles,
        importFrom=ProtImportParticles.IMPORT_FROM_RELION,
        starFile=str(star),
        samplingRate=PIXEL_SIZE,
        magnification=50000,
        haveDataBeenPhaseFlipped=False,
    )
    protocol.setObjLabel("import hinge")
    return run(project, protocol)


def analyse(project: Any, particles: Any) -> Any:
    """Run the plugin's protocol and say how far it is."""
    from solvar_plugin.protocols import SolvarProtCovariance
    from solvar_plugin.protocols.covariance_form import FIXED_RANK

    protocol = project.newProtocol(
        SolvarProtCovariance, rankChoice=FIXED_RANK, rank=RANK, numberOfThreads=os.cpu_count() or 1
    )
    protocol.setObjLabel("motions of the hinge")
    protocol.inputParticles.set(particles)
    protocol.inputParticles.setExtended("outputParticles")
    return run(project, protocol)


def run(project: Any, protocol: Any) -> Any:
    """Launch a protocol as the project window does, show its progress, and return it finished; stop if it fails."""
    errors = protocol.validate()
    if errors:
        sys.exit(f"{protocol.getObjLabel()}: " + " ".join(errors))
    is_over = threading.Event()
    watcher = threading.Thread(target=watch, args=(protocol, is_over))
    watcher.start()
    try:
        project.launchProtocol(protocol, wait=True)
    finally:
        is_over.set()
        watcher.join()
    if not protocol.isFinished():
        sys.exit(f"{protocol.getObjLabel()} {protocol.getStatus()}: {protocol.getErrorMessage()}")
    outputs = ", ".join(str(output) for _, output in protocol.iterOutputAttributes())
    print(f"  finished: {outputs}", flush=True)
    return protocol


def watch(protocol: Any, is_over: threading.Event) -> None:
    """Say how far a run is, whenever that has changed, until it is over."""
    shown = ""
    while not is_over.wait(SECONDS_BETWEEN_LOOKS):
        text = progress(protocol)
        if text not in ("", shown):
            print(f"  {text}", flush=True)
            shown = text


def progress(protocol: Any) -> str:
    """Say how far a run of the engine is; empty for other protocols and before it starts."""
    from solvar_engine.contract.status import RUNNING, read_status, status_path

    if not hasattr(protocol, "getRunDir"):
        return ""
    folder = protocol.getRunDir()
    for path in (status_path(protocol.getStatesFolder()), folder.analysis_status, folder.status):
        status = read_status(path)
        if status is not None and status.state == RUNNING:
            return f"{status.command}: stage {status.step} of {status.steps}, {status.stage}"
    return ""


def show_summary(analysis: Any, scores: dict) -> None:
    """Say in plain words what was found."""
    with analysis.getRunDir().eigenvalues.open(encoding="utf-8", newline="") as file:
        components = list(csv.DictReader(file))
    print(f"\nWhat was found in {PARTICLES} simulated particles of a molecule with one moving domain\n")
    print("  component  eigenvalue  share of the variance  reproducible between halves")
    for row in components:
        share, agreement = float(row["fraction"]), float(row["half_set_agreement"])
        print(
            f"  {row['component']:>9}  {float(row['eigenvalue']):10.3f}  {share:21.0%}  {agreement:27.2f}"
            f"  {row['label']}".rstrip()
        )
    print()
    print(f"  true eigenvalues                              {numbers(scores['eigenvalues_true'][:2])} ...")
    print(f"  position along the motion told from z         R2 = {scores['latent_r2']:.3f}")
    print(f"  true motion held by the two leading components     {scores['captured_variance_2']:.0%}")
    print(f"  relative error of the covariance                   {scores['covariance_error']:.2f}")


def show_places(project: Any, analysis: Any) -> None:
    """Say where everything is, and how to see it in Scipion."""
    folder, root = analysis.getRunDir(), Path(__file__).resolve().parents[1]
    print(f"\nProject:  {project.getPath()}")
    print(f"Report:   {folder.report.resolve()}")
    print(f"Pictures: {(folder.analysis / 'figures').resolve()}")
    print(f"Volumes:  {folder.path.resolve()}  (mean.mrc, eigenvolumes/)")
    print(f"States:   {analysis.getStatesFolder().resolve()}  (two for each component, one for each cluster)")
    print("\nSee it in Scipion, where 'Analyze results' of the last box opens the plots:")
    print(f"    {shlex.quote(str(root / 'scripts' / 'scipion'))} project {PROJECT}\n")


def numbers(values: list[float]) -> str:
    """Write a few numbers for a person."""
    return ", ".join(f"{value:.2f}" for value in values)


if __name__ == "__main__":
    main()
