"""Preprocessed particles as a source of whitened batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from solvar_engine.imaging.background import ORIGIN_WEIGHT, Background, background_columns, phases_of_centring, support
from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.imaging.fourier import HalfDisk, scaled_disk_is_inside, shift_phases
from solvar_engine.imaging.types import Batch, Ctf, Pose


@dataclass(frozen=True)
class PreparedParticles:
    """Centred half-disk coefficients of all particles, and what turns them into batches.

    Attributes
    ----------
    coefficients : Tensor, shape (n, pixels), complex64
        In memory or memory-mapped; orthonormal in the input box, not whitened, in units of `grey_unit`.
    disk : HalfDisk
        Of the working box.
    box_size : int
        Working box, px.
    pixel_size : float
        Of the working box, Angstrom.
    pose : Pose
    ctf : Ctf
    group : Tensor, shape (n,), int64
        Optics group of each particle.
    frequency_ratio : Tensor, shape (groups,)
        Pixel size of each group over that of the first.
    input_box : int
        Box of the images on disk, px.
    noise_variance : Tensor, shape (groups, shells), float32
        In units of `grey_unit` squared.
    image_scale : Tensor, shape (n,), float32
        Factor that brings each image to the common background deviation, negative where it is turned as well.
    sign : float
        +1, or -1 when protein is dark in the images.
    grey_unit : float
        Grey values of the images on disk that make 1 here; what is estimated from these particles is in this unit.
    centring : Tensor or None, shape (n, 2)
        Shifts in Angstrom that the coefficients were centred with, if not those of the pose.
    contrast : Tensor or None, shape (n,), float32
        Scale of the signal in each image beside what is in `image_scale`; None stands for ones.
    digest : Tensor or None, shape (n,), int64
        Of the pixels of each image on disk: equal images have equal ones.
    is_bad : Tensor or None, shape (n,), bool
        Images that could not be used, all zero here.
    grey_scale : Tensor or None, shape (n,), float32
        Scale of the signal in the part of the set that each image belongs to, beside its contrast; None for ones.
    """

    coefficients: Tensor
    disk: HalfDisk
    box_size: int
    pixel_size: float
    pose: Pose
    ctf: Ctf
    group: Tensor
    frequency_ratio: Tensor
    input_box: int
    noise_variance: Tensor
    image_scale: Tensor
    sign: float
    grey_unit: float = 1.0
    centring: Tensor | None = None
    contrast: Tensor | None = None
    digest: Tensor | None = None
    is_bad: Tensor | None = None
    grey_scale: Tensor | None = None
    _columns: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return int(self.coefficients.shape[0])

    def with_noise(self, noise_variance: Tensor) -> PreparedParticles:
        """Same particles, whitened by another spectrum (groups, shells)."""
        return replace(self, noise_variance=noise_variance.float())

    def with_sign(self, sign: float) -> PreparedParticles:
        """Same particles, seen with the other sign of contrast."""
        return replace(self, sign=sign)

    def with_grey_scale(self, scale: Tensor) -> PreparedParticles:
        """Same particles as they come, with a scale (n,) of the signal in each; images of negative scale are turned."""
        turned = torch.where(scale < 0, -self.image_scale, self.image_scale)
        return replace(self, image_scale=turned, grey_scale=scale.abs().float())

    def with_pose(self, pose: Pose) -> PreparedParticles:
        """Same particles at other poses; images are moved to their new centres as they are read."""
        centring = self.pose.shift if self.centring is None else self.centring
        return replace(self, pose=pose, centring=centring)

    def with_contrast(self, contrast: Tensor) -> PreparedParticles:
        """Same particles, with a known scale (n,) of the signal in each image."""
        return replace(self, contrast=contrast.float())

    def subtract(self, index: Tensor, images: Tensor) -> None:
        """Take something away from images for good: a second copy of them all would not fit in memory.

        Parameters
        ----------
        index : Tensor, shape (n,), int64
        images : Tensor, shape (n, pixels), complex64
            Whitened coefficients, as in batches; of a prefix of the disk.

        Raises
        ------
        ValueError
            If the images have been moved since they were read.
        """
        if self.centring is not None:
            raise ValueError("images at other poses than those that they were read with cannot be subtracted from")
        pixels = images.shape[1]
        whitening = self._whitening(self.disk)[:, :pixels][self.group[index]]
        self.coefficients[index, :pixels] -= images / (whitening * self.image_scale[index, None])

    def batches(self, index: Tensor, disk: HalfDisk, batch_size: int) -> Iterator[Batch]:
        """See :meth:`solvar_engine.imaging.types.BatchSource.batches`."""
        inverse_deviation = self._whitening(disk)
        columns, member = self._background_columns(disk)
        seen = self._seen_pixels(disk)
        for start in range(0, index.shape[0], batch_size):
            rows = index[start : start + batch_size]
            group = self.group[rows]
            whitening = inverse_deviation[group]
            images = self.coefficients[rows, : len(disk)] * (whitening * self.image_scale[rows, None])
            if self.centring is not None:
                moved_px = (self.pose.shift[rows] - self.centring[rows]) / self.pixel_size
                images = images * shift_phases(disk, moved_px, disk.box_size)
            ctf = ctf_values(self.ctf[rows], disk, self.pixel_size) * whitening
            if seen is not None:
                ctf = ctf * seen[group]
            contrast = ctf.new_ones(len(rows)) if self.contrast is None else self.contrast[rows]
            if self.grey_scale is not None:
                contrast = contrast * self.grey_scale[rows]
            phases = phases_of_centring(disk, self.pose.shift[rows] / self.pixel_size)
            background = Background.removed_from(images, columns[member[group]] * phases[:, :, None], disk.weight)
            yield Batch(images, ctf * self.sign, self.pose.rotation[rows], contrast, rows, background)

    def _whitening(self, disk: HalfDisk) -> Tensor:
        """Factors (groups, pixels) on the coefficients of each optics group."""
        inverse_deviation = self.noise_variance.rsqrt()[:, disk.shell]
        return torch.where(disk.shell == 0, ORIGIN_WEIGHT, 1.0) * inverse_deviation

    def _background_columns(self, disk: HalfDisk) -> tuple[Tensor, Tensor]:
        """Columns (kinds, p, k) of the slow background, and which kind each optics group has (groups,)."""
        inner = support(disk)
        if inner.shell_max not in self._columns:
            whitening = self._whitening(inner)
            ratio, noise = self.frequency_ratio, self.noise_variance[:, : inner.shell_max + 1]
            kinds, member = torch.cat((ratio.to(noise)[:, None], noise), dim=1).unique(dim=0, return_inverse=True)
            first = [int((member == kind).nonzero()[0]) for kind in range(len(kinds))]
            columns = [background_columns(inner, self.input_box, float(ratio[g]), whitening[g]) for g in first]
            self._columns[inner.shell_max] = torch.stack(columns), member
        return self._columns[inner.shell_max]

    def _seen_pixels(self, disk: HalfDisk) -> Tensor | None:
        """Pixels within each group's own Nyquist, or None if all groups see all."""
        if bool((self.frequency_ratio <= 1).all()):
            return None
        inside = [
            scaled_disk_is_inside(disk, float(ratio), self.input_box) for ratio in self.frequency_ratio
        ]
        return torch.stack(inside).float()
