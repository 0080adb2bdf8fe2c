"""Projections of a volume of low dimension at unknown orientations: the smallest model of cryo-EM."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.imaging.so3_grid import super_fibonacci
from solvar_engine.orbit_recovery.harmonics import volume_basis
from solvar_engine.orbit_recovery.mixture import OrbitMixture
from solvar_engine.orbit_recovery.quadrature import orientations, spherical_design

_DEGREE, _RADIAL = 3, 4  # L and S(l) of Paul 2024, section 4.5.2
_VIEWS, _DESIGN, _ANGLES = 100, 13, 12


def slice_operators(rotations: Tensor, box_size: int, degree: int = _DEGREE, radial: int = _RADIAL) -> Tensor:
    """Coefficients of a volume to its projections, shape (r, m, d), float64 (Paul 2024, eq. 4.24).

    Pixels are those of `half_plane` in an image's unitary transform, the imaginary parts after the real ones, times
    sqrt(2) but for the mean: norms and white noise are those of the real image.

    Parameters
    ----------
    rotations : Tensor, shape (r, 3, 3)
        Their first two rows are the axes of the image.
    box_size : int
        Odd.
    degree, radial : int
        Of the basis.

    Raises
    ------
    ValueError
        If the box is even, whose Nyquist pixels are their own mates.
    """
    if box_size % 2 == 0:
        raise ValueError(f"the box must be odd, not {box_size} px")
    pixels = half_plane(box_size)
    slices = volume_basis((pixels @ rotations[:, :2]).flatten(0, 1), degree, radial)
    slices = slices.reshape(len(rotations), len(pixels), -1)
    return torch.cat((slices[:, :1].real, math.sqrt(2) * slices[:, 1:].real, math.sqrt(2) * slices[:, 1:].imag), dim=1)


def half_plane(box_size: int) -> Tensor:
    """Frequencies of the mean and of one of each pair of mates, in units of box_size / 2, shape (n, 2).

    Only those below one: where the basis vanishes an image shows noise alone.
    """
    line = torch.arange(-(box_size // 2), box_size // 2 + 1, dtype=torch.float64) / (box_size / 2)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack((x, y), dim=2)[((y > 0) | ((y == 0) & (x >= 0))) & (x.square() + y.square() < 1)]


@dataclass(frozen=True)
class CryoInstance:
    """Images with their truth.

    Attributes
    ----------
    problem : OrbitMixture
        Of the volume; orientations are known to be uniform.
    coefficients : Tensor, shape (d,)
        Of the true volume.
    start : Tensor, shape (d,)
        For solvers: random, of a tenth of the size.
    """

    problem: OrbitMixture
    coefficients: Tensor
    start: Tensor


def cryo_instance(count: int = 3600, box_size: int = 15, snr: float = 0.34, seed: int = 0) -> CryoInstance:
    """Images of six Gaussians in the basis, at uniform orientations (Paul 2024, section 4.5.2).

    The images' orientations are not those of the quadrature, 1,200 points: 100 views, a spherical design of degree 13,
    by 12 in-plane angles. The SNR is that of pixels of the real image.
    """
    generator = torch.Generator().manual_seed(seed)
    coefficients = _six_gaussians(box_size, generator)
    turn = super_fibonacci(1000)[int(torch.randint(1000, (1,), generator=generator))]
    clean = slice_operators(super_fibonacci(count) @ turn, box_size) @ coefficients
    sigma = math.sqrt(float(clean.square().sum()) / (count * box_size**2 * snr))
    noise = torch.randn(clean.shape, dtype=torch.float64, generator=generator)
    positions = orientations(spherical_design(_VIEWS, _DESIGN), _ANGLES)
    density = torch.full((len(positions),), 1 / len(positions), dtype=torch.float64)
    problem = OrbitMixture(clean + sigma * noise, slice_operators(positions, box_size), sigma, density)
    rough = torch.randn(len(coefficients), dtype=torch.float64, generator=generator)
    return CryoInstance(problem, coefficients, 0.1 * rough * coefficients.norm() / rough.norm())


def _six_gaussians(box_size: int, generator: torch.Generator) -> Tensor:
    """Least-squares coefficients of six Gaussians within a quarter of the box, their transform of unit height."""
    centre = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    centre = 0.2 * box_size * centre / centre.norm(dim=1, keepdim=True)
    weight = 0.5 + torch.rand(6, dtype=torch.float64, generator=generator)
    line = torch.linspace(-1, 1, 15, dtype=torch.float64)
    frequency = torch.cartesian_prod(line, line, line)
    frequency = frequency[frequency.norm(dim=1) < 1]
    cycles = frequency / 2  # per pixel
    height = (-0.5 * (2 * math.pi * 0.08 * box_size * cycles.norm(dim=1)).square()).exp()
    phase = torch.exp(-2j * math.pi * (cycles @ centre.T))
    transform = height * (phase @ (weight / weight.sum()).to(phase))
    basis = volume_basis(frequency, _DEGREE, _RADIAL)
    real = torch.cat((basis.real, basis.imag))
    return torch.linalg.lstsq(real, torch.cat((transform.real, transform.imag))[:, None]).solution[:, 0]
