"""Rotations that cover all orientations evenly, or the part of them that a symmetry leaves, and shifts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from solvar_engine.imaging.rotation import quaternion_to_rotation

_PHI = math.sqrt(2.0)
_PSI = 1.533751168755204288118041  # root of psi^4 = psi + 4
_VOLUME = 8 * math.pi**2  # of all rotations, in cubic radians of the rotation vector
_DOMAIN_ROWS = 4096


def rotations_for_spacing(spacing_deg: float) -> int:
    """Number of rotations whose cells have the volume of a cube of this edge.

    Examples
    --------
    >>> rotations_for_spacing(15.0)
    4400
    """
    return max(1, round(_VOLUME / math.radians(spacing_deg) ** 3))


def spacing_for_shell(shell: int, radius: float = 0.24) -> float:
    """Spacing of rotations, degrees, by which the rim of a molecule moves by half a period of a shell.

    Parameters
    ----------
    shell : int
        Fourier pixels.
    radius : float
        Of the molecule, as a share of the box.

    Examples
    --------
    >>> [round(spacing_for_shell(shell)) for shell in (5, 6, 8)]
    [24, 20, 15]
    """
    return math.degrees(0.5 / (shell * radius))


def super_fibonacci(count: int) -> Tensor:
    """Near-uniform rotations: super-Fibonacci spirals on the sphere of quaternions (Alexa, CVPR 2022, algorithm 1).

    Each stands for the same volume, 1 / count of all rotations: the weights of the quadrature are equal.

    Returns
    -------
    Tensor, shape (count, 3, 3), float64
    """
    step = torch.arange(count, dtype=torch.float64) + 0.5
    inner, outer = (step / count).sqrt(), (1 - step / count).sqrt()
    first, second = 2 * math.pi * step / _PHI, 2 * math.pi * step / _PSI
    quaternion = torch.stack(
        (inner * first.sin(), inner * first.cos(), outer * second.sin(), outer * second.cos()), dim=1
    )
    return quaternion_to_rotation(quaternion)


def in_fundamental_domain(rotation: Tensor, operators: Tensor) -> Tensor:
    """Tell which rotations are nearer the identity than any that a point group makes equal to them.

    Up to its border every rotation R is g D for one operator g and one D of this domain; so it is for D Q, with any
    one rotation Q.

    Parameters
    ----------
    rotation : Tensor, shape (n, 3, 3)
    operators : Tensor, shape (g, 3, 3)

    Returns
    -------
    Tensor, shape (n,), bool
    """
    kept = []
    for part in rotation.double().split(_DOMAIN_ROWS):
        trace = torch.einsum("gij,nji->ng", operators, part)
        kept.append(trace[:, 0] >= trace.max(dim=1).values - 1e-12)
    return torch.cat(kept)


def rotation_grid(spacing_deg: float, operators: Tensor) -> Tensor:
    """Rotations of a spacing, one of each set that a point group makes equal.

    Parameters
    ----------
    spacing_deg : float
    operators : Tensor, shape (g, 3, 3)
        The identity first.

    Returns
    -------
    Tensor, shape (about the number for the spacing over g, 3, 3), float64
    """
    grid = super_fibonacci(rotations_for_spacing(spacing_deg))
    return grid if len(operators) == 1 else grid[in_fundamental_domain(grid, operators)]


def shift_grid(step_px: float, radius_px: float) -> Tensor:
    """Shifts on a square grid inside a circle, (count, 2), px, float32; at least that of zero.

    Examples
    --------
    >>> len(shift_grid(2.0, 4.5))
    21
    """
    reach = int(radius_px / step_px)
    line = torch.arange(-reach, reach + 1, dtype=torch.float32) * step_px
    shifts = torch.cartesian_prod(line, line)
    return shifts[shifts.norm(dim=1) <= radius_px]
