"""What a report is made of: the numbers of a run, and figures with their captions.

Every field that a run may lack is None (or empty) then, and what depends on it is left out of the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

Table = Mapping[str, NDArray[Any]]
"""A table by columns: name -> (rows,)."""


@dataclass(frozen=True)
class Components:
    """The table of eigenvalues; every array has shape (r,), sorted by descending eigenvalue."""

    eigenvalue: NDArray[np.float64]
    eigenvalue_in_sample: NDArray[np.float64]
    fraction: NDArray[np.float64]
    half_set_agreement: NDArray[np.float64]
    nuisance_overlap: NDArray[np.float64]
    label: tuple[str, ...]
    is_reproducible: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.label)

    def title(self, index: int) -> str:
        """Return the heading of a component (0-based index): its 1-based number and what it is labelled."""
        label = self.label[index]
        return f"component {index + 1}" + (f" ({label})" if label else "")


@dataclass(frozen=True)
class RunData:
    """Everything of a finished run that a report shows.

    Attributes
    ----------
    parameters, status : mapping
        ``params.json`` and ``status.json``.
    components : Components
        The table of eigenvalues; may have no rows.
    z : ndarray, shape (n, r), float32
        Latent coordinates.
    mean, mask : ndarray, shape (z, y, x), float32, or None
        Volumes at the working box.
    pixel_size : float or None
        Angstrom per pixel of the mean.
    eigenvolumes : list of ndarray, shape (z, y, x)
        The leading eigenvolumes, as many as are drawn.
    noise, fsc, metrics : mapping of columns, or None
        ``noise.csv``, ``fsc.csv``, ``metrics.csv``.
    rank : mapping of columns, or None
        ``rank.csv``: the components that were tried, and which of them were kept.
    umap : ndarray, shape (n, 2), or None
        The flat map of the latent space.
    cluster : ndarray, shape (n,), int, or None
        The cluster of each particle, 1-based.
    centres : ndarray, shape (k, r), or None
        Cluster centres.
    view : ndarray, shape (n, 2), or None
        RELION's rot and tilt of every particle, degrees.
    contrast, log_likelihood : ndarray, shape (n,), or None
        Of every image.
    outlier : ndarray, shape (n,), bool, or None
        Images that were left out of the estimates.
    rotation_change, shift_change : ndarray, shape (n,), or None
        How far refined poses are from the given ones, degrees and Angstrom.
    rotation_std, shift_std : ndarray, shape (n,), or None
        Posterior standard deviations of refined poses, degrees and Angstrom.
    missing : tuple of str
        The files of the run that were not there.
    """

    parameters: Mapping[str, Any]
    status: Mapping[str, Any]
    components: Components
    z: NDArray[np.float32]
    mean: NDArray[np.float32] | None = None
    mask: NDArray[np.float32] | None = None
    pixel_size: float | None = None
    eigenvolumes: list[NDArray[np.float32]] = field(default_factory=list)
    noise: Table | None = None
    fsc: Table | None = None
    metrics: Table | None = None
    rank: Table | None = None
    umap: NDArray[np.float64] | None = None
    cluster: NDArray[np.int64] | None = None
    centres: NDArray[np.float64] | None = None
    view: NDArray[np.float64] | None = None
    contrast: NDArray[np.float64] | None = None
    log_likelihood: NDArray[np.float64] | None = None
    outlier: NDArray[np.bool_] | None = None
    rotation_change: NDArray[np.float64] | None = None
    shift_change: NDArray[np.float64] | None = None
    rotation_std: NDArray[np.float64] | None = None
    shift_std: NDArray[np.float64] | None = None
    missing: tuple[str, ...] = ()

    @property
    def n_particles(self) -> int:
        """The number of particles."""
        return int(self.z.shape[0])


@dataclass(frozen=True)
class ReportFigure:
    """A drawn figure.

    Attributes
    ----------
    title : str
        Heading above it.
    caption : str
        How to read it; plain text.
    figure : Figure
        The drawing.
    """

    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Picture:
    """A rendered figure with its place in the report.

    Attributes
    ----------
    name : str
        Stem of its file name.
    section : str
        Heading of the section it belongs to.
    title : str
        Heading above it.
    caption : str
        How to read it; plain text.
    png : bytes
        The image.
    """

    name: str
    section: str
    title: str
    caption: str
    png: bytes
