"""The stage of a fit that places every particle along the components."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.alternation.problem import of_no_half
from solvar_engine.estimation.judging.components import Components, latent_coordinates
from solvar_engine.jobs.fit.job import FitJob


@dataclass(frozen=True)
class AllLatents:
    """Latent coordinates of all particles, in the units of the estimators.

    Attributes
    ----------
    z : Tensor, shape (n, r), float32
    precision : Tensor, shape (n, r, r), float32
    log_likelihood : Tensor, shape (n,), float64
    contrast : Tensor, shape (n,), float32
        Posterior mean of each image's contrast over the one that it came with.
    contrast_std : Tensor, shape (n,), float32
        Its posterior standard deviation.
    """

    z: Tensor
    precision: Tensor
    log_likelihood: Tensor
    contrast: Tensor
    contrast_std: Tensor


def find_latents(job: FitJob, halves: HalfSetFit, components: Components) -> AllLatents:
    """Place every particle along the components."""
    job.progress.stage("latent coordinates")
    count, rank = len(halves.source), components.eigenvalues.shape[0]
    latents = AllLatents(
        torch.zeros(count, rank),
        torch.zeros(count, rank, rank),
        torch.zeros(count, dtype=torch.float64),
        torch.zeros(count),
        torch.zeros(count),
    )
    everyone, band, spread = torch.arange(count), halves.judging_band(), halves.contrast_variance()
    for batch in latent_coordinates(halves.source, everyone, band, components, spread):
        latents.z[batch.index] = batch.z.cpu()
        latents.precision[batch.index] = batch.precision.cpu()
        latents.log_likelihood[batch.index] = batch.log_likelihood.cpu()
        latents.contrast[batch.index] = batch.contrast.cpu()
        latents.contrast_std[batch.index] = batch.contrast_std.cpu()
    latents = AllLatents(*job.world.total(*(getattr(latents, field.name) for field in fields(latents))))
    latents.z[of_no_half(job.inputs.halves, count)] = 0  # nothing is known of images that cannot be used
    job.progress.advance()
    return latents
