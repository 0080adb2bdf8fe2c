"""The page and what it shows in one file, which opens from disk without server or network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvar_engine.explorer.data import CATEGORIES, ExploredRun
from solvar_engine.explorer.page import INDEX, MODULES, STYLE, page_file
from solvar_engine.explorer.volumes import BYTES

MAX_DRAWN = 100_000
"""Particles that the file holds at most."""

_LEVELS = 65535
_UNKNOWN = 65535  # code of a value that is not a number; levels go up to one less
_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


def standalone_page(explored: ExploredRun, seed: int = 0) -> str:
    """Return the file; it holds at most `MAX_DRAWN` particles and the volumes inside the mask, in 8 bits.

    Its content security policy admits the one script by its SHA-256.
    """
    thin = explored.thinned(MAX_DRAWN, seed)
    cropped = ExploredRun(**{**vars(thin), "basis": thin.basis.cropped()})
    data = {
        "meta": {**cropped.meta(BYTES), "canSave": False, "states": []},
        "volumes": _packed(cropped.basis.packed(BYTES)),
        "focus": _packed(cropped.focus()),
        "rows": None if thin.rows is None else _packed(thin.rows.astype("<u4").tobytes()),
        "columns": {name: _column(values, name in CATEGORIES) for name, values in thin.columns.items()},
    }
    script = "\n".join(_EXPORT.sub("", _IMPORT.sub("", page_file(name).decode())) for name in MODULES)
    style = page_file(STYLE).decode()
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src blob: data:; "
        "media-src blob:; base-uri 'none'; form-action 'none'"
    )
    text = page_file(INDEX).decode()
    # "<" would end the block of data where a name holds "</script>"
    block = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    parts = {
        '<link rel="stylesheet" href="style.css">':
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>',
        '<script type="module" src="app.js"></script>':
            f'<script type="application/json" id="data">{block}</script>\n<script type="module">{script}</script>',
    }  # fmt: skip
    for place, content in parts.items():
        before, found, after = text.partition(place)
        if not found:
            raise ValueError(f"{INDEX} has no line {place}")
        text = before + content + after
    return text


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def _column(values: NDArray[np.float32], is_category: bool) -> dict[str, Any]:
    """Numbers as 16-bit levels between their smallest and largest: to 1e-5 of the range; categories stay exact."""
    known = np.isfinite(values)
    low, high = (float(values[known].min()), float(values[known].max())) if known.any() else (0.0, 0.0)
    step = 1.0 if is_category and high - low < _LEVELS else ((high - low) / (_LEVELS - 1) or 1.0)
    levels = np.full(len(values), _UNKNOWN, dtype="<u2")
    levels[known] = np.round((values[known].astype(np.float64) - low) / step)
    return {"low": low, "step": step, "levels": _packed(levels.tobytes())}
