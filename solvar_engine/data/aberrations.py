"""Beam tilt, higher-order aberrations and magnification matrices of a particle list, in RELION's columns."""

from __future__ import annotations

import logging
import re
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.imaging.aberrations import Aberrations, beam_tilt_zernike
from solvar_engine.imaging.ctf import electron_wavelength

logger = logging.getLogger(__name__)

_ODD_LENGTHS = tuple(q * (q + 1) for q in range(1, 10))  # of lists with all orders up to n = 2 q - 1
_EVEN_LENGTHS = tuple(q * q for q in range(1, 11))
TILT = ("rlnBeamTiltX", "rlnBeamTiltY")
ODD, EVEN = "rlnOddZernike", "rlnEvenZernike"
MAGNIFICATION = ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
_COMA = slice(3, 5)  # odd Zernike coefficients that a beam tilt has the place of
_WIDEST = (0.5, 2.0)  # of the singular values of a magnification matrix
_MOST_TERMS, _SHOWN = 100, 40  # numbers of a list, and characters of one that is shown
_MOST_TILT = 20.0  # mrad, that a microscope may have
_USUAL = (0.92, 1.08)  # singular values of the magnification matrices of microscopes
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_ONE, _LIST = re.compile(_NUMBER), re.compile(rf"\[\s*(?:{_NUMBER}(?:\s*[,\s]\s*{_NUMBER})*)?\s*\]|{_NUMBER}")


class ColumnsOfOptics(Protocol):
    """Columns by name, and what is to be said of them."""

    source: str

    def get(self, column: str) -> NDArray[np.float64]:
        """One value per particle, shape (n,); UserError if there are none."""

    def doubt(self, sentence: str) -> None:
        """Take note of a sentence, without full stop."""


def kinds_without_optics(particles: StarTable) -> NDArray[np.float64]:
    """Columns (n, k) by which lists without optics table differ beside the pixel size, as RELION converts them."""
    names = [name for name in (*TILT, *MAGNIFICATION) if name in particles]
    return np.column_stack([np.zeros(len(particles)), *particles.numbers(*names).values()])


def read_aberrations(
    star: StarFile, columns: ColumnsOfOptics, group: NDArray[np.int64], first_rows: NDArray[np.int64]
) -> tuple[Aberrations, Tensor | None]:
    """Read what RELION corrects for by optics group.

    A beam tilt takes the place of the two odd Zernike coefficients of coma, as in RELION, whose files hold zeros there.

    Parameters
    ----------
    star : StarFile
    columns : ColumnsOfOptics
    group : ndarray, shape (n,)
        Optics group of each particle.
    first_rows : ndarray, shape (groups,)
        A particle of each group.

    Returns
    -------
    aberrations : Aberrations
    even : Tensor or None, shape (groups, terms), float64
        Even Zernike coefficients; None if there are none.

    Raises
    ------
    UserError
        If a matrix or a list of coefficients cannot be, or values differ within a group.
    """
    table = _Values(star, columns.source, group, first_rows)
    tilt, is_tilted = table.numbers(TILT, (0.0, 0.0))
    odd, even = table.lists(ODD), table.lists(EVEN)
    has_coefficients = bool(odd.any() or even.any())
    _doubt_lengths(columns, (ODD, odd, _ODD_LENGTHS), (EVEN, even, _EVEN_LENGTHS))
    if np.abs(tilt).max() > _MOST_TILT:
        columns.doubt(
            f"{columns.source} has a beam tilt of {np.abs(tilt).max():g} mrad, more than microscopes have: check"
            f" {TILT[0]} and {TILT[1]}"
        )
    if is_tilted:
        cs, voltage = (torch.from_numpy(columns.get(name)[first_rows]) for name in
                       ("rlnSphericalAberration", "rlnVoltage"))  # fmt: skip
        odd = np.pad(odd, ((0, 0), (0, max(0, 6 - odd.shape[1]))))
        if (odd[:, _COMA] != 0).any():
            columns.doubt(f"{columns.source} has both {TILT[0]} and coefficients 4 and 5 of {ODD}: the first are used")
            odd[:, _COMA] = 0
        odd[:, :6] += beam_tilt_zernike(torch.from_numpy(tilt), cs, electron_wavelength(voltage)).numpy()
    matrix, _ = table.numbers(MAGNIFICATION, (1.0, 0.0, 0.0, 1.0))
    matrix = matrix.reshape(-1, 2, 2)
    _refuse_matrices(matrix, columns)
    found = {"beam tilt": bool(tilt.any()), "higher-order aberrations": has_coefficients,
             "anisotropic magnification": bool((matrix != np.eye(2)).any())}  # fmt: skip
    if any(found.values()):
        logger.info("Corrected for: %s", ", ".join(name for name, is_there in found.items() if is_there))
    if not odd.any():
        odd = odd[:, :0]
    of_group = Aberrations(torch.from_numpy(matrix), torch.from_numpy(odd))
    return of_group, torch.from_numpy(even) if even.any() else None


