"""The engine as a program of its own, and what can be seen of it from outside."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def engine_command(*arguments: object) -> list[str]:
    """Command that runs the engine on one thread."""
    return [sys.executable, "-m", "solvar_engine", *map(str, arguments), "--threads", "1"]


def engine_environment() -> dict[str, str]:
    """Environment in which the engine is found from any folder."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def heed_signals() -> None:
    """Undo in a child what a test run in the background of a script hands down to it: signals that are ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Look until a condition holds; False if it never does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False
