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

FSC_THRESHOLD = 0.143


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
    umap : ndarray, shape (n, 2), or None
        The flat map of the latent space.
    cluster : ndarray, shape (n,), int, or None
        The cluster of each particle, 1-based.
    centres : ndarray, shape (k, r), or None
        Cluster centres.
    view : ndarray, shape (n, 2), or None
        RELION's rot and tilt of every particle, degrees.
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
    umap: NDArray[np.float64] | None = None
    cluster: NDArray[np.int64] | None = None
    centres: NDArray[np.float64] | None = None
    view: NDArray[np.float64] | None = None
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


def resolution_at_threshold(
    frequency: NDArray[np.floating], fsc: NDArray[np.floating], threshold: float = FSC_THRESHOLD
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
