"""Points of the latent space from a table that the user made."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.words import counted


def read_points(path: str | os.PathLike[str], n_components: int) -> NDArray[np.float64]:
    """Read points from a comma-separated table.

    With a header, the columns ``z_1`` to ``z_r`` are taken wherever they stand and others, such as ``size``
    of centres.csv, are ignored; without one, every row has exactly r numbers.

    Parameters
    ----------
    path : path
        The table.
    n_components : int
        The number of components of the run, r.

    Returns
    -------
    ndarray, shape (points, r), float64
        In the units of z.

    Raises
    ------
    UserError
        If the file cannot be read, has no rows, or a coordinate is missing, too much or not a finite number;
        file, row (from 1, without the header) and value are named.

    Examples
    --------
    >>> read_points("run/analysis/centres.csv", 6).shape  # doctest: +SKIP
    (10, 6)
    """
    rows = _read_rows(path)
    if any(_number(cell) is not None for cell in rows[0]):
        header = [f"z_{axis}" for axis in range(1, n_components + 1)]
    else:
        header = [cell.strip() for cell in rows.pop(0)]
        _check_header(path, header, n_components)
    if not rows:
        raise UserError(f"{path} has a header but no rows: give at least one point.")
    positions = [header.index(f"z_{axis}") for axis in range(1, n_components + 1)]
    points = np.empty((len(rows), n_components))
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise UserError(
                f"Row {number} of {path} has {counted(len(row), 'value')}, but {len(header)} are needed "
                f"({', '.join(header)})."
            )
        for axis, position in enumerate(positions):
            value = _number(row[position])
            if value is None or not math.isfinite(value):
                raise UserError(
                    f"Row {number} of {path} has {row[position].strip()!r} in column {header[position]}, "
                    "which is not a finite number."
                )
            points[number - 1, axis] = value
    return points


def _read_rows(path: str | os.PathLike[str]) -> list[list[str]]:
    """Read the cells of all lines that are not blank."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = [row for row in csv.reader(stream) if any(cell.strip() for cell in row)]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder: give a table of points.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a table of comma-separated values.") from error
    if not rows:
        raise UserError(f"{path} is empty: give one row of coordinates per point.")
    return rows


def _check_header(path: str | os.PathLike[str], header: Sequence[str], n_components: int) -> None:
    """Refuse a header that does not name exactly the components of the run, once each."""
    for axis in range(1, n_components + 1):
        count = header.count(f"z_{axis}")
        if count == 0:
            raise UserError(
                f"{path} has no column z_{axis}, but the run has {counted(n_components, 'component')}: give a "
                f"comma-separated table with the columns z_1 to z_{n_components}."
            )
        if count > 1:
            raise UserError(f"{path} names the column z_{axis} twice.")
    if f"z_{n_components + 1}" in header:
        raise UserError(
            f"{path} has a column z_{n_components + 1}, but the run has only "
            f"{counted(n_components, 'component')}: is it of another run?"
        )


def _number(cell: str) -> float | None:
    """Read a number; None if the text is not one."""
    try:
        return float(cell)
    except ValueError:
        return None
