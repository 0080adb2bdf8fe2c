"""Which particles of a run are near a point of its latent space, in a cluster, or outliers."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import read_centres, read_clusters
from solvar_engine.contract.run import RunDir


def distances_from(point: np.ndarray, z: np.ndarray, precision: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return how far particles are from a point, in standard deviations of each particle's own posterior.

    d_i^2 = (z_i - z*)^T L_i (z_i - z*), with L_i the posterior precision (prior included) of the compared
    coordinates when nothing is known of the others.

    Parameters
    ----------
    point : ndarray, shape (r,)
    z : ndarray, shape (n, r)
    precision : ndarray, shape (n, r, r)
        Of all coordinates.
    columns : ndarray of int
        The compared ones.

    Returns
    -------
    ndarray, shape (n,)

    Examples
    --------
    >>> distances_from(np.array([0.0]), np.array([[2.0]]), np.array([[[4.0]]]), np.array([0])).tolist()
    [4.0]
    """
    difference = (np.asarray(z, dtype=np.float64) - point)[:, columns]
    covariance = np.linalg.inv(np.asarray(precision, dtype=np.float64))[:, columns][:, :, columns]
    whitened = np.linalg.solve(covariance, difference[:, :, None])[:, :, 0]
    return np.sqrt(np.maximum(np.einsum("ni,ni->n", difference, whitened), 0.0))


def nearest(distance: np.ndarray, count: int) -> np.ndarray:
    """Mark the `count` smallest distances, at equality the earlier ones; shape (n,), bool."""
    chosen = np.zeros(len(distance), dtype=bool)
    chosen[np.argsort(distance, kind="stable")[:count]] = True
    return chosen


def in_clusters(run: RunDir, numbers: Sequence[int], count: int) -> np.ndarray:
    """Mark the particles of some clusters of the run's analysis; shape (count,), bool.

    Raises
    ------
    UserError
        If the run has no such cluster.
    """
    cluster = read_clusters(_there(run.clusters))
    for number in numbers:
        if number < 1 or not (cluster == number).any():
            raise UserError(f"{run.clusters} has no cluster {number}: its clusters are 1 to {cluster.max(initial=0)}.")
    if len(cluster) != count:
        raise UserError(f"{run.clusters} has {len(cluster)} particles, but the run has {count}: run it again.")
    return np.isin(cluster, numbers)


def cluster_centre(run: RunDir, number: int) -> np.ndarray:
    """Return the centre of a cluster of the run's analysis, numbered from 1; shape (r,).

    Raises
    ------
    UserError
        If the run has no such cluster.
    """
    centres = read_centres(_there(run.centres))
    if not 1 <= number <= len(centres):
        raise UserError(f"{run.centres} has no cluster {number}: its clusters are 1 to {len(centres)}.")
    return centres[number - 1]


def _there(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path} does not exist, so the clusters are not known: run the covariance analysis again.")
    return path
