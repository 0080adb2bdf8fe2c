"""Priors of a positive density: what they cost, and the gradient of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import conv3d

_NEIGHBOURS = 26


class Prior(Protocol):
    """Minus the logarithm of a density of maps, up to a constant."""

    def energy(self, volume: Tensor) -> float:
        """Of a map (z, y, x)."""
        ...

    def gradient(self, volume: Tensor) -> Tensor:
        """Of the energy, (z, y, x)."""
        ...


@dataclass(frozen=True)
class Uniform:
    """All maps are alike."""

    def energy(self, volume: Tensor) -> float:
        """Zero."""
        return 0.0

    def gradient(self, volume: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(volume)


@dataclass(frozen=True)
class Exponential:
    """Voxels are independent, with density rate exp(-rate V).

    Attributes
    ----------
    rate : float
        Inverse of the mean.
    """

    rate: float

    def energy(self, volume: Tensor) -> float:
        """Rate times the sum."""
        return self.rate * float(volume.double().sum())

    def gradient(self, volume: Tensor) -> Tensor:
        """The rate at every voxel."""
        return torch.full_like(volume, self.rate)


@dataclass(frozen=True)
class Autoregressive:
    """Given the others, a voxel is normal about the mean of its 26 neighbours (CAR; Besag, Statistician 1975).

    The joint density that has these conditionals is exp(-V (V - mean of neighbours) / (2 deviation^2)), summed over
    voxels; beyond the box there is nothing.

    Attributes
    ----------
    deviation : float
        Of a voxel, given its neighbours.
    """

    deviation: float

    def energy(self, volume: Tensor) -> float:
        """Half the product of the map and the gradient."""
        return 0.5 * float((volume * self.gradient(volume)).double().sum())

    def gradient(self, volume: Tensor) -> Tensor:
        """Difference from the mean of the neighbours, over the variance."""
        kernel = volume.new_full((1, 1, 3, 3, 3), -1 / _NEIGHBOURS)
        kernel[0, 0, 1, 1, 1] = 1
        return conv3d(volume[None, None], kernel, padding=1)[0, 0] / self.deviation**2


def make_prior(name: str, scale: float) -> Prior:
    """Make a prior of maps whose voxels are about as large as a scale.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if name == "exponential":
        return Exponential(1 / scale)
    if name == "car":
        return Autoregressive(scale)
    if name == "uniform":
        return Uniform()
    raise ValueError(f"prior is {name!r}, expected exponential, car or uniform")
