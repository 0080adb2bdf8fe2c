"""The status file of a command from its start to its end, also when that comes before the command could begin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import prepare_output_folder
from solvar_engine.contract.params import AbinitioParams, AnalyzeParams, FitParams, Params, ReconstructParams
from solvar_engine.contract.results import StateFolder
from solvar_engine.contract.run import ALREADY_FINISHED, RunDir, prepared, require_finished
from solvar_engine.contract.status import (
    FAILED,
    FINISHED,
    RUNNING,
    StatusTracker,
    is_failed_start,
    read_status,
    status_path,
)
from solvar_engine.jobs.running.failures import sentence_of


@contextmanager
def tracked(status: StatusTracker) -> Iterator[StatusTracker]:
    """Say in the status file that a command runs, and with which sentence it failed if it does.

    Yields
    ------
    StatusTracker
        For the command to say how far it is, and that it is finished.
    """
    try:
        status.update(stage="starting")
        yield status
    except BaseException as error:
        with suppress(OSError):
            status.update(state=FAILED, message=sentence_of(error))
        raise


def track_analysis(run: RunDir) -> StatusTracker:
    """Start the status file of `analyze`, in place of that of an earlier analysis.

    Raises
    ------
    UserError
        If the folder is not a finished run; then there is no place for a status, and nothing is written.
    """
    require_finished(run)
    run.analysis.mkdir(exist_ok=True)
    return StatusTracker(run.analysis_status, AnalyzeParams.command, goes_on=False)


def track_states(output: str, resume: bool = False) -> StatusTracker:
    """Make the folder of `reconstruct` and start its status file, also where an earlier call failed at once.

    Raises
    ------
    UserError
        If the folder is not empty, and holds nothing to be resumed, or cannot be made; then nothing is written.
    """
    folder, command = Path(output), ReconstructParams.command
    is_unfinished = StateFolder(folder).checkpoint.exists()
    if is_unfinished and not resume:
        raise UserError(f"{folder} holds unfinished states: give --resume to go on with them, or a new folder.")
    allowed = (status_path(folder).name, StateFolder(folder).bad_images.name)
    if is_unfinished or (folder.is_dir() and is_failed_start(folder, command, allowed, (FAILED,))):
        return StatusTracker(status_path(folder), command, goes_on=is_unfinished)
    if folder.is_dir() and is_failed_start(folder, command, allowed, (RUNNING,)):  # that of a call that was killed
        if not resume:
            raise UserError(f"{folder} is of a call that was stopped, or still runs: give --resume, or a new folder.")
    else:
        prepare_output_folder(folder)
    return StatusTracker(status_path(folder), command, goes_on=False)


def has_finished_states(output: str) -> bool:
    """Whether a folder holds the states of a call that came to its end."""
    folder = Path(output)
    status = read_status(status_path(folder)) if folder.is_dir() else None
    return status is not None and (status.command, status.state) == (ReconstructParams.command, FINISHED)


def record_unstarted(params: Params, error: Exception) -> None:
    """Say in the status file of a command that it could not begin, for instance because a library is missing.

    Nothing is written where the command itself would have refused the folder, and by commands without status file.
    """
    with suppress(UserError, OSError):
        if isinstance(params, AnalyzeParams):
            _record(track_analysis(RunDir(params.run)), error)
        elif isinstance(params, ReconstructParams):
            _record(track_states(params.output, params.resume), error)
        elif isinstance(params, (FitParams, AbinitioParams)):
            run = RunDir(params.output)
            with prepared(run, params, params.resume) as start:
                if start != ALREADY_FINISHED:
                    _record(StatusTracker(run.status, params.command), error)


def _record(status: StatusTracker, error: Exception) -> None:
    status.update(state=FAILED, message=sentence_of(error))
