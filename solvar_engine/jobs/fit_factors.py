"""Main stages of a fit: the factors of the half-sets with noise and mean, those of all images, and their scale."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.data.noise import ResidualNoise
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.bands import change_box
from solvar_engine.estimation.components import Components, find_components
from solvar_engine.estimation.covariance import (
    CovarianceProblem,
    FullSetState,
    HalfSetState,
    first_band_units,
    fit_full_set,
    fit_half_sets,
    half_set_units,
)
from solvar_engine.estimation.heldout import collect_statistics
from solvar_engine.estimation.objectives import OBJECTIVES
from solvar_engine.estimation.residuals import residual_power
from solvar_engine.jobs.fit_job import READING_STEPS, FitJob
from solvar_engine.jobs.fit_start import Masks, estimate_masked_mean
from solvar_engine.reconstruction.mean import MeanEstimate

_NOISE_PARTICLES = 5_000
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
        Of these images and this mean.
    state : HalfSetState
        Finished and aligned.
    """

    source: PreparedParticles
    mean: MeanEstimate
    masks: Masks
    problem: CovarianceProblem
    state: HalfSetState


def fit_halves(job: FitJob, source: PreparedParticles, masks: Masks) -> HalfSetFit:
    """March both half-sets to the full band, measuring the noise anew after the first band and at the end."""
    box_size = job.inputs.box_size
    stops = (first_band_units(box_size), len(half_set_units(box_size)))
    state = job.checkpoint.load_halves()
    for number, stop in enumerate(stops):
        saved = job.checkpoint.load(f"noise_{number}")
        if saved is None:
            _, problem = estimate_problem(job, source, masks)
            state = _advance(job, problem, state, stop)
            saved = {"noise": _measure_noise(job, source, problem, state)}
            job.checkpoint.save(f"noise_{number}", **saved)
        source = source.with_noise(saved["noise"])
        job.progress.to(READING_STEPS + 2 + number + stop)
    if state is None:
        raise UserError(f"The checkpoint of {job.run.path} is incomplete: start again in a new folder.")
    mean, problem = estimate_problem(job, source, masks)
    return HalfSetFit(source, mean, masks, problem, state)


def estimate_problem(
    job: FitJob, source: PreparedParticles, masks: Masks
) -> tuple[MeanEstimate, CovarianceProblem]:
    """Estimate the mean under the noise of the source, and set up the problem of the factors around it."""
    mean, normal = estimate_masked_mean(job, source, masks.mean)
    problem = CovarianceProblem(
        source,
        job.inputs.halves,
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
    for reached in fit_half_sets(problem, state, stop):
        state = reached
        job.checkpoint.save_halves(state)
        shell_max = half_set_units(job.inputs.box_size)[state.done - 1].shell_max
        job.progress.stage(f"half-sets, shells to {shell_max}")
        job.progress.advance()
        for half, objective in enumerate(state.objective, start=1):
            job.record_epoch(state.done, "half-sets", half, shell_max, objective)
    if state is None:
        raise AssertionError("a band has at least one epoch")
    return state


def _measure_noise(
    job: FitJob, source: PreparedParticles, problem: CovarianceProblem, state: HalfSetState
) -> Tensor:
    """Noise spectrum from the residuals of a sample of each half, under the factors of the other."""
    job.progress.stage("noise")
    band = problem.band(source.disk.shell_max, 1.0)
    noise = ResidualNoise(source.noise_variance.shape[0], source.disk)
    for index, factors in zip(problem.halves, reversed(state.factors), strict=True):
        sample = index[:: max(1, 2 * index.shape[0] // _NOISE_PARTICLES)]
        volumes = change_box(factors.volumes, band.box_size)
        for rows, power in residual_power(source, sample, band, volumes):
            noise.add(power, source.group[rows])
    return noise.update(source.noise_variance)


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


def sample_of(index: Tensor, most: int) -> Tensor:
    """Every so many of the particles of an index, so that at most ``most`` are left."""
    return index[:: max(1, -(-index.shape[0] // most))]


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
