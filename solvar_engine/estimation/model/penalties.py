"""Quadratic penalties of the factors, in the units of the density of the images: what a prior adds to an objective."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from solvar_engine.imaging.linear_algebra import mix
from solvar_engine.imaging.shells import shells_to_volume


class Penalty(Protocol):
    """A quadratic form in the factors that is added to an objective.

    In every coefficient k it is 1/2 V_k^T W(k) V_k, with the symmetric r-by-r matrices W in the units of the density.
    """

    def gradient(self, factors_ft: Tensor) -> Tensor:
        """W V of factors (r, z, y, x // 2 + 1), complex."""
        ...

    def diagonal(self, vectors: Tensor) -> Tensor:
        """Curvature along each of the orthonormal mixtures ``vectors`` (r, r) of factors, (r, z, y, x // 2 + 1)."""
        ...

    def precision(self) -> Tensor:
        """How strongly each factor is held down, in the units of the density, (r, z, y, x // 2 + 1)."""
        ...


class FactorPrior:
    """Gaussian prior of every factor: W is diagonal.

    Parameters
    ----------
    precision : Tensor, shape (r, shells)
        Inverse prior variance.
    box_size : int
    """

    def __init__(self, precision: Tensor, box_size: int) -> None:
        self._field = _shell_fields(precision, box_size)

    def gradient(self, factors_ft: Tensor) -> Tensor:
        """Each coefficient times its inverse prior variance."""
        return self._field * factors_ft

    def diagonal(self, vectors: Tensor) -> Tensor:
        """Inverse prior variances, mixed."""
        return mix(self._field, vectors**2)

    def precision(self) -> Tensor:
        """Inverse prior variances."""
        return self._field


class WeightedPrior:
    """Prior of factors that the images determine by D times a matrix K, not by D alone: W = p^(1/2) K p^(1/2).

    Where p = D (1 - F) / F it keeps the share F of each coefficient, whatever K is: a Wiener filter.

    Parameters
    ----------
    precision : Tensor, shape (r, shells)
        p of each factor.
    box_size : int
    weight : Tensor, shape (r, r)
        K, which is proportional to the square of the factors.
    """

    def __init__(self, precision: Tensor, box_size: int, weight: Tensor) -> None:
        self._precision, self._box_size, self._weight = precision.double(), box_size, weight
        self._root = _shell_fields(precision, box_size).sqrt()

    def gradient(self, factors_ft: Tensor) -> Tensor:
        """W V at the present weight."""
        return self._root * mix(self._root * factors_ft, self._weight)

    def diagonal(self, vectors: Tensor) -> Tensor:
        """Twice that of W, since the weight follows the factors."""
        root = self._precision.sqrt()
        mixed = torch.einsum("ij,is,ik,ks,kj->js", vectors, root, self._weight, root, vectors)
        return _shell_fields(2 * mixed, self._box_size)

    def precision(self) -> Tensor:
        """Inverse prior variances: W without the weight, which is that of the images, too."""
        return self._root**2


def _shell_fields(values: Tensor, box_size: int) -> Tensor:
    """Spread values per shell (r, shells) over spectra, their largest beyond the last shell."""
    return shells_to_volume(values.float(), box_size, beyond=float(values.max()))
