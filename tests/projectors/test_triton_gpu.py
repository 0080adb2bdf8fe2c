"""What is special to Triton's kernels: tiles, order of images, copies of a grid, and that a card can have them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.projectors.torch_ref import TorchProjector
from solvar_engine.projectors.triton_cells import cell_of_pixel, steps_between_cells
from solvar_engine.projectors.triton_gpu import TritonProjector, order_by_direction
from solvar_engine.projectors.triton_tuning import Tiles, Tuning
from tests.imaging.closed_form import relative_error

ROOT = Path(__file__).resolve().parents[2]
BOX, IMAGES = 10, 3
DISK = HalfDisk.create(BOX)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

SMALL = Tiles(floats=16, pixels=32, warps=1)
SMALL_TILES = Tuning(SMALL, SMALL, SMALL, SMALL, SMALL, sort_from_bytes=0, private_bytes=0)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Problem:
    """Arguments of all that a projector does, for so many channels."""

    def __init__(self, channels: int) -> None:
        self.channels, self.columns = channels, max(1, channels - 1)
        self.volumes = noise(channels, BOX, BOX, BOX)
        self.rotation = random_rotations(IMAGES, torch.Generator().manual_seed(1))
        self.ctf = noise(IMAGES, len(DISK), seed=2)
        self.images = torch.complex(*noise(2, IMAGES, len(DISK), seed=3))
        self.coefficients = noise(IMAGES, channels + 1, self.columns, seed=4)
        half = noise(IMAGES, channels, channels, seed=5)
        self.moments = half @ half.mT

    def results(self, projector: TorchProjector | TritonProjector, device: str, kind: torch.dtype) -> list[Tensor]:
        rotation, ctf, coefficients, moments = (
            values.to(device, kind) for values in (self.rotation, self.ctf, self.coefficients, self.moments)
        )
        images = self.images.to(device, kind.to_complex())
        grid = projector.to_grid(self.volumes)
        slices, gram = projector.project_with_gram(grid, rotation, ctf, images)
        added, combined = projector.new_accumulator(self.channels), projector.new_accumulator(self.columns)
        projector.backproject(slices, rotation, added)
        projector.backproject_combination(slices, images, coefficients, rotation, ctf, combined)
        products = projector.pose_products(grid, rotation, ctf, images, coefficients[:, :-1, 0], moments)
        volumes = [projector.to_volumes(added), projector.to_volumes(combined)]
        return [values.cpu() for values in (projector.project(grid, rotation), slices, gram, *volumes, *products)]


@pytest.mark.parametrize("channels", [1, 2, 17, 64])
def test_any_number_of_channels_in_small_tiles(channels: int) -> None:
    """Several tiles of a program, several programs of an image, and more channels than products of one tile hold."""
    problem = Problem(channels)
    found = problem.results(TritonProjector(BOX, DISK, device=DEVICE, tuning=SMALL_TILES), DEVICE, torch.float32)
    expected = problem.results(TorchProjector(BOX, DISK, dtype=torch.float64), "cpu", torch.float64)
    for result, exact in zip(found, expected, strict=True):
        assert relative_error(result.numpy(), exact.numpy()) < 1e-5


def test_neighbours_in_the_order_are_seen_from_nearly_the_same_side() -> None:
    rotation = random_rotations(2000, torch.Generator().manual_seed(0))
    order = order_by_direction(rotation)
    assert torch.equal(order.sort().values, torch.arange(2000))
    direction = rotation[order][:, :, 2]
    cosine = (direction[1:] * direction[:-1]).sum(dim=1).abs().clamp(max=1)
    angle = torch.rad2deg(torch.acos(cosine))
    assert float(angle.median()) < 6 and float(angle.mean()) < 8  # of random ones: 60
    assert torch.equal(order, order_by_direction(rotation * torch.tensor([1.0, -1.0, -1.0])))


def test_small_grids_have_copies_into_which_images_are_added_in_turn() -> None:
    rotation = random_rotations(5, torch.Generator().manual_seed(0)).to(DEVICE)
    slices = torch.complex(*noise(2, 5, len(DISK), 2)).to(DEVICE)
    sums = []
    for tuning in (Tuning(most_copies=4), Tuning(private_bytes=0)):
        projector = TritonProjector(BOX, DISK, device=DEVICE, tuning=tuning)
        accumulator = projector.new_accumulator(2)
        projector.backproject(slices, rotation, accumulator)
        sums.append((accumulator, projector.merged(accumulator).cpu()))
    (copies, merged), (alone, expected) = sums
    assert copies.shape[0] == 4 and alone.shape[0] == 1
    assert bool((copies.abs().amax(dim=(1, 2, 3, 4)) > 0).all())
    assert relative_error(merged.numpy(), expected.numpy()) < 1e-6


def test_cells_are_padded_to_words_of_16_bytes() -> None:
    projector = TritonProjector(BOX, DISK, device=DEVICE)
    for cells in (projector.to_grid(noise(3, BOX, BOX, BOX)), projector.new_accumulator(3)):
        assert cells.shape[-1] == 3 and cells.stride(-2) == 4


def test_channels_that_do_not_lie_together_are_refused() -> None:
    projector = TritonProjector(BOX, DISK, device=DEVICE)
    grid = projector.to_grid(noise(2, BOX, BOX, BOX))
    apart = grid.movedim(-1, 0).contiguous().movedim(0, -1)
    with pytest.raises(TypeError, match="expected complex64 cells one after the other"):
        projector.project(apart, torch.eye(3, device=DEVICE)[None])


@triton.jit(do_not_specialize=("centre",))
def places(rotation, out, centre, FLOATS: tl.constexpr):
    pixel = tl.arange(0, 2)
    cell, _, _, _, _ = cell_of_pixel(rotation, 0, tl.zeros([2], tl.float32), pixel * 2000.0, centre, False)
    along_y, along_z = steps_between_cells(centre, FLOATS)
    tl.store(out + pixel, cell * FLOATS + along_y + along_z)


def test_places_on_grids_of_more_than_two_billion_floats_are_exact() -> None:
    looking_along_y = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]], device=DEVICE)
    out = torch.zeros(2, dtype=torch.int64, device=DEVICE)
    centre, floats = 2001, 24
    places[(1,)](looking_along_y, out, centre, FLOATS=floats)
    planes = (centre + 1, centre + 2001)
    expected = [((z * (2 * centre + 1) + centre + 1) * (centre + 1)) * floats for z in planes]
    assert out.tolist() == expected and max(expected) > 2**36


# --- the compiler of a card, without the card


@pytest.fixture(scope="module", params=[(90, 12), (80, 5)], ids=["sm90-12", "sm80-5"])
def compiled(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.projectors.compile_kernels", *map(str, request.param)]
    result = subprocess.run(
        command, cwd=ROOT, env={**kept, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout)


def test_every_kernel_compiles(compiled: list[dict[str, Any]]) -> None:
    four = ["read_slices", "read_slices", "add_slices", "add_combinations"]
    assert [kernel["kernel"] for kernel in compiled] == [*four, *four, "pose_products"]
    assert max(kernel["shared"] for kernel in compiled) < 48 * 1024


def test_kernels_keep_to_registers_and_wide_words(compiled: list[dict[str, Any]]) -> None:
    for kernel in compiled:
        name, ptx = kernel["kernel"], kernel["ptx"]
        assert ".local." not in ptx, f"{name} has arrays outside its registers"
        assert "tf32" not in ptx, name
        if name in ("read_slices", "pose_products"):
            assert "ld.global.v4.b32" in ptx, name
        if name.startswith("add"):
            added = set(re.findall(r"atom\S+", ptx)) | set(re.findall(r"red\.global\S+", ptx))
            assert added == {"atom.global.gpu.relaxed.add.f32"}, name
    sums = [kernel for kernel in compiled if "add.rn.f64" in kernel["ptx"] or "add.f64" in kernel["ptx"]]
    assert [kernel["kernel"] for kernel in sums] == ["read_slices", "read_slices", "pose_products"]
