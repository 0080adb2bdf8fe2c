"""The stage of a fit that places every particle along the components."""

from __future__ import annotations

import torch

from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.alternation.problem import of_no_half
from solvar_engine.estimation.judging.components import Components, LatentBatch, latent_coordinates
from solvar_engine.estimation.judging.own_influence import measure_own_influence, without_own_influence
from solvar_engine.jobs.fit.job import FitJob


def find_latents(job: FitJob, halves: HalfSetFit, components: Components) -> LatentBatch:
    """Place every particle along the components: all in one batch, in the units of the estimators."""
    job.progress.stage("latent coordinates")
    latents = place_images(job, halves, components)
    if len(components.eigenvalues):
        problem = halves.problem
        first, second = (factors.volumes * problem.mask for factors in halves.state.factors)
        band, spread = halves.judging_band(), halves.contrast_variance()
        influence = measure_own_influence(halves.source, problem.halves, band, components, (first, second), spread)
        rows = torch.cat(problem.halves)
        latents = without_own_influence(latents, rows, components.eigenvalues.cpu(), influence.cpu())
    job.progress.advance()
    return latents


def place_images(job: FitJob, halves: HalfSetFit, components: Components) -> LatentBatch:
    """What every image says of its place, with its own part in the components."""
    count, rank = len(halves.source), components.eigenvalues.shape[0]
    everyone, band, spread = torch.arange(count), halves.judging_band(), halves.contrast_variance()
    latents = LatentBatch(
        everyone,
        torch.zeros(count, rank),
        torch.zeros(count, rank, rank),
        torch.zeros(count, dtype=torch.float64),
        torch.zeros(count),
        torch.zeros(count),
    )
    for batch in latent_coordinates(halves.source, everyone, band, components, spread):
        latents.z[batch.index] = batch.z.cpu()
        latents.precision[batch.index] = batch.precision.cpu()
        latents.log_likelihood[batch.index] = batch.log_likelihood.cpu()
        latents.contrast[batch.index] = batch.contrast.cpu()
        latents.contrast_std[batch.index] = batch.contrast_std.cpu()
    z, *others = job.world.total(
        latents.z, latents.precision, latents.log_likelihood, latents.contrast, latents.contrast_std
    )
    latents = LatentBatch(everyone, z, *others)
    latents.z[of_no_half(job.inputs.halves, count)] = 0  # nothing is known of images that cannot be used
    return latents
