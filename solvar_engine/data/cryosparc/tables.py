"""`.cs` files: NumPy's structured arrays without pickled objects, joined by uid."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import atomic_path
from solvar_engine.contract.words import counted

UID = "uid"
_MAGIC, _COMPRESSED = b"\x93NUMPY", b"\x95CSDAT"
_LONGEST_HEADER = 1_000_000  # characters
_LAYOUT = "v4.4.1"  # of cryoSPARC, whose exported result groups look like those written here

Table = NDArray[np.void]
Rows = NDArray[np.int64]


def is_cryosparc(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of cryoSPARC's, by its first bytes."""
    if not Path(path).is_file():
        return False
    with open(path, "rb") as stream:
        return stream.read(len(_MAGIC)) in (_MAGIC, _COMPRESSED)


def read_table(path: str | os.PathLike[str]) -> Table:
    """Read a `.cs` file; nothing in it can be executed.

    Returns
    -------
    ndarray of a structured type, shape (n,)

    Raises
    ------
    UserError
        If it is absent, damaged, cut short, compressed, holds pickled objects or is no table of items with uids, or if
        two items have the same uid.
    """
    try:
        with open(path, "rb") as stream:
            table = _read(stream, path)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    if UID not in (table.dtype.names or ()):
        raise UserError(f"{path} is not a table of cryoSPARC: it has no field uid.")
    uid, count = np.unique(table[UID], return_counts=True)
    if len(uid) < len(table):
        rows = np.flatnonzero(table[UID] == uid[count > 1][0]) + 1
        raise UserError(
            f"{path} has uid {uid[count > 1][0]} in rows {rows[0]} and {rows[1]}"
            f" ({counted(int((count > 1).sum()), 'such uid')}): remove duplicates in cryoSPARC."
        )
    return table


def _read(stream: BinaryIO, path: str | os.PathLike[str]) -> Table:
    if stream.read(len(_COMPRESSED)) == _COMPRESSED:
        raise UserError(f"{path} is in cryoSPARC's compressed format: export the particles from cryoSPARC.")
    stream.seek(0)
    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream, max_header_size=_LONGEST_HEADER)
    except (ValueError, SyntaxError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not a table of cryoSPARC, or is damaged: its header cannot be read.") from error
    if dtype.hasobject:
        raise UserError(
            f"{path} holds pickled objects, which may run any program and are never loaded: save it with text of fixed"
            " length, as cryoSPARC does."
        )
    if dtype.names is None or len(shape) != 1:
        raise UserError(f"{path} is an array of numbers, not a table of cryoSPARC.")
    whole = (os.fstat(stream.fileno()).st_size - stream.tell()) // dtype.itemsize
    if whole < shape[0]:
        raise UserError(f"{path} is cut short: it has {whole} of {counted(shape[0], 'item')}; copy it again.")
    return np.fromfile(stream, dtype, count=shape[0])


def find_passthrough(path: Path) -> list[Path]:
    """Find what cryoSPARC writes beside the particles of a job: fields that the job passed through.

    ``J24_passthrough_particles_class_0.cs`` belongs to ``J24_007_particles_class_0.cs``, and
    ``J24_passthrough_particles_selected.cs`` to ``particles_selected.cs``.
    """
    _, word, tail = path.name.rpartition("particles")
    found = path.parent.glob(f"*passthrough_particles{tail}") if word else iter(())
    return sorted(other for other in found if other != path and len({*_job(path), *_job(other)}) < 2)


def _job(path: Path) -> list[str]:
    return re.findall(r"J\d+(?=_)", path.name)[:1]


def join(table: Table, other: Table, source: str | os.PathLike[str]) -> Table:
    """Add the fields of another table by uid; those that a table has already stay.

    Parameters
    ----------
    table, other : ndarray of structured types, shapes (n,) and (m,)
        `other` may have more items.
    source : path
        Of `other`, for error messages.

    Raises
    ------
    UserError
        If `other` lacks an item of `table`.
    """
    order = np.argsort(other[UID])
    place = np.searchsorted(other[UID], table[UID], sorter=order).clip(max=max(len(other) - 1, 0))
    lacking = np.flatnonzero(other[UID][order][place] != table[UID]) if len(other) else np.arange(len(table))
    if len(lacking) == len(table):
        raise UserError(f"{source} has none of the particles (by uid): give the passthrough of the same job.")
    if len(lacking):
        raise UserError(
            f"{source} lacks {len(lacking)} of {counted(len(table), 'particle')}, the first with uid"
            f" {table[UID][lacking[0]]}: give the passthrough of the same job."
        )
    added = [name for name in other.dtype.names or () if name not in (table.dtype.names or ())]
    return with_fields(table, {name: other[name][order[place]] for name in added})


def with_fields(table: Table, fields: dict[str, np.ndarray]) -> Table:
    """Return a table with fields replaced, in their own type, or added behind the others, which stay byte for byte.

    Parameters
    ----------
    table : ndarray of a structured type, shape (n,)
    fields : dict of str to ndarray, shape (n, ...)
    """
    known = [(name, table.dtype[name]) for name in table.dtype.names or ()]
    added = [(name, values.dtype, values.shape[1:]) for name, values in fields.items() if name not in dict(known)]
    result = np.empty(len(table), dtype=[*known, *added])
    for name in result.dtype.names or ():
        result[name] = fields[name] if name in fields else table[name]
    return result


def write_table(path: Path, table: Table) -> None:
    """Write a `.cs` file, and beside it the `.csg` file with which cryoSPARC's *Import Result Group* takes it."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.save(stream, table, allow_pickle=False)
    slots = dict.fromkeys(name.partition("/")[0] for name in table.dtype.names or () if "/" in name)
    name = path.name.replace("'", "''")
    results = "".join(
        f"  {slot}:\n    metafile: '>{name}'\n    num_items: {len(table)}\n    type: particle.{_kind(slot)}\n"
        for slot in sorted(slots)
    )
    with atomic_path(path.with_suffix(".csg")) as temporary:
        temporary.write_text(
            f"created: {datetime.now()}\ngroup:\n  description: Particles of SOLVAR\n  name: particles\n"
            f"  title: Particles of SOLVAR\n  type: particle\nresults:\n{results}version: {_LAYOUT}\n",
            encoding="utf-8",
        )


def _kind(slot: str) -> str:
    """Type of a result by the name of its slot, of which there may be one for each component or class."""
    for pattern, kind in ((r"components_mode_\d+", "components"), (r"alignments_class_\d+", "alignments3D")):
        if re.fullmatch(pattern, slot):
            return kind
    return slot
