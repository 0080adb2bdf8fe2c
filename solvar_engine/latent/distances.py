"""Distances of particles from a point that count how well each particle is placed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BANDWIDTHS = 11
MINIMUM_IMAGES = 50
"""Images of each half-set that the narrowest kernel holds."""

_WIDEST = 0.95  # share of the particles inside the widest kernel


def squared_distances(
    z: NDArray[np.floating], precision: NDArray[np.floating], point: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Squared distance of particles from a point, each in the metric of its own posterior.

    d_i = (z_i - z*)^T Lambda_i (z_i - z*), Lambda_i the precision of the posterior of particle i, its prior included:
    with the likelihood's alone, particles that say nothing would be nearest to every point.

    Parameters
    ----------
    z : ndarray, shape (n, r)
    precision : ndarray, shape (n, r, r)
    point : ndarray, shape (r,)

    Returns
    -------
    ndarray, shape (n,)

    Examples
    --------
    >>> squared_distances(np.array([[2.0]]), np.array([[[3.0]]]), np.array([0.0])).tolist()
    [12.0]
    """
    difference = np.asarray(z, dtype=np.float64) - point
    squared: NDArray[np.float64] = np.einsum("ni,nij,nj->n", difference, precision, difference)
    return np.maximum(squared, 0.0)


def marginal_precision(precision: NDArray[np.floating], columns: NDArray[np.integer]) -> NDArray[np.float64]:
    """Precision of some coordinates when nothing is known of the others, shape (n, columns, columns)."""
    covariance = np.linalg.inv(np.asarray(precision, dtype=np.float64))
    return np.asarray(np.linalg.inv(covariance[:, columns][:, :, columns]), dtype=np.float64)


def kernel_bandwidths(
    halves: tuple[NDArray[np.float64], NDArray[np.float64]],
    uncertainty: float = 0.0,
    count: int = BANDWIDTHS,
    minimum: int = MINIMUM_IMAGES,
) -> NDArray[np.float64]:
    """Choose bandwidths from few particles to nearly all, evenly spaced.

    Parameters
    ----------
    halves : tuple of two ndarrays
        Squared distances of the particles of each half-set.
    uncertainty : float
        Squared distance at which particles of the very state are expected, the number of coordinates: narrower kernels
        would tell particles apart by their noise.
    count : int
    minimum : int
        Particles of each half-set inside the narrowest kernel; a quarter of a half-set if that is less.

    Returns
    -------
    ndarray, shape (count,)
        Ascending, in units of the square root of the distance.
    """
    ranks = [min(minimum, len(half) // 4) for half in halves]
    narrowest = max(float(np.partition(half, rank)[rank]) for half, rank in zip(halves, ranks, strict=True))
    widest = float(np.quantile(np.concatenate(halves), _WIDEST))
    # many particles at the very same place leave no room between: any ascending sequence will do
    narrowest = max(narrowest, uncertainty, 1e-6 * widest, 1e-12)
    return np.linspace(np.sqrt(narrowest), np.sqrt(max(widest, 1.1 * narrowest)), count)
