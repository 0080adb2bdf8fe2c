"""Compile all kernels for a GPU that need not be there, and print what they became; a program of its own.

    python -m tests.projectors.compile_kernels CAPABILITY CHANNELS

Triton's interpreter accepts more than its compiler does. Here the projector runs as always, on tensors of the CPU, up
to the launch of each kernel, in whose place it is compiled to machine code for the card.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors import triton_gpu
from solvar_engine.projectors.triton_gpu import TritonProjector

BOX, IMAGES = 8, 4


class AbsentCard:
    """What the compiler asks a driver for."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_all(channels: int) -> list[dict[str, Any]]:
    compiled: list[dict[str, Any]] = []

    def compile_only(kernel: Any, blocks: tuple[int, ...], *arrays: Tensor, **numbers: int) -> None:
        found = kernel.warmup(*arrays, grid=blocks, **numbers)
        compiled.append({"kernel": kernel.__name__, "ptx": found.asm["ptx"], "shared": found.metadata.shared})

    triton_gpu.run = compile_only
    disk = HalfDisk.create(BOX)
    rotation, ctf = torch.eye(3).expand(IMAGES, 3, 3), torch.zeros(IMAGES, len(disk))
    images, columns = ctf.to(torch.complex64), max(1, channels - 1)
    for interpolation in ("trilinear", "nearest"):
        projector = TritonProjector(BOX, disk, interpolation=interpolation, device="cpu")
        grid = projector.to_grid(torch.zeros(channels, BOX, BOX, BOX))
        slices = projector.project(grid, rotation)
        projector.project_with_gram(grid, rotation, ctf, images)
        projector.backproject(slices, rotation, projector.new_accumulator(channels), ctf)
        coefficients = torch.zeros(IMAGES, channels + 1, columns)
        sums = projector.new_accumulator(columns)
        projector.backproject_combination(slices, images, coefficients, rotation, ctf, sums)
    projector = TritonProjector(BOX, disk, device="cpu")
    moments = torch.zeros(IMAGES, channels, channels)
    grid = projector.to_grid(torch.zeros(channels, BOX, BOX, BOX))
    projector.pose_products(grid, rotation, ctf, images, moments[:, 0], moments)
    return compiled


if __name__ == "__main__":
    driver.set_active(AbsentCard(int(sys.argv[1])))
    json.dump(compile_all(int(sys.argv[2])), sys.stdout)
