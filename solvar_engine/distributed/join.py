"""How a process finds the others: by the environment variables that torchrun sets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed
from torch.distributed.rendezvous import rendezvous

from solvar_engine.distributed.lost import ProcessLost
from solvar_engine.distributed.world import Team, World

_LONGEST_WAIT = timedelta(hours=6)
"""For the slowest process, such as one whose disk is busy; one that has died is found out at once."""

_SECONDS_TO_START = 300.0
_SECONDS_BETWEEN_LOOKS = 0.1


@contextmanager
def joined(has_died: Callable[[], bool] = lambda: False) -> Iterator[World]:
    """Join the processes that the environment names, and leave them at the end.

    Parameters
    ----------
    has_died : callable, optional
        Whether one of the others is known to have ended.

    Raises
    ------
    ProcessLost
        If one of the others does not come.
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        store = _store(rank, size)
        _wait_for_all(store, rank, size, has_died)
        torch.distributed.init_process_group(store=store, rank=rank, world_size=size, timeout=_LONGEST_WAIT)
    except RuntimeError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ProcessLost(f"The {size} processes did not find each other at {place}: {error}.") from error
    try:
        yield World(rank, size, int(os.environ.get("LOCAL_WORLD_SIZE", size)), store, _team(rank, size))
    finally:
        torch.distributed.destroy_process_group()


def _store(rank: int, size: int) -> Any:
    if "TORCHELASTIC_USE_AGENT_STORE" in os.environ:
        return next(rendezvous("env://"))[0]  # the one of torchrun
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return torch.distributed.TCPStore(host, port, size, rank == 0, wait_for_workers=False)


def _team(rank: int, size: int) -> Team | None:
    """One half of the processes; none of an odd number."""
    if size % 2:
        return None
    half = size // 2
    groups = [torch.distributed.new_group([*range(first, first + half)], _LONGEST_WAIT) for first in (0, half)]
    number = rank // half
    return Team(number, groups[number])


def _wait_for_all(store: Any, rank: int, size: int, has_died: Callable[[], bool]) -> None:
    """Wait until every process has come, so that one that cannot start is missed soon."""
    store.set(_presence(rank), "")
    late = time.monotonic() + _SECONDS_TO_START
    while not store.check([_presence(number) for number in range(size)]):
        if has_died() or time.monotonic() > late:
            raise ProcessLost(f"One of the {size} processes did not start: look for its messages.")
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _presence(rank: int) -> str:
    return f"solvar_engine/process {rank}"
