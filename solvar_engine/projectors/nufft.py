"""Slices by the non-uniform fast Fourier transform (FINUFFT): as exact as asked for, and no grid to prepare.

A slice is the volume's transform at the rotated pixels, evaluated directly: a transform of type 2 (Barnett, Magland &
af Klinteberg, SIAM J. Sci. Comput. 2019). Its adjoint is a transform of type 1 with the same kernel, so the pair is
adjoint to rounding at every tolerance.

Every call transforms all volumes anew, whatever the number of images: hand over many images at once.

Each thread works alone on its own channels (on its own images, too, where there are more threads than channels), with
plans of one thread. FINUFFT's own threads add up what they spread in the order in which they happen to finish, and two
runs would not give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk, nyquist_shell
from solvar_engine.projectors.base import Projector
from solvar_engine.projectors.checks import check_volumes

TOLERANCE = 1e-5
"""Relative error of the slices; single precision allows little less."""

_CHUNK_BYTES = 64_000_000
_BUFFER_BYTES = 400e6  # of plans and chunks; measured
_KERNEL_TOLERANCE = 1e-4  # of the kernel of a convolution: more would cost much memory
_SHARED_GRIDS_BYTES = 512_000_000  # FINUFFT's internal grids of threads that share a channel, at most
_COARSE_TOLERANCE = 1e-4  # from here on a smaller internal grid is enough
FROM_VOLUME, TO_VOLUME = 2, 1  # FINUFFT's types

T = TypeVar("T")


class NufftProjector(Projector):
    """Slices on the CPU to a given tolerance; see :class:`~.base.Projector`.

    The "grid" is the volumes themselves, and so is the accumulator.

    Parameters
    ----------
    box_size : int
    disk : HalfDisk
    tolerance : float
        Relative error of the slices.
    dtype : torch.dtype
        Real type of the volumes: float64 computes in double precision.
    device : torch.device or str
        The CPU; another one for what derives from this.
    """

    chunk_bytes = _CHUNK_BYTES
    buffer_bytes = _BUFFER_BYTES

    def __init__(
        self,
        box_size: int,
        disk: HalfDisk,
        *,
        tolerance: float = TOLERANCE,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if disk.shell_max > nyquist_shell(box_size):
            raise ValueError(f"shell {disk.shell_max} lies beyond Nyquist of a box of {box_size} px")
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance is {tolerance}, expected a number between 0 and 1")
        super().__init__(box_size, disk, device=device, dtype=dtype)
        self._tolerance = tolerance
        # given to FINUFFT, because both types must use the same kernel
        self._upsampling = 1.25 if tolerance >= _COARSE_TOLERANCE else 2.0
        self._pixels = disk.pixels.to(self._device, torch.float64) * (2 * math.pi / box_size)

    def new_accumulator(self, channels: int) -> Tensor:
        """See :meth:`~.base.Projector.new_accumulator`."""
        return torch.zeros(channels, *(self.box_size,) * 3, dtype=self._dtype, device=self._device)

    def grid_bytes(self, channels: int) -> float:
        """See :meth:`~.base.Projector.grid_bytes`."""
        return float(self._dtype.itemsize * channels * self.box_size**3)

    def accumulator_bytes(self, channels: int, threads: int) -> float:
        """See :meth:`~.base.Projector.accumulator_bytes`; volumes to add and their sum."""
        return 2 * self.grid_bytes(channels)

    def convolution_sums(self) -> NufftConvolutionSums:
        """See :meth:`~.base.Projector.convolution_sums`."""
        return NufftConvolutionSums(self)

    def _to_grid(self, volumes: Tensor) -> Tensor:
        return volumes / self.box_size

    def _to_volumes(self, merged: Tensor) -> Tensor:
        return merged / self.box_size

    def _check_grid(self, name: str, grid: Tensor) -> None:
        check_volumes(name, grid, self.box_size)

    def _channels(self, grid: Tensor) -> int:
        return int(grid.shape[0])

    def _read(self, grid: Tensor, rotation: Tensor, ctf: Tensor | None) -> Tensor:
        count, channels = rotation.shape[0], grid.shape[0]
        points, volumes = self._points(rotation).numpy(), grid.numpy()
        found = torch.empty(channels, count, len(self.disk), dtype=self._dtype.to_complex())
        values = found.numpy()

        def evaluate(part: _Part) -> None:
            transform = self._transform(FROM_VOLUME, points[:, part.images])
            for channel in part.channels:
                transform(volumes[channel].astype(values.dtype), out=values[channel, part.images].reshape(-1))

        _in_threads(evaluate, self._parts(channels, count))
        slices = found.permute(1, 2, 0).contiguous()
        return slices if ctf is None else slices * ctf[..., None]

    def _add(self, slices: Tensor, rotation: Tensor, ctf: Tensor | None, out: Tensor) -> None:
        count, channels = rotation.shape[0], out.shape[0]
        scaled = slices if ctf is None else slices * ctf[..., None]
        values = scaled.permute(2, 0, 1).to(self._dtype.to_complex()).contiguous().numpy()
        points = self._points(rotation).numpy()

        def spread(part: _Part) -> list[np.ndarray]:
            transform = self._transform(TO_VOLUME, points[:, part.images])
            return [transform(values[channel, part.images].reshape(-1)).real.copy() for channel in part.channels]

        parts = self._parts(channels, count)
        for part, volumes in zip(parts, _in_threads(spread, parts), strict=True):
            for channel, volume in zip(part.channels, volumes, strict=True):
                out[channel] += torch.from_numpy(volume)

    def _read_with_slopes(self, grid: Tensor, rotation: Tensor, ctf: Tensor) -> tuple[Tensor, Tensor]:
        # slopes are the transforms of the volumes times x, y and z
        place = torch.arange(self.box_size, dtype=grid.dtype, device=grid.device) - self.box_size // 2
        moved = torch.cat((grid, grid * place, grid * place[:, None], grid * place[:, None, None]))
        slices, *along = self._read(moved, rotation, ctf).split(grid.shape[0], dim=-1)
        return slices, torch.stack(along, dim=-1) * (-2j * math.pi / self.box_size)

    def _points(self, rotation: Tensor) -> Tensor:
        """Angles (z, y, x) of every pixel at each rotation, radians: (3, n, pixels)."""
        xyz = torch.einsum("nij,pj->inp", rotation.to(self._pixels)[:, :, :2], self._pixels)
        return xyz.flip(0).to(self._dtype).contiguous()

    def _parts(self, channels: int, images: int) -> list[_Part]:
        """Deal channels to the threads, and images, too, if there are more threads than channels."""
        threads = torch.get_num_threads()
        grid_bytes = self._dtype.to_complex().itemsize * (self._upsampling * self.box_size) ** 3
        sharing = min(threads // max(1, channels), int(_SHARED_GRIDS_BYTES / grid_bytes))
        return [
            _Part(some_channels, slice(some_images.start, some_images.stop))
            for some_channels in _split(channels, threads)
            for some_images in _split(images, max(1, sharing))
        ]

    def _transform(self, kind: int, points: np.ndarray) -> Callable[..., np.ndarray]:
        """Plan of one thread with its points (3, n, pixels) sorted: called with the data of one channel."""
        import finufft

        plan = finufft.Plan(
            kind,
            (self.box_size,) * 3,
            eps=self._tolerance,
            isign=-1 if kind == FROM_VOLUME else 1,
            dtype="complex128" if self._dtype == torch.float64 else "complex64",
            nthreads=1,
            upsampfac=self._upsampling,
        )
        plan.setpts(*points.reshape(3, -1))
        return plan.execute


class NufftConvolutionSums:
    """Sums in real space: there is no grid, so the kernel is back-projected to twice the box by itself."""

    def __init__(self, projector: NufftProjector) -> None:
        disk = projector.disk
        doubled = HalfDisk(2 * projector.box_size, 2 * disk.shell_max, 2 * disk.pixels, disk.weight, 2 * disk.shell)
        self._projector = projector
        self._doubled = type(projector)(
            doubled.box_size, doubled, tolerance=_KERNEL_TOLERANCE, device=projector._device
        )
        self._right_side = self._projector.new_accumulator(1)
        self._kernel = self._doubled.new_accumulator(1)

    def add(self, images: Tensor, power: Tensor, rotation: Tensor) -> None:
        """See :meth:`~.base.ConvolutionSums.add`."""
        self._projector.backproject(images[..., None], rotation, self._right_side)
        self._doubled.backproject(power[..., None], rotation, self._kernel)

    def right_side(self) -> Tensor:
        """See :meth:`~.base.ConvolutionSums.right_side`."""
        return self._projector.to_volumes(self._right_side)[0]

    def kernel(self) -> Tensor:
        """See :meth:`~.base.ConvolutionSums.kernel`."""
        return self._doubled.to_volumes(self._kernel)[0]


@dataclass(frozen=True)
class _Part:
    """What one thread works on."""

    channels: range
    images: slice


def _split(count: int, parts: int) -> list[range]:
    """Cut the numbers 0 ... count - 1 into at most so many runs of nearly equal length, none of them empty."""
    parts = min(parts, count)
    return [range(count * part // parts, count * (part + 1) // parts) for part in range(parts)]


def _in_threads(work: Callable[[_Part], T], parts: list[_Part]) -> list[T]:
    """Results in the order of the parts; FINUFFT lets other Python threads run meanwhile."""
    if len(parts) <= 1:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(work, parts))
