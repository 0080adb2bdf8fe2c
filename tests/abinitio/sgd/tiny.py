"""A few images in double precision, of a map of a few blobs, and few poses: all sums can be done at length."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import LowImages
from solvar_engine.abinitio.sgd.importance import PoseSamples, Samples
from solvar_engine.abinitio.sgd.quadrature import Quadrature
from solvar_engine.imaging.fourier import HalfDisk, shift_phases
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.projectors.base import Projector
from solvar_engine.projectors.torch_ref import TorchProjector

BOX = 16


def tiny_projector() -> TorchProjector:
    return TorchProjector(BOX, HalfDisk.create(BOX, 4), interpolation="trilinear", oversampling=2, dtype=torch.float64)


def tiny_quadrature() -> Quadrature:
    """24 directions, 8 angles, 13 shifts."""
    return Quadrature.for_shell(3, BOX, 1.0)


def everything(quadrature: Quadrature) -> PoseSamples:
    first, second, third = (Samples.all_of(size) for size in quadrature.sizes)
    return first, second, third


def blobs(box_size: int) -> Tensor:
    """Map without symmetry, (z, y, x), float64."""
    axis = (torch.arange(box_size, dtype=torch.float64) - box_size // 2) / box_size
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    volume = torch.zeros(box_size, box_size, box_size, dtype=torch.float64)
    for strength, place in ((1.0, (0.2, 0.0, 0.05)), (0.7, (-0.1, 0.15, 0.0)), (0.5, (0.0, -0.1, -0.2))):
        distance = (x - place[0]).square() + (y - place[1]).square() + (z - place[2]).square()
        volume += strength * (-distance / (2 * 0.07**2)).exp()
    return volume


def tiny_images(
    count: int, *, signal: float = 1.0, projector: Projector | None = None
) -> tuple[Projector, Tensor, LowImages]:
    """Projector, map (z, y, x) and images with white noise; ``signal`` is the standard deviation of a coefficient."""
    projector = tiny_projector() if projector is None else projector
    generator, disk = torch.Generator().manual_seed(2), projector.disk
    volume = blobs(projector.box_size)
    rotation = random_rotations(count, generator)
    slices = projector.project(projector.to_grid(volume[None]), rotation)[:, :, 0]
    scale = signal / float(slices.abs().square().mean()) ** 0.5
    ctf = 0.5 + torch.rand(count, len(disk), dtype=torch.float64, generator=generator)
    shift = 0.7 * torch.randn(count, 2, dtype=torch.float64, generator=generator)
    noise = torch.randn(count, len(disk), 2, dtype=torch.float64, generator=generator) / 2**0.5
    images = scale * slices * ctf * shift_phases(disk, -shift, disk.box_size) + torch.view_as_complex(noise)
    return projector, scale * volume, LowImages(disk, images, ctf)
