"""The reference projector: plain torch, any floating dtype, any device. Obvious first, fast never."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors.checks import (
    check_derivatives_exist,
    check_pose_mixture,
    check_rotation,
    check_slices,
    check_volumes,
)
from solvar_engine.projectors.combinations import (
    combine_with_images,
    gram_with_images,
    pose_products,
    rotation_derivatives,
)
from solvar_engine.projectors.grid import CHUNK_BYTES, GridGeometry


class TorchProjector:
    """Slices by gathering grid cells with torch's own indexing; see :class:`~.base.Projector`.

    Parameters
    ----------
    box_size : int
    disk : HalfDisk
    interpolation : {'trilinear', 'nearest'}
    oversampling : int
    device : torch.device or str
    dtype : torch.dtype
        Real type of the volumes; float64 makes this the truth that other backends are tested against.
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
        self.box_size = box_size
        self.disk = disk
        self._geometry = GridGeometry(box_size, disk.shell_max, oversampling, interpolation)
        self._dtype = dtype
        self._device = torch.device(device)
        self._pixels = disk.pixels.to(self._device, dtype) * oversampling
        self._weight = disk.weight.to(self._device, dtype)

    def to_grid(self, volumes: Tensor) -> Tensor:
        """See :meth:`~.base.Projector.to_grid`."""
        check_volumes("volumes", volumes, self.box_size)
        return self._geometry.to_grid(volumes.to(self._device, self._dtype))

    def new_accumulator(self, channels: int) -> Tensor:
        """See :meth:`~.base.Projector.new_accumulator`."""
        return torch.zeros(
            self._geometry.shape(channels), dtype=self._dtype.to_complex(), device=self._device
        )

    def to_volumes(self, accumulator: Tensor) -> Tensor:
        """See :meth:`~.base.Projector.to_volumes`."""
        self._geometry.check_grid("accumulator", accumulator)
        return self._geometry.to_volumes(accumulator)

    def project(self, grid: Tensor, rotation: Tensor, factor: Tensor | None = None) -> Tensor:
        """See :meth:`~.base.Projector.project`."""
        check_rotation(rotation)
        self._geometry.check_grid("grid", grid)
        if factor is not None:
            check_slices("factor", factor, rotation.shape[0], len(self.disk))
        slices = sum(self._read(grid, cell, weight) for cell, weight in self._corners(rotation))
        conjugate = self._flipped(rotation)[..., None]
        slices = torch.where(conjugate, slices.conj(), slices)  # type: ignore[union-attr]
        return slices if factor is None else slices * factor[..., None]

    def backproject(
        self, slices: Tensor, rotation: Tensor, out: Tensor, factor: Tensor | None = None
    ) -> None:
        """See :meth:`~.base.Projector.backproject`."""
        check_rotation(rotation)
        self._geometry.check_grid("out", out)
        check_slices("slices", slices, rotation.shape[0], len(self.disk), out.shape[-1])
        if factor is not None:
            check_slices("factor", factor, rotation.shape[0], len(self.disk))
        values = slices if factor is None else slices * factor[..., None]
        values = torch.where(self._flipped(rotation)[..., None], values.conj(), values)
        flat = out.view(-1, out.shape[-1])
        for cell, weight in self._corners(rotation):
            flat.index_add_(0, self._flat_index(cell), (values * weight[..., None]).reshape(-1, out.shape[-1]))

    def project_with_gram(
        self, grid: Tensor, rotation: Tensor, factor: Tensor, images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`~.base.Projector.project_with_gram`."""
        check_slices("images", images, rotation.shape[0], len(self.disk))
        slices = self.project(grid, rotation, factor)
        return slices, gram_with_images(slices, images, self._weight)

    def backproject_combination(
        self,
        slices: Tensor,
        images: Tensor,
        coefficients: Tensor,
        rotation: Tensor,
        factor: Tensor,
        out: Tensor,
    ) -> None:
        """See :meth:`~.base.Projector.backproject_combination`."""
        count = rotation.shape[0]
        check_slices("slices", slices, count, len(self.disk), slices.shape[-1])
        check_slices("images", images, count, len(self.disk))
        check_slices("coefficients", coefficients, count, slices.shape[-1] + 1, out.shape[-1])
        combined = combine_with_images(slices, images, coefficients, self._weight)
        self.backproject(combined, rotation, out, factor)

    def pose_products(
        self,
        grid: Tensor,
        rotation: Tensor,
        factor: Tensor,
        images: Tensor,
        coefficients: Tensor,
        moments: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`~.base.Projector.pose_products`."""
        check_derivatives_exist(self._geometry.interpolation)
        check_pose_mixture(coefficients, moments, images, rotation.shape[0], len(self.disk), grid.shape[-1])
        slices = self.project(grid, rotation, factor)
        slopes = torch.stack([self._slope(grid, rotation, axis) for axis in range(3)], dim=-1)  # (n, pixels, c, 3)
        turned = rotation_derivatives(slopes.movedim(2, 0), rotation.to(self._pixels), self._pixels).movedim(0, 2)
        derivatives = turned * factor.to(self._pixels)[..., None, None]
        return pose_products(slices, derivatives, images, coefficients, moments, self.disk)

    def _slope(self, grid: Tensor, rotation: Tensor, axis: int) -> Tensor:
        """Derivative of the slices (n, pixels, channels) by the grid coordinate along an axis (0 is x)."""
        slope = sum(
            self._read(grid, cell, weight) for cell, weight in self._corners(rotation, derivative=axis)
        )
        # at a Friedel mate, minus the frequency, the derivative changes sign and is conjugated
        return torch.where(self._flipped(rotation)[..., None], -slope.conj(), slope)  # type: ignore[union-attr]

    def _coordinates(self, rotation: Tensor) -> Tensor:
        """Grid coordinates (x, y, z) of every pixel at each rotation, shape (n, pixels, 3)."""
        return torch.einsum("nij,pj->npi", rotation.to(self._pixels)[:, :, :2], self._pixels)

    def _flipped(self, rotation: Tensor) -> Tensor:
        """Pixels that fall on the half x < 0 that is not stored, shape (n, pixels)."""
        return self._coordinates(rotation)[..., 0] < 0

    def _corners(self, rotation: Tensor, derivative: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """Cells (n, pixels, 3) that each pixel touches, with their weights (n, pixels).

        With ``derivative``, the derivatives of the weights by the coordinate along that axis.
        """
        coordinates = self._coordinates(rotation)
        coordinates = torch.where(coordinates[..., :1] < 0, -coordinates, coordinates)
        if self._geometry.interpolation == "nearest":
            cell = torch.floor(coordinates + 0.5)
            return [(cell.long(), torch.ones_like(cell[..., 0]))]
        lower = torch.floor(coordinates)
        fraction = coordinates - lower
        corners = []
        for offset in itertools.product((0, 1), repeat=3):
            upper = torch.tensor(offset, dtype=torch.bool, device=self._device)
            weight = torch.where(upper, fraction, 1 - fraction)
            if derivative is not None:
                weight[..., derivative] = 1.0 if upper[derivative] else -1.0
            corners.append(((lower + upper).long(), weight.prod(dim=-1)))
        return corners

    def _flat_index(self, cell: Tensor) -> Tensor:
        x, y, z = cell.reshape(-1, 3).unbind(1)
        centre = self._geometry.centre
        _, size_y, size_x, _ = self._geometry.shape(1)
        return ((z + centre) * size_y + y + centre) * size_x + x

    def _read(self, grid: Tensor, cell: Tensor, weight: Tensor) -> Tensor:
        values = grid.view(-1, grid.shape[-1])[self._flat_index(cell)]
        return values.view(*cell.shape[:2], grid.shape[-1]) * weight[..., None]
