"""Checks of arguments that compiled kernels would follow out of their arrays."""

from __future__ import annotations

import torch
from torch import Tensor

_ORTHONORMAL = 1e-3


def check_rotation(rotation: Tensor) -> None:
    """Raise ValueError unless these are finite rotation matrices, shape (n, 3, 3)."""
    if rotation.dim() != 3 or tuple(rotation.shape[1:]) != (3, 3):
        raise ValueError(f"rotation has shape {tuple(rotation.shape)}, expected (n, 3, 3)")
    columns = rotation[:, :, :2]
    identity = torch.eye(2, dtype=rotation.dtype, device=rotation.device)
    deviation = (columns.transpose(1, 2) @ columns - identity).abs()
    # Written so that NaN fails, too.
    if not bool((deviation <= _ORTHONORMAL).all()):
        worst = int(torch.nan_to_num(deviation, nan=torch.inf).amax(dim=(1, 2)).argmax())
        raise ValueError(f"rotation {worst} is not a rotation: its columns are not finite and orthonormal")


def check_volumes(name: str, volumes: Tensor, box_size: int) -> None:
    """Raise ValueError unless volumes have the shape (channels, box, box, box)."""
    if volumes.dim() != 4 or tuple(volumes.shape[1:]) != (box_size,) * 3:
        expected = f"(channels, {box_size}, {box_size}, {box_size})"
        raise ValueError(f"shape of {name} is {tuple(volumes.shape)}, expected {expected}")


def check_slices(name: str, slices: Tensor, count: int, pixels: int, channels: int | None = None) -> None:
    """Raise ValueError unless slices have the shape (n, pixels, channels), or (n, pixels) without channels."""
    expected: tuple[int, ...] = (count, pixels)
    shape = tuple(slices.shape)
    if channels is not None:
        expected = (count, pixels, channels)
    if shape != expected:
        raise ValueError(f"{name} has shape {shape}, expected {expected}")


def check_pose_mixture(
    coefficients: Tensor, moments: Tensor, images: Tensor, count: int, pixels: int, channels: int
) -> None:
    """Raise ValueError unless the arguments of pose derivatives fit the images and the channels."""
    check_slices("images", images, count, pixels)
    check_slices("coefficients", coefficients, count, channels)
    check_slices("moments", moments, count, channels, channels)


def check_derivatives_exist(interpolation: str) -> None:
    """Raise ValueError for an interpolation whose slices jump from cell to cell."""
    if interpolation == "nearest":
        raise ValueError("slices by nearest interpolation have no derivatives by the pose: use trilinear or nufft")
