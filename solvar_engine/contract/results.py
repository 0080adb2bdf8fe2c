"""The tables and arrays of a run directory: their columns, shapes and units."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from typing import Any, Mapping

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import append_csv, atomic_path, write_csv

EIGENVALUE_COLUMNS = (
    "component",
    "eigenvalue",
    "eigenvalue_in_sample",
    "fraction",
    "half_set_agreement",
    "nuisance_overlap",
    "label",
)
RANK_COLUMNS = (
    "candidate",
    "eigenvalue",
    "half_set_agreement",
    "gain_half1",
    "gain_half2",
    "decoy_max_half1",
    "decoy_max_half2",
    "kept",
)
NOISE_COLUMNS = ("shell", "frequency", "noise_variance", "group")
FSC_COLUMNS = ("shell", "frequency", "fsc_mean", "fsc_covariance")
METRICS_COLUMNS = ("iteration", "stage", "half", "shell_max", "objective", "seconds")
EMBEDDING_COLUMNS = ("row", "umap_1", "umap_2")
CLUSTERS_COLUMNS = ("row", "cluster")

NOT_REPRODUCIBLE = "not reproducible"
"""Label of a component that held-out particles do not confirm."""

NUISANCE = "nuisance"
"""Label of a component that looks like errors of contrast, orientation or shift."""

FSC_THRESHOLD = 0.143
"""Correlation of half-maps at which the resolution is read off (Rosenthal and Henderson, 2003)."""

Table = Mapping[str, Any]


@dataclass(frozen=True)
class Latents:
    """Where each particle is along the components; row i belongs to row i of particles.star.

    Attributes
    ----------
    z : ndarray, shape (n, r), float32
        Posterior mean, in units in which eigenvolumes have unit norm.
    precision : ndarray, shape (n, r, r), float32
        Posterior precision, prior included, in 1 / units of z squared.
    contrast : ndarray, shape (n,), float32
        Scale of the signal in each image, mean 1.
    """

    z: np.ndarray
    precision: np.ndarray
    contrast: np.ndarray

    def __post_init__(self) -> None:
        count, rank = self.z.shape
        expected = {"z": (count, rank), "precision": (count, rank, rank), "contrast": (count,)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")


def write_latents(path: str | os.PathLike[str], latents: Latents) -> None:
    """Write latents.npz atomically, as float32 and without pickle."""
    arrays = {name: np.asarray(getattr(latents, name), dtype=np.float32) for name in _LATENT_NAMES}
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def read_latents(path: str | os.PathLike[str]) -> Latents:
    """Read latents.npz.

    Raises
    ------
    UserError
        If the file is absent or does not hold the arrays z, precision and contrast of matching shapes.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return Latents(*(archive[name] for name in _LATENT_NAMES))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a file of latents ({error}).") from error


def write_eigenvalues(path: str | os.PathLike[str], columns: Table) -> None:
    """Write eigenvalues.csv: one row per component, numbered from 1 in descending order of eigenvalue.

    `eigenvalue` is held out and `eigenvalue_in_sample` is not, both the variance of z for eigenvolumes
    of unit norm; `fraction` is of the sum; `label` is empty for a component that is taken at face value.
    """
    write_csv(path, _exactly(EIGENVALUE_COLUMNS, columns))


def write_rank(path: str | os.PathLike[str], columns: Table) -> None:
    """Write rank.csv: one row per component that was tried, numbered from 1 in descending order of eigenvalue.

    `gain_half1` is what the first half-set's version of the component adds to the log-likelihood of particles of the
    second, `decoy_max_half1` the most that a decoy adds to the same particles; `kept` is 1 for a component that passes.
    """
    write_csv(path, _exactly(RANK_COLUMNS, columns))


def write_noise(path: str | os.PathLike[str], columns: Table) -> None:
    """Write noise.csv: per shell (and group) the frequency in 1/Angstrom and the noise variance per pixel."""
    write_csv(path, _exactly(NOISE_COLUMNS, columns))


def write_fsc(path: str | os.PathLike[str], columns: Table) -> None:
    """Write fsc.csv: per shell the frequency in 1/Angstrom and the half-set FSC of mean and covariance."""
    write_csv(path, _exactly(FSC_COLUMNS, columns))


def append_metrics(path: str | os.PathLike[str], row: Table) -> None:
    """Append one row to metrics.csv; a column that does not apply is left empty."""
    append_csv(path, {name: dict(row).get(name) for name in METRICS_COLUMNS})


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
    coordinates = {f"z_{axis}": centres[:, axis - 1] for axis in range(1, centres.shape[1] + 1)}
    write_csv(path, {"cluster": np.arange(1, len(sizes) + 1), "size": sizes, **coordinates})


def resolution_at_threshold(
    frequency: np.ndarray, fsc: np.ndarray, threshold: float = FSC_THRESHOLD
) -> tuple[float, bool] | None:
    """Find where a Fourier shell correlation first falls below a threshold.

    Parameters
    ----------
    frequency : ndarray, shape (shells,)
        1/Angstrom, ascending; a shell of frequency 0 is left out.
    fsc : ndarray, shape (shells,)
        The correlation of each shell; shells that are not finite are left out.
    threshold : float
        0.143 for half-maps (Rosenthal and Henderson, 2003).

    Returns
    -------
    (float, bool) or None
        The resolution in Angstrom, and whether the curve fell below the threshold at all: if it did not, the
        resolution is that of the last shell. None if no shell is usable or the first is already below.

    Examples
    --------
    >>> resolution_at_threshold(np.array([0.125, 0.375]), np.array([1.0, 0.0]), 0.5)
    (4.0, True)
    """
    is_usable = np.isfinite(fsc) & (frequency > 0)
    frequency, fsc = frequency[is_usable], fsc[is_usable]
    if not len(fsc) or fsc[0] < threshold:
        return None
    is_below = fsc < threshold
    if not is_below.any():
        return 1.0 / float(frequency[-1]), False
    last = int(is_below.argmax())
    step = (fsc[last - 1] - threshold) / (fsc[last - 1] - fsc[last])
    crossing = frequency[last - 1] + step * (frequency[last] - frequency[last - 1])
    return 1.0 / float(crossing), True


_LATENT_NAMES = ("z", "precision", "contrast")


def _exactly(names: tuple[str, ...], columns: Table) -> dict[str, Any]:
    if set(columns) != set(names):
        raise ValueError(f"expected the columns {', '.join(names)}, got {', '.join(columns)}")
    return {name: columns[name] for name in names}
