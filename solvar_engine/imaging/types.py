"""The nouns of the engine: poses, contrast transfer parameters, volumes and batches of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from solvar_engine.distributed.world import World
from solvar_engine.imaging.background import Background
from solvar_engine.imaging.fourier import HalfDisk, shift_phases

Self = TypeVar("Self", bound="_PerParticle")


class _PerParticle:
    """Frozen dataclass of tensors that share their first axis, indexable along it; some may be None."""

    def __getitem__(self: Self, index: Tensor | slice) -> Self:
        return self._each(lambda values: values[index])

    def __len__(self) -> int:
        return int(getattr(self, fields(self)[0].name).shape[0])  # type: ignore[arg-type]

    def to(self: Self, device: torch.device | str) -> Self:
        """Copy to a device; tensors that are already there are shared."""
        return self._each(lambda values: values.to(device))

    def _each(self: Self, change: Callable[[Tensor], Tensor]) -> Self:
        values = (getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]
        return type(self)(*(None if value is None else change(value) for value in values))


@dataclass(frozen=True)
class Pose(_PerParticle):
    """Orientation and in-plane shift of particles.

    Attributes
    ----------
    rotation : Tensor, shape (n, 3, 3), float32
        Left-multiplies xyz columns and turns image into volume coordinates: k_volume = R (kx, ky, 0).
    shift : Tensor, shape (n, 2), float32
        (x, y) in Angstrom with RELION's sign: moving the observed image by +shift centres it.
    """

    rotation: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Ctf(_PerParticle):
    """Parameters of the contrast transfer function, of shape (n,) unless said, in the units of their files.

    Attributes
    ----------
    defocus_u, defocus_v : Tensor
        Defocus along the two axes of astigmatism, Angstrom, positive for underfocus.
    defocus_angle : Tensor
        Angle between the x axis and the axis of ``defocus_u``, degrees.
    voltage : Tensor
        Acceleration voltage, kV.
    cs : Tensor
        Spherical aberration, mm.
    amplitude_contrast : Tensor
        Fraction between 0 and 1.
    phase_shift : Tensor
        Of a phase plate, degrees.
    b_factor : Tensor
        Envelope exp(-B s^2 / 4), Angstrom^2.
    scale : Tensor
        Factor on the whole function.
    is_phase_flipped : Tensor, bool
        The image was multiplied with the sign of its transfer function, whose absolute value is left.
    even_zernike : Tensor or None, shape (n, terms)
        Even aberrations, radian: coefficients of `solvar_engine.imaging.aberrations.even_zernike`.
    is_premultiplied : Tensor or None, bool
        The image was multiplied with its transfer function, and has been divided by it except near the zeros, of which
        nothing is left.
    """

    defocus_u: Tensor
    defocus_v: Tensor
    defocus_angle: Tensor
    voltage: Tensor
    cs: Tensor
    amplitude_contrast: Tensor
    phase_shift: Tensor
    b_factor: Tensor
    scale: Tensor
    is_phase_flipped: Tensor
    even_zernike: Tensor | None = None
    is_premultiplied: Tensor | None = None


@dataclass(frozen=True)
class Volume:
    """A density map.

    Attributes
    ----------
    data : Tensor, shape (z, y, x), float32
        MRC order, centre at index ``box_size // 2``.
    pixel_size : float
        Angstrom per voxel.
    """

    data: Tensor
    pixel_size: float

    @property
    def box_size(self) -> int:
        """Edge of the cube in voxels."""
        return int(self.data.shape[-1])


@dataclass(frozen=True)
class Batch(_PerParticle):
    """Images as the estimators see them: whitened half-disk coefficients with all that models them.

    Attributes
    ----------
    images : Tensor, shape (n, pixels), complex64
        Coefficients of the centred images divided by the noise standard deviation, dimensionless.
    ctf : Tensor, shape (n, pixels), float32
        Contrast transfer function divided by the noise standard deviation.
    rotation : Tensor, shape (n, 3, 3), float32
        Image to volume.
    contrast : Tensor, shape (n,), float32
        Scale of the signal in each image.
    index : Tensor, shape (n,), int64
        Row of each particle in its set; always on the CPU, where the tables of all particles are.
    background : Background, optional
        Slow background that has been removed from the images, and must be removed from what they are compared with;
        None if there is none.
    """

    images: Tensor
    ctf: Tensor
    rotation: Tensor
    contrast: Tensor
    index: Tensor
    background: Background | None = None

    def __getitem__(self, index: Tensor | slice) -> Batch:
        rows = index.cpu() if isinstance(index, Tensor) else index
        background = None if self.background is None else self.background[index]
        return Batch(
            self.images[index],
            self.ctf[index],
            self.rotation[index],
            self.contrast[index],
            self.index[rows],
            background,
        )

    def moved(self, shift_px: Tensor, disk: HalfDisk) -> Batch:
        """Same images, moved by shifts (n, 2), px of the box of their disk."""
        phases = shift_phases(disk, shift_px.float(), disk.box_size)
        background = None if self.background is None else self.background.moved(phases)
        return replace(self, images=self.images * phases, background=background)

    def with_background(self, coordinates: Tensor | None = None) -> Tensor:
        """Images (n, pixels) with their own background, or one of other coordinates (n, k), put back."""
        if self.background is None:
            return self.images
        if coordinates is None:
            coordinates = self.background.coordinates
        images = self.images.clone()
        added = self.background.images_of(coordinates)
        images[:, : added.shape[1]] += added
        return images

    def kept_variance(self) -> Tensor:
        """Share (n, pixels) of the noise's variance that is left: without the background, and where there is any image.

        Where the transfer function is nought, as beyond the Nyquist frequency of an optics group, nothing is.
        """
        kept = (self.ctf != 0).to(self.ctf.dtype)
        if self.background is not None:
            lost = self.background.variance()
            kept[:, : lost.shape[1]] *= 1 - lost
        return kept

    def to(self, device: torch.device | str) -> Batch:
        """Copy to a device all but the index."""
        images, ctf, rotation, contrast = (
            part.to(device) for part in (self.images, self.ctf, self.rotation, self.contrast)
        )
        background = None if self.background is None else self.background.to(device)
        return Batch(images, ctf, rotation, contrast, self.index, background)


@dataclass(frozen=True)
class MicrographNoise:
    """How the noise of each micrograph differs from that of its optics group: ice is thicker here than there.

    Attributes
    ----------
    micrograph : Tensor, shape (n,), int64
        Of each particle.
    ratio : Tensor or None, shape (micrographs, shells), float32
        Of the noise variance over that of the group; None before it was measured.
    """

    micrograph: Tensor
    ratio: Tensor | None = None

    def deviation_of(self, rows: Tensor, shell: Tensor) -> Tensor:
        """Standard deviation of the noise of rows (n,) at pixels of shells (p,), over that of the group; or one."""
        if self.ratio is None:
            return torch.ones((), device=shell.device)
        return self.ratio[self.micrograph[rows]].sqrt().to(shell.device)[:, shell]


class BatchSource(Protocol):
    """A set of images that can be read again and again: all that an algorithm knows about files."""

    @property
    def disk(self) -> HalfDisk:
        """All pixels that the images hold."""
        ...

    @property
    def box_size(self) -> int:
        """Working box, px."""
        ...

    @property
    def pixel_size(self) -> float:
        """Pixel size of the working box, Angstrom."""
        ...

    @property
    def world(self) -> World:
        """Processes that share the images; tables of all particles, and what is made of all images, are with each."""
        ...

    def __len__(self) -> int: ...

    def batches(self, index: Tensor, disk: HalfDisk, batch_size: int) -> Iterator[Batch]:
        """Yield the particles ``index`` in this order, cut to the band of ``disk``, a prefix of the source's.

        Where several processes share the images, each yields its own only: sums over them are to be summed, and what is
        found of each is to be gathered, by `world`.
        """
        ...


class ParticleSource(BatchSource, Protocol):
    """Images whose noise, contrasts and poses are estimated on the way; the images themselves stay as they are.

    Every change gives another view of the same images.
    """

    @property
    def pose(self) -> Pose:
        """Of all particles."""
        ...

    @property
    def group(self) -> Tensor:
        """Optics group of each particle, (n,), int64."""
        ...

    @property
    def noise_variance(self) -> Tensor:
        """By which images are whitened, (groups, shells)."""
        ...

    @property
    def contrast(self) -> Tensor | None:
        """Known scale of the signal in each image, (n,); None if they are taken to be alike."""
        ...

    @property
    def micrographs(self) -> MicrographNoise | None:
        """How the noise differs between micrographs; None where the list does not tell them apart."""
        ...

    def with_noise(self, noise_variance: Tensor, ratio: Tensor | None = None) -> ParticleSource:
        """Same particles, whitened by another spectrum (groups, shells), times a ``ratio`` (micrographs, shells)."""
        ...

    def with_sign(self, sign: float) -> ParticleSource:
        """Same particles, taken to be bright (1) or dark (-1) in the images."""
        ...

    def with_contrast(self, contrast: Tensor) -> ParticleSource:
        """Same particles, with a known scale (n,) of the signal in each image."""
        ...

    def with_pose(self, pose: Pose) -> ParticleSource:
        """Same particles at other poses."""
        ...

    @property
    def ctf(self) -> Ctf:
        """Parameters of the transfer function of each image."""
        ...

    def with_odd_aberrations(self) -> ParticleSource | None:
        """Same images, not corrected for odd aberrations; None where there is nothing to correct for."""
        ...

    def with_ctf(self, ctf: Ctf) -> ParticleSource:
        """Same particles, taken to have been seen through other transfer functions."""
        ...
