"""Volumes of low dimension in Fourier space: spherical harmonics times spherical Bessel functions."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import torch
from scipy.special import spherical_jn
from torch import Tensor

from solvar_engine.imaging.harmonics import bessel_zeros, real_harmonics


def radial_functions(radius: Tensor, degree: int, count: int) -> Tensor:
    """F_{l,s} on the unit ball, zero on its border and outside, of unit norm: int F^2 r^2 dr = 1.

    Parameters
    ----------
    radius : Tensor, shape (n,)
    degree : int
        l.
    count : int
        Functions, s = 1 ... count.

    Returns
    -------
    Tensor, shape (n, count), float64
    """
    zeros = np.array(next(islice(bessel_zeros(degree + count), degree, None)))
    values = spherical_jn(degree, radius.numpy()[:, None] * zeros)
    norm = math.sqrt(2) / np.abs(spherical_jn(degree + 1, zeros))
    return torch.from_numpy(values * norm) * (radius < 1)[:, None]


def volume_basis(frequency: Tensor, degree: int, count: int) -> Tensor:
    """i^l F_{l,s}(|k|) Y_lm(k / |k|) for l up to a degree, s = 1 ... count (Paul 2024, eq. 4.23).

    Of real coefficients it gives the transforms of real volumes, and all of them: Y_lm(-k) = (-1)^l Y_lm(k), and i^l
    makes that the complex conjugate. The degree 3 with 4 radial functions has 64 of them, or, as Paul counts,
    40 complex ones with m >= 0, of which those with m = 0 are real or imaginary.

    Parameters
    ----------
    frequency : Tensor, shape (n, 3)
        In units of the largest one.
    degree : int
    count : int

    Returns
    -------
    Tensor, shape (n, count * (degree + 1)^2), complex128
    """
    radius = frequency.norm(dim=1)
    direction = frequency / radius.clamp_min(1e-300)[:, None]
    direction = torch.where(radius[:, None] > 0, direction, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    angular = real_harmonics(degree, direction).split([2 * order + 1 for order in range(degree + 1)], dim=1)
    parts = [
        1j**order * torch.einsum("nm,ns->nms", of_order, radial_functions(radius, order, count)).flatten(1)
        for order, of_order in enumerate(angular)
    ]
    return torch.cat(parts, dim=1).to(torch.complex128)
