"""Last stage of a fit: result files and what came out in words."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

from solvar_engine.contract.results import (
    CONTRAST,
    CONTRAST_STD,
    DOUBTFUL_POSES,
    GREY_SCALE,
    HALF_SET,
    LOG_LIKELIHOOD,
    NOT_REPRODUCIBLE,
    OTHER_FRAME,
    OUTLIER,
)
from solvar_engine.contract.words import counted
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.judging.bootstrap import ErrorFactors
from solvar_engine.estimation.judging.components import Components, LatentBatch
from solvar_engine.estimation.judging.nuisance import nuisance_overlap
from solvar_engine.estimation.judging.rank import RankDecision
from solvar_engine.estimation.model.mixture import GaussianMixture
from solvar_engine.estimation.solver.agreement import covariance_fsc
from solvar_engine.imaging.shells import resolution_at
from solvar_engine.jobs.decisions import ImageDecisions, read_cautions, read_decisions, with_cautions
from solvar_engine.jobs.fit.cautions import cautions_of
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.jobs.fit.outputs import (
    OutputScale,
    label_components,
    write_candidates,
    write_components,
    write_cryosparc,
    write_half_components,
    write_latent_coordinates,
    write_latent_density,
    write_mean,
    write_spectra,
)
from solvar_engine.jobs.fit.poses import pose_columns
from solvar_engine.jobs.fit.rank import least_gain
from solvar_engine.jobs.running.devices import on_cpu

logger = logging.getLogger(__name__)

_CHUNK = 4096  # images


def write_results(
    job: FitJob,
    images: PreparedParticles,
    halves: HalfSetFit,
    components: Components,
    latents: LatentBatch,
    density: GaussianMixture | None,
    decision: RankDecision,
    errors: ErrorFactors,
) -> str:
    """Write all files of results, in the units of the images as they were read; returns what came out in a sentence."""
    job.progress.stage("writing results")
    refined = pose_columns(halves, components, job.given_pose, errors) if job.params.refine_poses else {}
    if not job.world.is_first:
        return ""
    if job.asked_rank is not None:
        components, latents, density = _leading(job.asked_rank, components, latents, density)
    run, stack, source = job.run, job.inputs.stack, halves.source
    scale = OutputScale.of(images)
    write_mean(run, halves.mean, halves.masks, scale)
    overlap = nuisance_overlap(components.eigenvolumes, components.eigenvalues, halves.problem.mean).cpu()
    correlation = covariance_fsc(*(factors.volumes for factors in halves.state.factors)).diagonal().cpu()
    factors = tuple((factors.volumes * halves.problem.mask).cpu() for factors in halves.state.factors)
    mean, components, decision = on_cpu((halves.mean, components, decision))
    decided = read_decisions(run)
    by_origins = decided.origins_gain * min(len(half) for half in job.inputs.halves)
    labels = label_components(
        components, overlap, least_gain(job, halves, decision), decided.poses_are_foreign, by_origins
    )
    write_components(run, components, overlap, labels, scale)
    for half, volumes in enumerate(factors, start=1):
        write_half_components(run, components, volumes, half, scale)
    write_candidates(run, decision, scale)
    write_spectra(run, source, stack, mean.fsc, correlation, scale)
    known = (1.0 if source.contrast is None else source.contrast) / images.image_scale.abs()
    known = known / (known * latents.contrast)[~halves.outlier].mean()
    contrast = known * latents.contrast
    write_latent_coordinates(run, latents.z, latents.precision, contrast, scale)
    write_latent_density(run, density, scale)
    columns = {
        CONTRAST: contrast.double(),
        LOG_LIKELIHOOD: latents.log_likelihood,
        OUTLIER: halves.outlier.long(),
        CONTRAST_STD: (known * latents.contrast_std).double(),
        HALF_SET: _half_set_numbers(job),
        **refined,
    }
    if images.grey_scale is not None:
        columns[GREY_SCALE] = (images.grey_scale * images.image_scale.sign()).double()
    if job.inputs.other_frame is not None:
        columns[OTHER_FRAME] = job.inputs.other_frame
    has_other_poses = job.params.refine_poses or job.inputs.other_frame is not None
    stack.write_star(run.particles, columns, source.pose if has_other_poses else None)
    write_cryosparc(run, stack, source.pose, has_other_poses, columns[HALF_SET])
    halves = replace(halves, mean=mean)
    has_mean = decided.pose_gain is not None
    has_origins = not decided.origins_gain
    job.add_cautions(cautions_of(job, images, halves, components, latents.z, contrast, has_mean, has_origins))
    summary = _summarise(job, halves, components, labels, scale, decided)
    return with_cautions(summary, read_cautions(run))


def _leading(
    rank: int, components: Components, latents: LatentBatch, density: GaussianMixture | None
) -> tuple[Components, LatentBatch, GaussianMixture | None]:
    """The components that were asked for, of those that were fitted; what is known of them, whatever the others are."""
    if len(components.eigenvalues) <= rank:
        return components, latents, density
    judged = {part.name: getattr(components, part.name) for part in fields(components)}
    components = replace(components, **{name: part[:rank] for name, part in judged.items() if part is not None})
    precision = torch.cat([_of_leading(part.double(), rank).float() for part in latents.precision.split(_CHUNK)])
    latents = replace(latents, z=latents.z[:, :rank], precision=precision)
    if density is not None:
        density = GaussianMixture(density.weights, density.means[:, :rank], density.covariances[:, :rank, :rank])
    return components, latents, density


def _of_leading(precision: Tensor, rank: int) -> Tensor:
    """Precision (n, rank, rank) of some coordinates of many, of precision (n, r, r), zero for images of no half-set."""
    others = precision[:, rank:, rank:]
    is_known = others.diagonal(dim1=1, dim2=2).amin(dim=1) > 0
    others = torch.where(is_known[:, None, None], others, torch.eye(others.shape[1], dtype=others.dtype))
    cross = precision[:, rank:, :rank]
    return precision[:, :rank, :rank] - cross.mT @ torch.linalg.solve(others, cross)


def _half_set_numbers(job: FitJob) -> torch.Tensor:
    """Half-set, 1 or 2, of each particle; 0 for images that cannot be used."""
    numbers = torch.zeros(len(job.inputs.stack), dtype=torch.int64)
    for number, half in enumerate(job.inputs.halves, start=1):
        numbers[half] = number
    return numbers


def motions_in_words(labels: Sequence[str], poses_are_foreign: bool = False) -> str:
    """How many components are reproducible, or why none of those that are is a motion."""
    if DOUBTFUL_POSES in labels and set(labels) <= {DOUBTFUL_POSES, NOT_REPRODUCIBLE}:
        if poses_are_foreign:
            return "no motions, unless images show very many states: components show what wrong orientations leave"
        return "no motions that can be told from what wrong origins leave"
    if not labels:
        return "no reproducible variability"
    reproducible = sum(label != NOT_REPRODUCIBLE for label in labels)
    return f"{reproducible} of {counted(len(labels), 'component')} reproducible"


def _summarise(
    job: FitJob,
    halves: HalfSetFit,
    components: Components,
    labels: list[str],
    scale: OutputScale,
    decided: ImageDecisions,
) -> str:
    source, focus_mask = halves.source, job.params.focus_mask
    resolution = resolution_at(halves.mean.fsc, 0.143, source.box_size, source.pixel_size)
    outliers = int(halves.outlier.sum())
    left_out = f", {counted(outliers, 'of them an outlier', 'of them outliers')}" if outliers else ""
    found = motions_in_words(labels, decided.poses_are_foreign)
    has_none = all(label == NOT_REPRODUCIBLE for label in labels)
    found += f" inside the focus mask {focus_mask}" if focus_mask and has_none else ""
    mean = f"mean at {resolution:.1f} Angstrom" + (" (Nyquist)" if resolution <= 2 * source.pixel_size else "")
    mean = mean if decided.pose_gain is not None else "mean not resolved"
    summary = f"{job.inputs.stack.count_in_words}{left_out}, {mean}, {found}"
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
