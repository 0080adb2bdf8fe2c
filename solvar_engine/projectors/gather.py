"""Reading and filling grids with torch's own indexing: obvious first, fast never. Any device, any floating type."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from solvar_engine.projectors.grid import GridGeometry


def read(grid: Tensor, geometry: GridGeometry, coordinates: Tensor) -> Tensor:
    """Interpolate a grid.

    Parameters
    ----------
    grid : Tensor, shape (z, y, x >= 0, channels), complex
    geometry : GridGeometry
    coordinates : Tensor, shape (n, pixels, 3)
        (x, y, z) in cells; points on the half x < 0, which is not stored, are read at their Friedel mates.

    Returns
    -------
    Tensor, shape (n, pixels, channels), complex
    """
    stored, is_mate = _stored_half(coordinates)
    values = _weighted_sum(grid, geometry, _corners(stored, geometry.interpolation))
    return torch.where(is_mate, values.conj(), values)


def slopes(grid: Tensor, geometry: GridGeometry, coordinates: Tensor) -> Tensor:
    """Derivatives of trilinear interpolation by the coordinates, shape (n, pixels, channels, 3)."""
    stored, is_mate = _stored_half(coordinates)
    along = []
    for axis in range(3):
        slope = _weighted_sum(grid, geometry, _corners(stored, geometry.interpolation, axis))
        # at a Friedel mate, minus the frequency, the derivative changes sign and is conjugated
        along.append(torch.where(is_mate, -slope.conj(), slope))
    return torch.stack(along, dim=-1)


def add(slices: Tensor, geometry: GridGeometry, coordinates: Tensor, out: Tensor) -> None:
    """Adjoint of :func:`read`: add slices (n, pixels, channels) to a grid."""
    stored, is_mate = _stored_half(coordinates)
    values = torch.where(is_mate, slices.conj(), slices)
    flat = out.view(-1, out.shape[-1])
    for cell, weight in _corners(stored, geometry.interpolation):
        flat.index_add_(0, _flat_index(cell, geometry), (values * weight[..., None]).reshape(-1, out.shape[-1]))


def _stored_half(coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates on the half x >= 0, and which of them (n, pixels, 1) are those of Friedel mates."""
    is_mate = coordinates[..., :1] < 0
    return torch.where(is_mate, -coordinates, coordinates), is_mate


def _corners(coordinates: Tensor, interpolation: str, derivative: int | None = None) -> list[tuple[Tensor, Tensor]]:
    """Cells (n, pixels, 3) that each point touches, with their weights (n, pixels).

    With ``derivative``, the derivatives of the weights by the coordinate along that axis.
    """
    if interpolation == "nearest":
        cell = torch.floor(coordinates + 0.5)
        return [(cell.long(), torch.ones_like(cell[..., 0]))]
    lower = torch.floor(coordinates)
    fraction = coordinates - lower
    corners = []
    for offset in itertools.product((0, 1), repeat=3):
        upper = torch.tensor(offset, dtype=torch.bool, device=coordinates.device)
        weight = torch.where(upper, fraction, 1 - fraction)
        if derivative is not None:
            weight[..., derivative] = 1.0 if offset[derivative] else -1.0
        corners.append(((lower + upper).long(), weight.prod(dim=-1)))
    return corners


def _flat_index(cell: Tensor, geometry: GridGeometry) -> Tensor:
    x, y, z = cell.reshape(-1, 3).unbind(1)
    centre = geometry.centre
    _, size_y, size_x, _ = geometry.shape(1)
    return ((z + centre) * size_y + y + centre) * size_x + x


def _weighted_sum(grid: Tensor, geometry: GridGeometry, corners: list[tuple[Tensor, Tensor]]) -> Tensor:
    flat = grid.reshape(-1, grid.shape[-1])
    total = grid.new_zeros(*corners[0][1].shape, grid.shape[-1])
    for cell, weight in corners:
        total += flat[_flat_index(cell, geometry)].view_as(total) * weight[..., None]
    return total
