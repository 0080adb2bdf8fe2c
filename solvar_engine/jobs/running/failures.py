"""What to tell the user about an error."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from solvar_engine.contract.errors import INTERRUPTED, UserError
from solvar_engine.distributed.lost import ProcessLost

# what the user's choice of a path can lead to
_ERRORS_OF_PATHS = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
)  # fmt: skip


def sentence_of(error: BaseException) -> str:
    """Say in words why a command ended, for the status file and the log.

    Examples
    --------
    >>> sentence_of(ZeroDivisionError("a bug"))
    'internal error, ZeroDivisionError: a bug'
    """
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if not isinstance(error, Exception):
        return str(error) or type(error).__name__
    return user_sentence(error) or f"internal error, {type(error).__name__}: {error}"


def user_sentence(error: Exception) -> str | None:
    """What to tell the user about an error that is his, or his machine's; None for an error of ours."""
    if isinstance(error, (UserError, ProcessLost)):
        return str(error)
    if isinstance(error, OSError):
        return _sentence_about_files(error)
    if type(error).__name__ == "OutOfMemoryError":
        return "The GPU has too little memory: choose a smaller --box, --rank or --oversampling, or the CPU."
    if isinstance(error, MemoryError):
        return "There is too little memory: choose a smaller --box, --rank, --oversampling or --cache-mb."
    return None


def _sentence_about_files(error: OSError) -> str | None:
    # numpy reports a short write by its text alone
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "requested and" in str(error):
        return "The disk is full: free some space or choose a folder on another disk."
    if error.errno in _ERRORS_OF_PATHS and error.filename:
        # imported here because it brings NumPy, which must not come before the number of threads is set
        from solvar_engine.contract.files import is_temporary

        path = Path(os.fsdecode(error.filename))
        return f"{path.parent if is_temporary(path) else path} cannot be used: {error.strerror}."
    return None
