"""How a run starts or goes on, by the rules of ``--resume``, and what is refused."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import is_temporary
from solvar_engine.contract.lock import FolderLock
from solvar_engine.contract.params.options import Params
from solvar_engine.contract.run.names import FILES_BEFORE_PARAMS, FILES_BEFORE_START, RunDir
from solvar_engine.contract.run.record import is_finished, read_record
from solvar_engine.contract.run.resume import changed_inputs, differing_options
from solvar_engine.contract.status import is_failed_start

NEW, RESUME, ALREADY_FINISHED = "new", "resume", "finished"


@contextmanager
def prepared(run: RunDir, params: Params, resume: bool) -> Iterator[str]:
    """Decide how to start, by the rules of ``--resume``, and lock the run unless it is finished.

    Nothing is changed in a folder that is refused. A folder that holds no more than what a start left that failed
    before there was anything to go on from, such as for images that cannot be used, counts as empty. After ``new`` the
    caller stores the options with `write_params`. The lock is given back at the end of the ``with`` block.

    Parameters
    ----------
    run : RunDir
    params : Params
        Options asked for now.
    resume : bool
        Whether an existing run may be continued.

    Yields
    ------
    str
        `NEW`, `RESUME` or `ALREADY_FINISHED`.

    Raises
    ------
    UserError
        If the path is a file, the folder is not empty and `resume` is false, it is not a run of this
        command, options or input files differ from those it was started with, or another process uses it.

    Examples
    --------
    >>> with prepared(RunDir("run"), params, resume=True) as start:  # doctest: +SKIP
    ...     print(start)
    new
    """
    start = _way_to_start(run, params, resume)
    if start == ALREADY_FINISHED:
        _refuse_changed_inputs(run)
        yield start
        return
    if start == NEW:
        _make_folder(run)
    lock = FolderLock(run.lock)
    lock.acquire()
    try:
        if start == NEW:
            run.bad_images.unlink(missing_ok=True)
        if start == RESUME:
            _refuse_changed_inputs(run)
            _remove_temporary_files(run)
        yield start
    finally:
        lock.release()


def _way_to_start(run: RunDir, params: Params, resume: bool) -> str:
    """Decide whether to start or to resume, without a change of the folder."""
    if run.path.exists() and not run.path.is_dir():
        raise UserError(f"{run.path} is a file: give a new folder for --output.")
    if not _has_content(run) or is_failed_start(run.path, params.command, FILES_BEFORE_PARAMS):
        return NEW
    if not resume:
        if is_failed_start(run.path, params.command, FILES_BEFORE_START) and not any(run.checkpoint.glob("*.npz")):
            return NEW
        raise UserError(f"{run.path} is not empty: give a new folder for --output, or --resume to continue its run.")
    if not run.params.exists():
        _refuse_foreign_content(run)
        return NEW
    _refuse_other_options(run, params)
    return ALREADY_FINISHED if is_finished(run) else RESUME


def _has_content(run: RunDir) -> bool:
    return run.path.is_dir() and any(run.path.iterdir())


def _make_folder(run: RunDir) -> None:
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{run.path} cannot be made because a part of its path is a file.") from error


def _refuse_foreign_content(run: RunDir) -> None:
    for entry in sorted(run.path.iterdir()):
        if entry.name not in FILES_BEFORE_PARAMS and not is_temporary(entry):
            raise UserError(
                f"{run.path} holds {entry.name} but no {run.params.name}, so it is not a run to resume:"
                " give a new folder for --output."
            )


def _refuse_other_options(run: RunDir, params: Params) -> None:
    record = read_record(run)
    if record["command"] != params.command:
        raise UserError(f"{run.path} holds a run of {record['command']}, not of {params.command}.")
    different = differing_options(run, params)
    if different:
        raise UserError(
            f"The run in {run.path} was started with other options: {', '.join(different)};"
            " resume it with the same ones or give a new folder for --output."
        )


def _refuse_changed_inputs(run: RunDir) -> None:
    for path in changed_inputs(run):
        raise UserError(f"{path} has changed since the run in {run.path} was started: give a new folder for --output.")


def _remove_temporary_files(run: RunDir) -> None:
    for path in run.path.rglob(".*"):
        if is_temporary(path):
            path.unlink()
