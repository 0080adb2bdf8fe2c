"""What is special to the non-uniform transforms: their tolerance, their threads, and nothing between them and a sum."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import finufft
import numpy as np
import pytest
import torch
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.projectors import nufft
from solvar_engine.projectors.nufft import TOLERANCE, NufftProjector
from solvar_engine.projectors.nufft_gpu import GpuNufftProjector
from tests.imaging.closed_form import relative_error

CHANNELS = 3
IMAGES = 4


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def rotations(count: int = IMAGES) -> Tensor:
    return random_rotations(count, torch.Generator().manual_seed(1))


def direct_operator(disk: HalfDisk, rotation: Tensor, box_size: int) -> np.ndarray:
    """The slices as a matrix (images * pixels, voxels): the definition of the Fourier transform, in float64."""
    axis = np.arange(box_size) - box_size // 2
    z, y, x = (grid.ravel() for grid in np.meshgrid(axis, axis, axis, indexing="ij"))
    frequency = np.einsum("nij,pj->npi", rotation.double().numpy()[:, :, :2], disk.pixels.double().numpy())
    phase = frequency.reshape(-1, 3) @ np.stack([x, y, z])
    return np.exp(-2j * np.pi * phase / box_size) / box_size


@pytest.mark.parametrize("box_size", [15, 16])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9, 1e-12])
def test_slices_equal_the_direct_sum_to_the_tolerance(tolerance: float, box_size: int) -> None:
    disk, rotation, volumes = HalfDisk.create(box_size), rotations(), noise(CHANNELS, *[box_size] * 3)
    projector = NufftProjector(box_size, disk, tolerance=tolerance, dtype=torch.float64)
    found = projector.project(projector.to_grid(volumes), rotation)
    expected = direct_operator(disk, rotation, box_size) @ volumes.flatten(1).numpy().T
    error = relative_error(found.numpy(), expected.reshape(found.shape))
    assert error < 3 * tolerance  # FINUFFT aims at the tolerance and may miss it by a little
    assert error > 1e-3 * tolerance  # but it is what decides


@pytest.mark.parametrize("box_size", [15, 16])
def test_single_precision_reaches_its_tolerance(box_size: int) -> None:
    disk, rotation, volumes = HalfDisk.create(box_size), rotations(), noise(CHANNELS, *[box_size] * 3)
    projector = NufftProjector(box_size, disk)
    found = projector.project(projector.to_grid(volumes), rotation)
    assert found.dtype == torch.complex64
    expected = direct_operator(disk, rotation, box_size) @ volumes.flatten(1).numpy().T
    assert relative_error(found.numpy(), expected.reshape(found.shape)) < TOLERANCE


@pytest.mark.parametrize("box_size", [15, 16])
def test_back_projections_equal_the_direct_sum(box_size: int) -> None:
    disk, rotation = HalfDisk.create(box_size), rotations()
    slices = torch.complex(*noise(2, IMAGES, len(disk), CHANNELS))
    projector = NufftProjector(box_size, disk, tolerance=1e-10, dtype=torch.float64)
    accumulator = projector.new_accumulator(CHANNELS)
    projector.backproject(slices, rotation, accumulator)
    operator = direct_operator(disk, rotation, box_size)
    expected = (operator.conj().T @ slices.numpy().reshape(-1, CHANNELS)).real.T
    assert relative_error(projector.to_volumes(accumulator).flatten(1).numpy(), expected) < 3e-10


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_share_channels_and_images(threads: int, restored_threads: None) -> None:
    """Fewer threads than channels, as many, and more; seven images cannot be dealt evenly."""
    box_size, rotation = 12, rotations(7)
    disk = HalfDisk.create(box_size)
    volumes = noise(CHANNELS, *[box_size] * 3, dtype=torch.float32)
    slices = torch.complex(*noise(2, 7, len(disk), CHANNELS, dtype=torch.float32))

    def both() -> tuple[Tensor, Tensor]:
        projector = NufftProjector(box_size, disk)
        accumulator = projector.new_accumulator(CHANNELS)
        projector.backproject(slices, rotation, accumulator)
        return projector.project(projector.to_grid(volumes), rotation), projector.to_volumes(accumulator)

    torch.set_num_threads(1)
    alone = both()
    torch.set_num_threads(threads)
    shared, again = both(), both()
    for value, repeated, expected in zip(shared, again, alone, strict=True):
        assert torch.equal(value, repeated)
        assert relative_error(value.numpy(), expected.numpy()) < 1e-6


def test_back_projections_of_many_images_repeat_to_the_last_bit(restored_threads: None) -> None:
    """Threads that add to the same volume as they please would differ within a few attempts."""
    torch.set_num_threads(4)
    disk = HalfDisk.create(16)
    rotation = rotations(200)
    slices = torch.complex(*noise(2, 200, len(disk), 3, dtype=torch.float32))
    results = []
    for _ in range(5):
        projector = NufftProjector(16, disk)
        accumulator = projector.new_accumulator(3)
        projector.backproject(slices, rotation, accumulator)
        results.append(accumulator)
    assert all(torch.equal(result, results[0]) for result in results)


def test_threads_share_no_channel_whose_grids_would_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch, restored_threads: None
) -> None:
    torch.set_num_threads(6)
    running: list[int] = []
    in_threads = nufft._in_threads
    monkeypatch.setattr(
        nufft, "_in_threads", lambda work, parts: [running.append(len(parts)), in_threads(work, parts)][1]
    )
    projector = NufftProjector(16, HalfDisk.create(16))
    grid = projector.to_grid(noise(2, 16, 16, 16))
    projector.project(grid, rotations(7))
    monkeypatch.setattr(nufft, "_SHARED_GRIDS_BYTES", 8 * 32**3)
    projector.project(grid, rotations(7))
    assert running == [6, 2]


@pytest.mark.parametrize("tolerance", [0.0, -1e-6, 1.0, float("nan")])
def test_impossible_tolerances_are_refused(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance is"):
        NufftProjector(12, HalfDisk.create(12), tolerance=tolerance)


class PlanOnTheCpu(finufft.Plan):
    """What cuFINUFFT offers, of tensors, made by FINUFFT; as strict about types and memory."""

    def __init__(self, *arguments: Any, dtype: str, **options: Any) -> None:
        super().__init__(*arguments, dtype=dtype, nthreads=1, **options)
        self.type_of_points = torch.float32 if dtype == "complex64" else torch.float64

    def setpts(self, *points: Tensor) -> None:
        assert all(p.dim() == 1 and p.is_contiguous() and p.dtype == self.type_of_points for p in points)
        super().setpts(*(p.numpy() for p in points))

    def execute(self, data: Tensor) -> Tensor:
        assert data.is_contiguous() and data.dtype == self.type_of_points.to_complex()
        return torch.from_numpy(super().execute(data.numpy()))


@pytest.mark.parametrize("box_size", [11, 12])
def test_cufinufft_gives_what_finufft_gives(box_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = ModuleType("cufinufft")
    stand_in.Plan = PlanOnTheCpu  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cufinufft", stand_in)
    disk, rotation = HalfDisk.create(box_size), rotations()
    volumes, ctf = noise(CHANNELS, *[box_size] * 3, dtype=torch.float32), noise(IMAGES, len(disk)).float()
    moments = noise(IMAGES, CHANNELS, CHANNELS).float()
    results = []
    for projector in (NufftProjector(box_size, disk), GpuNufftProjector(box_size, disk, device="cpu")):
        grid, accumulator = projector.to_grid(volumes), projector.new_accumulator(CHANNELS)
        slices = projector.project(grid, rotation, ctf)
        projector.backproject(slices, rotation, accumulator, ctf)
        images = slices[..., 0].contiguous()
        products = projector.pose_products(grid, rotation, ctf, images, moments[:, 0], moments)
        sums = projector.convolution_sums()
        sums.add(images, images.abs().square().to(images.dtype), rotation)
        results.append((slices, projector.to_volumes(accumulator), *products, sums.right_side(), sums.kernel()))
        assert projector.project(grid, rotation[:0]).shape == (0, len(disk), CHANNELS)
    for found, expected in zip(*results, strict=True):
        assert relative_error(found.numpy(), expected.numpy()) < 1e-4
