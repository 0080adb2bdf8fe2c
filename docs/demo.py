"""From nothing to volumes of the states of a molecule in a Scipion project, and how they compare with the truth.

    make demo                                                  installs all that it needs first
    scripts/scipion python docs/demo.py --output demo-output   in the Scipion that it made

The steps are those of a user: import the particles of a refinement, find the motions ("covariance analysis"), correct
orientations and contrasts ("pose and contrast refinement"), make volumes of the states ("volume reconstruction") and
take the particles of one state ("select particles"). Run it again and it makes its own project and its own folder anew;
nothing else is touched.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from demo_project import create_project, engine, import_particles, load_plugins, run_on

MARKER = ".made-by-solvar-demo"
PROJECT = "SolvarDemo"
PARTICLES = 5000
PIXEL_SIZE = 3.0
RANK = 4
STATES = 4
ROTATION_ERROR, SHIFT_ERROR, CONTRAST_STD = 3, 1, 0.2


def main() -> None:
    """Run all steps and sum up what was found."""
    parser = argparse.ArgumentParser(description="From particles to states of a simulated molecule, in Scipion.")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder that is made anew")
    output = parser.parse_args().output.resolve()
    start_afresh(output)
    load_plugins()
    start = time.monotonic()

    heading(
        1,
        f"Simulate {PARTICLES:,} particles of a molecule with one moving domain, with orientations off by "
        f"{ROTATION_ERROR} degrees and shifts by {SHIFT_ERROR} px per axis, and contrasts that differ",
    )
    data = output / "hinge"
    engine(
        "simulate", "--output", data, "--phantom", "hinge", "--particles", PARTICLES, "--box", 64, "--pixel-size",
        PIXEL_SIZE, "--snr", 0.1, "--rotation-error", ROTATION_ERROR, "--shift-error", SHIFT_ERROR, "--contrast-std",
        CONTRAST_STD,
    )  # fmt: skip

    heading(2, f"Make the Scipion project {PROJECT} and import the particles as from RELION")
    project = create_project(PROJECT)
    particles = import_particles(project, data / "particles.star", PIXEL_SIZE, "import hinge")
    analysis, refined, states, chosen = run_protocols(project, particles)

    heading(7, "Compare the results with the truth")
    scores = [evaluate(run, data / "truth", output / f"{name}.json")
              for name, run in (("analysis", analysis), ("refinement", refined))]  # fmt: skip
    print(f"\nWhat was found in {PARTICLES:,} simulated particles of a molecule with one moving domain")
    show_components(refined, scores[1])
    show_scores(*scores)
    show_states(states, chosen, true_positions(data / "truth"))
    show_places(project, refined, states)
    print(f"The demo took {(time.monotonic() - start) / 60:.1f} minutes, installation aside.")


def run_protocols(project: Any, particles: Any) -> tuple[Any, Any, Any, Any]:
    """Run the protocols of the plugin one after the other, and return them finished."""
    from solvar_plugin.protocols import (
        SolvarProtCovariance,
        SolvarProtReconstruct,
        SolvarProtRefine,
        SolvarProtSelectParticles,
    )
    from solvar_plugin.protocols.covariance_form import FIXED_RANK
    from solvar_plugin.protocols.reconstruct_form import CLUSTERS
    from solvar_plugin.protocols.select_form import BY_CLUSTER

    threads = {"numberOfThreads": os.cpu_count() or 1}
    fit = {"rankChoice": FIXED_RANK, "rank": RANK, "numberOfClusters": STATES, **threads}
    heading(3, f"Run the protocol 'covariance analysis' with {RANK} components, with the orientations as they are")
    analysis = run_on(project, particles, SolvarProtCovariance, "motions of the hinge", **fit)
    heading(4, "Run the protocol 'pose and contrast refinement', which corrects orientations, shifts and contrasts")
    refined = run_on(project, particles, SolvarProtRefine, "refined hinge", **fit)
    heading(5, f"Run the protocol 'volume reconstruction' for {STATES} groups of the refined particles")
    by_cluster = {"states": CLUSTERS, "numberOfStates": STATES, **threads}
    states = run_on(project, refined, SolvarProtReconstruct, "states of the hinge", **by_cluster)
    heading(6, "Run the protocol 'select particles' for the first of these groups")
    chosen = run_on(project, refined, SolvarProtSelectParticles, "first state", way=BY_CLUSTER, clusters="1")
    return analysis, refined, states, chosen


def evaluate(protocol: Any, truth: Path, scores: Path) -> dict:
    """Compare the run of a protocol with the truth."""
    engine("evaluate", protocol.getRunDir().path.resolve(), truth, "--json", scores)
    return json.loads(scores.read_text(encoding="utf-8"))


def true_positions(truth: Path) -> list[float]:
    """Read where along the motion each particle is: from 0, one end, to 1, the other."""
    return [float(row["coordinate_1"]) for row in read_rows(truth / "states.csv")]


def start_afresh(output: Path) -> None:
    """Empty the folder of an earlier demo; never touch a folder that something else has filled."""
    if output.exists() and any(output.iterdir()):
        if not (output / MARKER).is_file():
            sys.exit(f"{output} holds something that is not an earlier demo: choose another with --output.")
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    (output / MARKER).touch()


def heading(number: int, text: str) -> None:
    """Announce one step."""
    print(f"\n=== {number}. {text}", flush=True)


def show_components(refined: Any, scores: dict) -> None:
    """Say what the components of the refinement are."""
    print("\n  component  eigenvalue  share of the variance  reproducible between halves")
    for row in read_rows(refined.getRunDir().eigenvalues):
        share, agreement = float(row["fraction"]), float(row["half_set_agreement"])
        print(
            f"  {row['component']:>9}  {float(row['eigenvalue']):10.3f}  {share:21.0%}  {agreement:27.2f}"
            f"  {row['label']}".rstrip()
        )
    print(f"  true eigenvalues: {', '.join(f'{value:.2f}' for value in scores['eigenvalues_true'][:2])} ...\n")


def show_scores(before: dict, after: dict) -> None:
    """Say in plain words what the refinement has improved."""
    rows = (
        ("orientations wrong by (mean, degrees)", "rotation_error_deg", ".2f"),
        ("shifts wrong by (mean, px)", "shift_error_px", ".2f"),
        ("contrasts told, R2", "contrast_r2", ".3f"),
        ("position along the motion told from z, R2", "latent_r2", ".3f"),
        ("true motion held by the two leading components", "captured_variance_2", ".0%"),
        ("relative error of the covariance", "covariance_error", ".2f"),
    )
    print(f"  {'':48}  covariance  pose and contrast")
    print(f"  {'':48}    analysis         refinement")
    for label, key, form in rows:
        print(f"  {label:48}  {before[key]:>10{form}}  {after[key]:>17{form}}")


def show_states(states: Any, chosen: Any, position: list[float]) -> None:
    """Say how good the volumes are, and where along the motion their particles are."""
    classes = {one.getObjId(): [item.getObjId() for item in one] for one in states.outputClasses}
    print("\n  state      images  resolution  particles  true position along the motion (mean, standard deviation)")
    for number, volume in enumerate(states.outputVolumes.iterItems(), start=1):
        ids = classes.get(number, [])
        print(
            f"  {volume.getObjLabel():9}  {volume._solvarParticles.get():6,}  {volume._solvarResolution.get():8.1f} Å"
            f"  {len(ids):9,}  {spread(ids, position)}"
        )
    ids = [particle.getObjId() for particle in chosen.outputParticles]
    print(f"  selected   {'':6}  {'':10}  {len(ids):9,}  {spread(ids, position)}")
    print(f"  all        {'':6}  {'':10}  {len(position):9,}  {spread(range(1, len(position) + 1), position)}")


def spread(ids: Any, position: list[float]) -> str:
    """Mean and standard deviation of the positions of particles, which are numbered from 1."""
    values = [position[identity - 1] for identity in ids]
    mean = statistics.fmean(values)
    return f"{mean:.2f} ± {statistics.pstdev(values, mean):.2f}"


def show_places(project: Any, refined: Any, states: Any) -> None:
    """Say where everything is, and how to see it in Scipion."""
    folder, root = refined.getRunDir(), Path(__file__).resolve().parents[1]
    print(f"\nProject:  {project.getPath()}")
    print(f"Report:   {folder.report.resolve()}  (of the refinement, with orientations before and after)")
    print(f"Pictures: {(folder.analysis / 'figures').resolve()}")
    print(f"Volumes:  {folder.path.resolve()}  (mean.mrc, eigenvolumes/)")
    print(f"States:   {states.getStatesFolder().resolve()}  (volumes, half-maps, local resolution, particles)")
    print("\nSee it in Scipion, where 'Analyze results' of each box opens its plots:")
    print(f"    {shlex.quote(str(root / 'scripts' / 'scipion'))} project {PROJECT}\n")


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a table of comma-separated values."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
