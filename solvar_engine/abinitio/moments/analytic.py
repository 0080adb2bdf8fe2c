"""First and second moment of a map's images, in closed form and over a quadrature of views.

In-plane angles are uniform. So the first moment depends on the ring k alone, and the second on two rings and the angle
between two frequencies: on its Fourier coefficients M_q(k, k') = mean of a_q(k) conj(a_q(k')), with
a_q(k) the coefficients of a ring of a slice. Blocks of different q do not mix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from solvar_engine.abinitio.moments.basis import BallBasis
from solvar_engine.imaging.harmonics import degrees_and_orders, real_harmonics, rotations_to


@dataclass(frozen=True)
class MomentPair:
    """First and second moment.

    Attributes
    ----------
    first : Tensor, shape (rings,), real
    second : Tensor, shape (rings, rings, angles), real
        Mean of Y(k, phi + angle) conj(Y(k', phi)), at equal steps of the angle from 0 round the circle.
    """

    first: Tensor
    second: Tensor


def angles_of(count: int) -> Tensor:
    """Equal steps round the circle, (count,), float64."""
    return 2 * math.pi / count * torch.arange(count, dtype=torch.float64)


def at_angles(blocks: Tensor, angles: Tensor) -> Tensor:
    """Sum of blocks (Q + 1, rings, rings), complex, times exp(i q angle): (rings, rings, angles), real.

    Block -q is the conjugate of block q, for images are real.
    """
    phase = torch.arange(len(blocks), dtype=angles.dtype, device=angles.device)[:, None] * angles
    twice = torch.full((len(blocks), 1), 2.0, dtype=angles.dtype)
    twice[0] = 1
    return torch.einsum("qkl,qa->kla", blocks.real, twice * phase.cos()) - torch.einsum(
        "qkl,qa->kla", blocks.imag, twice * phase.sin()
    )


def shift_factors(ring: Tensor, angles: Tensor, shift_std: Tensor | float) -> tuple[Tensor, Tensor]:
    """What normal shifts make of both moments (Paul 2024, eq. 3.6 and 3.7).

    Parameters
    ----------
    ring : Tensor, shape (rings,)
        Fourier pixels.
    angles : Tensor, shape (angles,)
    shift_std : Tensor or float
        Standard deviation per axis, as a share of the box.

    Returns
    -------
    first : Tensor, shape (rings,)
        exp(-s^2 k^2 / 2), with s the deviation times 2 pi.
    second : Tensor, shape (rings, rings, angles)
        exp(-s^2 |k - k'|^2 / 2).
    """
    half = 0.5 * (2 * math.pi * shift_std) ** 2
    squared = ring.square()
    difference = squared[:, None, None] + squared[:, None] - 2 * ring[:, None, None] * ring[:, None] * angles.cos()
    return torch.exp(-half * squared), torch.exp(-half * difference)


class MapMoments:
    """Moments of maps in a basis.

    Parameters
    ----------
    basis : BallBasis
    ring : Tensor, shape (rings,)
        Fourier pixels.
    angles : int
        Steps round the circle.
    direction : Tensor, shape (views, 3), optional
        Viewing directions of the quadrature, where views are not uniform.
    """

    def __init__(self, basis: BallBasis, ring: Tensor, angles: int, direction: Tensor | None = None) -> None:
        self.basis, self.ring, self.angles = basis, ring.double(), angles_of(angles)
        self._radial = basis.of_frequency(ring).T
        self._degree, _ = degrees_and_orders(basis.last_degree)
        self._direction = direction

    def _ring_functions(self, coefficients: Tensor) -> Tensor:
        """A_lm(k) without its phase (-i)^l, (harmonics, rings)."""
        zero = torch.zeros(len(self._degree), len(self.ring), dtype=torch.float64)
        return zero.index_add(0, self.basis.harmonic, coefficients[:, None] * self._radial)

    def uniform(self, coefficients: Tensor, shift_std: Tensor | float = 0.0) -> MomentPair:
        """Of uniform views: M2 is the sum of C_l(k, k') P_l(cos angle), C_l that of A_lm(k) A_lm(k') / 4 pi (Kam)."""
        functions = self._ring_functions(coefficients)
        products = functions[:, :, None] * functions[:, None]
        zero = torch.zeros(self.basis.last_degree + 1, *products.shape[1:], dtype=torch.float64)
        correlations = zero.index_add(0, self._degree, products) / (4 * math.pi)
        first = functions[0] / math.sqrt(4 * math.pi)
        return self._shifted(first, torch.einsum("lkj,la->kja", correlations, self._legendre), shift_std)

    def of_views(self, coefficients: Tensor, probability: Tensor, shift_std: Tensor | float = 0.0) -> MomentPair:
        """Of views with these probabilities (views,)."""
        return self.of_slices(self.slices(coefficients), probability, shift_std)

    def slices(self, coefficients: Tensor) -> Tensor:
        """Fourier coefficients of the rings of each view's slice, (q, views, rings), complex, from q = 0 on."""
        functions = self._ring_functions(coefficients)
        phased = functions * torch.pow(torch.tensor(-1j, dtype=torch.complex128), self._degree)[:, None]
        return self._ring_coefficients @ phased

    def of_slices(self, slices: Tensor, probability: Tensor, shift_std: Tensor | float = 0.0) -> MomentPair:
        """Of slices (q, views, rings) with these probabilities (views,)."""
        weighted = slices * probability[:, None]
        first = weighted[0].real.sum(dim=0)
        return self._shifted(first, at_angles(weighted.mT @ slices.conj(), self.angles), shift_std)

    def _shifted(self, first: Tensor, second: Tensor, shift_std: Tensor | float) -> MomentPair:
        of_first, of_second = shift_factors(self.ring, self.angles, shift_std)
        return MomentPair(first * of_first, second * of_second)

    @cached_property
    def _legendre(self) -> Tensor:
        """P_l(cos angle), (degrees, angles)."""
        zero = torch.zeros_like(self.angles)
        zonal = real_harmonics(
            self.basis.last_degree, torch.stack((self.angles.sin(), zero, self.angles.cos()), dim=-1)
        )
        degree = torch.arange(self.basis.last_degree + 1)
        return (zonal[:, degree * (degree + 1)] * (4 * math.pi / (2 * degree.double() + 1)).sqrt()).T

    @cached_property
    def _ring_coefficients(self) -> Tensor:
        """Fourier coefficients of each harmonic on the ring of each view, (q, views, harmonics), complex."""
        if self._direction is None:
            raise ValueError("there are no viewing directions: give those of a quadrature")
        last = self.basis.last_degree
        phi = angles_of(2 * last + 1)
        circle = torch.stack((phi.cos(), phi.sin(), torch.zeros_like(phi)))
        values = real_harmonics(last, (rotations_to(self._direction) @ circle).mT)
        phase = -torch.arange(last + 1)[:, None] * phi
        return torch.einsum("qp,vpn->qvn", torch.polar(torch.ones_like(phase), phase) / len(phi), values + 0j)
