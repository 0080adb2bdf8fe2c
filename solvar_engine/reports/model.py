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

from solvar_engine.contract.results import Candidates, Components, ImageResults, Table


@dataclass(frozen=True)
class ReportData:
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
    candidates : Candidates or None
        ``rank.csv``: the components that were tried, and which of them were kept.
    embedding : ndarray, shape (n, 2), or None
        The flat map of the latent space.
    cluster : ndarray, shape (n,), int, or None
        The cluster of each particle, 1-based.
    centres : ndarray, shape (k, r), or None
        Cluster centres.
    images : ImageResults
        What is known of each image.
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
    candidates: Candidates | None = None
    embedding: NDArray[np.float64] | None = None
    cluster: NDArray[np.int64] | None = None
    centres: NDArray[np.float64] | None = None
    images: ImageResults = ImageResults()
    missing: tuple[str, ...] = ()

    @property
    def n_particles(self) -> int:
        """The number of particles."""
        return int(self.z.shape[0])

    @property
    def is_used(self) -> NDArray[np.bool_]:
        """Which particles are no outliers, shape (n,); what their images show is another thing."""
        is_outlier = self.images.is_outlier
        return np.ones(self.n_particles, dtype=bool) if is_outlier is None else ~is_outlier


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
