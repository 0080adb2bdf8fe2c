"""The log file of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from solvar_engine.jobs.running.failures import sentence_of, user_sentence


@contextmanager
def run_log(path: Path) -> Iterator[None]:
    """Append to a file all that the engine says while a job runs, and how it ended if it failed."""
    logger = logging.getLogger("solvar_engine")
    log = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(log)
    try:
        yield
    except BaseException as error:
        log.handle(_last_record(logger, error))
        raise
    finally:
        logger.removeHandler(log)
        log.close()


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Stay silent: on a full disk the error that ends the run is the one to be seen, not that of its log."""


def _last_record(logger: logging.Logger, error: BaseException) -> logging.LogRecord:
    """How the run ended: a sentence where that is enough for the user, otherwise with the traceback."""
    is_ours = isinstance(error, Exception) and user_sentence(error) is None
    where = (type(error), error, error.__traceback__) if is_ours else None
    message = f"the run was stopped: {sentence_of(error)}"
    return logger.makeRecord(logger.name, logging.ERROR, __file__, 0, message, (), where)
