"""Volumes of low dimension in Fourier space: spherical harmonics times spherical Bessel functions."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import lpmv, spherical_jn
from torch import Tensor


def bessel_zeros(degree: int, count: int) -> NDArray[np.float64]:
    """First positive zeros of the spherical Bessel function j_l, which lie between those of j_{l-1}.

    Examples
    --------
    >>> bessel_zeros(1, 2).round(4).tolist()
    [4.4934, 7.7253]
    """
    zeros = [math.pi * number for number in range(1, count + degree + 1)]
    for order in range(1, degree + 1):
        pairs = zip(zeros[:-1], zeros[1:], strict=True)
        zeros = [brentq(lambda x, order=order: spherical_jn(order, x), *pair) for pair in pairs]
    return np.array(zeros[:count], dtype=np.float64)


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
    zeros = bessel_zeros(degree, count)
    values = spherical_jn(degree, radius.numpy()[:, None] * zeros)
    norm = math.sqrt(2) / np.abs(spherical_jn(degree + 1, zeros))
    return torch.from_numpy(values * norm) * (radius < 1)[:, None]


def real_harmonics(direction: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics of one degree, orthonormal on the sphere, m = -l ... l.

    sqrt(2) times the imaginary parts (m < 0) and real parts (m > 0) of (Paul 2024, eq. 3.10).

    Parameters
    ----------
    direction : Tensor, shape (n, 3)
        Unit vectors x, y, z.
    degree : int
        l.

    Returns
    -------
    Tensor, shape (n, 2 l + 1), float64
    """
    x, y, z = direction.numpy().T
    azimuth = np.arctan2(y, x)
    columns = []
    for order in range(-degree, degree + 1):
        m = abs(order)
        norm = math.sqrt((2 * degree + 1) / (4 * math.pi) * math.factorial(degree - m) / math.factorial(degree + m))
        angular = np.sin(m * azimuth) if order < 0 else np.cos(m * azimuth)
        columns.append((math.sqrt(2) if m else 1.0) * norm * lpmv(m, degree, np.clip(z, -1, 1)) * angular)
    return torch.from_numpy(np.stack(columns, axis=1))


def volume_basis(frequency: Tensor, degree: int, count: int) -> Tensor:
    """i^l F_{l,s}(|k|) Y_lm(k / |k|) for l up to a degree, s = 1 ... count (Paul 2024, eq. 4.23).

    Of real coefficients it gives the transforms of real volumes, and all of them: Y_lm(-k) = (-1)^l Y_lm(k), and i^l
    makes that the complex conjugate. The degree 3 with 4 radial functions has 64 of them, or, as the thesis counts,
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
    parts = [
        1j**order * torch.einsum(
            "nm,ns->nms", real_harmonics(direction, order), radial_functions(radius, order, count)
        ).flatten(1)
        for order in range(degree + 1)
    ]
    return torch.cat(parts, dim=1).to(torch.complex128)
