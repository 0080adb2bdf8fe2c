"""What the tables of results share: columns that must be there, and latent coordinates as columns."""

from __future__ import annotations

import os
from typing import Any, Iterable, Mapping

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import as_text, read_csv, write_csv

COORDINATE_PREFIX = "z_"
"""Columns z_1, z_2 ... hold latent coordinates, in the units of z."""

Table = Mapping[str, Any]
"""A table by columns: name -> (rows,)."""


def read_columns(
    path: str | os.PathLike[str], needed: Iterable[str], text: Iterable[str] = ()
) -> dict[str, np.ndarray]:
    """Read a table that must have some columns, of which some (if they are there) are text.

    Raises
    ------
    UserError
        If the table is absent or damaged, or lacks a column.
    """
    table = read_csv(path)
    missing = sorted(set(needed) - set(table))
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}: it is damaged or of another version, so run again what made "
            "it."
        )
    return {name: as_text(values) if name in set(text) else values for name, values in table.items()}


def write_columns(path: str | os.PathLike[str], names: tuple[str, ...], columns: Table) -> None:
    """Write a table that has exactly some columns, in their order."""
    if set(columns) != set(names):
        raise ValueError(f"expected the columns {', '.join(names)}, got {', '.join(columns)}")
    write_csv(path, {name: columns[name] for name in names})


def coordinate_columns(points: np.ndarray) -> dict[str, np.ndarray]:
    """Turn points, shape (k, r), into columns.

    Examples
    --------
    >>> {name: values.tolist() for name, values in coordinate_columns(np.array([[1, 2], [3, 4]])).items()}
    {'z_1': [1, 3], 'z_2': [2, 4]}
    """
    return {f"{COORDINATE_PREFIX}{axis}": column for axis, column in enumerate(np.asarray(points).T, start=1)}


def coordinates_of(table: Table) -> np.ndarray:
    """Return the points of a table, shape (rows, r); r is 0 where it has no coordinates."""
    columns = [values for name, values in table.items() if name.startswith(COORDINATE_PREFIX)]
    return np.stack(columns, axis=1).astype(np.float64) if columns else np.empty((0, 0))
