"""Samples of particles, for what need not be measured on all, and mini-batches."""

from __future__ import annotations

import torch
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


def split_batches(index: Tensor, count: int, generator: torch.Generator) -> list[Tensor]:
    """Deal particles at random into ``count`` mini-batches of nearly equal size, each in file order."""
    shuffled = index[torch.randperm(index.shape[0], generator=generator)]
    return [part.sort().values for part in shuffled.tensor_split(count)]
