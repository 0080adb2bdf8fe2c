"""The mean volume by regularised half-set reconstruction (Scheres, J. Struct. Biol. 2012, eqs. 5-9)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.distributed.world import ALONE, World
from solvar_engine.imaging.fourier import ft_to_volume, volume_to_ft
from solvar_engine.imaging.masks import BALL, sphere_mask
from solvar_engine.imaging.shells import fsc, radial_average, shells_to_volume
from solvar_engine.reconstruction.normal_equations import NormalEquations, solve

# Of conjugate gradients: further ones only fit noise of the half-sets, whose correlation stays within 0.01 in every
# shell, and change the mean by less than 0.5 %.
ITERATIONS = 12


@dataclass(frozen=True)
class MeanEstimate:
    """Mean volume of a set of particles.

    Attributes
    ----------
    mean : Tensor, shape (z, y, x), float32
        From all images, filtered by the signal-to-noise ratio that the half-sets agree on.
    half1, half2 : Tensor, shape (z, y, x), float32
        Independent, not filtered.
    fsc : Tensor, shape (shells,), float64
        Between the halves, inside the mask if one was given.
    """

    mean: Tensor
    half1: Tensor
    half2: Tensor
    fsc: Tensor


    def scaled(self, factor: float) -> MeanEstimate:
        """Of the same images with all values multiplied by a factor."""
        return MeanEstimate(factor * self.mean, factor * self.half1, factor * self.half2, self.fsc)

    def significance(self) -> float:
        """Agreement of the halves in standard deviations of what noise gives, up to the shell where it is largest.

        Correlations of noise have the variance 1 / n_s, with n_s = 2 pi s^2 independent coefficients in shell s.
        """
        shell = torch.arange(1, len(self.fsc), dtype=torch.float64)
        count = 2 * torch.pi * shell**2
        agreement = (self.fsc[1:].cpu().double() * count).cumsum(0) / count.cumsum(0).sqrt()
        return float(agreement.max())


def estimate_mean(
    half1: NormalEquations, half2: NormalEquations, mask: Tensor | None = None, world: World = ALONE
) -> MeanEstimate:
    """Reconstruct both half-sets and, with the prior that their FSC implies, the whole set.

    Parameters
    ----------
    half1, half2 : NormalEquations
    mask : Tensor, shape (z, y, x), optional
        Where the FSC is measured.
    world : World, optional
        Processes that have the same equations.
    """
    equations = (half1, half2)
    halves = world.of_halves(
        lambda half: solve(equations[half], weak_precision(equations[half]), iterations=ITERATIONS)
    )
    correlation = fsc(halves[0], halves[1], mask)
    both = half1 + half2
    density = radial_average(0.5 * both.density(), both.box_size)
    precision = precision_from_fsc(correlation, density)
    prior = shells_to_volume(precision.float(), both.box_size, beyond=float(precision[-1]))
    mean = solve(both, torch.maximum(prior, weak_precision(both)), iterations=ITERATIONS)
    return MeanEstimate(mean, halves[0], halves[1], correlation)


def filtered_halves(mean: MeanEstimate) -> tuple[Tensor, Tensor]:
    """Both half-maps, each shell times the correlation of the halves: what a Wiener filter keeps of one of them."""
    return filtered(mean.half1, mean.fsc), filtered(mean.half2, mean.fsc)


def filtered(volume: Tensor, correlation: Tensor) -> Tensor:
    """A map (z, y, x), each shell times a correlation (shells,)."""
    box_size = volume.shape[-1]
    gain = shells_to_volume(correlation.clamp(0, 1).float(), box_size)
    return ft_to_volume(volume_to_ft(volume) * gain, box_size)


def weak_precision(normal: NormalEquations, fraction: float = 0.01) -> Tensor:
    """Precision that only keeps unseen directions finite: a fraction of each shell's average density."""
    average = radial_average(normal.density(), normal.box_size)
    floor = 1e-6 * average.max()
    return shells_to_volume((fraction * average + floor).float(), normal.box_size, beyond=float(floor))


def precision_from_fsc(correlation: Tensor, half_density: Tensor) -> Tensor:
    """Inverse prior variance per shell from the correlation of two half-sets: D (1 - F) / F.

    Parameters
    ----------
    correlation : Tensor, shape (..., shells)
        Clamped to 0.001 .. 0.999 first.
    half_density : Tensor, shape (shells,)
        Average density of *one* half-set.

    Returns
    -------
    Tensor, shape (..., shells), float64

    Examples
    --------
    >>> precision_from_fsc(torch.tensor([0.5]), torch.tensor([4.0])).item()
    4.0
    """
    clamped = correlation.double().clamp(0.001, 0.999)
    return half_density.double().clamp_min(1e-12) * (1 - clamped) / clamped


ONE_SIDED = 0.5
"""Of `one_sidedness`: molecules have 0.7 to 1, the difference of two conformations up to 0.3."""


def one_sidedness(mean: Tensor) -> float:
    """Third moment of a map over that of its absolute values, inside the box's ball: +1 or -1 if all is of one sign.

    Densities count from their median, that of the solvent, since images hardly tell the lowest frequencies.
    """
    inside = mean[sphere_mask(mean.shape[-1], BALL * mean.shape[-1], device=mean.device) > 0.5].double()
    cubes = (inside - inside.median()) ** 3
    return float(cubes.sum() / cubes.abs().sum().clamp_min(1e-30))


def density_skewness(mean: Tensor) -> float:
    """Third moment of a map inside the box's ball: density is sparse and of one sign, and this tells which."""
    inside = mean.double() * sphere_mask(mean.shape[-1], BALL * mean.shape[-1], device=mean.device)
    return float((inside**3).sum() / (inside**2).sum().clamp_min(1e-30) ** 1.5)
