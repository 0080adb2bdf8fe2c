"""How much memory this process may use."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

_LIMIT_FILES = {"": ("", "memory.max"), "memory": ("memory", "memory.limit_in_bytes")}
"""By the controllers of a hierarchy of control groups (version 2 has no name): folder and file of the limit."""


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
