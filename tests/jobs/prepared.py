"""Particles as a fit has them, in memory, from images that are known in closed form."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import torch
from torch import Tensor

from solvar_engine.data.stream import PreparedParticles
from solvar_engine.imaging.fourier import HalfDisk, images_to_disk
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.imaging.types import Ctf, Pose
from tests.reconstruction.simulated import LinearPhantom, MemorySource, noise

PIXEL_SIZE = 3.0


def full_contrast(count: int) -> Ctf:
    """Transfer functions that are one everywhere: all amplitude contrast, no defocus, no aberration."""
    nothing, one = torch.zeros(count), torch.ones(count)
    return Ctf(nothing, nothing, nothing, 300 * one, nothing, one, nothing, nothing, one, one < 0)


def particles_of(phantom: LinearPhantom, z: Tensor, box_size: int, **changes: Any) -> PreparedParticles:
    """Images of the states z (n, r) in white noise of unit variance, seen from everywhere; fields may be replaced."""
    count, disk = len(z), HalfDisk.create(box_size)
    rotation = random_rotations(count, torch.Generator().manual_seed(1))
    white = images_to_disk(noise(count, box_size, box_size, seed=2), disk)
    fields: dict[str, Any] = {
        "coefficients": phantom.slices(z, rotation, disk) + white,
        "disk": disk,
        "box_size": box_size,
        "pixel_size": PIXEL_SIZE,
        "pose": Pose(rotation, torch.zeros(count, 2)),
        "ctf": full_contrast(count),
        "group": torch.zeros(count, dtype=torch.int64),
        "frequency_ratio": torch.ones(1),
        "input_box": box_size,
        "noise_variance": torch.ones(1, disk.shell_max + 1),
        "image_scale": torch.ones(count),
        "sign": 1.0,
    }
    return PreparedParticles(**{**fields, **changes})


def in_memory(source: PreparedParticles) -> MemorySource:
    """Return the same particles as the dense models take them: all in one batch."""
    (batch,) = source.batches(torch.arange(len(source)), source.disk, len(source))
    return MemorySource(batch.images, batch.ctf, batch.rotation, batch.contrast, source.disk, source.box_size)


def silent_progress() -> Mock:
    """Progress that nobody sees."""
    return Mock(step=0)
