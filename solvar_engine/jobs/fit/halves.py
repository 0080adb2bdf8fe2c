"""Main stages of a fit: the alternation on the half-sets, the factors of all images, the scale of both."""

from __future__ import annotations

import logging
from math import degrees

from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.alternation.iteration import HalfSetFit, alternate, half_set_fit
from solvar_engine.estimation.alternation.means import HalfSetEquations
from solvar_engine.estimation.alternation.problem import AlternationProblem, Masks
from solvar_engine.estimation.alternation.state import AlternationState, Step
from solvar_engine.estimation.judging.components import Components, measure_components
from solvar_engine.estimation.model.objectives import OBJECTIVES
from solvar_engine.estimation.poses.schedules import POSE_SCHEDULES
from solvar_engine.estimation.solver.half_sets import FullSetState, fit_full_set
from solvar_engine.jobs.fit.job import POSE_STEPS, FitJob
from solvar_engine.jobs.fit.poses import say_change

logger = logging.getLogger(__name__)


def alternation_problem(job: FitJob, source: PreparedParticles, masks: Masks) -> AlternationProblem:
    """What the options ask for."""
    params = job.params
    return AlternationProblem(
        source,
        job.inputs.halves,
        masks,
        job.tried_rank,
        params.seed,
        job.projector_options,
        OBJECTIVES[params.objective],
        params.refine_contrast,
        POSE_SCHEDULES[params.pose_schedule] if params.refine_poses else None,
        job.schedule,
    )


def fit_halves(
    job: FitJob, source: PreparedParticles, masks: Masks, equations: HalfSetEquations | None = None
) -> HalfSetFit:
    """Do the alternation, saving every state; ``equations`` are those of the images as they come in, if known."""
    problem = alternation_problem(job, source, masks)
    state = job.checkpoint.load(job.checkpoint_name("halves"), AlternationState) or AlternationState()
    _show(job, problem, state)

    def show_poses(share: float) -> None:
        job.progress.to(_steps_until(job, state) + int(share * POSE_STEPS))

    for reached in alternate(problem, state, equations, show_poses):
        before, state = state, reached
        job.checkpoint.save(job.checkpoint_name("halves"), state)
        _show(job, problem, state)
        _report(job, before, state)
    return half_set_fit(problem, state)


def _steps_until(job: FitJob, state: AlternationState) -> int:
    """Steps of progress that are done in a state."""
    return job.first_step + state.done + state.rounds + POSE_STEPS * state.pose_rounds


def _show(job: FitJob, problem: AlternationProblem, state: AlternationState) -> None:
    """Show how far the alternation is, and what it does next."""
    job.progress.to(_steps_until(job, state))
    step = problem.next_step(state)
    if step is Step.FIT_FACTORS:
        job.progress.stage(f"{step.value}, shells to {job.units[state.done].shell_max}")
    elif step is Step.REFINE_POSES:
        job.progress.stage(f"{step.value}, round {state.pose_rounds + 1} of {job.pose_rounds}")
    elif step is not None:
        job.progress.stage(step.value)


def _report(job: FitJob, before: AlternationState, state: AlternationState) -> None:
    """Log what has changed from one state to the next."""
    spread = state.rough_spread if state.spread is None else state.spread
    if spread is not None and (before.rough_spread, before.spread) != (state.rough_spread, state.spread):
        logger.info(
            "errors of the given poses: about %.2f degrees and %.2f Angstrom about each axis",
            degrees(spread.turn_rad),
            spread.move_px * job.pixel_size,
        )
    if state.factors is not None and state.done > before.done:
        shell_max = job.units[state.done - 1].shell_max
        for half, objective in enumerate(state.factors.objective, start=1):
            job.record_epoch(state.done, "half-sets", half, shell_max, objective)
    if state.pose is not None and state.pose_gain is not None and state.pose_rounds > before.pose_rounds:
        for half, refined in enumerate(state.pose_gain, start=1):
            job.record_epoch(state.done, "poses", half, job.shell_max, refined.objective)
            logger.info("poses of half %d: objective lowered by %.3f an image", half, refined.gain)
        say_change(state.pose, job.given_pose)
    if state.judged is not None and state.rounds > before.rounds and state.judged.doubted_share:
        logger.warning(
            "%.0f %% of the images look like no particle, or like another one than the mean: are the poses those of"
            " these images? None is left out",
            100 * state.judged.doubted_share,
        )


def fit_all(job: FitJob, halves: HalfSetFit) -> FullSetState:
    """Fit all images with the prior that the half-sets agree on."""
    job.progress.stage("all particles")
    state = job.checkpoint.load("full", FullSetState)
    first = job.progress.step
    if state is not None:
        job.progress.to(first + state.done)
    for reached in fit_full_set(halves.problem, halves.state, state):
        state = reached
        job.checkpoint.save("full", state)
        job.progress.to(first + state.done)
        job.record_epoch(state.done, "all particles", None, job.shell_max, state.objective)
    if state is None:
        raise AssertionError("the fit of all particles has at least one epoch")
    return state


def measure_scale(job: FitJob, halves: HalfSetFit, full: FullSetState) -> Components:
    """Scale each half's factors on the other half, and find the principal axes."""
    job.progress.stage("held-out scale")
    components = job.world.agreed(measure_components(halves.problem, halves.state, full.factors))
    job.progress.advance()
    return components
