"""The log file of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Append the engine's messages, and the traceback of an error, to a file."""
    logger = logging.getLogger("solvar_engine")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    except Exception:
        handler.handle(_traceback_record(logger))
        raise
    finally:
        logger.removeHandler(handler)
        handler.close()


def _traceback_record(logger: logging.Logger) -> logging.LogRecord:
    import sys

    return logger.makeRecord(
        logger.name, logging.ERROR, __file__, 0, "the run ended with an error", (), sys.exc_info()
    )