class _Values:
    """Values of each optics group, wherever they are: in the optics table, or in that of the particles."""

    def __init__(
        self, star: StarFile, source: str, group: NDArray[np.int64], first_rows: NDArray[np.int64]
    ) -> None:
        self._tables = [table for table in (star.optics, star.particles) if table is not None]
        self._source, self._group, self._first_rows = source, group, first_rows
        self._optics_row = self._rows_of_optics(star)

    def _rows_of_optics(self, star: StarFile) -> NDArray[np.int64]:
        if star.optics is None or "rlnOpticsGroup" not in star.optics or "rlnOpticsGroup" not in star.particles:
            return np.zeros(len(self._first_rows), dtype=np.int64)
        known, asked = star.optics.text("rlnOpticsGroup"), star.particles.text("rlnOpticsGroup")
        numbers = {float(name): row for row, name in enumerate(known)}
        return np.array([numbers[float(asked[row])] for row in self._first_rows])

    def _cells(self, column: str) -> list[str] | None:
        """Text of each group; None if no table has the column."""
        for table in self._tables:
            if column in table:
                cells = table.text(column)
                if table is not self._tables[-1]:
                    return [cells[row] for row in self._optics_row]
                self._refuse_mixed(column, cells)
                return [cells[row] for row in self._first_rows]
        return None

    def _refuse_mixed(self, column: str, cells: list[str]) -> None:
        values = np.unique(np.array(cells, dtype=object), return_inverse=True)[1].reshape(-1)
        mixed = np.flatnonzero(values != values[self._first_rows][self._group])
        if len(mixed):
            raise UserError(
                f"{column} in row {mixed[0] + 1} of {self._source} differs from that of other particles of its optics"
                " group: give each value an optics group of its own."
            )

    def numbers(self, names: tuple[str, ...], neutral: tuple[float, ...]) -> tuple[NDArray[np.float64], bool]:
        """Values (groups, names), those of absent columns being neutral, and whether any is there."""
        cells = [self._cells(name) for name in names]
        given = [
            np.full(len(self._first_rows), value) if column is None else self._parsed(name, column)[:, 0]
            for name, column, value in zip(names, cells, neutral, strict=True)
        ]
        return np.stack(given, axis=1), any(column is not None for column in cells)

    def lists(self, name: str) -> NDArray[np.float64]:
        """Values (groups, terms) of a column of lists in brackets, zeros where a list ends before others."""
        cells = self._cells(name)
        return np.zeros((len(self._first_rows), 0)) if cells is None else self._parsed(name, cells)

    def _parsed(self, name: str, cells: list[str]) -> NDArray[np.float64]:
        numbers = [[float(text) for text in _ONE.findall(cell)] for cell in cells]
        for cell, values in zip(cells, numbers, strict=True):
            if not _LIST.fullmatch(cell.strip()) or not np.isfinite(values).all() or len(values) > _MOST_TERMS:
                shown = repr(cell) if len(cell) < _SHOWN else f"{cell[:_SHOWN]!r}..."
                raise UserError(f"{shown}, column {name} of {self._source}, is no number or list of some: correct it.")
        found = np.zeros((len(cells), max(map(len, numbers))))
        for row, values in enumerate(numbers):
            found[row, : len(values)] = values
        return found


def _doubt_lengths(columns: ColumnsOfOptics, *lists: tuple[str, NDArray[np.float64], tuple[int, ...]]) -> None:
    for name, values, complete in lists:
        if values.any() and (length := values.shape[1]) not in complete:
            orders = ", ".join(map(str, complete[:3]))
            columns.doubt(
                f"{name} of {columns.source} has {length} coefficients, where RELION writes {orders} and so on: are"
                " they those of this column?"
            )


def _refuse_matrices(matrix: NDArray[np.float64], columns: ColumnsOfOptics) -> None:
    lowest, highest = _WIDEST
    values = np.linalg.svd(matrix, compute_uv=False)
    for of_group, (largest, smallest) in zip(matrix, values, strict=True):
        if not (lowest <= smallest and largest <= highest and np.linalg.det(of_group) > 0):
            text = ", ".join(f"{value:g}" for value in of_group.ravel())
            found = f"The magnification matrix {text} (rlnMagMat00 to 11) of {columns.source}"
            raise UserError(f"{found} cannot be: correct it.")
    if values.min() < _USUAL[0] or values.max() > _USUAL[1]:
        columns.doubt(
            f"The magnification matrices (rlnMagMat00 to 11) of {columns.source} scale images by {values.min():.3g} to"
            f" {values.max():.3g}, more than microscopes do: check them"
        )
