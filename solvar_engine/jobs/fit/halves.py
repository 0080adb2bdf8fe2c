"""Main stages of a fit: the factors of the half-sets with noise, outliers and mean; those of all images; scale."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.data.noise import ResidualNoise
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.judging.components import Components, find_components
from solvar_engine.estimation.judging.heldout import collect_statistics
from solvar_engine.estimation.judging.outliers import find_outliers, image_fits
from solvar_engine.estimation.model.bands import change_box
from solvar_engine.estimation.model.objectives import OBJECTIVES
from solvar_engine.estimation.model.residuals import residual_power
from solvar_engine.estimation.poses.errors import PoseErrors
from solvar_engine.estimation.sampling import sample_of
from solvar_engine.estimation.solver.half_sets import (
    CovarianceProblem,
    FullSetState,
    HalfSetState,
    first_round_units,
    fit_full_set,
    fit_half_sets,
    half_set_units,
)
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.fit.job import POSE_STEPS, READING_STEPS, FitJob
from solvar_engine.jobs.fit.pose_errors import MEASURED_SPREAD, measure_spread, with_pose_errors
from solvar_engine.jobs.fit.poses import refine_round
from solvar_engine.jobs.fit.start import HalfSetEquations, Masks, half_set_equations
from solvar_engine.reconstruction.mean import MeanEstimate, estimate_mean

logger = logging.getLogger(__name__)

_NOISE_PARTICLES = 5_000
_NOISE_PARTICLES_PER_GROUP = 500  # at least, as far as an optics group has them
_JUDGED_SHELL = 16  # what particles look like is decided below; all shells found the same outliers
_MOST_OUTLIERS = 0.5  # of the particles: beyond that it is the model that is doubtful
_LEAST_CONTRAST = 0.1  # of an image that is fitted: junk has none, and its sign means nothing
HELD_OUT_PARTICLES = 50_000  # of each half


@dataclass(frozen=True)
class HalfSetFit:
    """Where the half-sets end.

    Attributes
    ----------
    source : PreparedParticles
        Whitened by the noise as it was measured last.
    mean : MeanEstimate
        Under that noise.
    masks : Masks
    problem : CovarianceProblem
        Of these images, without the outliers, and this mean.
    state : HalfSetState
        Finished and aligned.
    outlier : Tensor, shape (n,), bool
        Particles that no estimate has seen since they were found.
    """

    source: PreparedParticles
    mean: MeanEstimate
    masks: Masks
    problem: CovarianceProblem
    state: HalfSetState
    outlier: Tensor


def fit_halves(
    job: FitJob, source: PreparedParticles, masks: Masks, equations: HalfSetEquations | None = None
) -> HalfSetFit:
    """March both half-sets to the full band; outliers are found, and the noise is measured, twice on the way.

    The first time is after the first band, when the model knows enough to tell, the second at the end. If poses are to
    be refined, that is done first, and after every band. ``equations`` are those of the images as they come in, if they
    are known.
    """
    refines, stops = job.params.refine_poses, job.stops
    state = job.checkpoint.load_halves()
    outlier = torch.zeros(len(source), dtype=torch.bool)
    for number, stop in enumerate(stops):
        saved = job.checkpoint.load(f"noise_{number}")
        if saved is None:
            mean, problem = estimate_problem(job, source, masks, outlier, equations if number == 0 else None)
            if refines and number == 0:
                problem, state = _separate_pose_errors(job, problem, state)
            state = _advance(job, problem, state, stop)
            if refines:
                source = refine_round(job, number + 1, source, mean, problem, masks.mean, state)
                _, problem = estimate_problem(job, source, masks, outlier)
            judged = judge_images(job, source, with_pose_errors(job, source, problem), state)
            saved = {**judged, "rotation": source.pose.rotation, "shift": source.pose.shift}
            job.checkpoint.save(f"noise_{number}", **saved)
        source, outlier = source.with_noise(saved["noise"]), saved["outlier"]
        if job.params.refine_contrast:
            source = source.with_contrast(saved["contrast"])
        if refines:
            source = source.with_pose(Pose(saved["rotation"], saved["shift"]))
        job.progress.to(READING_STEPS + 1 + (number + 1) * (1 + POSE_STEPS * refines) + stop)
    if state is None:
        raise UserError(f"The checkpoint of {job.run.path} is incomplete: start again in a new folder.")
    mean, problem = estimate_problem(job, source, masks, outlier)
    return HalfSetFit(source, mean, masks, with_contrast_of(problem, state), state, outlier)


def _separate_pose_errors(
    job: FitJob, problem: CovarianceProblem, state: HalfSetState | None
) -> tuple[CovarianceProblem, HalfSetState]:
    """Begin with the first band, measuring the spread of the poses' errors without factors, and again with some."""
    problem = replace(problem, pose_errors=PoseErrors(measure_spread(job, "spread_0", problem, None)))
    state = _advance(job, problem, state, first_round_units(job.inputs.box_size))
    return replace(problem, pose_errors=PoseErrors(measure_spread(job, MEASURED_SPREAD, problem, state))), state


def with_contrast_of(problem: CovarianceProblem, state: HalfSetState) -> CovarianceProblem:
    """Same problem, for passes over images with the spread of contrast that the half-sets found on average."""
    return replace(problem, contrast_variance=sum(factors.contrast_variance for factors in state.factors) / 2)


