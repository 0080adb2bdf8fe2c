"""Preprocessed particles as a source of whitened batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from solvar_engine.data.transfers import brought_to
from solvar_engine.distributed.world import ALONE, Share, World
from solvar_engine.imaging.aberrations import Aberrations, odd_phase_factors
from solvar_engine.imaging.background import (
    ORIGIN_WEIGHT,
    Background,
    background_columns,
    orthonormalized,
    phases_of_centring,
    support,
)
from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.imaging.fourier import HalfDisk, distorted_disk_is_inside, shift_phases
from solvar_engine.imaging.types import Batch, Ctf, MicrographNoise, Pose


@dataclass(frozen=True)
class PreparedParticles:
    """Centred half-disk coefficients of all particles, and what turns them into batches.

    Attributes
    ----------
    coefficients : Tensor, shape (n, pixels), complex64
        Where batches are made, or else in memory or memory-mapped; orthonormal in the input box, not whitened, in
        units of `grey_unit`. Only those of the share of this process, and one for all rows of an image.
    disk : HalfDisk
        Of the working box, where batches are made; all tables of particles are best on the CPU.
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
    micrographs : MicrographNoise or None
        How the noise differs between micrographs; None where the list does not tell them apart.
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
    signature : Tensor or None, shape (n, SIGNATURE_LENGTH), int8
        Of the noise of each image: copies of one have like ones, see `solvar_engine.data.copies`.
    is_bad : Tensor or None, shape (n,), bool
        Images that cannot be used; those without content are zero here.
    fixed_pixels : Tensor or None, shape (y, x), bool
        Pixels of the images on disk that are the same in all, and were replaced.
    single_pixels : Tensor or None, shape (n,), int64
        How many pixels of each image alone were replaced.
    repeated_edges : Tensor or None, shape (n,), int64
        Depth, px, of edges that are not of the micrograph; zero where they leave the particle alone.
    near_zeros : Tensor or None, shape (n,), float32
        Power near zeros of the transfer function of images that were multiplied with it, see `divided_by_ctf`.
    inner_noise : Tensor or None, shape (n,), float32
        Deviation of the noise within the particle over that of the background, where this was replaced; else 1.
    filled_from : float or None
        Distance from the centre, px of the input box, beyond which backgrounds were replaced; None if none were.
    grey_scale : Tensor or None, shape (n,), float32
        Scale of the signal in the part of the set that each image belongs to, beside its contrast; None for ones.
    aberrations : Aberrations or None
        Of each group, which the coefficients have been corrected for; None for none.
    shows_odd_aberrations : bool
        They are seen as they were before that.
    share : Share or None
        Of this process, if several share the images; None if all are here.
    place : Tensor or None, shape (n,), int64
        Place of each row's coefficients, where rows share them.
    largest_batch : int or None
        Images that are yielded together at most, where memory is short.
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
    signature: Tensor | None = None
    is_bad: Tensor | None = None
    fixed_pixels: Tensor | None = None
    single_pixels: Tensor | None = None
    repeated_edges: Tensor | None = None
    near_zeros: Tensor | None = None
    inner_noise: Tensor | None = None
    filled_from: float | None = None
    grey_scale: Tensor | None = None
    micrographs: MicrographNoise | None = None
    aberrations: Aberrations | None = None
    shows_odd_aberrations: bool = False
    share: Share | None = None
    place: Tensor | None = None
    largest_batch: int | None = None
    _columns: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __len__(self) -> int:
        return int(self.group.shape[0])

    @property
    def world(self) -> World:
        """Processes that share the images."""
        return ALONE if self.share is None else self.share.world

    def with_noise(self, noise_variance: Tensor, ratio: Tensor | None = None) -> PreparedParticles:
        """Same particles, whitened by another spectrum (groups, shells), times a ``ratio`` (micrographs, shells)."""
        micrographs = self.micrographs
        if micrographs is not None:
            micrographs = replace(micrographs, ratio=None if ratio is None else ratio.float().cpu())
        return replace(self, noise_variance=noise_variance.float(), micrographs=micrographs)

    def in_less_memory(self, largest_batch: int) -> PreparedParticles:
        """Same particles, so many of them at once at most, and off the device: batches are brought there."""
        return replace(self, coefficients=self.coefficients.cpu(), largest_batch=largest_batch)

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

    def with_ctf(self, ctf: Ctf) -> PreparedParticles:
        """Same particles, taken to have been seen through other transfer functions."""
        return replace(self, ctf=ctf)

    def with_odd_aberrations(self) -> PreparedParticles | None:
        """Same particles, as they are without the correction for odd aberrations; None where there is none."""
        return replace(self, shows_odd_aberrations=True) if self._aberrations().odd_zernike.shape[1] else None

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
            If the images have been moved since they were read, or rows share them.
        """
        if self.centring is not None:
            raise ValueError("images at other poses than those that they were read with cannot be subtracted from")
        if self.place is not None:
            raise ValueError("rows share their images, from which nothing can be subtracted for one of them")
        pixels = images.shape[1]
        whitening = self._whitening_of(index, self._whitening(self.disk)[:, :pixels], self.disk.shell[:pixels])
        taken = images / (whitening * self.image_scale[index, None].to(whitening.device))
        self.coefficients[self._places(index), :pixels] -= taken.to(self.coefficients.device)

    def batches(self, index: Tensor, disk: HalfDisk, batch_size: int) -> Iterator[Batch]:
        """See :meth:`solvar_engine.imaging.types.BatchSource.batches`."""
        device, inverse_deviation = disk.weight.device, self._whitening(disk)
        columns, member = self._background_columns(disk)
        seen = self._seen_pixels(disk)
        phases_of_groups = self._odd_phase_factors(disk) if self.shows_odd_aberrations else None
        index = index if self.share is None else self.share.own(index)
        batch_size = min(batch_size, self.largest_batch or batch_size)
        chunks = index.split(batch_size) if len(index) else ()
        read = (self.coefficients[self._places(rows), : len(disk)] for rows in chunks)
        for rows, images in zip(chunks, brought_to(device, read), strict=True):
            group = self.group[rows]
            whitening = self._whitening_of(rows, inverse_deviation, disk.shell)
            images = images * (whitening * self.image_scale[rows, None].to(device))
            if phases_of_groups is not None:
                images = images * phases_of_groups[group.to(device)]
            if self.centring is not None:
                moved_px = (self.pose.shift[rows] - self.centring[rows]) / self.pixel_size
                images = images * shift_phases(disk, moved_px.to(device), disk.box_size)
            ctf = ctf_values(self.ctf[rows].to(device), disk, self.pixel_size) * whitening
            if seen is not None:
                ctf = ctf * seen[group]
            contrast = ctf.new_ones(len(rows)) if self.contrast is None else self.contrast[rows].to(device)
            if self.grey_scale is not None:
                contrast = contrast * self.grey_scale[rows].to(device)
            phases = phases_of_centring(disk, self.pose.shift[rows].to(device) / self.pixel_size)
            background = Background.removed_from(images, columns[member[rows]] * phases[:, :, None], disk.weight)
            yield Batch(images, ctf * self.sign, self.pose.rotation[rows].to(device), contrast, rows, background)

    def _places(self, rows: Tensor) -> Tensor:
        if self.place is not None:
            return self.place[rows]
        return rows if self.share is None else self.share.places(rows)

    def _whitening(self, disk: HalfDisk) -> Tensor:
        """Factors (groups, pixels) on the coefficients of each optics group."""
        inverse_deviation = self.noise_variance.to(disk.shell.device).rsqrt()[:, disk.shell]
        return torch.where(disk.shell == 0, ORIGIN_WEIGHT, 1.0) * inverse_deviation

    def _whitening_of(self, rows: Tensor, of_groups: Tensor, shell: Tensor) -> Tensor:
        """Factors (n, pixels) on the coefficients of some rows, from those of the optics groups."""
        whitening = of_groups[self.group[rows]]
        return whitening if self.micrographs is None else whitening / self.micrographs.deviation_of(rows, shell)

    def _background_columns(self, disk: HalfDisk) -> tuple[Tensor, Tensor]:
        """Columns (kinds, p, k) of the slow background, and which kind each particle has (n,)."""
        inner = support(disk)
        place = (inner.shell_max, inner.weight.device)
        if place not in self._columns:
            whitening = self._whitening(inner)
            ratio, noise = self.frequency_ratio, self.noise_variance[:, : inner.shell_max + 1]
            aberrations = self._aberrations()
            table = torch.cat((ratio.to(noise)[:, None], noise, aberrations.table.to(noise)), dim=1)
            kinds, member = table.unique(dim=0, return_inverse=True)
            first = [int((member == kind).nonzero()[0]) for kind in range(len(kinds))]
            extent = self.box_size * self.pixel_size
            columns = [
                background_columns(inner, self.input_box, float(ratio[g]), whitening[g], aberrations, g, extent)
                for g in first
            ]
            self._columns[place] = self._columns_of_micrographs(inner, torch.stack(columns), member[self.group])
        return self._columns[place]

    def _columns_of_micrographs(self, inner: HalfDisk, columns: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
        """The same of each micrograph, where these differ in noise; of optics groups, and of each particle (n,)."""
        if self.micrographs is None or self.micrographs.ratio is None:
            return columns, member
        micrograph = self.micrographs.micrograph
        first = torch.full((len(self.micrographs.ratio),), len(self)).scatter_reduce(
            0, micrograph, torch.arange(len(self)), "amin"
        )
        deviation = self.micrographs.deviation_of(first, inner.shell)
        return orthonormalized(columns[member[first]] / deviation[:, :, None], inner.weight), micrograph

    def _seen_pixels(self, disk: HalfDisk) -> Tensor | None:
        """Pixels within each group's own Nyquist, or None if all groups see all."""
        matrices = self._aberrations().sampling(self.frequency_ratio)
        if bool((torch.linalg.matrix_norm(matrices, ord=2) <= 1).all()):
            return None
        return distorted_disk_is_inside(disk, matrices, self.input_box).float()

    def _odd_phase_factors(self, disk: HalfDisk) -> Tensor:
        factors = odd_phase_factors(self._aberrations().odd_zernike, disk, self.box_size * self.pixel_size)
        return factors.to(disk.weight.device, self.coefficients.dtype)

    def _aberrations(self) -> Aberrations:
        return Aberrations.none(len(self.frequency_ratio)) if self.aberrations is None else self.aberrations
