"""How a run stands: what status.json says."""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Collection

from solvar_engine import __version__
from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import is_temporary, read_json, write_json

RUNNING, FINISHED, FAILED = "running", "finished", "failed"

STATUS_NAME = "status.json"
"""Of the file that says how far a command is, in the folder that it fills."""


@dataclass(frozen=True)
class Status:
    """The content of status.json.

    Attributes
    ----------
    command : str
        Such as ``fit``.
    state : str
        running, finished or failed. A run that was killed still says running: its process is gone.
    stage : str
        What is being done, such as ``mean``.
    step, steps : int
        Progress within the whole run: step of steps.
    message : str
        One sentence for the user, of the error if it failed.
    pid : int
    host : str
    seconds : float
        Wall time, summed over resumes.
    peak_memory_mb : float
        Largest resident memory, over all resumes, MB.
    version : str
        Of the engine.
    """

    command: str
    state: str = RUNNING
    stage: str = ""
    step: int = 0
    steps: int = 0
    message: str = ""
    pid: int = 0
    host: str = ""
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    version: str = __version__


def status_path(folder: str | os.PathLike[str]) -> Path:
    """Return the status file of a folder that a command fills: RUN of `fit`, DIR of `reconstruct`.

    That of `analyze` is `RunDir.analysis_status`.

    Examples
    --------
    >>> status_path("states").as_posix()
    'states/status.json'
    """
    return Path(folder) / STATUS_NAME


def write_status(path: str | os.PathLike[str], status: Status) -> None:
    """Write a status atomically, so that a reader always finds a whole one."""
    write_json(path, dataclasses.asdict(status))


def read_status(path: str | os.PathLike[str]) -> Status | None:
    """Read a status; None if there is no file.

    Raises
    ------
    UserError
        If the file is not a status.
    """
    if not Path(path).exists():
        return None
    content = read_json(path)
    known = {field.name for field in dataclasses.fields(Status)}
    if "command" not in content:
        raise UserError(f"{path} does not say which command it belongs to.")
    return Status(**{name: value for name, value in content.items() if name in known})


def is_failed_start(
    folder: str | os.PathLike[str],
    command: str,
    allowed: Collection[str] = (STATUS_NAME,),
    states: Collection[str] = (FAILED,),
) -> bool:
    """Whether a folder holds no more than what a command left that failed before it did anything.

    Such a folder counts as empty: the user corrects the mistake and gives the same command again.

    Parameters
    ----------
    folder : path
        An existing one.
    command : str
        Whose status must be there, and say that it failed.
    allowed : collection of str
        Names of the files that the command may have left.
    states : collection of str
        That the status may say: a command that was killed still runs by its status.
    """
    for path in Path(folder).iterdir():
        if path.name not in allowed and not is_temporary(path):
            return False
    try:
        status = read_status(status_path(folder))
    except UserError:
        return False
    return status is not None and status.command == command and status.state in states


class StatusTracker:
    """Keeps one status.json up to date, with time and memory that go on over resumes.

    Parameters
    ----------
    path : path
        The status file.
    command : str
        Such as ``fit``.
    goes_on : bool
        Take over seconds and peak memory of the file, if there is one: the command continues what an earlier call
        began. Otherwise it replaces that.

    Examples
    --------
    >>> tracker = StatusTracker("run/status.json", "fit")  # doctest: +SKIP
    >>> tracker.update(stage="mean", step=1, steps=9)  # doctest: +SKIP
    >>> tracker.update(state="finished")  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str], command: str, goes_on: bool = True) -> None:
        self._path = path
        self._start = time.monotonic()
        earlier = (read_status(path) if goes_on else None) or Status(command)
        self._earlier_seconds = earlier.seconds
        self._earlier_peak_mb = earlier.peak_memory_mb
        self._status = Status(command, pid=os.getpid(), host=socket.gethostname())

    @property
    def seconds(self) -> float:
        """Wall time so far, summed over resumes."""
        return round(self._earlier_seconds + time.monotonic() - self._start, 3)

    def update(
        self,
        *,
        state: str | None = None,
        stage: str | None = None,
        step: int | None = None,
        steps: int | None = None,
        message: str | None = None,
    ) -> Status:
        """Change what is given, keep the rest, bring time and memory up to date and write the file."""
        given = {"state": state, "stage": stage, "step": step, "steps": steps, "message": message}
        self._status = dataclasses.replace(
            self._status,
            **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
            seconds=self.seconds,
            peak_memory_mb=round(max(self._earlier_peak_mb, peak_memory_mb()), 1),
        )
        write_status(self._path, self._status)
        return self._status


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    try:
        # not getrusage, which inherits the peak of the program that started this one
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(text.split("VmHWM:", 1)[1].split()[0]) / 1024
    except (OSError, IndexError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 1024