def estimate_problem(
    job: FitJob,
    source: PreparedParticles,
    masks: Masks,
    outlier: Tensor,
    equations: HalfSetEquations | None = None,
) -> tuple[MeanEstimate, CovarianceProblem]:
    """Estimate the mean under the noise of the source, and set up the problem of the factors around it."""
    first, second = (half[~outlier[half]] for half in job.inputs.halves)
    if equations is None:
        equations = half_set_equations(job, source, (first, second))
    mean, normal = estimate_mean(*equations, masks.mean), equations[0] + equations[1]
    problem = CovarianceProblem(
        source,
        (first, second),
        mean.mean * masks.mean,
        masks.factors,
        normal.density(),
        job.tried_rank,
        job.params.seed,
        job.projector_options,
        OBJECTIVES[job.params.objective],
    )
    return mean, problem


def _advance(job: FitJob, problem: CovarianceProblem, state: HalfSetState | None, stop: int) -> HalfSetState:
    """Fit both half-sets up to a unit of work, saving every epoch."""
    units = half_set_units(job.inputs.box_size)[:stop]
    first = units[0] if state is None else units[min(state.done, len(units) - 1)]
    job.progress.stage(f"half-sets, shells to {first.shell_max}")
    for reached in fit_half_sets(problem, state, stop):
        state = reached
        job.checkpoint.save_halves(state)
        shell_max = units[state.done - 1].shell_max
        job.progress.advance()
        job.progress.stage(f"half-sets, shells to {units[min(state.done, len(units) - 1)].shell_max}")
        for half, objective in enumerate(state.objective, start=1):
            job.record_epoch(state.done, "half-sets", half, shell_max, objective)
    if state is None:
        raise AssertionError("a band has at least one epoch")
    return state


def judge_images(
    job: FitJob, source: PreparedParticles, problem: CovarianceProblem, state: HalfSetState
) -> dict[str, Tensor]:
    """Find the outliers, and measure the noise on the others; each half is judged by the factors of the other.

    Returns
    -------
    dict of Tensor
        ``outlier`` (n,), bool; ``noise``, variance (groups, shells); ``contrast`` (n,), of mean 1 without outliers.
    """
    job.progress.stage("noise and outliers")
    problem = with_contrast_of(problem, state)
    halves = tuple(zip(job.inputs.halves, reversed(state.factors), strict=True))
    band = problem.band(min(_JUDGED_SHELL, job.shell_max), 1.0)
    log_odds, distance, contrast = torch.zeros(3, len(source), dtype=torch.float64)
    for index, factors in halves:
        for rows, fit in image_fits(source, index, band, change_box(factors.volumes, band.box_size)):
            log_odds[rows], distance[rows], contrast[rows] = fit.log_odds, fit.distance, fit.contrast
    outlier = torch.ones(len(source), dtype=torch.bool)  # images that cannot be used are in no half-set
    used = torch.cat(job.inputs.halves).sort().values
    outlier[used] = _believable(find_outliers(log_odds[used], distance[used], source.group[used]))
    band = problem.band(job.shell_max, 1.0)
    noise = ResidualNoise(source.noise_variance.shape[0], source.disk)
    for index, factors in halves:
        sample = _noise_sample(source, index[~outlier[index]])
        for rows, power in residual_power(source, sample, band, change_box(factors.volumes, band.box_size)):
            noise.add(power, source.group[rows])
    contrast = (contrast / contrast[~outlier].mean()).clamp_min(_LEAST_CONTRAST)
    return {"outlier": outlier, "noise": noise.update(source.noise_variance), "contrast": contrast.float()}


def _believable(outlier: Tensor) -> Tensor:
    """Leave nothing out if most images seem to be outliers."""
    share = float(outlier.float().mean())
    if share <= _MOST_OUTLIERS:
        return outlier
    logger.warning(
        "%.0f %% of the images look like no particle, or like another one than the mean: are the poses those of these"
        " images? None is left out",
        100 * share,
    )
    return torch.zeros_like(outlier)


def _noise_sample(source: PreparedParticles, index: Tensor) -> Tensor:
    """Some particles of a half-set, as many of each optics group as its noise needs."""
    groups = source.noise_variance.shape[0]
    wanted = max(_NOISE_PARTICLES // groups, _NOISE_PARTICLES_PER_GROUP) // 2
    members = [index[source.group[index] == group] for group in range(groups)]
    return torch.cat([sample_of(rows, wanted) for rows in members])


def fit_all(job: FitJob, halves: HalfSetFit) -> FullSetState:
    """Fit all images with the prior that the half-sets agree on."""
    job.progress.stage("all particles")
    state = job.checkpoint.load_full()
    first = job.progress.step
    if state is not None:
        job.progress.to(first + state.done)
    for reached in fit_full_set(halves.problem, halves.state, state):
        state = reached
        job.checkpoint.save_full(state)
        job.progress.to(first + state.done)
        job.record_epoch(state.done, "all particles", None, job.shell_max, state.objective)
    if state is None:
        raise AssertionError("the fit of all particles has at least one epoch")
    return state


def measure_scale(job: FitJob, halves: HalfSetFit, full: FullSetState) -> Components:
    """Scale each half's factors on the other half, and find the principal axes."""
    job.progress.stage("held-out scale")
    problem = halves.problem
    if not problem.rank:
        job.progress.advance()
        return Components.none(problem.source.box_size)
    band = problem.band(job.shell_max, 1.0)
    first, second = (factors.volumes * problem.mask for factors in halves.state.factors)
    held_out = []
    for volumes, other in zip((first, second), reversed(problem.halves), strict=True):
        sample = sample_of(other, HELD_OUT_PARTICLES)
        held_out.append(collect_statistics(problem.source, sample, band, volumes))
    job.progress.advance()
    return find_components(full.factors, (first, second), (held_out[0], held_out[1]), problem.mask)
