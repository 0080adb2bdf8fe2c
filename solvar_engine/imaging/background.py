"""The slow background of images: offset, slopes and curvature from edge to edge, of which nothing is known beforehand.

The background of an image is estimated outside the particle, which leaves it uncertain, and the tails of the molecule
make the estimate depend on defocus and pose: unless what is left is part of the model, it becomes a component that
looks like the mask and passes every test of being real. Here its coefficients have a flat prior and are integrated out,
which is an orthogonal projection: images and slices lose the parts that lie in the span of the background's columns.
The normal operator of the mean cannot do without the coefficient at the origin, where the offset lies: it hardly counts
there (`ORIGIN_WEIGHT`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.imaging.aberrations import Aberrations
from solvar_engine.imaging.fourier import HalfDisk, shift_phases

ORIGIN_WEIGHT = 0.01
"""Of the coefficient at the origin: as if its noise were 10,000 times as strong. Zero would leave it undetermined."""

_COLUMNS = 6
_SUPPORT_SHELL = 8  # 93 % of the power of a slope and more of a curvature; beyond, what is left is below the noise


@dataclass(frozen=True)
class Background:
    """What n images hold of a slow background, and what it may look like in each.

    Attributes
    ----------
    columns : Tensor, shape (n, p, k), complex64
        Of the first p pixels of the images' disk; orthonormal for the real inner product with Hermitian weights.
    coordinates : Tensor, shape (n, k), float32
        Of what was removed from each image.
    """

    columns: Tensor
    coordinates: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Background:
        return Background(self.columns[rows], self.coordinates[rows])

    def to(self, device: torch.device | str) -> Background:
        """Copy to a device."""
        return Background(self.columns.to(device), self.coordinates.to(device))

    def moved(self, phases: Tensor) -> Background:
        """Of the same images multiplied by the phases (n, pixels) of a shift."""
        return Background(self.columns * phases[:, : self.columns.shape[1], None], self.coordinates)

    def variance(self) -> Tensor:
        """Noise (n, p) that is lost with the background, of the unit variance of each coefficient."""
        return self.columns.abs().square().sum(dim=2)

    @staticmethod
    def removed_from(images: Tensor, columns: Tensor, weight: Tensor) -> Background:
        """Remove the background from images (n, pixels), in place; ``columns`` and ``weight`` as here."""
        empty = Background(columns, columns.real.new_zeros(len(images), columns.shape[2]))
        return Background(columns, empty.take_from(images[..., None], weight)[..., 0])

    def take_from(self, values: Tensor, weight: Tensor) -> Tensor:
        """Remove what lies in the span of the background, in place.

        Parameters
        ----------
        values : Tensor, shape (n, pixels, channels), complex
        weight : Tensor, shape (pixels,)
            Hermitian weights.

        Returns
        -------
        Tensor, shape (n, k, channels), real
            Coordinates of what was removed.
        """
        first = self.columns.shape[1]
        coordinates = self.coordinates_of(values, weight)
        values[:, :first] -= self.columns @ coordinates.to(values.dtype)
        return coordinates

    def coordinates_of(self, values: Tensor, weight: Tensor) -> Tensor:
        """Coordinates (n, k, channels) of the part of values (n, pixels, channels) that lies in the span."""
        first = self.columns.shape[1]
        return ((self.columns * weight[:first, None]).mH @ values[:, :first]).real

    def images_of(self, coordinates: Tensor) -> Tensor:
        """Coefficients (n, p) of backgrounds with some coordinates (n, k)."""
        return (self.columns @ coordinates[..., None].to(self.columns.dtype))[..., 0]


def bytes_per_image(disk: HalfDisk) -> int:
    """Memory that the columns of the background take beside each image of a batch."""
    return _COLUMNS * len(support(disk)) * torch.complex64.itemsize


def polynomials(box_size: int, device: torch.device | str = "cpu") -> Tensor:
    """Slow backgrounds as images: 1, x, y, x^2, x y and y^2, from -1 to 1 at the edges.

    Returns
    -------
    Tensor, shape (6, y, x), float64
    """
    place = torch.linspace(-1, 1, box_size, dtype=torch.float64, device=device)
    y, x = torch.meshgrid(place, place, indexing="ij")
    return torch.stack((torch.ones_like(x), x, y, x * x, x * y, y * y))


def support(disk: HalfDisk) -> HalfDisk:
    """The first pixels of a disk, beyond which slow backgrounds do not reach."""
    return disk.prefix(min(_SUPPORT_SHELL, disk.shell_max))


def background_columns(
    disk: HalfDisk,
    input_box: int,
    frequency_ratio: float,
    whitening: Tensor,
    aberrations: Aberrations | None = None,
    group: int = 0,
    extent: float = 1.0,
) -> Tensor:
    """Orthonormal columns that span all slow backgrounds of images as they are before they are centred.

    Parameters
    ----------
    disk : HalfDisk
        Its `support` counts.
    input_box : int
        Box of the images on disk, px.
    frequency_ratio : float
        See :func:`~.fourier.images_to_scaled_disk`.
    whitening : Tensor, shape (pixels,)
        Factor on each coefficient.
    aberrations : Aberrations, optional
        What images, and their backgrounds with them, are corrected for; those of an optics ``group``, of images that
        are ``extent`` Angstrom wide.

    Returns
    -------
    Tensor, shape (p, k), complex64
        k is 6, or fewer if the disk is too small to tell them apart.
    """
    inner, aberrations = support(disk), aberrations or Aberrations.none(1)
    spectra = aberrations.corrected(
        polynomials(input_box, whitening.device), inner, group, frequency_ratio, extent
    )
    columns = spectra.T * torch.nan_to_num(whitening[: len(inner), None].double())
    gram = ((columns * inner.weight.to(columns.device)[:, None]).mH @ columns).real
    values, vectors = torch.linalg.eigh(gram)
    kept = values > 1e-9 * values[-1]
    return (columns @ (vectors[:, kept] / values[kept].sqrt()).to(columns.dtype)).to(torch.complex64)


def orthonormalized(columns: Tensor, weight: Tensor) -> Tensor:
    """Columns (n, p, k) of the same spans, orthonormal as those of :func:`background_columns`."""
    gram = ((columns * weight[:, None]).mH @ columns).real.double()
    lower = torch.linalg.cholesky(gram)
    inverse = torch.linalg.inv(lower).mT
    return columns @ inverse.to(columns.dtype)


def phases_of_centring(disk: HalfDisk, shift_px: Tensor) -> Tensor:
    """What centring images by shifts (n, 2), px of the disk's box, multiplies their backgrounds by, (n, p)."""
    return shift_phases(support(disk), shift_px, disk.box_size)
