"""The tables of `analyze`: embedding.csv, clusters.csv and centres.csv. Without components they have no rows."""

from __future__ import annotations

import os

import numpy as np

from solvar_engine.contract.files import write_csv
from solvar_engine.contract.results.tables import coordinate_columns, coordinates_of, read_columns

EMBEDDING_COLUMNS = ("row", "umap_1", "umap_2")
CLUSTERS_COLUMNS = ("row", "cluster")


def write_embedding(path: str | os.PathLike[str], points: np.ndarray) -> None:
    """Write embedding.csv: the flat map of the latent space, shape (n, 2), in the order of the particles."""
    write_csv(path, dict(zip(EMBEDDING_COLUMNS, (np.arange(len(points)), *points.T))))


def read_embedding(path: str | os.PathLike[str]) -> np.ndarray:
    """Read embedding.csv; shape (n, 2)."""
    table = read_columns(path, EMBEDDING_COLUMNS)
    return np.stack([table[name] for name in EMBEDDING_COLUMNS[1:]], axis=1)


def write_clusters(path: str | os.PathLike[str], cluster: np.ndarray) -> None:
    """Write clusters.csv: the cluster of each particle in their order, shape (n,), from 1; 0 for outliers."""
    write_csv(path, dict(zip(CLUSTERS_COLUMNS, (np.arange(len(cluster)), cluster))))


def read_clusters(path: str | os.PathLike[str]) -> np.ndarray:
    """Read clusters.csv; shape (n,), int, from 1; 0 for outliers, which are in none."""
    return read_columns(path, CLUSTERS_COLUMNS)["cluster"].astype(np.int64)


def write_centres(path: str | os.PathLike[str], sizes: np.ndarray, centres: np.ndarray) -> None:
    """Write centres.csv: clusters numbered from 1, with their number of particles and their centre.

    Parameters
    ----------
    path : path
    sizes : ndarray, shape (k,)
        Particles in each cluster.
    centres : ndarray, shape (k, r)
        In the units of z.
    """
    write_csv(path, {"cluster": np.arange(1, len(sizes) + 1), "size": sizes, **coordinate_columns(centres)})


def read_centres(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the cluster centres of centres.csv; shape (k, r), in the units of z."""
    return coordinates_of(read_columns(path, ("cluster",)))
