"""`fit`: from refined particles to eigenvolumes and latent coordinates."""

from __future__ import annotations

import logging
from contextlib import closing

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from solvar_engine.contract.params import FitParams
from solvar_engine.contract.run import ALREADY_FINISHED, NEW, RunDir, prepared, write_params
from solvar_engine.contract.status import StatusTracker
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.distributed.world import ALONE, World
from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.alternation.means import HalfSetEquations
from solvar_engine.estimation.alternation.problem import Masks
from solvar_engine.estimation.judging.rank import RankDecision
from solvar_engine.estimation.solver.schedule import Schedule
from solvar_engine.jobs.decisions import record_cautions
from solvar_engine.jobs.fit.bootstrap import measure_errors
from solvar_engine.jobs.fit.density import place_by_density
from solvar_engine.jobs.fit.foreign_poses import have_foreign_poses
from solvar_engine.jobs.fit.frames import settle_frames
from solvar_engine.jobs.fit.grey_scales import settle_grey_scales
from solvar_engine.jobs.fit.halves import fit_all, fit_halves, measure_scale
from solvar_engine.jobs.fit.inner_noise import settle_inner_noise
from solvar_engine.jobs.fit.inputs import read_inputs
from solvar_engine.jobs.fit.job import DEFAULT_SCHEDULE, FitJob
from solvar_engine.jobs.fit.latents import find_latents
from solvar_engine.jobs.fit.rank import decide_rank, keep_real, with_more_components
from solvar_engine.jobs.fit.results import write_results
from solvar_engine.jobs.fit.start import read_images, settle_sign_and_masks, with_independent_halves
from solvar_engine.jobs.fit.still_frame import settle_still_frame
from solvar_engine.jobs.running.devices import compute_device, device_name, release_memory
from solvar_engine.jobs.running.log import run_log
from solvar_engine.jobs.running.tracking import tracked

logger = logging.getLogger(__name__)

_BATCHES_WHERE_MEMORY_IS_SHORT = (256, 64, 16)


def run(params: FitParams, schedule: Schedule = DEFAULT_SCHEDULE, world: World = ALONE) -> None:
    """Fit the covariance of a set of particles and write the run directory.

    RUN/status.json says how far it is and how it ended, also if the particles cannot be read; a folder that is refused,
    by the rules of ``--resume``, is not touched.

    Parameters
    ----------
    params : FitParams
    schedule : Schedule, optional
        Of the factors: a fit with another one than the default is for measurements only.
    world : World, optional
        Processes that share the images and all call this function; the first one alone writes to the run directory.

    Raises
    ------
    UserError
        For a mistake in the options or the data.
    """
    params.validate()
    run_dir = RunDir(params.output)
    if not world.is_first:
        if not world.agreed(False):
            _fit(FitJob.start(params, run_dir, read_inputs(params), None, schedule, world))
        return
    with prepared(run_dir, params, params.resume) as start:
        world.agreed(start == ALREADY_FINISHED)
        if start == ALREADY_FINISHED:
            logger.info("%s is finished: nothing to do", run_dir.path)
            return
        with tracked(StatusTracker(run_dir.status, params.command)) as status, run_log(run_dir.log):
            inputs = read_inputs(params)
            if start == NEW:
                resolved = {"box": inputs.box_size, "device": device_name(compute_device(params))}
                write_params(run_dir, params, inputs=inputs.files, resolved=resolved)
                record_cautions(run_dir, inputs.stack.cautions)
            _fit(FitJob.start(params, run_dir, inputs, status, schedule, world))


def _fit(job: FitJob) -> None:
    """Do all stages in order; each goes on from what an earlier, interrupted run has saved."""
    spoken = [logging.getLogger("solvar_engine")] if job.world.is_first else []
    with closing(job.progress), logging_redirect_tqdm(spoken):
        images = read_images(job)
        _estimate_with_less_and_less(*with_independent_halves(job, images))


def _estimate_with_less_and_less(job: FitJob, images: PreparedParticles) -> None:
    """Do what follows the reading; where a GPU's memory runs out, again from the last checkpoint with fewer images."""
    for largest in _BATCHES_WHERE_MEMORY_IS_SHORT:
        try:
            return _estimate(job, images)
        except torch.OutOfMemoryError:
            if job.world.size > 1:  # the others are elsewhere in the computation
                raise
        logger.warning(
            "The memory of the GPU ran out: going on with at most %d images at a time, the others off the GPU", largest
        )
        release_memory(job.projector_options.device)
        images = images.in_less_memory(largest)
    return _estimate(job, images)


def _estimate(job: FitJob, images: PreparedParticles) -> None:
    job, images = settle_frames(job, images)
    job, images = settle_grey_scales(job, images)
    images = settle_inner_noise(job, images)
    images, masks, equations = settle_sign_and_masks(job, images)
    job, halves, decision = _fit_enough_components(job, images, masks, equations)
    still = settle_still_frame(job, images, halves, decision) if job.params.still_frame else None
    if still is not None:
        job, images = still
        job, halves, decision = _fit_enough_components(job, images, masks, None)
    halves = keep_real(job, halves, decision)
    full = fit_all(job, halves)
    components = measure_scale(job, halves, full)
    latents = find_latents(job, halves, components)
    errors = measure_errors(job, halves, components)
    density, latents = place_by_density(job, halves, components, latents, errors)
    job.progress.finish(write_results(job, images, halves, components, latents, density, decision, errors))


def _fit_enough_components(
    job: FitJob, images: PreparedParticles, masks: Masks, equations: HalfSetEquations | None
) -> tuple[FitJob, HalfSetFit, RankDecision]:
    """Fit the half-sets, with more and more components as long as there are more to find; wrong poses leave many."""
    while True:
        halves = fit_halves(job, images, masks, equations)
        are_foreign = have_foreign_poses(job, halves)
        decision = decide_rank(job, halves)
        larger = None if are_foreign else with_more_components(job, images, decision)
        if larger is None:
            return job, halves, decision
        job = larger
