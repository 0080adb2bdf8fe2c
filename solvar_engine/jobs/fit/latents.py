"""The stage of a fit that places every particle along the components."""

from __future__ import annotations

import torch

from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.alternation.problem import of_no_half
from solvar_engine.estimation.judging.components import Components, LatentBatch, latent_coordinates
from solvar_engine.jobs.fit.job import FitJob


def find_latents(job: FitJob, halves: HalfSetFit, components: Components) -> LatentBatch:
    """Place every particle along the components: all in one batch, in the units of the estimators."""
    job.progress.stage("latent coordinates")
    count, rank = len(halves.source), components.eigenvalues.shape[0]
    everyone, band, spread = torch.arange(count), halves.judging_band(), halves.contrast_variance()
    latents = LatentBatch(
        everyone,
        torch.empty(count, rank),
        torch.empty(count, rank, rank),
        torch.empty(count, dtype=torch.float64),
        torch.empty(count),
        torch.empty(count),
    )
    for batch in latent_coordinates(halves.source, everyone, band, components, spread):
        latents.z[batch.index] = batch.z
        latents.precision[batch.index] = batch.precision
        latents.log_likelihood[batch.index] = batch.log_likelihood
        latents.contrast[batch.index] = batch.contrast
        latents.contrast_std[batch.index] = batch.contrast_std
    latents.z[of_no_half(job.inputs.halves, count)] = 0  # nothing is known of images that cannot be used
    job.progress.advance()
    return latents
