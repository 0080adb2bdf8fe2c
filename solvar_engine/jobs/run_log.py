"""The log file of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

from solvar_engine.contract.errors import UserError

_MOST_EARLY_MESSAGES = 10_000


class RunLog:
    """Collects the engine's messages, and writes them to a file as soon as there is a folder for it."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("solvar_engine")
        self._early = MemoryHandler(_MOST_EARLY_MESSAGES, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
        self._file: logging.FileHandler | None = None
        self._logger.addHandler(self._early)

    def write_to(self, path: Path) -> None:
        """Append to a file what was said so far, and from now on all that is said."""
        self._file = _LogFile(path, encoding="utf-8")
        self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._early.setTarget(self._file)
        self._early.flush()
        self._logger.removeHandler(self._early)
        self._logger.addHandler(self._file)

    def record(self, error: BaseException) -> None:
        """Write how the run ended: a sentence where that is enough for the user, otherwise the traceback."""
        if self._file is None:
            return
        is_ours = isinstance(error, Exception) and not isinstance(error, UserError)
        where = (type(error), error, error.__traceback__) if is_ours else None
        message = "the run ended with an error" if is_ours else f"the run was stopped: {describe(error)}"
        entry = self._logger.makeRecord(self._logger.name, logging.ERROR, __file__, 0, message, (), where)
        self._file.handle(entry)

    def close(self) -> None:
        """Stop listening."""
        for handler in (self._early, self._file):
            if handler is not None:
                self._logger.removeHandler(handler)
                handler.close()


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Stay silent: on a full disk the error that ends the run is the one to be seen, not that of its log."""


def describe(error: BaseException) -> str:
    """Say in words why a run ended."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error) or type(error).__name__


@contextmanager
def run_log() -> Iterator[RunLog]:
    """Keep a log while a job runs, with its end.

    Yields
    ------
    RunLog
        Whose file is chosen by `RunLog.write_to`, once it is known that the run starts.
    """
    log = RunLog()
    try:
        yield log
    except BaseException as error:
        log.record(error)
        raise
    finally:
        log.close()
