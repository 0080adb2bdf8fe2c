"""The stage of a fit that finds the density of the particles in latent space, and places particles by it."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import Tensor

from solvar_engine.distributed.world import World
from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.judging.bootstrap import ErrorFactors, with_larger_errors
from solvar_engine.estimation.judging.components import Components, LatentBatch
from solvar_engine.estimation.model.mixture import (
    LIVE_SHARE,
    SHAPING_PARTICLES,
    GaussianMixture,
    mixture_posterior,
)
from solvar_engine.estimation.model.mixture_choice import find_density
from solvar_engine.estimation.model.statistics import Statistics
from solvar_engine.imaging.sampling import sample_of
from solvar_engine.jobs.fit.job import FitJob

logger = logging.getLogger(__name__)

_CHUNK = 4096


def place_by_density(
    job: FitJob, halves: HalfSetFit, components: Components, latents: LatentBatch, errors: ErrorFactors
) -> tuple[GaussianMixture | None, LatentBatch]:
    """Fit a mixture of Gaussians to what images know of their coordinates, and take it for the prior of each.

    The density is that of coordinates with errors as stated: larger ones are so in a part of the images, and for most
    of them a density that is sharper by as much would be too sharp. The places are those with errors as they are.

    Returns
    -------
    mixture : GaussianMixture or None
        Of the coordinates along the components, in the units of the estimators; None without components, and in other
        processes than the first, which writes the results.
    latents : LatentBatch
        Mean and precision of the posterior under the mixture, or under one Gaussian where that is best.
    """
    rank = len(components.eigenvalues)
    if not rank:
        return None, latents
    eigenvalues = components.eigenvalues.cpu()
    deviation = eigenvalues.sqrt()
    live = torch.nonzero(eigenvalues > LIVE_SHARE * eigenvalues[0]).flatten()
    used = torch.cat(job.inputs.halves).sort().values
    good = used[~halves.outlier[used]]
    sample = _known(latents, sample_of(good, SHAPING_PARTICLES), deviation, live)
    generator = halves.problem.generator(4)
    chosen = find_density(sample, generator, job.world)
    if job.world.is_first:
        logger.info("density of the particles in latent space: %s", chosen)
    latents = with_larger_errors(latents, used, eigenvalues, errors.latents)
    if len(chosen) > 1:
        latents = _placed(latents, used, deviation, live, chosen, job.world)
    if not job.world.is_first:
        return None, latents
    return chosen.beside_others(live, rank).scaled(deviation), latents


def _known(latents: LatentBatch, rows: Tensor, deviation: Tensor, live: Tensor) -> Statistics:
    """What images know of their live coordinates in units of the deviations, whatever the others are."""
    dead = [number for number in range(len(deviation)) if number not in live.tolist()]
    return latents.known(deviation, rows).integrate_out(dead)


def _placed(
    latents: LatentBatch, rows: Tensor, deviation: Tensor, live: Tensor, mixture: GaussianMixture, world: World
) -> LatentBatch:
    """Posteriors of some particles under a mixture of their live coordinates; the others are left as they are."""
    z, precision, log_likelihood = (
        latents.z.clone(), latents.precision.clone(), latents.log_likelihood.clone()
    )
    scale = deviation[live]
    one = GaussianMixture.one(len(live))
    own = world.own
    for chunk in rows.split(_CHUNK):
        known = _known(latents, chunk[own], deviation, live)
        found = mixture_posterior(known, mixture)
        of_own = torch.cholesky_inverse(torch.linalg.cholesky(found.covariance())) / (scale[:, None] * scale)
        place, gain = torch.zeros(len(chunk), len(live)), torch.zeros(len(chunk), dtype=torch.float64)
        of_live = torch.zeros(len(chunk), len(live), len(live))
        place[own] = (found.mean * scale).float()
        of_live[own] = (0.5 * (of_own + of_own.mT)).float()  # symmetric to the last digit
        gain[own] = found.evidence - mixture_posterior(known, one).evidence
        place, of_live, gain = world.total(place, of_live, gain)
        z[chunk[:, None], live] = place
        whole = torch.diag_embed(latents.precision[chunk].diagonal(dim1=1, dim2=2))
        whole[:, live[:, None], live] = of_live
        precision[chunk] = whole
        log_likelihood[chunk] += gain
    return replace(latents, z=z, precision=precision, log_likelihood=log_likelihood)

