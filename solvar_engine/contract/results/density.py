"""density.csv: the density of the particles in latent space, a mixture of Gaussians."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from solvar_engine.contract.files import write_csv
from solvar_engine.contract.results.tables import coordinate_columns, coordinates_of, read_columns

_COVARIANCE = "covariance_{}_{}"


@dataclass(frozen=True)
class Density:
    """A mixture of k Gaussians, in the units of z.

    Attributes
    ----------
    weights : ndarray, shape (k,)
        Shares of the particles, of sum one.
    means : ndarray, shape (k, r)
    covariances : ndarray, shape (k, r, r)
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


def write_density(path: str | os.PathLike[str], density: Density) -> None:
    """Write density.csv: a row for each Gaussian, of the covariance the elements from the diagonal to the right."""
    count, rank = density.means.shape
    columns = {"gaussian": np.arange(1, count + 1), "weight": density.weights, **coordinate_columns(density.means)}
    for i in range(rank):
        for j in range(i, rank):
            columns[_COVARIANCE.format(i + 1, j + 1)] = density.covariances[:, i, j]
    write_csv(path, columns)


def read_density(path: str | os.PathLike[str]) -> Density:
    """Read density.csv.

    Raises
    ------
    UserError
        If the table is absent or damaged, or lacks a column.
    """
    means = coordinates_of(read_columns(path, ("weight", "z_1")))
    rank = means.shape[1]
    names = [_COVARIANCE.format(i + 1, j + 1) for i in range(rank) for j in range(i, rank)]
    table = read_columns(path, ("weight", *names))
    covariances = np.empty((len(means), rank, rank))
    rows, columns = np.triu_indices(rank)
    for i, j, name in zip(rows, columns, names):
        covariances[:, i, j] = covariances[:, j, i] = table[name]
    return Density(table["weight"], means, covariances)
