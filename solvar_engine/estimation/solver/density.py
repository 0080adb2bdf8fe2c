"""The likelihood under the density of the particles that factors have found, for the last epochs of a fit."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.fixed_factors import collect_statistics
from solvar_engine.estimation.model.mixture import LIVE_SHARE, SHAPING_PARTICLES
from solvar_engine.estimation.model.mixture_choice import choose_mixture
from solvar_engine.estimation.model.objectives import MaximumLikelihood, MixtureLikelihood, Objective
from solvar_engine.estimation.solver.epochs import Factors
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.imaging.sampling import sample_of

logger = logging.getLogger(__name__)


def under_density(problem: CovarianceProblem, band: Band, index: Tensor, state: Factors) -> Objective:
    """The objective with the mixture of Gaussians that makes images most likely for the prior of their coordinates.

    Parameters
    ----------
    problem : CovarianceProblem
    band : Band
        The last one.
    index : Tensor, shape (n,), int64
    state : Factors
        Of latent coordinates of unit variance.

    Returns
    -------
    Objective
        That of the problem where one Gaussian is best, or the objective is no likelihood.
    """
    if not isinstance(problem.objective, MaximumLikelihood):
        return problem.objective
    power = state.volumes.flatten(1).double().square().sum(dim=1).cpu()
    live = torch.nonzero(power > LIVE_SHARE * power.max()).flatten()
    if not len(live):
        return problem.objective
    band = replace(band, contrast_variance=state.contrast_variance)
    sample = sample_of(index, SHAPING_PARTICLES)
    statistics = collect_statistics(problem.source, sample, band, state.volumes).for_mixtures()
    dead = [number for number in range(len(power)) if number not in live.tolist()]
    world = problem.source.world
    mixture = choose_mixture(statistics.integrate_out(dead), problem.generator(5), world)
    logger.info("density of the particles that guides the last epochs: %s", mixture)
    if len(mixture) == 1:
        return problem.objective
    return MixtureLikelihood(world.agreed(mixture.beside_others(live, len(power))))
