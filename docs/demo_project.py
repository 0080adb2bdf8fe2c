"""What the demo does in Scipion: it makes a project, fills it, and runs protocols there as the project window does."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

SECONDS_BETWEEN_LOOKS = 2


def load_plugins() -> None:
    """Let Scipion find its plugins, which tells them where their programs are."""
    import pyworkflow

    pyworkflow.Config.getDomain().getPlugins()


def engine(*arguments: object) -> None:
    """Show one command of the engine, run it, and stop if it fails."""
    from solvar_plugin import Plugin

    words = shlex.join(str(argument) for argument in arguments)
    print(f"$ solvar-engine {words}", flush=True)
    command = f"{Plugin.getActivation()}{Plugin.getEngineProgram()} {words}"
    result = subprocess.run(command, shell=True, env=Plugin.getEnviron(), stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        sys.exit(f"solvar-engine {arguments[0]} ended with exit code {result.returncode}.")


def create_project(name: str) -> Any:
    """Make the demo's project anew and go to its folder, from which Scipion's paths start."""
    from pyworkflow.project import Manager

    manager = Manager()
    if manager.hasProject(name):
        manager.deleteProject(name)
    project = manager.createProject(name)
    os.chdir(project.getPath())
    return project


def import_particles(project: Any, star: Path, pixel_size: float, label: str) -> Any:
    """Import a STAR file of RELION, as a user does in the project window."""
    from pwem.protocols import ProtImportParticles

    protocol = project.newProtocol(
        ProtImportParticles,
        importFrom=ProtImportParticles.IMPORT_FROM_RELION,
        starFile=str(star),
        samplingRate=pixel_size,
        magnification=50000,
        haveDataBeenPhaseFlipped=False,
    )
    return run(project, protocol, label)


def run_on(project: Any, source: Any, kind: type, label: str, **values: Any) -> Any:
    """Run a protocol of the plugin on the particles that another one has put out."""
    protocol = project.newProtocol(kind, **values)
    protocol.inputParticles.set(source)
    protocol.inputParticles.setExtended("outputParticles")
    return run(project, protocol, label)


def run(project: Any, protocol: Any, label: str) -> Any:
    """Launch a protocol as the project window does, show its progress, and return it finished; stop if it fails."""
    protocol.setObjLabel(label)
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

    paths = [status_path(protocol.getStatesFolder())] if hasattr(protocol, "getStatesFolder") else []
    if hasattr(protocol, "getRunDir"):
        paths += [protocol.getRunDir().analysis_status, protocol.getRunDir().status]
    for status in map(read_status, paths):
        if status is not None and status.state == RUNNING:
            return f"{status.command}: stage {status.step} of {status.steps}, {status.stage}"
    return ""
