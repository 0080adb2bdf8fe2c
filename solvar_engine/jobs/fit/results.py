"""Last stage of a fit: latent coordinates, result files and what came out in words."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from solvar_engine.contract.results import CONTRAST, CONTRAST_STD, HALF_SET, LOG_LIKELIHOOD, NOT_REPRODUCIBLE, OUTLIER
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.alternation.problem import of_no_half
from solvar_engine.estimation.judging.components import Components, latent_coordinates
from solvar_engine.estimation.judging.nuisance import nuisance_overlap, slow_overlap
from solvar_engine.estimation.judging.rank import RankDecision
from solvar_engine.estimation.solver.agreement import covariance_fsc
from solvar_engine.imaging.shells import resolution_at
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.jobs.fit.outputs import (
    OutputScale,
    label_components,
    write_candidates,
    write_components,
    write_half_components,
    write_latent_coordinates,
    write_mean,
    write_spectra,
)
from solvar_engine.jobs.fit.poses import pose_columns
from solvar_engine.jobs.fit.rank import least_gain
from solvar_engine.jobs.running.devices import on_cpu

logger = logging.getLogger(__name__)


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


def write_results(
    job: FitJob,
    images: PreparedParticles,
    halves: HalfSetFit,
    components: Components,
    latents: AllLatents,
    decision: RankDecision,
) -> str:
    """Write all files of results, in the units of the images as they were read; returns what came out in a sentence."""
    job.progress.stage("writing results")
    refined = pose_columns(halves, components, job.inputs.stack.pose) if job.params.refine_poses else {}
    if not job.world.is_first:
        return ""
    run, stack, source = job.run, job.inputs.stack, halves.source
    scale = OutputScale.of(images)
    write_mean(run, halves.mean, halves.masks, scale)
    overlap = nuisance_overlap(components.eigenvolumes, halves.problem.mean).cpu()
    slow = slow_overlap(components.eigenvolumes, halves.problem.mean).cpu()
    correlation = covariance_fsc(*(factors.volumes for factors in halves.state.factors)).diagonal().cpu()
    factors = tuple((factors.volumes * halves.problem.mask).cpu() for factors in halves.state.factors)
    mean, components, decision = on_cpu((halves.mean, components, decision))
    labels = label_components(components, overlap, slow, least_gain(job, halves, decision))
    write_components(run, components, overlap, labels, scale)
    for half, volumes in enumerate(factors, start=1):
        write_half_components(run, components, volumes, half, scale)
    write_candidates(run, decision, scale)
    write_spectra(run, source, stack, mean.fsc, correlation, scale)
    known = (1.0 if source.contrast is None else source.contrast) / images.image_scale
    known = known / (known * latents.contrast)[~halves.outlier].mean()
    contrast = known * latents.contrast
    write_latent_coordinates(run, latents.z, latents.precision, contrast, scale)
    columns = {
        CONTRAST: contrast.double(),
        LOG_LIKELIHOOD: latents.log_likelihood,
        OUTLIER: halves.outlier.long(),
        CONTRAST_STD: (known * latents.contrast_std).double(),
        HALF_SET: _half_set_numbers(job),
        **refined,
    }
    stack.write_star(run.particles, columns, source.pose if job.params.refine_poses else None)
    return _summarise(replace(halves, mean=mean), components, labels, scale)


def _half_set_numbers(job: FitJob) -> torch.Tensor:
    """Half-set, 1 or 2, of each particle; 0 for images that cannot be used."""
    numbers = torch.zeros(len(job.inputs.stack), dtype=torch.int64)
    for number, half in enumerate(job.inputs.halves, start=1):
        numbers[half] = number
    return numbers


def _summarise(halves: HalfSetFit, components: Components, labels: list[str], scale: OutputScale) -> str:
    source = halves.source
    resolution = resolution_at(halves.mean.fsc, 0.143, source.box_size, source.pixel_size)
    reproducible = sum(label != NOT_REPRODUCIBLE for label in labels)
    outliers = int(halves.outlier.sum())
    left_out = f", {outliers} of them outliers" if outliers else ""
    found = f"{reproducible} of {len(labels)} components reproducible" if labels else "no reproducible variability"
    summary = f"{len(source)} particles{left_out}, mean at {resolution:.1f} Angstrom, {found}"
    logger.info(summary)
    logger.info("contrast: standard deviation %.3f between images", halves.contrast_variance() ** 0.5)
    eigenvalues = components.eigenvalues * scale.volume**2
    rows = zip(eigenvalues, components.agreement, components.likelihood_gain, labels, strict=True)
    for number, (value, agreement, gain, label) in enumerate(rows, start=1):
        logger.info(
            "component %d: eigenvalue %.4g, half-set agreement %.2f, held-out log-likelihood gain %.0f %s",
            number,
            value,
            agreement,
            gain,
            label,
        )
    return summary
