"""Groups of particles by k-means in the latent space."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvar_engine.latent.checks import as_latent_matrix

logger = logging.getLogger(__name__)

RESTARTS = 5
NO_CLUSTER = -1
"""Label of a particle that was not to be grouped."""


@dataclass(frozen=True)
class Clusters:
    """A partition of the particles.

    Attributes
    ----------
    labels : ndarray, shape (n,), int64
        The cluster of each particle, 0-based; `NO_CLUSTER` for those that were not grouped.
    centres : ndarray, shape (k, r), float64
        The mean of each cluster's particles, in the units of z.
    sizes : ndarray, shape (k,), int64
        The number of particles of each cluster; never 0.
    """

    labels: NDArray[np.int64]
    centres: NDArray[np.float64]
    sizes: NDArray[np.int64]


def kmeans_clusters(
    z: NDArray[np.floating],
    n_clusters: int,
    *,
    seed: int = 0,
    columns: NDArray[np.integer] | None = None,
) -> Clusters:
    """Group particles by k-means, numbered along the first coordinate.

    Clusters are sorted by the first coordinate of their centre, so that neighbouring numbers are neighbouring
    states along the leading motion. Fewer clusters than asked for come back, with a notice, when there are
    fewer distinct particles than that.

    Parameters
    ----------
    z : ndarray, shape (n, r)
        Latent coordinates, one row per particle, r >= 1.
    n_clusters : int
        The number of clusters, at least 1.
    seed : int
        Seed of the k-means++ starts.
    columns : ndarray of int, optional
        The columns that distances are measured in (default: all). Centres always have all r coordinates.

    Raises
    ------
    ValueError
        If z has no rows or no columns, holds a value that is not finite, or ``n_clusters`` is below 1.

    Examples
    --------
    >>> kmeans_clusters(np.array([[5.0], [-5.0], [5.1]]), 2).labels
    array([1, 0, 1])
    """
    from sklearn.cluster import KMeans

    z = as_latent_matrix(z)
    if n_clusters < 1:
        raise ValueError(f"n_clusters is {n_clusters}, it must be at least 1")
    if z.shape[0] == 0 or z.shape[1] == 0:
        raise ValueError(f"z has shape {z.shape}: clusters need at least one particle and one coordinate")
    features = z if columns is None else z[:, columns]
    n_possible = _count_distinct_rows(features, at_most=n_clusters)
    if n_possible < n_clusters:
        logger.warning(
            "Only %d particles have distinct coordinates: %d cluster%s instead of %d.",
            n_possible,
            n_possible,
            "s" * (n_possible > 1),
            n_clusters,
        )
    model = KMeans(n_clusters=n_possible, n_init=RESTARTS, random_state=seed)
    return _sorted_clusters(z, model.fit_predict(features))


def mixture_clusters(
    z: NDArray[np.floating],
    n_clusters: int,
    *,
    seed: int = 0,
    columns: NDArray[np.integer] | None = None,
) -> Clusters:
    """Group particles by a mixture of Gaussians, each with a covariance of its own, numbered as by k-means.

    Parameters
    ----------
    z, n_clusters, seed, columns
        As for :func:`kmeans_clusters`.

    Returns
    -------
    Clusters
        Every particle belongs to its most likely Gaussian; Gaussians that no particle belongs to are left out.

    Raises
    ------
    ValueError
        As :func:`kmeans_clusters`.
    """
    from sklearn.mixture import GaussianMixture

    start = kmeans_clusters(z, n_clusters, seed=seed, columns=columns)
    z = as_latent_matrix(z)
    features = z if columns is None else z[:, columns]
    centres = start.centres if columns is None else start.centres[:, columns]
    model = GaussianMixture(
        len(centres), means_init=centres, reg_covar=1e-6 * float(features.var() or 1.0), random_state=seed
    )
    return _sorted_clusters(z, model.fit_predict(features))


def _count_distinct_rows(features: NDArray[np.float64], at_most: int) -> int:
    """Count distinct rows, up to a limit (a prefix is enough nearly always)."""
    for n_rows in (min(len(features), 20 * at_most), len(features)):
        n_distinct = len(np.unique(features[:n_rows], axis=0))
        if n_distinct >= at_most:
            return at_most
    return n_distinct


def _sorted_clusters(z: NDArray[np.float64], labels: NDArray[np.integer]) -> Clusters:
    """Number clusters along the first coordinate and take their means in a fixed order of summation."""
    _, labels = np.unique(labels, return_inverse=True)
    sizes = np.bincount(labels)
    # scikit-learn's threads add in any order; these means do not depend on it.
    centres = np.stack([np.bincount(labels, weights=column) for column in z.T], axis=1) / sizes[:, None]
    order = np.lexsort(centres.T[::-1])
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return Clusters(rank[labels].astype(np.int64), centres[order], sizes[order].astype(np.int64))
