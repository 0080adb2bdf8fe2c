"""Distances of particles from a point that count how well each particle is placed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BANDWIDTHS = 8
"""At most."""
MINIMUM_IMAGES = 50
"""Images of each half-set that the narrowest kernel holds."""

WIDEST = 2 / 3
"""Share of the particles inside the widest kernel: a wider one hardly differs from that of all."""

_GROWTH = 1.5  # particles of a kernel over those of the one before, at least


def squared_distances(
    z: NDArray[np.floating], precision: NDArray[np.floating], point: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Squared distances (n,) of particles z (n, r) from a point (r,), each in the metric of its own posterior.

    d_i = (z_i - z*)^T Lambda_i (z_i - z*), Lambda_i (r, r) the precision of the posterior of particle i, its prior
    included: with the likelihood's alone, particles that say nothing would be nearest to every point.

    Examples
    --------
    >>> squared_distances(np.array([[2.0]]), np.array([[[3.0]]]), np.array([0.0])).tolist()
    [12.0]
    """
    difference = np.asarray(z, dtype=np.float64) - point
    squared: NDArray[np.float64] = np.einsum("ni,nij,nj->n", difference, precision, difference)
    return np.maximum(squared, 0.0)


def marginal_precision(precision: NDArray[np.floating], columns: NDArray[np.integer]) -> NDArray[np.float64]:
    """Precision of some coordinates when nothing is known of the others, shape (n, columns, columns).

    The Schur complement of the others' block, which needs no inverse of the whole: a coordinate of which nothing is
    known has precision 0 and says nothing.
    """
    precision = np.asarray(precision, dtype=np.float64)
    others = np.setdiff1d(np.arange(precision.shape[-1]), columns)
    kept, mixed = precision[:, columns][:, :, columns], precision[:, others][:, :, columns]
    rest = precision[:, others][:, :, others]
    try:
        explained = np.linalg.solve(rest, mixed)
    except np.linalg.LinAlgError:
        explained = np.linalg.pinv(rest, hermitian=True) @ mixed
    return np.asarray(kept - mixed.swapaxes(-1, -2) @ explained, dtype=np.float64)


def kernel_bandwidths(
    halves: tuple[NDArray[np.float64], NDArray[np.float64]],
    uncertainty: float = 0.0,
    count: int = BANDWIDTHS,
    minimum: int = MINIMUM_IMAGES,
) -> NDArray[np.float64]:
    """Choose bandwidths from few particles to most of them, each kernel with as many times the particles of the last.

    Parameters
    ----------
    halves : tuple of two ndarrays
        Squared distances of the particles of each half-set.
    uncertainty : float
        Squared distance at which particles of the very state are expected, the number of coordinates: narrower kernels
        would tell particles apart by their noise.
    count : int
        At most.
    minimum : int
        Particles of each half-set inside the narrowest kernel; a quarter of a half-set if that is less.

    Returns
    -------
    ndarray, shape (at most count,)
        Ascending, in units of the square root of the distance.
    """
    ranks = [min(minimum, len(half) // 4) for half in halves]
    narrowest = max(float(np.partition(half, rank)[rank]) for half, rank in zip(halves, ranks, strict=True))
    both = np.sort(np.concatenate(halves))
    narrowest = max(narrowest, uncertainty, 1e-6 * float(both[-1]), 1e-12)
    fewest, most = max(int((both < narrowest).sum()), 1), WIDEST * len(both)
    steps = min(count - 1, int(np.log(max(most / fewest, 1.0)) / np.log(_GROWTH)))
    sizes = np.geomspace(fewest, max(most, fewest), steps + 1)[1:].astype(int)
    # particles at the very same place make kernels of the same width, of which one is enough
    widths = np.unique([narrowest, *both[np.minimum(sizes, len(both) - 1)]])
    return np.sqrt(widths[widths >= narrowest])
