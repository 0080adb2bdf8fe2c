"""Density of particles in latent space, each of them spread as far as its place is uncertain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvar_engine.latent.checks import as_latent_matrix

_CHUNK = 4096  # particles at a time


def log_density(
    points: NDArray[np.floating], z: NDArray[np.floating], precision: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Logarithm of the average posterior density of the particles at some points.

    p(x) = mean_i N(x; z_i, Lambda_i^-1). The posterior means alone crowd together where images say little; with the
    spread of each posterior added, the shrinkage is undone, and no bandwidth has to be chosen.

    Parameters
    ----------
    points : ndarray, shape (m, r)
    z : ndarray, shape (n, r)
        Posterior means.
    precision : ndarray, shape (n, r, r)
        Of the posteriors.

    Returns
    -------
    ndarray, shape (m,)

    Raises
    ------
    ValueError
        If the shapes do not match, or a value is not finite.

    Examples
    --------
    >>> round(float(log_density(np.zeros((1, 1)), np.zeros((1, 1)), np.ones((1, 1, 1)))[0]), 3)
    -0.919
    """
    points, z = as_latent_matrix(points, "points"), as_latent_matrix(z)
    if precision.shape != (*z.shape, z.shape[1]) or points.shape[1] != z.shape[1]:
        raise ValueError(f"points {points.shape}, z {z.shape} and precision {precision.shape} do not belong together")
    total = np.full(len(points), -np.inf)
    for start in range(0, len(z), _CHUNK):
        part = slice(start, start + _CHUNK)
        # Lambda = L L^T: squared distances are those of L^T x
        root = np.linalg.cholesky(np.asarray(precision[part], dtype=np.float64))
        normalisation = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        for number, point in enumerate(points):
            distance = np.square(np.einsum("nji,nj->ni", root, point - z[part])).sum(axis=1)
            total[number] = np.logaddexp(total[number], np.logaddexp.reduce(normalisation - 0.5 * distance))
    return total - np.log(len(z)) - 0.5 * z.shape[1] * np.log(2 * np.pi)
