"""Samples of particles, evenly spread over their rows or at random, for what need not be measured on all."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # only the types: the rooms of plain arrays import this, too
    import numpy as np
    from torch import Tensor

Rows = TypeVar("Rows", "Tensor", "np.ndarray")


def sample_of(rows: Rows, most: int) -> Rows:
    """Every so many of some rows, so that at most ``most`` are left.

    Parameters
    ----------
    rows : Tensor or ndarray, shape (n, ...)
        Such as the index of some particles.
    most : int

    Returns
    -------
    Tensor or ndarray, shape (at most ``most``, ...)
        A view.

    Examples
    --------
    >>> sample_of(np.arange(10), 4).tolist()
    [0, 3, 6, 9]
    """
    return rows[:: max(1, -(-len(rows) // most))]


def sample_of_at_least(rows: Rows, least: int) -> Rows:
    """Every so many of some rows, so that at least ``least`` are left, if there are as many; fewer than twice that.

    Parameters
    ----------
    rows : Tensor or ndarray, shape (n, ...)
    least : int

    Returns
    -------
    Tensor or ndarray
        A view.

    Examples
    --------
    >>> sample_of_at_least(np.arange(10), 4).tolist()
    [0, 2, 4, 6, 8]
    """
    return rows[:: max(1, len(rows) // least)]


def random_rows(count: int, most: int, generator: np.random.Generator) -> np.ndarray:
    """Rows from 0 of a random sample without repeats, in order; all if there are no more than ``most``.

    Returns
    -------
    ndarray of int64, shape (at most ``most``,)
    """
    rows = generator.choice(count, size=min(count, most), replace=False)
    rows.sort()
    return rows
