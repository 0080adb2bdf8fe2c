"""The input files of a run: what is stored of each, and whether it is still the same file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Mapping

from solvar_engine.contract.files import file_digest


def describe_input(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Absolute path, size in bytes and SHA-256 digest of a file."""
    return {"path": os.path.abspath(path), "bytes": os.path.getsize(path), "sha256": file_digest(path)}


def has_changed(path: Path, entry: Mapping[str, Any]) -> bool:
    """Whether the content of a file is another than the one that `describe_input` described."""
    # without a digest: a run of an earlier version
    if path.stat().st_size != entry["bytes"]:
        return True
    return "sha256" in entry and file_digest(path) != entry["sha256"]
