"""Which of a few points each particle is nearest to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvar_engine.latent.checks import as_latent_matrix


def nearest_point(z: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.int64]:
    """Find the nearest of some points for every particle.

    Parameters
    ----------
    z : ndarray, shape (n, r)
        Latent coordinates.
    points : ndarray, shape (m, r)
        Points in the same space, m >= 1.

    Returns
    -------
    ndarray, shape (n,), int64
        Index of the nearest point by Euclidean distance; the first of equally near ones.

    Raises
    ------
    ValueError
        If the shapes do not match, there is no point, or a value is not finite.

    Examples
    --------
    >>> nearest_point(np.array([[0.2], [3.0]]), np.array([[0.0], [2.0]]))
    array([0, 1])
    """
    z, points = as_latent_matrix(z), as_latent_matrix(points, "points")
    if not len(points) or points.shape[1] != z.shape[1]:
        raise ValueError(
            f"points has shape {points.shape}, expected at least one row of {z.shape[1]} columns"
        )
    nearest = np.zeros(len(z), dtype=np.int64)
    shortest = np.full(len(z), np.inf)
    for index, point in enumerate(points):  # one point at a time: memory stays that of one column
        distance = np.square(z - point).sum(axis=1)
        is_nearer = distance < shortest
        nearest[is_nearer] = index
        shortest[is_nearer] = distance[is_nearer]
    return nearest
