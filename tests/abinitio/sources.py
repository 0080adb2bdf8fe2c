"""Small particle sets in memory whose poses are to be found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from solvar_engine.distributed.world import ALONE, World
from solvar_engine.imaging.fourier import HalfDisk, images_to_disk, shift_phases
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.imaging.types import Batch, Ctf, Pose
from tests.reconstruction.simulated import LinearPhantom, random_ctf

BOX, PIXEL_SIZE = 32, 4.0


@dataclass(frozen=True)
class PoselessSource:
    """Whitened images in memory that follow their poses, as `ParticleSource` asks for."""

    images: Tensor
    transfer: Tensor
    pose: Pose
    contrast: Tensor
    sign: float = 1.0
    disk: HalfDisk = field(default_factory=lambda: HalfDisk.create(BOX))
    box_size: int = BOX
    pixel_size: float = PIXEL_SIZE
    world: World = ALONE

    def __len__(self) -> int:
        return len(self.images)

    def with_pose(self, pose: Pose) -> PoselessSource:
        return replace(self, pose=pose)

    def with_contrast(self, contrast: Tensor) -> PoselessSource:
        return replace(self, contrast=contrast)

    def with_sign(self, sign: float) -> PoselessSource:
        return replace(self, sign=sign)

    def batches(self, index: Tensor, disk: HalfDisk, batch_size: int) -> Iterator[Batch]:
        for rows in index.split(batch_size) if len(index) else ():
            phases = shift_phases(disk, self.pose.shift[rows] / self.pixel_size, self.box_size)
            images = self.images[rows, : len(disk)] * phases
            ctf = self.sign * self.transfer[rows, : len(disk)]
            yield Batch(images, ctf, self.pose.rotation[rows], self.contrast[rows], rows)

    # of no use to a search without poses
    group: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    noise_variance: Tensor = field(default_factory=lambda: torch.zeros(0))

    def with_noise(self, noise_variance: Tensor) -> PoselessSource:
        raise AssertionError("the noise is white")

    @property
    def ctf(self) -> Ctf:
        raise AssertionError("the transfer functions are known")

    def with_odd_aberrations(self) -> PoselessSource:
        raise AssertionError("there are none")

    def with_ctf(self, ctf: Ctf) -> PoselessSource:
        raise AssertionError("the transfer functions are known")


def simulated(
    count: int, *, signal: float, shift_px: float = 0.7, rotation: Tensor | None = None, seed: int = 1
) -> tuple[PoselessSource, Pose, Tensor]:
    """Images of a phantom, whose projections have the standard deviation ``signal`` beside white noise of 1.

    Returns the source, the true poses and the true volume.
    """
    generator = torch.Generator().manual_seed(seed)
    disk = HalfDisk.create(BOX)
    phantom = LinearPhantom.create(0, sigma=0.045)
    rotation = random_rotations(count, generator) if rotation is None else rotation
    shift = shift_px * PIXEL_SIZE * torch.randn(count, 2, generator=generator)
    none = torch.zeros(count, 0)
    power = phantom.slices(none[:100], rotation[:100], disk).abs().square() @ disk.weight
    deviation = float(power.mean()) ** 0.5 / BOX
    phantom = phantom.scaled(signal / deviation)
    transfer = random_ctf(count, disk, generator)
    phases = shift_phases(disk, -shift / PIXEL_SIZE, BOX)  # shifts centre the images
    white = images_to_disk(torch.randn(count, BOX, BOX, generator=generator), disk)
    images = phantom.slices(none, rotation, disk) * transfer * phases + white
    nowhere = Pose(torch.eye(3).expand(count, 3, 3).contiguous(), torch.zeros(count, 2))
    return PoselessSource(images, transfer, nowhere, torch.ones(count)), Pose(rotation, shift), phantom.mean(BOX)
