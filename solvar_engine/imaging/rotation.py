"""Rotations: matrices, rotation vectors, uniform sampling; RELION's Euler angles are in `contract.angles`."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rotvec_to_rotation(rotvec: Tensor) -> Tensor:
    """Turn rotation vectors into matrices by the exponential map (Rodrigues).

    Parameters
    ----------
    rotvec : Tensor, shape (n, 3)
        Axis times angle in radians.

    Returns
    -------
    Tensor, shape (n, 3, 3)

    Examples
    --------
    >>> rotvec_to_rotation(torch.tensor([[0.0, 0.0, math.pi / 2]]))[0, 1, 0].round().item()
    1.0
    """
    x, y, z = rotvec.unbind(-1)
    zero = torch.zeros_like(x)
    generator = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).reshape(*rotvec.shape[:-1], 3, 3)
    return torch.linalg.matrix_exp(generator)


def rotation_to_rotvec(rotation: Tensor) -> Tensor:
    """Turn matrices (n, 3, 3) into rotation vectors (n, 3), axis times angle in radians (angle in [0, pi]).

    Examples
    --------
    >>> rotation_to_rotvec(torch.eye(3)[None]).tolist()
    [[0.0, 0.0, 0.0]]
    """
    quaternion = _rotation_to_quaternion(rotation.double())
    vector = quaternion[..., 1:]
    sine = vector.norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, quaternion[..., :1])
    # angle / sin(angle / 2) tends to 2 for small angles
    factor = torch.where(sine > 1e-12, angle / sine.clamp_min(1e-12), torch.full_like(sine, 2.0))
    return (vector * factor).to(rotation.dtype)


def _rotation_to_quaternion(matrix: Tensor) -> Tensor:
    """Unit quaternions (w, x, y, z) with w >= 0, by the largest-component rule (Shepperd)."""
    m = matrix
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    diagonal = torch.diagonal(m, dim1=-2, dim2=-1)
    squares = torch.cat((1 + trace[..., None], 1 - trace[..., None] + 2 * diagonal), dim=-1).clamp_min(0)
    wx, wy, wz = (
        m[..., 2, 1] - m[..., 1, 2],
        m[..., 0, 2] - m[..., 2, 0],
        m[..., 1, 0] - m[..., 0, 1],
    )
    xy, xz, yz = (
        m[..., 0, 1] + m[..., 1, 0],
        m[..., 0, 2] + m[..., 2, 0],
        m[..., 1, 2] + m[..., 2, 1],
    )
    rows = (
        (squares[..., 0], wx, wy, wz),
        (wx, squares[..., 1], xy, xz),
        (wy, xy, squares[..., 2], yz),
        (wz, xz, yz, squares[..., 3]),
    )
    products = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    best = squares.argmax(dim=-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    quaternion = products.gather(-2, best).squeeze(-2)
    quaternion = quaternion / quaternion.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def random_rotations(count: int, generator: torch.Generator) -> Tensor:
    """Draw rotations uniformly (by the Haar measure) from unit quaternions.

    Returns
    -------
    Tensor, shape (count, 3, 3), float32

    Examples
    --------
    >>> random_rotations(2, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 3])
    """
    quaternion = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return quaternion_to_rotation(quaternion / quaternion.norm(dim=1, keepdim=True)).float()


def quaternion_to_rotation(quaternion: Tensor) -> Tensor:
    """Turn unit quaternions (n, 4), the real part first, into matrices (n, 3, 3)."""
    w, x, y, z = quaternion.unbind(1)
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(rows, dim=1).reshape(-1, 3, 3)


def angular_distance_deg(rotation1: Tensor, rotation2: Tensor) -> Tensor:
    """Angles (n,), degrees, of the rotations that take orientations (n, 3, 3) into others.

    Examples
    --------
    >>> turned = rotvec_to_rotation(torch.tensor([[0.0, 0.1, 0.0]]))
    >>> round(math.radians(angular_distance_deg(torch.eye(3)[None], turned).item()), 4)
    0.1
    """
    relative = rotation1.double().transpose(-1, -2) @ rotation2.double()
    # 2 sin(angle / 2) from the chord keeps small angles exact, where the arc cosine would lose half the digits
    chord = (relative - torch.eye(3, dtype=relative.dtype, device=relative.device)).flatten(-2).norm(dim=-1)
    angle_rad = 2 * torch.asin((chord / (2 * math.sqrt(2))).clamp(0, 1))
    return torch.rad2deg(angle_rad).to(rotation1.dtype)
