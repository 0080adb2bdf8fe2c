"""Selections that a user has made in the explorer: particles, points or a path of the latent space, each with a name.

A selection is NAME.json, which says what it is and of which latents, and NAME.csv, a table of rows of the run's
particles.star (from 0) or of coordinates. The table of a points selection is what `reconstruct` reads as it is.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import file_digest, read_json, write_csv, write_json
from solvar_engine.contract.results.tables import coordinate_columns, coordinates_of, read_columns
from solvar_engine.contract.run import RunDir

PARTICLES, POINTS, PATH = KINDS = ("particles", "points", "path")
FORMAT_VERSION = 1

_ROW = "row"
_NAME = re.compile(
    r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)(?:\.|$))"  # devices of Windows
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9 _-]|\.(?!\.)){0,62}[A-Za-z0-9_-]|[A-Za-z0-9])"
)

_MADE_WITH = ("tool", "axes", "polygon", "vertices")
_NEEDED = {"version": int, "kind": str, "count": int, "latents_sha256": str}


@dataclass(frozen=True)
class Selection:
    """Particles, points or a path.

    Attributes
    ----------
    name : str
    kind : str
        One of `KINDS`.
    values : ndarray
        Rows of particles, shape (n,), int64; or points, shape (k, r), float64, in the units of z.
    latents_sha256 : str
        Of the latents.npz that it was made on.
    made_with : mapping
        What the user did: `tool`, `axes`, and `polygon` or `vertices` in the units of these axes.
    time : str
        When it was made.
    """

    name: str
    kind: str
    values: np.ndarray
    latents_sha256: str
    made_with: Mapping[str, Any] = field(default_factory=dict)
    time: str = ""


def check_name(name: str) -> str:
    """Return a name that can be that of a file on any system.

    Raises
    ------
    UserError
        If it cannot.

    Examples
    --------
    >>> check_name("right arm 2")
    'right arm 2'
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise UserError(
            f"{str(name)[:80]!r} cannot be the name of a selection: take letters, digits, blanks, - and _, at most 64, "
            "the first one a letter or digit."
        )
    return name


def selection_names(run: RunDir, kinds: Sequence[str] = KINDS) -> list[str]:
    """Return the names of the selections of some kinds of a run, sorted, of these latents or not."""
    if not _is_plain_folder(run):
        return []
    names = (path.stem for path in run.selections.glob("*.json") if _NAME.fullmatch(path.stem) and _is_plain(path))
    return sorted(name for name in names if _header(run, name)["kind"] in kinds)


def write_selection(run: RunDir, selection: Selection) -> None:
    """Store a selection, in place of one of the same name; the table comes first, so that a header never lacks it.

    Raises
    ------
    UserError
        If the name cannot be one or differs from another only in its capitals, it holds nothing, or the folder of
        selections is a link to elsewhere.
    """
    check_name(selection.name)
    if selection.kind not in KINDS:
        raise ValueError(f"{selection.kind!r} is not one of {', '.join(KINDS)}")
    if not len(selection.values):
        raise UserError(f"The selection {selection.name} holds nothing: select something first.")
    for folder in (run.analysis, run.selections):
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise UserError(f"{folder} is a link, which is not followed, or a file: make it a folder.")
        folder.mkdir(exist_ok=True)
    for other in run.selections.glob("*.json"):
        if other.stem != selection.name and other.stem.lower() == selection.name.lower():
            raise UserError(f"There is a selection {other.stem} already: capitals alone do not tell names apart.")
    header = {
        **selection.made_with,
        "version": FORMAT_VERSION,
        "kind": selection.kind,
        "count": len(selection.values),
        "latents_sha256": selection.latents_sha256,
        "time": selection.time or time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    is_rows = selection.kind == PARTICLES
    with _only_writer(run.selections):
        write_csv(
            run.selection_table(selection.name),
            {_ROW: selection.values} if is_rows else coordinate_columns(selection.values),
        )
        write_json(run.selection(selection.name), header)


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Wait until nobody else stores in a folder: table and header of two selections of one name would mix."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_selection(
    run: RunDir, name: str, kinds: Sequence[str] = KINDS, digest: str | None = None, particles: int | None = None
) -> Selection:
    """Read a selection of a run.

    Parameters
    ----------
    run : RunDir
    name : str
    kinds : sequence of str
        Those that will do.
    digest : str, optional
        SHA-256 of the run's latents.npz where it is known; else it is computed.
    particles : int, optional
        Number of particles of the run, if rows beyond shall be refused.

    Raises
    ------
    UserError
        If there is none of that name and kind, it is damaged, or it was made on the latents of another run.
    """
    check_name(name)
    path = run.selection(name)
    if not (_is_plain_folder(run) and _is_plain(path) and _is_plain(run.selection_table(name))):
        known = ", ".join(selection_names(run, kinds)) or "none"
        raise UserError(f"{run.path} has no selection {name!r}; there are: {known}.")
    header = _header(run, name)
    if header["kind"] not in kinds:
        needed = " or ".join(kinds)
        raise UserError(f"The selection {name} of {run.path} holds {header['kind']}, but {needed} are needed.")
    if header["latents_sha256"] != (digest or file_digest(run.latents)):
        raise UserError(
            f"The selection {name} was made on the latents of another run than those in {run.path}: select again in "
            "the explorer of this run."
        )
    values = _values(run, name, header["kind"])
    if len(values) != header["count"]:
        table = run.selection_table(name)
        raise UserError(f"{table} has {len(values)} rows, but {path} says {header['count']}: select again.")
    if header["kind"] == PARTICLES and particles is not None and values.max() >= particles:
        raise UserError(f"{run.selection_table(name)} has row {values.max()}, but the run has {particles}.")
    made_with: dict[str, Any] = {key: header[key] for key in _MADE_WITH if key in header}
    return Selection(name, header["kind"], values, header["latents_sha256"], made_with, str(header.get("time", "")))


def _values(run: RunDir, name: str, kind: str) -> np.ndarray:
    path, is_rows = run.selection_table(name), kind == PARTICLES
    table = read_columns(path, (_ROW if is_rows else "z_1",))
    if not len(next(iter(table.values()))):
        raise UserError(f"{path} holds nothing: select again.")
    if is_rows:
        rows = table[_ROW]
        if rows.dtype.kind != "f" or not ((rows >= 0) & (rows < 2**53) & (rows == np.floor(rows))).all():
            raise UserError(f"{path} has a row that is no whole number: select again.")
        return rows.astype(np.int64)
    are_numbers = all(column.dtype.kind == "f" and np.isfinite(column).all() for column in table.values())
    if not are_numbers or list(table) != list(coordinate_columns(np.empty((0, len(table))))):
        raise UserError(f"{path} holds something else than the numbers z_1, z_2 ..., in this order: select again.")
    return coordinates_of(table)


def _header(run: RunDir, name: str) -> dict[str, Any]:
    path = run.selection(name)
    header = read_json(path)
    if not all(isinstance(header.get(key), form) for key, form in _NEEDED.items()) or header["kind"] not in KINDS:
        raise UserError(f"{path} is not a selection of the explorer: remove it.")
    if header["version"] > FORMAT_VERSION:
        raise UserError(f"{path} has format {header['version']}, but this version knows only {FORMAT_VERSION}.")
    return header


def _is_plain_folder(run: RunDir) -> bool:
    """Whether the selections lie in folders of the run itself."""
    return all(folder.is_dir() and not folder.is_symlink() for folder in (run.analysis, run.selections))


def _is_plain(path: Path) -> bool:
    return path.is_file() and not os.path.islink(path)
