"""Slices on a GPU by kernels in Triton, which also run on a CPU in its interpreter, for tests.

Grids have their channels last, padded to a multiple of 16 bytes, so that the corner of a cell is read in the widest
words that a card has. Additions of floats meet in the cells in any order: back-projections repeat to rounding, slices
and products to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
import triton
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors.checks import check_derivatives_exist
from solvar_engine.projectors.combinations import phase_slope
from solvar_engine.projectors.grid_projector import GridProjector
from solvar_engine.projectors.triton_poses import pose_products
from solvar_engine.projectors.triton_slices import add_combinations, add_slices, read_slices
from solvar_engine.projectors.triton_tuning import DEFAULT_TUNING, Tiles, Tuning

_CHUNK_BYTES = 512_000_000  # of slices in one call: enough programs to fill a card
_EVEN = 2  # complex channels of 16 bytes
_MOST_LANES = 64  # of a tile where channels can be shared among programs
_LEAST_LANES = 32  # of a tile that goes into matrix products
_MOST_FUSED = 63  # channels that products of one tile hold beside the image
_STRIPS = 24  # of the half sphere of directions, cut across one axis
_PARTIAL_SUMS_BYTES = 64e6


class TritonProjector(GridProjector):
    """Fast slices on a GPU in float32; see :class:`~.grid_projector.GridProjector`.

    Parameters
    ----------
    box_size : int
    disk : HalfDisk
    interpolation : {'trilinear', 'nearest'}
    oversampling : int
    device : torch.device or str
        A CPU only where Triton interprets its kernels.
    tuning : Tuning
    """

    chunk_bytes = _CHUNK_BYTES
    buffer_bytes = _PARTIAL_SUMS_BYTES

    def __init__(
        self,
        box_size: int,
        disk: HalfDisk,
        *,
        interpolation: str = "trilinear",
        oversampling: int = 2,
        device: torch.device | str = "cuda",
        tuning: Tuning = DEFAULT_TUNING,
    ) -> None:
        super().__init__(box_size, disk, interpolation=interpolation, oversampling=oversampling, device=device)
        self._tuning = tuning
        self._is_nearest = interpolation == "nearest"
        self._phase_slope = self._real(phase_slope(disk))

    def new_accumulator(self, channels: int) -> Tensor:
        """See :meth:`~.base.Projector.new_accumulator`; several grids where they are small."""
        return self._zeros(channels, self._copies(channels))

    def grid_bytes(self, channels: int) -> float:
        """See :meth:`~.base.Projector.grid_bytes`."""
        return super().grid_bytes(_padded(channels))

    def accumulator_bytes(self, channels: int, threads: int) -> float:
        """See :meth:`~.base.Projector.accumulator_bytes`."""
        copies = self._copies(channels)
        return (copies + (copies > 1)) * self.grid_bytes(channels)

    def merged(self, accumulator: Tensor) -> Tensor:
        """See :meth:`~.base.Projector.merged`."""
        return accumulator[0] if accumulator.shape[0] == 1 else accumulator.sum(dim=0)

    def _copies(self, channels: int) -> int:
        """Number of partial sums of an accumulator."""
        fitting = self._tuning.private_bytes // self.grid_bytes(channels)
        return int(min(max(1, fitting), self._tuning.most_copies))

    def _zeros(self, channels: int, *copies: int) -> Tensor:
        shape = self._geometry.shape(_padded(channels))
        return torch.zeros(*copies, *shape, dtype=torch.complex64, device=self._device)[..., :channels]

    def _to_grid(self, volumes: Tensor) -> Tensor:
        grid = self._zeros(volumes.shape[0])
        self._geometry.fill(grid, volumes)
        return grid

    def _read(self, grid: Tensor, rotation: Tensor, ctf: Tensor | None) -> Tensor:
        channels = grid.shape[-1]
        lanes = min(triton.next_power_of_2(2 * channels), _MOST_LANES)
        slices = self._new_slices(rotation.shape[0], channels)
        self._launch_read(grid, rotation, ctf, None, slices, None, lanes, self._tuning.read)
        return slices

    def _read_with_gram(
        self, grid: Tensor, rotation: Tensor, ctf: Tensor, images: Tensor
    ) -> tuple[Tensor, Tensor]:
        count, channels = rotation.shape[0], grid.shape[-1]
        if channels > _MOST_FUSED:
            return super()._read_with_gram(grid, rotation, ctf, images)
        lanes, tiles = _product_lanes(channels), self._tuning.read_with_gram
        slices = self._new_slices(count, channels)
        gram = self._new_sums(tiles, lanes, count, channels + 1, channels + 1)
        self._launch_read(grid, rotation, ctf, images, slices, gram, lanes, tiles)
        return slices, gram.sum(dim=1)

    def _launch_read(
        self,
        grid: Tensor,
        rotation: Tensor,
        ctf: Tensor | None,
        images: Tensor | None,
        slices: Tensor,
        gram: Tensor | None,
        lanes: int,
        tiles: Tiles,
    ) -> None:
        cells, floats = _cells(grid)
        unused = self._weight  # stands where a kernel wants an array that it does not touch
        self._launch(
            read_slices,
            (lanes, math.ceil(2 * grid.shape[-1] / lanes), tiles),
            rotation.shape[0],
            cells,
            self._order(rotation, grid),
            self._real(rotation),
            self._cells,
            unused if ctf is None else self._real(ctf),
            unused if images is None else _floats(images),
            self._weight,
            _floats(slices),
            unused if gram is None else gram,
            CHANNELS=grid.shape[-1],
            FLOATS=floats,
            NEAREST=self._is_nearest,
            HAS_CTF=ctf is not None,
            HAS_GRAM=gram is not None,
        )

    def _add(self, slices: Tensor, rotation: Tensor, ctf: Tensor | None, out: Tensor) -> None:
        cells, floats = _cells(out)
        channels = out.shape[-1]
        lanes = min(triton.next_power_of_2(2 * channels), _MOST_LANES)
        self._launch(
            add_slices,
            (lanes, math.ceil(2 * channels / lanes), self._tuning.add),
            rotation.shape[0],
            _floats(slices),
            self._order(rotation, out),
            self._real(rotation),
            self._cells,
            self._weight if ctf is None else self._real(ctf),
            cells,
            copy_floats=2 * out.stride(0),
            CHANNELS=channels,
            FLOATS=floats,
            COPIES=out.shape[0],
            NEAREST=self._is_nearest,
            HAS_CTF=ctf is not None,
        )

    def _add_combinations(
        self,
        slices: Tensor,
        images: Tensor,
        coefficients: Tensor,
        rotation: Tensor,
        ctf: Tensor,
        out: Tensor,
    ) -> None:
        channels, columns = slices.shape[-1], out.shape[-1]
        if max(channels, columns) > _MOST_FUSED:
            super()._add_combinations(slices, images, coefficients, rotation, ctf, out)
            return
        cells, floats = _cells(out)
        lanes = max(triton.next_power_of_2(floats), _LEAST_LANES)
        self._launch(
            add_combinations,
            (lanes, 1, self._tuning.add_combinations),
            rotation.shape[0],
            _floats(slices),
            self._order(rotation, out),
            self._real(rotation),
            self._cells,
            self._real(ctf),
            _floats(images),
            self._real(coefficients),
            self._weight,
            cells,
            copy_floats=2 * out.stride(0),
            CHANNELS=channels,
            COLUMNS=columns,
            FLOATS=floats,
            IN_LANES=_product_lanes(channels),
            COPIES=out.shape[0],
            NEAREST=self._is_nearest,
        )

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
        if channels > _MOST_FUSED:
            return super()._pose_products(grid, rotation, ctf, images, coefficients, moments)
        cells, floats = _cells(grid)
        lanes, tiles = _product_lanes(channels), self._tuning.pose_products
        products = self._new_sums(tiles, lanes, count, 5, channels + 6)
        turn = self._new_sums(tiles, lanes, count, 3)
        self._launch(
            pose_products,
            (lanes, 1, tiles),
            count,
            cells,
            self._order(rotation, grid),
            self._real(rotation),
            self._cells,
            self._phase_slope,
            self._real(ctf),
            self._weight,
            _floats(images),
            self._real(coefficients),
            self._real(moments),
            products,
            turn,
            CHANNELS=channels,
            FLOATS=floats,
        )
        return products.sum(dim=1), turn.sum(dim=1)

    def _launch(
        self,
        kernel: Callable,
        shape: tuple[int, int, Tiles],
        images: int,
        *arrays: Tensor,
        **numbers: int,
    ) -> None:
        """Run a kernel on all images, blocks of pixels and of lanes; `shape` holds lanes, their blocks, and tiles."""
        lanes, lane_blocks, tiles = shape
        if images == 0:
            return
        run(
            kernel,
            (images, self._blocks(tiles, lanes), lane_blocks),
            *arrays,
            centre=self._geometry.centre,
            count=len(self.disk),
            tiles=tiles.tiles_of_program(lanes, len(self.disk)),
            LANES=lanes,
            PIXELS=tiles.pixels_of_tile(lanes),
            num_warps=tiles.warps_of_tile(lanes),
            num_stages=tiles.stages,
            **numbers,
        )

    def _blocks(self, tiles: Tiles, lanes: int) -> int:
        """Number of programs that share the pixels of an image."""
        pixels = len(self.disk)
        return math.ceil(pixels / (tiles.pixels_of_tile(lanes) * tiles.tiles_of_program(lanes, pixels)))

    def _new_slices(self, count: int, channels: int) -> Tensor:
        return torch.empty(count, len(self.disk), channels, dtype=torch.complex64, device=self._device)

    def _new_sums(self, tiles: Tiles, lanes: int, count: int, *shape: int) -> Tensor:
        """Sums over the blocks of pixels, which are added up afterwards."""
        return torch.empty(
            count, self._blocks(tiles, lanes), *shape, dtype=torch.float64, device=self._device
        )

    def _order(self, rotation: Tensor, grid: Tensor) -> Tensor:
        """Order in which images are visited."""
        if self.grid_bytes(grid.shape[-1]) > self._tuning.sort_from_bytes:
            return order_by_direction(self._real(rotation))
        return torch.arange(rotation.shape[0], device=self._device)

    def _real(self, values: Tensor) -> Tensor:
        return values.to(self._device, torch.float32).contiguous()


def run(kernel: Callable, blocks: tuple[int, ...], *arrays: Tensor, **numbers: int) -> None:
    """Run a kernel on the device of its arrays."""
    device = arrays[0].device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[blocks](*arrays, **numbers)  # type: ignore[index]


def order_by_direction(rotation: Tensor) -> Tensor:
    """Order of images in which neighbours are seen from nearly the same side: strips of the half sphere, to and fro.

    Parameters
    ----------
    rotation : Tensor, shape (n, 3, 3)

    Returns
    -------
    Tensor, shape (n,), int64
    """
    x, y, z = rotation[:, :, 2].unbind(1)
    side = torch.where(z < 0, -1.0, 1.0)  # opposite views are the same slice
    strip = torch.floor((1 + side * x) * (_STRIPS / 2))
    along = torch.atan2(side * y, z.abs())
    # within a strip from -pi / 2 to pi / 2, in the next one back
    return torch.argsort(4 * strip + torch.where(strip % 2 == 0, along, -along))


def _padded(channels: int) -> int:
    """Number of channels of which the cells of a grid have room: a single one would double."""
    return channels if channels == 1 else channels + channels % _EVEN


def _product_lanes(channels: int) -> int:
    """Lanes of tiles whose channels and image go into matrix products."""
    return max(triton.next_power_of_2(2 * (channels + 1)), _LEAST_LANES)


def _floats(values: Tensor) -> Tensor:
    """View complex numbers as pairs of floats; a copy where they do not lie one after the other."""
    return torch.view_as_real(values.to(torch.complex64).contiguous())


def _cells(grid: Tensor) -> tuple[Tensor, int]:
    """Floats of a grid, and their number from one cell to the next."""
    *outer, row, last = grid.stride()
    sizes = grid.shape[:-2]
    expected = [row * math.prod((*sizes[axis + 1 :], grid.shape[-2])) for axis in range(len(sizes))]
    if grid.dtype != torch.complex64 or last != 1 or outer != expected:
        raise TypeError(f"expected complex64 cells one after the other, got {grid.dtype}, strides {grid.stride()}")
    return torch.view_as_real(grid), 2 * row
