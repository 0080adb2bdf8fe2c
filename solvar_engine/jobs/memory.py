"""How much memory this process may use, and what becomes of memory that is freed."""

from __future__ import annotations

import ctypes
from pathlib import Path, PurePosixPath

_TRIM_THRESHOLD, _OWN_BLOCK_THRESHOLD, _BLOCKS_OF_THEIR_OWN = -1, -3, -4  # as malloc.h numbers its parameters

_LIMIT_FILES = {"": ("", "memory.max"), "memory": ("memory", "memory.limit_in_bytes")}
"""By the controllers of a hierarchy of control groups (version 2 has no name): folder and file of the limit."""


def keep_freed_memory() -> None:
    """Let the C library keep large blocks that were freed for the next ones, where it is glibc.

    Transforms and grids come and go by the hundred. Given back to the system each time, every page of the next one has
    to be mapped and cleared again: that was half of the time of a transform, and a sixth of a whole fit.
    """
    _set_allocator(_BLOCKS_OF_THEIR_OWN, 0)
    _set_allocator(_TRIM_THRESHOLD, 2**31 - 1)


def return_large_blocks() -> None:
    """Give blocks of more than 32 MB back to the system as soon as they are freed, where the C library is glibc.

    Kept, they are of no use for larger ones, and small ones settle in them: with grids of a gigabyte, twice as much
    memory was taken as was in use.
    """
    _set_allocator(_OWN_BLOCK_THRESHOLD, 32 * 2**20)
    _set_allocator(_BLOCKS_OF_THEIR_OWN, 65536)


def _set_allocator(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(parameter, value)


def release_freed_memory() -> None:
    """Give back to the system what was freed, before work that needs blocks of other sizes, where it is glibc."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def available_bytes(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> float:
    """Memory that is free or can be freed, within the limits of a queue or container.

    Parameters
    ----------
    proc, groups : Path
        Where the kernel tells.

    Returns
    -------
    float
        Infinite where nothing is known.
    """
    return min([_free(proc / "meminfo"), *_limits(proc / "self" / "cgroup", groups)])


def _free(meminfo: Path) -> float:
    for line in _lines(meminfo):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return 1024.0 * int(value.split()[0])
    return float("inf")


def _limits(membership: Path, groups: Path) -> list[float]:
    """Limits of all groups that this process belongs to, and of those around them."""
    limits = []
    for line in _lines(membership):
        _, controllers, path = line.split(":", 2)
        if controllers not in _LIMIT_FILES:
            continue
        folder, name = _LIMIT_FILES[controllers]
        group = PurePosixPath(path).relative_to("/")
        for ancestor in (group, *group.parents):
            limits += [float(text) for text in _lines(groups / folder / ancestor / name) if text.isdigit()]
    return limits


def _lines(path: Path) -> list[str]:
    """Lines of a file of the kernel; none where it does not exist."""
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
