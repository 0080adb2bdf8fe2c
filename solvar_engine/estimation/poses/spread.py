"""The spread of the errors of poses, measured on the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.fixed_factors import collect_statistics, latent_covariance
from solvar_engine.estimation.poses.uncertainty import PoseSpread
from solvar_engine.imaging.sampling import sample_of
from solvar_engine.imaging.types import BatchSource

FIRST_SPREAD = PoseSpread(0.05, 1.0)
"""A guess to measure the spread with."""

_PARTICLES = 2_500  # of each half-set
_ITERATIONS = 30


def measure_spread(
    source: BatchSource, halves: Sequence[Tensor], band: Band, factors: Sequence[Tensor], spread: PoseSpread
) -> PoseSpread:
    """Measure the errors of the poses on a sample, under each half's own factors, by what they make of the mean.

    Parameters
    ----------
    source : BatchSource
    halves : sequence of two Tensors, int64
        Particles of each half-set.
    band : Band
        Whose nuisance factors are those of ``spread``.
    factors : sequence of two Tensors, shape (r, z, y, x)
        Of the half-sets, at the box of the band; without any, motion is counted in.
    spread : PoseSpread
        As far as it is known.

    Returns
    -------
    PoseSpread
    """
    # measured like factors, so that they must not be marginalised as well
    nuisance, band = band.nuisance, replace(band, nuisance=band.nuisance[:0])

    def moments_of(half: int) -> Tensor:
        sample = sample_of(halves[half], _PARTICLES)
        statistics = collect_statistics(source, sample, band, torch.cat((factors[half], nuisance)))
        return latent_covariance(statistics, _ITERATIONS)[-len(nuisance) :, -len(nuisance) :]

    moments = source.world.of_halves(moments_of)
    return spread.rescaled(0.5 * (moments[0] + moments[1])).in_single_precision()
