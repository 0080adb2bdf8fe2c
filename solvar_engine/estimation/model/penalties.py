"""What a prior of the factors adds to an objective, in the units of the density of the images."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.imaging.linear_algebra import mix
from solvar_engine.imaging.shells import shells_to_volume


class WeightedPrior:
    """Prior of factors that images determine by D K: in each coefficient it adds 1/2 V^T W V, W = p^(1/2) K p^(1/2).

    Where p = D (1 - F) / F it keeps the share F of each coefficient, whatever K is: a Wiener filter. A prior that did
    not know of K would make a component decay that images know little of, however real it is.

    Parameters
    ----------
    precision : Tensor, shape (r, shells)
        p of each factor.
    box_size : int
    weight : Tensor, shape (r, r)
        K, the average information of an image, which grows with the square of the factors.
    """

    def __init__(self, precision: Tensor, box_size: int, weight: Tensor) -> None:
        self._precision, self._box_size, self._weight = precision.double(), box_size, weight
        self._root = _shell_fields(precision, box_size).sqrt()

    def gradient(self, factors_ft: Tensor) -> Tensor:
        """W V of factors (r, z, y, x // 2 + 1), complex, at the present weight."""
        return self._root * mix(self._root * factors_ft, self._weight)

    def diagonal(self, vectors: Tensor) -> Tensor:
        """Curvature along orthonormal mixtures (r, r): twice that of W, since the weight follows the factors."""
        root = self._precision.sqrt()
        mixed = torch.einsum("ij,is,ik,ks,kj->js", vectors, root, self._weight, root, vectors)
        return _shell_fields(2 * mixed, self._box_size)

    def precision(self) -> Tensor:
        """Inverse prior variances p of each coefficient: W without the weight, which is that of the images, too."""
        return self._root**2


def _shell_fields(values: Tensor, box_size: int) -> Tensor:
    """Spread values per shell (r, shells) over spectra, their largest beyond the last shell."""
    return shells_to_volume(values.float(), box_size, beyond=float(values.max()))
