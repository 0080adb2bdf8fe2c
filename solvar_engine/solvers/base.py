"""The form that all solvers have, and the batches that stochastic ones draw."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from solvar_engine.solvers.fields import Field

_ROUNDING = 1e-12


class Solver(ABC):
    """Moves a point until a field vanishes.

    Parameters
    ----------
    field : Field
    start : Tensor, shape (d,)

    Attributes
    ----------
    point : Tensor, shape (d,)
    """

    def __init__(self, field: Field, start: Tensor) -> None:
        self._field = field
        self.point = field.canonical(start)

    @property
    def passes(self) -> float:
        """Over the sum, so far."""
        return self._field.passes

    @abstractmethod
    def step(self) -> None:
        """Go on by one iteration; of solvers with snapshots, by one epoch."""


class Batches:
    """Random rows without replacement, the same again for a seed.

    Parameters
    ----------
    count : int
        Terms of the sum.
    size : int
        Of a batch.
    seed : int
    """

    def __init__(self, count: int, size: int, seed: int) -> None:
        self._count, self._size = count, size
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self) -> Tensor:
        """Rows of one batch, int64, in order."""
        return torch.randperm(self._count, generator=self._generator)[: self._size].sort().values


def is_no_worse(value: float, reference: float) -> bool:
    """Whether a value has not risen, up to rounding; one that is not finite has."""
    return math.isfinite(value) and value <= reference + _ROUNDING * max(1.0, abs(reference))


def limited(direction: Tensor, field: Tensor, longest: float) -> Tensor:
    """Shorten a direction to so many lengths of the field that it was made from."""
    length, bound = direction.norm(), longest * field.norm()
    return direction * (bound / length) if length > bound else direction
