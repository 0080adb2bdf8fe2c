"""Real spherical harmonics, zeros of the Bessel functions that go with them, and a quadrature of the sphere."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import spherical_jn
from torch import Tensor


def degrees_and_orders(last_degree: int) -> tuple[Tensor, Tensor]:
    """Degree l and order m of each harmonic, ((L + 1)^2,): l rises, and m from -l to l within it."""
    pairs = [(degree, order) for degree in range(last_degree + 1) for order in range(-degree, degree + 1)]
    degree, order = torch.tensor(pairs).unbind(1)
    return degree, order


def real_harmonics(last_degree: int, direction: Tensor) -> Tensor:
    """Real spherical harmonics, orthonormal on the sphere.

    Parameters
    ----------
    last_degree : int
        L.
    direction : Tensor, shape (..., 3)
        Unit vectors (x, y, z).

    Returns
    -------
    Tensor, shape (..., (L + 1)^2), float64
        In the order of `degrees_and_orders`; m < 0 goes with sin(|m| phi), and the factor (-1)^m is left out.
    """
    x, y, z = direction.double().unbind(-1)
    # sine^m cos(m phi) and sine^m sin(m phi) are the parts of (x + i y)^m: no pole is special
    powers = [torch.ones_like(torch.complex(x, y))]
    for _ in range(last_degree):
        powers.append(powers[-1] * torch.complex(x, y))
    columns = [z] * (last_degree + 1) ** 2
    sectoral = torch.full_like(z, math.sqrt(1 / (4 * math.pi)))
    for order in range(last_degree + 1):
        if order:
            sectoral = sectoral * math.sqrt((2 * order + 1) / (2 * order))
        before, legendre = torch.zeros_like(z), sectoral
        for degree in range(order, last_degree + 1):
            if degree > order:
                step = math.sqrt((4 * degree**2 - 1) / (degree**2 - order**2))
                back = math.sqrt(((degree - 1) ** 2 - order**2) / (4 * (degree - 1) ** 2 - 1))
                before, legendre = legendre, step * (z * legendre - back * before)
            middle = degree * (degree + 1)
            if order == 0:
                columns[middle] = legendre
            else:
                columns[middle + order] = math.sqrt(2) * legendre * powers[order].real
                columns[middle - order] = math.sqrt(2) * legendre * powers[order].imag
    return torch.stack(columns, dim=-1)


def bessel_zeros(count: int) -> Iterator[list[float]]:
    """First positive zeros of the spherical Bessel functions j_0, j_1, ..., of each one less than of that before.

    Those of j_l lie between those of j_{l-1}.

    Examples
    --------
    >>> [[round(zero, 4) for zero in zeros] for zeros in bessel_zeros(3)]
    [[3.1416, 6.2832, 9.4248], [4.4934, 7.7253], [5.7635]]
    """
    zeros = [math.pi * number for number in range(1, count + 1)]
    for degree in range(1, count + 1):
        yield zeros
        pairs = zip(zeros[:-1], zeros[1:], strict=True)
        zeros = [brentq(lambda x, degree=degree: spherical_jn(degree, x), *pair) for pair in pairs]


def sphere_quadrature(degree: int) -> tuple[Tensor, Tensor]:
    """Directions and weights, with the sum one, whose sums are averages over the sphere up to this degree.

    Gauss and Legendre in z, equal steps about it; degree + 1 rings do not fall onto each other's opposites.

    Returns
    -------
    direction : Tensor, shape (points, 3), float64
    weight : Tensor, shape (points,), float64
    """
    rings, steps = degree // 2 + 1, degree + 1
    node, node_weight = np.polynomial.legendre.leggauss(rings)
    z = torch.from_numpy(node).repeat_interleave(steps)
    angle = (2 * math.pi / steps * torch.arange(steps, dtype=torch.float64)).repeat(rings)
    radius = (1 - z * z).sqrt()
    weight = torch.from_numpy(node_weight).repeat_interleave(steps) / (2 * steps)
    return torch.stack((radius * angle.cos(), radius * angle.sin(), z), dim=1), weight


def rotations_to(direction: Tensor) -> Tensor:
    """Rz(rot) Ry(tilt), (n, 3, 3): the orientations with these viewing directions (n, 3) and no in-plane angle."""
    x, y, z = direction.double().unbind(-1)
    sine = torch.hypot(x, y)
    cos_rot = torch.where(sine > 0, x / sine, torch.ones_like(x))
    sin_rot = torch.where(sine > 0, y / sine, torch.zeros_like(y))
    zero = torch.zeros_like(x)
    columns = (
        torch.stack((cos_rot * z, sin_rot * z, -sine), dim=-1),
        torch.stack((-sin_rot, cos_rot, zero), dim=-1),
        torch.stack((x, y, z), dim=-1),
    )
    return torch.stack(columns, dim=-1)
