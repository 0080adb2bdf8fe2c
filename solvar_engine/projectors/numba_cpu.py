"""Fused projection kernels for CPUs: coordinates, weights, read or scatter and Friedel flip in one loop.

Channels lie last, so that the corners of an interpolation are contiguous runs of all channels' real and imaginary
parts.

Threads that add into a grid at the same time share it by slabs of planes: each goes through all pixels, which costs a
rotation of their coordinates, and adds those corners that lie in its slab. With few channels the rotation would cost
more than the adding, and threads form groups that have a grid of their own, with the images dealt to groups by their
number. Sums come out the same to the last bit at equal thread counts.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors.checks import check_derivatives_exist
from solvar_engine.projectors.combinations import phase_slope
from solvar_engine.projectors.grid_projector import GridProjector
from solvar_engine.projectors.numba_cells import compiled, corner_weights, place, prefetch_ahead
from solvar_engine.projectors.numba_poses import pose_products_trilinear


class NumbaProjector(GridProjector):
    """Fast slices on the CPU in float32; see :class:`~.grid_projector.GridProjector`.

    Parameters
    ----------
    box_size : int
    disk : HalfDisk
    interpolation : {'trilinear', 'nearest'}
    oversampling : int
    """

    def __init__(
        self, box_size: int, disk: HalfDisk, *, interpolation: str = "trilinear", oversampling: int = 2
    ) -> None:
        super().__init__(box_size, disk, interpolation=interpolation, oversampling=oversampling)
        self._pixels, self._weights = _float_array(self._cells), _float_array(self._weight)
        nearest = interpolation == "nearest"
        self._read_kernel = _project_nearest if nearest else _project_trilinear
        self._add_kernel = _backproject_nearest if nearest else _backproject_trilinear

    def new_accumulator(self, channels: int) -> Tensor:
        """See :meth:`~.base.Projector.new_accumulator`; one grid per group of threads."""
        groups = _groups(numba.get_num_threads(), channels)
        return torch.zeros((groups, *self._geometry.shape(channels)), dtype=torch.complex64)

    def accumulator_bytes(self, channels: int, threads: int) -> float:
        """See :meth:`~.base.Projector.accumulator_bytes`."""
        return (_groups(threads, channels) + 1) * self.grid_bytes(channels)

    def merged(self, accumulator: Tensor) -> Tensor:
        """See :meth:`~.base.Projector.merged`."""
        return accumulator[0] if accumulator.shape[0] == 1 else accumulator.sum(dim=0)

    def _read(self, grid: Tensor, rotation: Tensor, ctf: Tensor | None) -> Tensor:
        out = torch.empty(rotation.shape[0], len(self.disk), grid.shape[-1], dtype=torch.complex64)
        self._read_kernel(
            _real_array(grid),
            _float_array(rotation),
            self._pixels,
            _array_or_none(ctf),
            self._geometry.centre,
            _real_array(out),
        )
        return out

    def _add(self, slices: Tensor, rotation: Tensor, ctf: Tensor | None, out: Tensor) -> None:
        self._add_kernel(
            _real_array(slices),
            _float_array(rotation),
            self._pixels,
            _array_or_none(ctf),
            self._geometry.centre,
            self._slab_edges(slabs_per_grid(numba.get_num_threads(), out.shape[-1])),
            _real_array(out),
        )

    def _slab_edges(self, slabs: int) -> np.ndarray:
        """First plane of each slab and, last, the end of the grid: slabs that equally many pixels fall into.

        Over random rotations the pixels of a disk spread over z like the density 1 - |z| of a triangle.
        """
        depth = self._geometry.shape(1)[0]
        share = np.arange(1, slabs) / slabs
        tail = 1 - np.sqrt(2 * np.minimum(share, 1 - share))
        radius = depth - 1 - self._geometry.centre
        inner = self._geometry.centre + np.round(np.sign(share - 0.5) * tail * radius)
        return np.concatenate(([0], np.clip(inner, 0, depth), [depth])).astype(np.int64)

    def _gram(self, slices: Tensor, images: Tensor) -> Tensor:
        channels = slices.shape[-1] + 1
        gram = torch.empty(slices.shape[0], channels, channels, dtype=torch.float64)
        _gram(_real_array(slices), _real_array(images), self._weights, gram.numpy())
        return gram

    def _combine(self, slices: Tensor, images: Tensor, coefficients: Tensor) -> Tensor:
        combined = torch.empty(*slices.shape[:2], coefficients.shape[2], dtype=torch.complex64)
        _combine(
            _real_array(slices),
            _real_array(images),
            _float_array(coefficients),
            self._weights,
            _real_array(combined),
        )
        return combined

    def _pose_products(
        self,
        grid: Tensor,
        rotation: Tensor,
        ctf: Tensor,
        images: Tensor,
        coefficients: Tensor,
        moments: Tensor,
    ) -> tuple[Tensor, Tensor]:
        check_derivatives_exist(self._geometry.interpolation)
        count, channels = rotation.shape[0], grid.shape[-1]
        products = torch.empty(count, 5, channels + 6, dtype=torch.float64)
        turn = torch.empty(count, 3, dtype=torch.float64)
        pose_products_trilinear(
            _real_array(grid),
            _float_array(rotation),
            self._pixels,
            _float_array(phase_slope(self.disk)),
            _float_array(ctf),
            self._weights,
            _real_array(images),
            _float_array(coefficients),
            _float_array(moments),
            self._geometry.centre,
            products.numpy(),
            turn.numpy(),
        )
        return products, turn


def _groups(threads: int, channels: int) -> int:
    """Number of partial sums of an accumulator."""
    return threads // slabs_per_grid(threads, channels)


def slabs_per_grid(threads: int, channels: int) -> int:
    """Number of threads that share an accumulator of so many channels; it divides the number of threads.

    Rotating a pixel's coordinates takes little beside reading and writing its eight corners: with six channels, eight
    slabs took no more processor time in all than one. With this many the rotations that every thread repeats stay a
    small part.

    Examples
    --------
    >>> slabs_per_grid(2, 6), slabs_per_grid(16, 10), slabs_per_grid(16, 1)
    (2, 16, 2)
    """
    most = 2 * channels
    return max(slabs for slabs in range(1, threads + 1) if threads % slabs == 0 and slabs <= most)


def _array_or_none(ctf: Tensor | None) -> np.ndarray:
    """Transfer functions as an array; one without columns stands for none."""
    return np.ones((1, 0), dtype=np.float32) if ctf is None else _float_array(ctf)


def _float_array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.numpy(), dtype=np.float32)


def _real_array(values: Tensor) -> np.ndarray:
    """View complex channels (..., c) as floats (..., 2c): real and imaginary parts side by side."""
    if values.dtype != torch.complex64 or not values.is_contiguous():
        raise TypeError(f"expected contiguous complex64, got {values.dtype} with strides {values.stride()}")
    return values.numpy().view(np.float32)


@compiled
def _project_trilinear(grid, rotation, pixels, ctf, centre, out):  # type: ignore[no-untyped-def]
    has_ctf = ctf.shape[1] > 0
    floats = grid.shape[3]
    for n in numba.prange(rotation.shape[0]):
        for p in range(pixels.shape[0]):
            prefetch_ahead(grid, rotation[n], pixels, p, centre, 0, grid.shape[0])
            x, y, z, flipped = place(rotation[n], pixels[p, 0], pixels[p, 1])
            ix, iy, iz, (wa, wb, wc, wd, we, wf, wg, wh) = corner_weights(x, y, z)
            iy, iz = iy + centre, iz + centre
            a = grid[iz, iy, ix]
            b = grid[iz, iy, ix + 1]
            c = grid[iz, iy + 1, ix]
            d = grid[iz, iy + 1, ix + 1]
            e = grid[iz + 1, iy, ix]
            f = grid[iz + 1, iy, ix + 1]
            g = grid[iz + 1, iy + 1, ix]
            h = grid[iz + 1, iy + 1, ix + 1]
            scale = ctf[n, p] if has_ctf else np.float32(1.0)
            row = out[n, p]
            for j in range(floats):
                row[j] = scale * (
                    wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j] + we * e[j] + wf * f[j] + wg * g[j] + wh * h[j]
                )
            if flipped:
                for j in range(1, floats, 2):
                    row[j] = -row[j]


@compiled
def _backproject_trilinear(slices, rotation, pixels, ctf, centre, edges, out):  # type: ignore[no-untyped-def]
    has_ctf = ctf.shape[1] > 0
    floats = out.shape[4]
    groups, slabs = out.shape[0], edges.shape[0] - 1
    for task in numba.prange(groups * slabs):
        group, slab = task // slabs, task % slabs
        grid = out[group]
        first, end = edges[slab], edges[slab + 1]
        value = np.empty(floats, np.float32)
        for n in range(group, rotation.shape[0], groups):
            for p in range(pixels.shape[0]):
                prefetch_ahead(grid, rotation[n], pixels, p, centre, first, end)
                x, y, z, flipped = place(rotation[n], pixels[p, 0], pixels[p, 1])
                ix, iy, iz, (wa, wb, wc, wd, we, wf, wg, wh) = corner_weights(x, y, z)
                iy, iz = iy + centre, iz + centre
                if iz + 1 < first or iz >= end:
                    continue
                scale = ctf[n, p] if has_ctf else np.float32(1.0)
                row = slices[n, p]
                for j in range(floats):
                    value[j] = scale * row[j]
                if flipped:
                    for j in range(1, floats, 2):
                        value[j] = -value[j]
                if iz >= first:
                    a = grid[iz, iy, ix]
                    b = grid[iz, iy, ix + 1]
                    c = grid[iz, iy + 1, ix]
                    d = grid[iz, iy + 1, ix + 1]
                    for j in range(floats):
                        v = value[j]
                        a[j] += wa * v
                        b[j] += wb * v
                        c[j] += wc * v
                        d[j] += wd * v
                if iz + 1 < end:
                    e = grid[iz + 1, iy, ix]
                    f = grid[iz + 1, iy, ix + 1]
                    g = grid[iz + 1, iy + 1, ix]
                    h = grid[iz + 1, iy + 1, ix + 1]
                    for j in range(floats):
                        v = value[j]
                        e[j] += we * v
                        f[j] += wf * v
                        g[j] += wg * v
                        h[j] += wh * v


@compiled
def _project_nearest(grid, rotation, pixels, ctf, centre, out):  # type: ignore[no-untyped-def]
    has_ctf = ctf.shape[1] > 0
    floats = grid.shape[3]
    half = np.float32(0.5)
    for n in numba.prange(rotation.shape[0]):
        for p in range(pixels.shape[0]):
            x, y, z, flipped = place(rotation[n], pixels[p, 0], pixels[p, 1])
            iy, iz = int(math.floor(y + half)) + centre, int(math.floor(z + half)) + centre
            cell = grid[iz, iy, int(math.floor(x + half))]
            scale = ctf[n, p] if has_ctf else np.float32(1.0)
            row = out[n, p]
            for j in range(floats):
                row[j] = scale * cell[j]
            if flipped:
                for j in range(1, floats, 2):
                    row[j] = -row[j]


@compiled
def _backproject_nearest(slices, rotation, pixels, ctf, centre, edges, out):  # type: ignore[no-untyped-def]
    has_ctf = ctf.shape[1] > 0
    floats = out.shape[4]
    groups, slabs = out.shape[0], edges.shape[0] - 1
    half = np.float32(0.5)
    for task in numba.prange(groups * slabs):
        group, slab = task // slabs, task % slabs
        grid = out[group]
        first, end = edges[slab], edges[slab + 1]
        for n in range(group, rotation.shape[0], groups):
            for p in range(pixels.shape[0]):
                x, y, z, flipped = place(rotation[n], pixels[p, 0], pixels[p, 1])
                iy, iz = int(math.floor(y + half)) + centre, int(math.floor(z + half)) + centre
                if iz < first or iz >= end:
                    continue
                cell = grid[iz, iy, int(math.floor(x + half))]
                scale = ctf[n, p] if has_ctf else np.float32(1.0)
                row = slices[n, p]
                for j in range(0, floats, 2):
                    cell[j] += scale * row[j]
                    cell[j + 1] += -scale * row[j + 1] if flipped else scale * row[j + 1]


@compiled
def _gram(slices, images, weight, out):  # type: ignore[no-untyped-def]
    """Hermitian-weighted Gram matrices of the slices with the image as last channel."""
    channels = slices.shape[2] // 2 + 1
    block = 64
    for n in numba.prange(slices.shape[0]):
        real, imaginary = np.empty(channels, np.float32), np.empty(channels, np.float32)
        partial = np.empty((channels, channels), np.float32)
        total = np.zeros((channels, channels), np.float64)
        for start in range(0, slices.shape[1], block):
            # Short float32 sums, added up in float64: fast and exact enough for log-likelihood differences.
            partial[:] = 0
            for p in range(start, min(start + block, slices.shape[1])):
                for j in range(channels - 1):
                    real[j] = slices[n, p, 2 * j]
                    imaginary[j] = slices[n, p, 2 * j + 1]
                real[channels - 1] = images[n, 2 * p]
                imaginary[channels - 1] = images[n, 2 * p + 1]
                for i in range(channels):
                    a, b = weight[p] * real[i], weight[p] * imaginary[i]
                    for j in range(channels):
                        partial[i, j] += a * real[j] + b * imaginary[j]
            total += partial
        out[n] = total


@compiled
def _combine(slices, images, coefficients, weight, out):  # type: ignore[no-untyped-def]
    """Weighted linear combinations of slices and image, per image."""
    channels = slices.shape[2] // 2
    columns = out.shape[2] // 2
    for n in numba.prange(slices.shape[0]):
        real = np.empty(columns, np.float32)
        imaginary = np.empty(columns, np.float32)
        for p in range(slices.shape[1]):
            for j in range(columns):
                real[j] = coefficients[n, channels, j] * images[n, 2 * p]
                imaginary[j] = coefficients[n, channels, j] * images[n, 2 * p + 1]
            for i in range(channels):
                a, b = slices[n, p, 2 * i], slices[n, p, 2 * i + 1]
                for j in range(columns):
                    real[j] += coefficients[n, i, j] * a
                    imaginary[j] += coefficients[n, i, j] * b
            for j in range(columns):
                out[n, p, 2 * j] = weight[p] * real[j]
                out[n, p, 2 * j + 1] = weight[p] * imaginary[j]
