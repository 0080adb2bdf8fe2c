"""Which particles of a run are near a point of its latent space, in a cluster, or outliers."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import as_text, read_csv
from solvar_engine.contract.results import NOT_REPRODUCIBLE
from solvar_engine.contract.run import RunDir


def compared_components(run: RunDir) -> np.ndarray:
    """Return the components (0-based) in which particles are compared: the reproducible ones, or all if none is."""
    labels = as_text(read_csv(run.eigenvalues)["label"]).tolist()
    found = [index for index, label in enumerate(labels) if NOT_REPRODUCIBLE not in label]
    return np.array(found or range(len(labels)), dtype=np.int64)


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
    table = _analysis_table(run.clusters)
    rows, cluster = table["row"].astype(np.int64), table["cluster"].astype(np.int64)
    for number in numbers:
        if not (cluster == number).any():
            raise UserError(f"{run.clusters} has no cluster {number}: its clusters are 1 to {cluster.max(initial=0)}.")
    chosen = np.zeros(count, dtype=bool)
    chosen[rows[np.isin(cluster, numbers)]] = True
    return chosen


def cluster_centre(run: RunDir, number: int) -> np.ndarray:
    """Return the centre of a cluster of the run's analysis, numbered from 1; shape (r,).

    Raises
    ------
    UserError
        If the run has no such cluster.
    """
    table = _analysis_table(run.centres)
    centres = np.stack([values for name, values in table.items() if name.startswith("z_")], axis=1)
    if not 1 <= number <= len(centres):
        raise UserError(f"{run.centres} has no cluster {number}: its clusters are 1 to {len(centres)}.")
    return centres[number - 1].astype(np.float64)


def rank_of(run: RunDir) -> int:
    """Return the number of components of a run."""
    return len(read_csv(run.eigenvalues)["component"])


def _analysis_table(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise UserError(f"{path} does not exist, so the clusters are not known: run the covariance analysis again.")
    return read_csv(path)
