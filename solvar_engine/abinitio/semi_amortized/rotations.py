"""Rotations that gradients pass through: of six numbers from a network, and of increments that start from nought."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALL = 0.5  # square radians: below, the series beats the quotients, whose numerators cancel
_TERMS = 10  # of the series: exact in double precision up to there


def s2s2_to_rotation(six: Tensor) -> Tensor:
    """Rotations of pairs of directions (S2S2, supplement C of Shekarforoush et al., 2024).

    The first column is along the first vector; the third is normal to both. The product of two unit vectors is none
    itself unless they are at right angles, which the paper leaves out, and is normalised here.

    Parameters
    ----------
    six : Tensor, shape (..., 6)
        Two vectors of any length, not parallel.

    Returns
    -------
    Tensor, shape (..., 3, 3)

    Examples
    --------
    >>> s2s2_to_rotation(torch.tensor([2.0, 0.0, 0.0, 5.0, 3.0, 0.0])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    first = torch.nn.functional.normalize(six[..., :3], dim=-1)
    second = torch.nn.functional.normalize(six[..., 3:], dim=-1)
    third = torch.nn.functional.normalize(torch.linalg.cross(first, second), dim=-1)
    return torch.stack((first, torch.linalg.cross(third, first), third), dim=-1)


def increment(omega: Tensor) -> Tensor:
    """Rotations of small vectors by Rodrigues' formula, with derivatives of all orders at nought.

    The axis is omega / |omega|, the angle |omega| (the paper has them exchanged). Both coefficients are functions of
    the squared angle, of which they are series near nought; so are the derivatives that automatic differentiation makes
    of them, those with -1/3 and -1/12 at nought among them.

    Parameters
    ----------
    omega : Tensor, shape (..., 3)
        Axis times angle, radian.

    Returns
    -------
    Tensor, shape (..., 3, 3)

    Examples
    --------
    >>> increment(torch.zeros(3)).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    squared = omega.square().sum(dim=-1)
    is_small = squared < _SMALL
    # neither branch may see what it cannot bear: a gradient of nought times infinity is none
    angle = torch.where(is_small, torch.ones_like(squared), squared).sqrt()
    near = torch.where(is_small, squared, torch.zeros_like(squared))
    sine = torch.where(is_small, _series(near, 1), angle.sin() / angle)
    cosine = torch.where(is_small, _series(near, 2), (1 - angle.cos()) / angle.square())
    x, y, z = omega.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=omega.dtype, device=omega.device)
    return identity + sine[..., None, None] * cross + cosine[..., None, None] * (cross @ cross)


def _series(squared: Tensor, first: int) -> Tensor:
    """Sum of (-a^2)^n / (2 n + first)! over n, by Horner's rule: sin(a) / a or (1 - cos(a)) / a^2."""
    total = torch.ones_like(squared)
    for term in range(_TERMS, 0, -1):
        total = 1 - squared * total / ((2 * term + first) * (2 * term + first - 1))
    return total if first == 1 else total / 2


def cosine_distance(rotation: Tensor, truth: Tensor) -> Tensor:
    """1 - cos of the angle between rotations (..., 3, 3): a quarter of the squared distance of the matrices."""
    return (3 - (rotation * truth).sum(dim=(-2, -1))) / 2
