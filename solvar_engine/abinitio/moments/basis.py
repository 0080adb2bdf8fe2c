"""Maps inside a ball as sums of spherical harmonics times spherical Bessel functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice, takewhile

import numpy as np
import torch
from scipy.special import spherical_jn
from torch import Tensor

from solvar_engine.imaging.harmonics import bessel_zeros, degrees_and_orders, real_harmonics, sphere_quadrature

_NODES = 100  # of the quadrature over the radius


@dataclass(frozen=True)
class BallBasis:
    """Orthonormal functions f_ls(r) Y_lm: eigenfunctions of the Laplacian that vanish at the rim of a ball.

    As eq. 3.9 of Paul (2024), but in real space, where a molecule ends: coefficients of a real map are real.

    Attributes
    ----------
    box_size : int
        Px.
    radius : float
        Of the ball, px.
    last_degree : int
    harmonic : Tensor, shape (n,), int64
        Which harmonic each function has, see `degrees_and_orders`.
    root : Tensor, shape (n,), float64
        Zero u_ls of the spherical Bessel function j_l; f_ls(r) is proportional to j_l(u_ls r / radius).
    scale : Tensor, shape (n,), float64
        Factor that makes the norm one, of volumes in px^3.
    """

    box_size: int
    radius: float
    last_degree: int
    harmonic: Tensor
    root: Tensor
    scale: Tensor

    @staticmethod
    def create(box_size: int, radius: float, shell: float, last_degree: int | None = None) -> BallBasis:
        """All functions that oscillate no faster than a shell, up to a degree if one is given.

        Raises
        ------
        ValueError
            If there are none.
        """
        largest = 2 * math.pi * radius * shell / box_size
        roots = _roots(largest, last_degree)
        if not roots:
            raise ValueError(f"no function in a ball of {radius} px is as slow as shell {shell} of {box_size} px")
        rows = [
            (degree, degree * degree + place, value)
            for degree, values in enumerate(roots) for value in values for place in range(2 * degree + 1)
        ]  # fmt: skip
        degrees, harmonic, root = (np.array(column) for column in zip(*rows, strict=True))
        # the integral of r^2 j_l(u r / R)^2 up to R, a zero of j_l, is R^3 j_{l+1}(u)^2 / 2
        scale = (2 / radius**3) ** 0.5 / np.abs(spherical_jn(degrees + 1, root))
        of_functions = (torch.from_numpy(values) for values in (harmonic, root, scale))
        return BallBasis(box_size, radius, len(roots) - 1, *of_functions)

    def __len__(self) -> int:
        return len(self.root)

    @property
    def degree(self) -> Tensor:
        """Degree l of each function, (n,)."""
        return degrees_and_orders(self.last_degree)[0][self.harmonic]

    def of_radius(self, r: Tensor) -> Tensor:
        """Radial functions f_ls at radii (points,), px: (points, n), 0 outside the ball."""
        values = spherical_jn(self.degree.numpy(), (r[:, None] / self.radius * self.root).numpy())
        return torch.from_numpy(values) * self.scale * (r < self.radius)[:, None]

    def of_frequency(self, ring: Tensor) -> Tensor:
        """Radial functions of the Fourier transform, without the phase (-i)^l.

        Parameters
        ----------
        ring : Tensor, shape (rings,)
            Fourier pixels.

        Returns
        -------
        Tensor, shape (rings, n), float64
            4 pi / box times the integral of f_ls(r) j_l(2 pi k r / box) r^2: transforms are divided by the box.
        """
        node, weight = np.polynomial.legendre.leggauss(_NODES)
        r = self.radius * (torch.from_numpy(node) + 1) / 2
        weight_of_r = torch.from_numpy(weight) * (self.radius / 2) * r * r * (4 * math.pi / self.box_size)
        phase = 2 * math.pi / self.box_size * ring.double()[:, None] * r
        bessel = np.stack([spherical_jn(degree, phase.numpy()) for degree in range(self.last_degree + 1)])
        weighted = torch.from_numpy(bessel)[self.degree] * weight_of_r
        return torch.einsum("nkr,rn->kn", weighted, self.of_radius(r))

    def places(self) -> tuple[Tensor, Tensor]:
        """Voxels inside the ball: (x, y, z) from its centre, (voxels, 3), px, float64; and which, (z, y, x), bool."""
        axis = torch.arange(self.box_size, dtype=torch.float64) - self.box_size // 2
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        place = torch.stack((x, y, z), dim=-1)
        inside = place.norm(dim=-1) < self.radius
        return place[inside], inside

    def on_grid(self) -> tuple[Tensor, Tensor]:
        """Values (voxels, n) of the functions at the voxels inside the ball, and where these are, (z, y, x), bool."""
        place, inside = self.places()
        r = place.norm(dim=-1)
        angular = real_harmonics(self.last_degree, place / r[:, None].clamp_min(1e-12))[:, self.harmonic]
        return angular * self.of_radius(r), inside

    def invariants(self, operators: Tensor) -> Tensor:
        """Orthonormal combinations (n, m) of the functions that a point group (g, 3, 3) leaves as they are."""
        direction, weight = sphere_quadrature(2 * self.last_degree)
        before = real_harmonics(self.last_degree, direction)
        turned = torch.stack([real_harmonics(self.last_degree, direction @ one.double().T) for one in operators])
        average = 4 * math.pi * turned.mean(dim=0).T @ (before * weight[:, None])
        is_same = (self.root[:, None] == self.root) & (self.degree[:, None] == self.degree)
        # rotations mix the orders of a degree alike for each of its radial functions
        value, vector = torch.linalg.eigh(average[self.harmonic][:, self.harmonic] * is_same)
        return vector[:, value > 0.5]

    def volume(self, coefficients: Tensor) -> Tensor:
        """Map (z, y, x), float32, of coefficients (n,)."""
        values, inside = self.on_grid()
        volume = torch.zeros(inside.shape)
        volume[inside] = (values @ coefficients.double()).float()
        return volume


def _roots(largest: float, last_degree: int | None) -> list[list[float]]:
    """Zeros up to a value of j_0, j_1, ..., for each degree that has one; none is below its degree."""
    degrees = int(largest) + 1 if last_degree is None else last_degree + 1
    zeros = islice(bessel_zeros(degrees + int(largest / math.pi) + 1), degrees)
    return list(takewhile(len, ([zero for zero in row if zero <= largest] for row in zeros)))
