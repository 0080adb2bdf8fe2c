"""The input files of a run: what is stored of each, and whether it is still the same file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Mapping

_BLOCK_BYTES = 1 << 20


def describe_input(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Absolute path, size in bytes and SHA-256 digest of a file."""
    return {"path": os.path.abspath(path), "bytes": os.path.getsize(path), "sha256": _digest(path)}


def has_changed(path: Path, entry: Mapping[str, Any]) -> bool:
    """Whether the content of a file is another than the one that `describe_input` described."""
    # without a digest: a run of an earlier version
    if path.stat().st_size != entry["bytes"]:
        return True
    return "sha256" in entry and _digest(path) != entry["sha256"]


def _digest(path: str | os.PathLike[str]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(_BLOCK_BYTES), b""):
            digest.update(block)
    return digest.hexdigest()
