"""What projectors with an oversampled Fourier grid have in common, whoever reads and fills it."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors import gather
from solvar_engine.projectors.base import Projector
from solvar_engine.projectors.checks import check_derivatives_exist
from solvar_engine.projectors.grid import CHUNK_BYTES, GridGeometry

_DOUBLING = 2  # of the box, for the kernel of a convolution: what an oversampling of two makes of a grid


class GridProjector(Projector):
    """Slices by interpolation on a grid with channels last.

    Parameters
    ----------
    box_size, disk, device, dtype
        As for :class:`~.base.Projector`.
    interpolation : {'trilinear', 'nearest'}
    oversampling : int
    """

    chunk_bytes = CHUNK_BYTES

    def __init__(
        self,
        box_size: int,
        disk: HalfDisk,
        *,
        interpolation: str = "trilinear",
        oversampling: int = 2,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(box_size, disk, device=device, dtype=dtype)
        self._geometry = GridGeometry(box_size, disk.shell_max, oversampling, interpolation)
        self._cells = disk.pixels.to(self._device, dtype) * oversampling

    def new_accumulator(self, channels: int) -> Tensor:
        """See :meth:`~.base.Projector.new_accumulator`."""
        return torch.zeros(self._geometry.shape(channels), dtype=self._dtype.to_complex(), device=self._device)

    def grid_bytes(self, channels: int) -> float:
        """See :meth:`~.base.Projector.grid_bytes`."""
        planes, rows, columns, _ = self._geometry.shape(channels)
        return float(self._dtype.to_complex().itemsize * planes * rows * columns * channels)

    def accumulator_bytes(self, channels: int, threads: int) -> float:
        """See :meth:`~.base.Projector.accumulator_bytes`."""
        return self.grid_bytes(channels)

    def convolution_sums(self) -> GridConvolutionSums:
        """See :meth:`~.base.Projector.convolution_sums`."""
        return GridConvolutionSums(self)

    def doubled(self) -> GridGeometry:
        """Geometry by which a grid is the transform of volumes of twice the box, not oversampled."""
        known = self._geometry
        if known.oversampling != _DOUBLING:
            raise ValueError(f"oversampling is {known.oversampling}, but only a grid of {_DOUBLING} has twice the box")
        return GridGeometry(_DOUBLING * known.box_size, _DOUBLING * known.shell_max, 1, known.interpolation)

    def coordinates(self, rotation: Tensor) -> Tensor:
        """Place (x, y, z) in cells of every pixel at each rotation, shape (n, pixels, 3)."""
        return torch.einsum("nij,pj->npi", rotation.to(self._cells)[:, :, :2], self._cells)

    def _to_grid(self, volumes: Tensor) -> Tensor:
        return self._geometry.to_grid(volumes)

    def _to_volumes(self, merged: Tensor) -> Tensor:
        return self._geometry.to_volumes(merged)

    def _check_grid(self, name: str, grid: Tensor) -> None:
        self._geometry.check_grid(name, grid)

    def _channels(self, grid: Tensor) -> int:
        return int(grid.shape[-1])

    def _read_with_slopes(self, grid: Tensor, rotation: Tensor, ctf: Tensor) -> tuple[Tensor, Tensor]:
        check_derivatives_exist(self._geometry.interpolation)
        per_cell = gather.slopes(grid, self._geometry, self.coordinates(rotation))
        scale = self._geometry.oversampling * ctf
        return self._read(grid, rotation, ctf), per_cell * scale[..., None, None]


class GridConvolutionSums:
    """Sums on one grid: cropped to the box it gives the right-hand side, in full the kernel."""

    def __init__(self, projector: GridProjector) -> None:
        self._projector = projector
        self._doubled = projector.doubled()
        self._accumulator = projector.new_accumulator(2)

    def add(self, images: Tensor, power: Tensor, rotation: Tensor) -> None:
        """See :meth:`~.base.ConvolutionSums.add`."""
        self._projector.backproject(torch.stack((images, power), dim=-1), rotation, self._accumulator)

    def right_side(self) -> Tensor:
        """See :meth:`~.base.ConvolutionSums.right_side`."""
        return self._projector.to_volumes(self._accumulator)[0]

    def kernel(self) -> Tensor:
        """See :meth:`~.base.ConvolutionSums.kernel`."""
        return self._doubled.to_volumes(self._projector.merged(self._accumulator)[..., 1:])[0]
