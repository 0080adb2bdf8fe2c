"""Multireference alignment: a periodic signal, seen at random shifts, from its first and second moment.

Chapter 2 of Paul (2024), with its slips corrected: a shift by s is a phase exp(-2 pi i k s), and the eigenvectors of
the second moment of a signal of unit Fourier modulus are the columns of diag(v) F*, each of which is the whole signal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def fourier_matrix(points: int) -> Tensor:
    """Unitary, (points, points), complex128; frequency k of row k, shifts as shares of the period."""
    grid = torch.arange(points, dtype=torch.float64)
    phase = -2 * math.pi / points * grid[:, None] * grid
    return torch.polar(torch.full_like(phase, points**-0.5), phase)


def moments_of_signal(signal: Tensor, density: Tensor) -> tuple[Tensor, Tensor]:
    """Moments of the Fourier coefficients of signals at random shifts (equations 2.1 and 2.3).

    Parameters
    ----------
    signal : Tensor, shape (..., n), float64
    density : Tensor, shape (..., n), float64
        Probability of each shift, steps of a period over n.

    Returns
    -------
    first : Tensor, shape (..., n), complex128
    second : Tensor, shape (..., n, n), complex128
    """
    points = signal.shape[-1]
    fourier = fourier_matrix(points).to(torch.promote_types(signal.dtype, torch.complex64))
    of_signal = signal.to(fourier.dtype) @ fourier.T
    of_density = density.to(fourier.dtype) @ fourier.T * points**0.5
    step = torch.arange(points)
    difference = (step[:, None] - step) % points
    second = of_signal[..., :, None] * of_density[..., difference] * of_signal[..., None, :].conj()
    return of_signal * of_density, second


def empirical_moments(observations: Tensor, noise_std: float) -> tuple[Tensor, Tensor]:
    """Moments of noisy observations (count, n), without the noise (equation 2.12)."""
    count, points = observations.shape
    fourier = fourier_matrix(points)
    covariance = observations.T @ observations / count - noise_std**2 * torch.eye(points, dtype=torch.float64)
    return fourier @ (observations.mean(dim=0) + 0j), fourier @ (covariance + 0j) @ fourier.mH


def spectral_inversion(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and density of shifts from exact moments, up to a common shift.

    Needs a largest probability, and no Fourier coefficient that is 0.

    Parameters
    ----------
    first : Tensor, shape (n,), complex128
    second : Tensor, shape (n, n), complex128

    Returns
    -------
    signal, density : Tensor, shape (n,), float64
    """
    points = len(first)
    fourier = fourier_matrix(points)
    modulus = second.diagonal().real.clamp_min(1e-300).sqrt()
    _, vectors = torch.linalg.eigh(second / (modulus[:, None] * modulus))
    phase = vectors[:, -1] / vectors[:, -1].abs().clamp_min(1e-300)
    phase = phase * (phase[0].conj() * torch.sgn(first[0].real))  # a common phase; the mean tells the sign
    coefficients = modulus * phase
    of_density = first / coefficients * points**-0.5
    return (fourier.mH @ coefficients).real, (fourier.mH @ of_density).real


def aligned_error(found: Tensor, truth: Tensor) -> Tensor:
    """Least relative error over all shifts of the grid (equation 2.9); (...), of signals (..., n)."""
    points = truth.shape[-1]
    step = torch.arange(points)
    shifted = truth[..., (step - step[:, None]) % points]
    return ((shifted - found[..., None, :]).norm(dim=-1) / truth.norm(dim=-1, keepdim=True)).min(dim=-1).values


def moment_errors(signal: Tensor, density: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Relative errors of both moments (equation 2.10)."""
    mine = moments_of_signal(signal, density)
    of_first = torch.linalg.vector_norm(mine[0] - first, dim=-1) / torch.linalg.vector_norm(first, dim=-1)
    of_second = torch.linalg.matrix_norm(mine[1] - second) / torch.linalg.matrix_norm(second)
    return of_first, of_second


def gaussian_mixtures(
    count: int, gaussians: int, points: int, generator: torch.Generator, widths: tuple[float, float] = (0.04, 0.08)
) -> Tensor:
    """Mixtures of periodic normal densities at random places, (count, points), float64, each with the sum one.

    Parameters
    ----------
    count, gaussians, points : int
    generator : torch.Generator
    widths : tuple of two float
        Least and largest standard deviation, shares of the period.
    """
    shape = (count, gaussians, 1)
    centre = torch.rand(shape, generator=generator, dtype=torch.float64)
    width = widths[0] + (widths[1] - widths[0]) * torch.rand(shape, generator=generator, dtype=torch.float64)
    weight = 0.2 + 0.8 * torch.rand(shape, generator=generator, dtype=torch.float64)
    distance = torch.arange(points, dtype=torch.float64) / points - centre
    distance = distance - distance.round()  # the nearest period; others are beyond six deviations
    density = (weight / width * torch.exp(-0.5 * (distance / width).square())).sum(dim=1)
    return density / density.sum(dim=1, keepdim=True)
