"""Samples of particles, for what need not be measured on all."""

from __future__ import annotations

from torch import Tensor


def sample_of(index: Tensor, most: int) -> Tensor:
    """Every so many of the particles of an index, so that at most ``most`` are left.

    Parameters
    ----------
    index : Tensor, shape (n,), int64
    most : int

    Returns
    -------
    Tensor, shape (at most ``most``,), int64

    Examples
    --------
    >>> sample_of(torch.arange(10), 4).tolist()
    [0, 3, 6, 9]
    """
    return index[:: max(1, -(-index.shape[0] // most))]
