"""What a run stores of itself in params.json, and whether it came to its end."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any, Iterable, Mapping, TypeVar

from solvar_engine import __version__
from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_json, write_json
from solvar_engine.contract.params.options import Params
from solvar_engine.contract.run.inputs import describe_input
from solvar_engine.contract.run.names import RunDir
from solvar_engine.contract.status import FINISHED, read_status

FORMAT_VERSION = 1

_LIBRARIES = ("numpy", "scipy", "torch", "numba", "scikit-learn", "umap-learn")

P = TypeVar("P", bound=Params)


def write_params(
    run: RunDir,
    params: Params,
    *,
    inputs: Iterable[str | os.PathLike[str]] = (),
    resolved: Mapping[str, Any] | None = None,
) -> None:
    """Store the options of a run with what is needed to repeat it.

    Parameters
    ----------
    run : RunDir
    params : Params
        As the user gave them.
    inputs : iterable of path
        Files that were read; their sizes and digests are stored.
    resolved : mapping, optional
        What the options left open and the data decided, such as the working box.
    """
    record = {
        "format_version": FORMAT_VERSION,
        "command": params.command,
        "options": params.to_dict(),
        "resolved": dict(resolved or {}),
        "inputs": [describe_input(path) for path in inputs],
        "command_line": shlex.join(sys.argv),
        "folder": os.getcwd(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": library_versions(),
    }
    write_json(run.params, record)


def read_record(run: RunDir) -> dict[str, Any]:
    """Read all of params.json.

    Raises
    ------
    UserError
        If it is absent, not ours, or of a newer format.
    """
    record = read_json(run.params)
    if not {"format_version", "command", "options", "inputs", "folder"} <= set(record):
        raise UserError(f"{run.params} was not written by this program.")
    if record["format_version"] > FORMAT_VERSION:
        raise UserError(
            f"{run.params} has format {record['format_version']}, but this version knows only"
            f" {FORMAT_VERSION} and earlier: use the version that wrote it."
        )
    return record


def read_params(run: RunDir, kind: type[P]) -> P:
    """Read the options of a run as a `Params` class such as `FitParams`."""
    return kind.from_dict(read_record(run)["options"])


def is_finished(run: RunDir) -> bool:
    """Whether a run came to its end."""
    status = read_status(run.status)
    return status is not None and status.state == FINISHED


def require_finished(run: RunDir) -> None:
    """Check that this is a finished fit, as the commands that start from one need.

    Raises
    ------
    UserError
        If it is not.
    """
    if not run.params.is_file():
        raise UserError(f"{run.path} is not a run folder: it has no {run.params.name}.")
    if not is_finished(run):
        raise UserError(f"The fit in {run.path} is not finished: continue it with --resume.")


def refuse_file_of_a_run(run: RunDir, output: str) -> None:
    """Check that a file that is to be written is none of the run itself.

    Raises
    ------
    UserError
        If it is.
    """
    folder, target = run.path.resolve(), Path(output).resolve()
    if folder in target.parents and RunDir(folder).has_name_for(target):
        raise UserError(f"{output} is a file of the run itself, which would be lost: give another one to write.")


def library_versions() -> dict[str, str]:
    """Versions of the engine, Python and the numerical libraries that are installed."""
    versions = {"solvar_engine": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
