"""The parts of `gpu.py` that are about kernels: their errors, their speed, and the sizes of their tiles.

A floor is the time that the bytes of a kernel need at the bandwidth of a plain copy on the same card. If no cell were
shared, each pixel would read (and write, where it adds) eight cells; if every cell were moved once in a call, the whole
grid. Caches bring kernels below the first floor, never below the second.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from benchmarks.common import table
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.projectors.base import Projector, images_per_call
from solvar_engine.projectors.torch_ref import TorchProjector
from solvar_engine.projectors.triton_gpu import TritonProjector
from solvar_engine.projectors.triton_tuning import DEFAULT_TUNING, Tiles, Tuning

CHANNELS = 12
CORNERS = 8
COMPLEX, REAL = 8, 4  # bytes
REPEATS = 7
ALLOWED_ERROR = 2e-5
ALLOWED_JUMPS = 0.002  # share of nearest cells on whose border rounding decides
TILES = (
    Tiles(512), Tiles(1024), Tiles(2048), Tiles(1024, warps=2), Tiles(2048, warps=8),
    Tiles(1024, pixels=128), Tiles(1024, pixels=512), Tiles(1024, stages=2),
)  # fmt: skip


class Inputs:
    """Arguments of all kernels: noise at random orientations."""

    def __init__(self, box_size: int, channels: int, images: int, device: str, dtype: torch.dtype) -> None:
        generator = torch.Generator(device).manual_seed(0)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device, dtype=torch.float32)

        self.disk = HalfDisk.create(box_size)
        pixels = len(self.disk)
        self.volumes = noise(channels, *[box_size] * 3)
        self.rotation = random_rotations(images, torch.Generator().manual_seed(0)).to(device)
        self.ctf = noise(images, pixels)
        self.images = torch.view_as_complex(noise(images, pixels, 2))
        self.coefficients = noise(images, channels + 1, channels - 1)
        self.mixture = noise(images, channels)
        half = noise(images, channels, channels)
        self.moments = half @ half.mT
        if dtype == torch.float64:
            for name in ("volumes", "ctf", "coefficients", "mixture", "moments"):
                setattr(self, name, getattr(self, name).double())
            self.images = self.images.to(torch.complex128)


# ---------------------------------------------------------------- a: conformance


def conformance(device: str, is_full: bool) -> str:
    """Table of relative errors against the reference in float64, on the same device."""
    boxes = (64, 128, 129) if is_full else (8, 9)
    rows = []
    for box_size in boxes:
        for interpolation in ("trilinear", "nearest"):
            found = _results(box_size, interpolation, device, torch.float32)
            exact = _results(box_size, interpolation, device, torch.float64)
            errors = {name: _relative_error(found[name], exact[name]) for name in found}
            jumps = _share_of_jumps(found["slices"], exact["slices"])
            if interpolation == "trilinear":
                good = max(errors.values()) < ALLOWED_ERROR
            else:
                good = errors["adjoint"] < ALLOWED_ERROR and jumps < ALLOWED_JUMPS
            shown = (f"{errors[name]:.1e}" if name in errors else "-" for name in QUANTITIES)
            rows.append([box_size, interpolation, *shown, f"{jumps:.1e}", "yes" if good else "NO"])
    header = ["box", "interpolation", *QUANTITIES, "share of other cells", "within limits"]
    return f"Errors relative to float64, {device}:\n\n{table(header, rows)}"


QUANTITIES = ("slices", "gram", "adjoint", "back-projection", "combination", "pose products", "turn")


def _results(box_size: int, interpolation: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    channels, images = 3, 16 if device == "cuda" else 3
    inputs = Inputs(box_size, channels, images, device, dtype)
    projector: Projector
    if dtype == torch.float32:
        projector = TritonProjector(box_size, inputs.disk, interpolation=interpolation, device=device)
    else:
        projector = TorchProjector(box_size, inputs.disk, interpolation=interpolation, device=device, dtype=dtype)
    grid = projector.to_grid(inputs.volumes)
    slices, gram = projector.project_with_gram(grid, inputs.rotation, inputs.ctf, inputs.images)
    added, combined = projector.new_accumulator(channels), projector.new_accumulator(channels - 1)
    projector.backproject(slices, inputs.rotation, added, inputs.ctf)
    arguments = (slices, inputs.images, inputs.coefficients, inputs.rotation, inputs.ctf, combined)
    projector.backproject_combination(*arguments)
    back = projector.to_volumes(added)
    # <P v, P v> and <v, P* P v>, which is 1 if the two operators are adjoint
    adjoint = (inputs.volumes.double() * back.double()).sum() / slices.abs().double().square().sum()
    results = {
        "slices": slices,
        "gram": gram,
        "adjoint": adjoint[None],
        "back-projection": back,
        "combination": projector.to_volumes(combined),
    }
    if interpolation == "trilinear":
        results["pose products"], results["turn"] = projector.pose_products(
            grid, inputs.rotation, inputs.ctf, inputs.images, inputs.mixture, inputs.moments
        )
    return results


def _relative_error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).abs().double().norm() / exact.abs().double().norm())


def _share_of_jumps(found: Tensor, exact: Tensor) -> float:
    return float(((found - exact).abs() > 1e-4 * exact.abs().max()).double().mean())


# ---------------------------------------------------------------- b: speed


@dataclass(frozen=True)
class Kernel:
    """A call of the projector, and the bytes of an image that it moves beside the cells of the grid."""

    name: str
    call: Callable[[], object]
    cell_bytes: float
    other_bytes: float


def kernel_speed(device: str, is_full: bool) -> str:
    """Table of times an image against both floors."""
    bandwidth = copy_bandwidth(device, is_full)
    rows = []
    for box_size in (64, 128, 256) if is_full else (8,):
        projector = TritonProjector(box_size, HalfDisk.create(box_size), device=device)
        images = images_per_call(projector, CHANNELS) if is_full else 2
        inputs = Inputs(box_size, CHANNELS, images, device, torch.float32)
        grid_bytes = projector.grid_bytes(CHANNELS) / images
        for kernel in _kernels(projector, inputs):
            taken = seconds(kernel.call, device) / images
            unshared = (kernel.cell_bytes + kernel.other_bytes) / bandwidth
            moves = kernel.cell_bytes / (CORNERS * COMPLEX * CHANNELS * len(inputs.disk))
            once = (moves * grid_bytes + kernel.other_bytes) / bandwidth
            rows.append(
                [box_size, kernel.name, images, *(f"{1e6 * value:.2f}" for value in (taken, unshared)),
                 f"{taken / unshared:.2f}", f"{1e6 * once:.2f}", f"{taken / once:.1f}"]
            )  # fmt: skip
        rows += _transforms(projector, inputs, device)
        rows += _competitor(box_size, inputs, device)
    header = ["box", "kernel", "images a call", "us an image", "floor, no cell shared, us", "times that",
              "floor, each cell once, us", "times that"]  # fmt: skip
    return (
        f"{CHANNELS} channels, oversampling 2, trilinear; a plain copy moves {bandwidth / 1e9:.0f} GB/s "
        f"(read and written); median of {REPEATS}.\n\n{table(header, rows)}"
    )


def _kernels(projector: TritonProjector, inputs: Inputs) -> Iterator[Kernel]:
    grid = projector.to_grid(inputs.volumes)
    rotation, ctf, images = inputs.rotation, inputs.ctf, inputs.images
    pixels = len(inputs.disk)
    cells, slices_bytes = CORNERS * COMPLEX * CHANNELS * pixels, COMPLEX * CHANNELS * pixels
    image_bytes, ctf_bytes = COMPLEX * pixels, REAL * pixels
    yield Kernel(
        "read", lambda: projector.project(grid, rotation, ctf), cells, slices_bytes + ctf_bytes
    )
    yield Kernel(
        "read_with_gram",
        lambda: projector.project_with_gram(grid, rotation, ctf, images),
        cells,
        slices_bytes + image_bytes + ctf_bytes,
    )
    yield Kernel(
        "pose_products",
        lambda: projector.pose_products(grid, rotation, ctf, images, inputs.mixture, inputs.moments),
        cells,
        image_bytes + ctf_bytes,
    )
    slices = projector.project(grid, rotation, ctf)
    out, fewer = projector.new_accumulator(CHANNELS), projector.new_accumulator(CHANNELS - 1)
    yield Kernel(
        "add", lambda: projector.backproject(slices, rotation, out, ctf), 2 * cells, slices_bytes + ctf_bytes
    )
    yield Kernel(
        "add_combinations",
        lambda: projector.backproject_combination(slices, images, inputs.coefficients, rotation, ctf, fewer),
        2 * cells * (CHANNELS - 1) / CHANNELS,
        slices_bytes + image_bytes + ctf_bytes,
    )


def _transforms(projector: TritonProjector, inputs: Inputs, device: str) -> list[list[object]]:
    accumulator = projector.new_accumulator(CHANNELS)
    calls = {
        "to_grid": lambda: projector.to_grid(inputs.volumes), "to_volumes": lambda: projector.to_volumes(accumulator)
    }  # fmt: skip
    return [
        [projector.box_size, name, "-", f"{1e6 * seconds(call, device):.0f} a call", *["-"] * 4]
        for name, call in calls.items()
    ]


def _competitor(box_size: int, inputs: Inputs, device: str) -> list[list[object]]:
    """Rows of torch-projectors: the same volumes and rotations, without Gram matrices and combinations."""
    try:
        import torch_projectors
    except (ImportError, OSError, RuntimeError):
        return []
    size = 2 * box_size
    volumes = torch.zeros(CHANNELS, size, size, size // 2 + 1, dtype=torch.complex64, device=device)
    rotation, rows = inputs.rotation[None].contiguous(), []
    images = rotation.shape[1]
    projections = torch.zeros(CHANNELS, images, box_size, box_size // 2 + 1, dtype=torch.complex64, device=device)
    options = {"interpolation": "linear", "oversampling": 2.0}
    for name, call in (
        ("torch-projectors, slices",
         lambda: torch_projectors.project_3d_to_2d_forw(volumes, rotation, output_shape=(box_size,) * 2, **options)),
        ("torch-projectors, back-projections",
         lambda: torch_projectors.project_3d_to_2d_back(projections, volumes, rotation, **options)),
    ):  # fmt: skip
        try:
            shown = f"{1e6 * seconds(call, device) / images:.2f}"
        except (RuntimeError, ValueError, TypeError) as error:
            shown = f"failed: {str(error).splitlines()[0]}"
        rows.append([box_size, name, images, shown, *["-"] * 4])
    return rows


def copy_bandwidth(device: str, is_full: bool) -> float:
    """Bytes a second, read and written, of a plain copy."""
    source = torch.ones(2**28 if is_full else 2**20, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * REAL / seconds(lambda: target.copy_(source), device)


def seconds(call: Callable[[], object], device: str) -> float:
    """Median time of a call, after one that compiles what it needs."""
    call()
    taken = []
    for _ in range(REPEATS if device == "cuda" else 1):
        _finish(device)
        start = time.perf_counter()
        call()
        _finish(device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


# ---------------------------------------------------------------- t: tiles


def tile_speed(device: str, is_full: bool) -> str:
    """Table of times of each kernel for several tiles, and of back-projections sorted and in copies."""
    box_size = 128 if is_full else 8
    disk = HalfDisk.create(box_size)
    images = images_per_call(TritonProjector(box_size, disk, device=device), CHANNELS) if is_full else 2
    inputs = Inputs(box_size, CHANNELS, images, device, torch.float32)
    names = [field.name for field in fields(Tuning) if isinstance(getattr(DEFAULT_TUNING, field.name), Tiles)]
    choices = [(str(tiles).removeprefix("Tiles"), replace(DEFAULT_TUNING, **dict.fromkeys(names, tiles)))
               for tiles in (TILES if is_full else TILES[:1])]  # fmt: skip
    choices += [("sorted", replace(DEFAULT_TUNING, sort_from_bytes=0.0)),
                ("not sorted", replace(DEFAULT_TUNING, sort_from_bytes=float("inf")))]  # fmt: skip
    rows = [_times(name, box_size, inputs, tuning, device) for name, tuning in choices]
    low = min(32, box_size)
    few = Inputs(low, CHANNELS, images, device, torch.float32)
    for copies in (1, 2, 4, 8):
        tuning = replace(DEFAULT_TUNING, private_bytes=float("inf"), most_copies=copies)
        rows.append(_times(f"box {low}, {copies} copies", low, few, tuning, device))
    return f"Microseconds an image, box {box_size}, {CHANNELS} channels:\n\n{table(['tiles', *names], rows)}"


def _times(name: str, box_size: int, inputs: Inputs, tuning: Tuning, device: str) -> list[object]:
    projector = TritonProjector(box_size, inputs.disk, device=device, tuning=tuning)
    images = inputs.rotation.shape[0]
    taken = {kernel.name: seconds(kernel.call, device) for kernel in _kernels(projector, inputs)}
    order = ("read", "read_with_gram", "add", "add_combinations", "pose_products")
    return [name, *(f"{1e6 * taken[kernel] / images:.2f}" for kernel in order)]
