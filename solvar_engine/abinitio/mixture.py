"""Maps whose poses are open: what is known of them, and images of low frequency that they are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import band_box
from solvar_engine.estimation.pose_scores import PoseGrid
from solvar_engine.imaging.fourier import HalfDisk, ft_to_volume, volume_to_ft
from solvar_engine.imaging.so3_grid import shift_grid
from solvar_engine.imaging.types import ParticleSource
from solvar_engine.projectors.base import Projector

_ROTATIONS_PER_CALL = 4096
_LOG_JOINTS = 2e7  # numbers at a time
_SHIFT_DEVIATIONS = 3.0  # of the shifts that are tried
_LARGEST_SHIFT = 0.25  # of the box
_LEAST_BOX = 24  # of a map, px
_PER_BATCH = 2_000  # images read at a time
_FAR_POWER = 6.0  # robust deviations of the logarithm


@dataclass(frozen=True)
class LowImages:
    """Images cut to low frequencies, of some particles.

    Attributes
    ----------
    disk : HalfDisk
    images : Tensor, shape (n, pixels), complex64
        Whitened, with their slow background, where they are on disk.
    ctf : Tensor, shape (n, pixels)
        Over the deviation of the noise, times the contrast.
    """

    disk: HalfDisk
    images: Tensor
    ctf: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor | slice) -> LowImages:
        return LowImages(self.disk, self.images[rows], self.ctf[rows])

    def cut(self, shell: int) -> LowImages:
        """To a lower band."""
        disk = self.disk.prefix(shell)
        return LowImages(disk, self.images[:, : len(disk)].contiguous(), self.ctf[:, : len(disk)].contiguous())

    def with_sign(self, sign: float) -> LowImages:
        """Of a molecule that is bright (1) or dark (-1)."""
        return LowImages(self.disk, self.images, sign * self.ctf)

    def power(self) -> Tensor:
        """Mean square of the coefficients of each image, (n,)."""
        return (self.images.abs().square() @ self.disk.weight) / self.disk.weight.sum()


def read_low(source: ParticleSource, index: Tensor, shell: int) -> LowImages:
    """Read particles of a source, all at once."""
    parts = [part for _, part in low_batches(source, index, shell)]
    return LowImages(parts[0].disk, torch.cat([p.images for p in parts]), torch.cat([p.ctf for p in parts]))


def low_batches(source: ParticleSource, index: Tensor, shell: int) -> Iterator[tuple[Tensor, LowImages]]:
    """Yield the index of particles and their images, batch by batch."""
    disk = source.disk.prefix(shell)
    for batch in source.batches(index, disk, _PER_BATCH):
        yield batch.index, LowImages(disk, batch.with_background(), batch.ctf * batch.contrast[:, None])


def far_in_power(power: Tensor) -> Tensor:
    """Tell which images (n,) have a power far beyond that of the others, such as those of ice; bool."""
    value = power.double().clamp_min(1e-30).log()
    median = value.median()
    deviation = 1.4826 * (value - median).abs().median()
    return value - median > _FAR_POWER * deviation


@dataclass(frozen=True)
class Mixture:
    """Maps, and how often and where images show them.

    An image shows one of the maps, the radially symmetric part of one, or nothing.

    Attributes
    ----------
    volumes : Tensor, shape (K, z, y, x)
        On the box of a band.
    shares : Tensor, shape (K + 2,), float64
        Of the images that show each map, a radially symmetric part, nothing.
    noise : Tensor, shape (shells,), float64
        Variance that is left in the whitened images.
    shift_std_px : float
        Px of the working box.
    """

    volumes: Tensor
    shares: Tensor
    noise: Tensor
    shift_std_px: float

    def shifts(self, shell: int, full_box_size: int) -> Tensor:
        """Shifts to try at a band, a quarter of its shortest period apart."""
        radius = min(_SHIFT_DEVIATIONS * self.shift_std_px, _LARGEST_SHIFT * full_box_size)
        return shift_grid(full_box_size / (4 * shell), radius)

    def pose_grid(self, projector: Projector, rotation: Tensor) -> PoseGrid:
        """Slices of all maps at rotations (J, 3, 3), those of their radially symmetric parts (K), and nothing (1)."""
        disk, maps = projector.disk, len(self.volumes)
        slices = slices_of(projector, self.volumes, rotation)
        radial = slices.mean(dim=1)
        everything = torch.cat((slices.flatten(0, 1), radial, torch.zeros_like(radial[:1])))
        log_share = self.shares.log()
        of_maps = log_share[:maps] - torch.log(torch.tensor(len(rotation), dtype=torch.float64))
        of_radial = log_share[maps] + (self.shares[:maps] / self.shares[:maps].sum()).log()
        log_prior = torch.cat((of_maps.repeat_interleave(len(rotation)), of_radial, log_share[-1:]))
        shifts = self.shifts(disk.shell_max, disk.box_size)
        return PoseGrid(
            disk, everything, log_prior.to(slices.real), shifts.to(slices.real), self.shift_std_px, self.noise
        )


def slices_of(projector: Projector, volumes: Tensor, rotation: Tensor) -> Tensor:
    """Slices (K, J, pixels) of volumes (K, z, y, x)."""
    grid = projector.to_grid(volumes)
    parts = [projector.project(grid, part) for part in rotation.split(_ROTATIONS_PER_CALL)]
    return torch.cat(parts).movedim(2, 0).contiguous()


def images_at_once(grid: PoseGrid) -> int:
    """Number of images whose log joint probabilities fit into the memory that is meant for them."""
    return max(1, int(_LOG_JOINTS / (len(grid.slices) * len(grid.shift_px))))


def low_box(disk: HalfDisk) -> int:
    """Box of maps of a band, px, not so small that its edges of a few voxels are near the molecule."""
    return max(band_box(disk.shell_max, disk.box_size), min(_LEAST_BOX, disk.box_size))


def centred(volume: Tensor, along: Tensor) -> Tensor:
    """Move the centre of mass of a positive map to the centre of the box, along the axes (x, y, z) that are free.

    Parameters
    ----------
    volume : Tensor, shape (z, y, x)
    along : Tensor, shape (3,)
        1 along an axis that is free, 0 along others.
    """
    box_size, total = volume.shape[-1], float(volume.sum())
    if not total > 0:
        return volume
    place = torch.arange(box_size, dtype=volume.dtype, device=volume.device) - box_size // 2
    sums = (volume.sum(dim=(0, 1)), volume.sum(dim=(0, 2)), volume.sum(dim=(1, 2)))
    centre = [float(s @ place) / total * float(free) for s, free in zip(sums, along, strict=True)]
    frequency = place * (2 * torch.pi / box_size)
    half = torch.arange(box_size // 2 + 1, dtype=volume.dtype, device=volume.device) * (2 * torch.pi / box_size)
    angle = half * centre[0] + frequency[:, None] * centre[1] + frequency[:, None, None] * centre[2]
    return ft_to_volume(volume_to_ft(volume) * torch.polar(torch.ones_like(angle), angle), box_size)


def free_axes(operators: Tensor) -> Tensor:
    """Axes (x, y, z) along which a map of a point group may be moved: those that all operators leave as they are."""
    return (operators.mean(dim=0).diagonal() > 1 - 1e-9).double()
