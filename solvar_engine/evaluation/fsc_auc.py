"""Area under the Fourier shell correlation of per-particle volumes with the truth, as CryoBench defines it.

Definition: Jeon et al., CryoBench (NeurIPS 2024): for about 100 evenly spaced particles, the correlation of
the volume generated at the particle's latent with the true volume of its state, in shells i - 1 <= |k| < i at
i / box_size cycles per voxel, and the trapezoidal area under its absolute value. Its largest value is
(box_size / 2 - 1) / box_size, not 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.imaging.fourier import hermitian_weight, volume_radius, volume_to_ft


def fsc_auc(
    mean: Tensor,
    eigenvolumes: Tensor,
    z: NDArray[np.floating],
    true_volume_of: Callable[[int], Tensor],
    rows: Iterable[int],
    mask: Tensor | None = None,
) -> dict[str, float]:
    """Score the linear volumes mean + sum_j z_j eigenvolume_j of some particles.

    Parameters
    ----------
    mean : Tensor, shape (z, y, x)
    eigenvolumes : Tensor, shape (r, z, y, x)
    z : ndarray, shape (n, r)
    true_volume_of : callable
        Row of a particle -> its true volume (z, y, x).
    rows : iterable of int
        Particles to score.
    mask : Tensor, shape (z, y, x), optional
        Multiplied into both volumes in real space.

    Returns
    -------
    dict
        ``mean``, ``std`` and ``median`` of the areas of the volumes at the particles' latents, and ``mean_only``: the
        average of the same with the mean volume for every particle, since a constant volume already scores high.
    """
    bands = _Bands(mean.shape[-1], mask)
    mean_ft = bands.transform(mean)
    areas, mean_areas = [], []
    for row in rows:
        truth_ft = bands.transform(true_volume_of(int(row)))
        latent = torch.from_numpy(np.asarray(z[row], dtype=np.float32))
        volume = mean + torch.tensordot(latent, eigenvolumes, dims=1)
        areas.append(bands.area(bands.transform(volume), truth_ft))
        mean_areas.append(bands.area(mean_ft, truth_ft))
    found = {"mean": np.mean(areas), "std": np.std(areas), "median": np.median(areas), "mean_only": np.mean(mean_areas)}
    return {name: float(value) for name, value in found.items()}


class _Bands:
    """CryoBench's shells of one box, and the area under the correlation of two transforms."""

    def __init__(self, box_size: int, mask: Tensor | None) -> None:
        self._box_size = box_size
        self._mask = mask
        self._count = box_size // 2 - 1
        # band i = 1, 2, ... holds i - 1 <= |k| < i; what lies beyond the last falls into one band that is cut
        # off
        band = volume_radius(box_size).double().floor().long() + 1
        self._band = band.clamp_max(self._count + 1).flatten()
        self._weight = hermitian_weight(box_size).double()

    def transform(self, volume: Tensor) -> Tensor:
        return volume_to_ft(volume if self._mask is None else volume * self._mask)

    def area(self, first: Tensor, second: Tensor) -> float:
        cross = self._sum((first * second.conj()).real)
        power = self._sum(first.abs() ** 2) * self._sum(second.abs() ** 2)
        correlation = np.divide(cross, np.sqrt(power), out=np.zeros_like(cross), where=power > 0)
        curve = np.concatenate([[1.0], np.abs(correlation)])
        return float((curve[1:] + curve[:-1]).sum()) / (2 * self._box_size)

    def _sum(self, values: Tensor) -> NDArray[np.float64]:
        """Sums over the full bands 1 ... count."""
        weighted = (values.double() * self._weight).flatten()
        sums = torch.zeros(self._count + 2, dtype=torch.float64).index_add_(0, self._band, weighted)
        return sums[1 : self._count + 1].numpy()
