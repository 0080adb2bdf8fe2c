"""Names of compiled kernels on disk that change with every module a kernel is made from.

Numba keeps compiled code until the file of the kernel changes. What a kernel inlines from other modules, and numbers
that it takes from there, are part of that code, and numba does not look at them. So every kernel carries a digest of
all these in its name, by which numba also names its files.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_DIGITS = 12


def name_by_sources(function: Callable, *modules: str) -> None:
    """Append a digest of its sources to the qualified name of a kernel, before numba compiles it.

    Parameters
    ----------
    function : callable
        A Python function; compiled functions that it calls are imported or defined before it.
    *modules : str
        Names of modules whose source counts besides.
    """
    function.__qualname__ = f"{function.__qualname__}-{source_digest(function, *modules)}"


def source_digest(function: Callable, *modules: str) -> str:
    """Digest of the modules that a kernel is made from: its own, and all with compiled functions that these import.

    Parameters
    ----------
    function : callable
    *modules : str
        Names of modules that count besides.

    Returns
    -------
    str
    """
    found: set[str] = set()
    for name in (function.__module__, *modules):
        _collect(name, found)
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(_content(name))
    return digest.hexdigest()[:_DIGITS]


def remove_older(kernel: Any) -> None:
    """Remove compiled code that other sources have left beside a kernel's; none is there without a cache.

    Parameters
    ----------
    kernel : compiled function
        Named by `name_by_sources`.
    """
    folder = kernel.stats.cache_path
    if folder is None:
        return
    name, _, digest = kernel.py_func.__qualname__.rpartition("-")
    for path in Path(folder).glob(f"*.{name}-*.nb[ci]"):
        if f".{name}-{digest}-" not in path.name:
            with suppress(OSError):  # another process was faster, or the folder is read-only
                path.unlink()


def _collect(name: str, found: set[str]) -> None:
    """Add a module, and those of its package whose compiled functions it holds."""
    if name in found or name not in sys.modules:
        return
    found.add(name)
    package = name.partition(".")[0]
    for value in vars(sys.modules[name]).values():
        origin = getattr(value, "__module__", None)
        # what numba makes of a function: a dispatcher or an intrinsic
        is_compiled = type(value).__module__.partition(".")[0] == "numba"
        if is_compiled and isinstance(origin, str) and origin.partition(".")[0] == package:
            _collect(origin, found)


def _content(name: str) -> bytes:
    """Source of a module, and the numbers in it, which may come from others."""
    module = sys.modules[name]
    path = getattr(module, "__file__", None)
    source = Path(path).read_bytes() if path else b""
    numbers = {key: value for key, value in vars(module).items() if isinstance(value, (int, float))}
    return source + repr(sorted(numbers.items())).encode()
