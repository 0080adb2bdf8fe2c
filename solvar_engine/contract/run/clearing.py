"""How a run is removed, so that another one can start in its folder."""

from __future__ import annotations

import os
from pathlib import Path

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import is_temporary
from solvar_engine.contract.lock import FolderLock
from solvar_engine.contract.run.names import FILES_BEFORE_PARAMS, RunDir
from solvar_engine.contract.run.record import read_record


def clear_run(run: RunDir) -> None:
    """Empty the folder of a run, so that `prepared` starts a new one; an absent folder stays absent.

    Nothing is removed unless all of it belongs to a run. The folder itself stays.

    Raises
    ------
    UserError
        If the path is a file, the folder is not a run, it holds anything that no run has, another process uses it,
        or a newer version wrote it.
    """
    if run.path.exists() and not run.path.is_dir():
        raise UserError(f"{run.path} is a file, not a run folder: nothing was removed.")
    if not _all_below(run.path):
        return
    if run.params.exists():
        read_record(run)  # refuses what another program or a newer version wrote
    _refuse_what_is_not_of_a_run(run)
    lock = FolderLock(run.lock)
    lock.acquire()
    try:
        _remove_all(run)
    finally:
        lock.release()


def _refuse_what_is_not_of_a_run(run: RunDir) -> None:
    for path in _all_below(run.path):
        if not (is_temporary(path) or _is_of_a_run(run, path)):
            raise UserError(
                f"{run.path} holds {path.relative_to(run.path)}, which is not of a run: nothing was removed;"
                " move it away or choose another folder."
            )


def _is_of_a_run(run: RunDir, path: Path) -> bool:
    if not run.params.exists():
        return path.parent == run.path and path.name in FILES_BEFORE_PARAMS
    return run.has_name_for(path)


def _remove_all(run: RunDir) -> None:
    """Remove all but the lock; the status first and the options last, so that what a kill leaves is no result."""
    run.status.unlink(missing_ok=True)
    # folders come after what they hold
    for path in sorted(_all_below(run.path), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        elif path not in (run.params, run.lock):
            path.unlink()
    run.params.unlink(missing_ok=True)


def _all_below(folder: Path) -> list[Path]:
    """Every file and folder, none where there is no folder; links are listed, not followed."""
    return [Path(where, name) for where, folders, files in os.walk(folder) for name in folders + files]
