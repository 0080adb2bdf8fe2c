"""How wrong the poses that a fit was given may be: measured once, and what that means for refined ones."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.judging.heldout import collect_statistics, latent_covariance
from solvar_engine.estimation.model.bands import change_box
from solvar_engine.estimation.poses.errors import PoseErrors, PoseSpread
from solvar_engine.estimation.solver.half_sets import CovarianceProblem, HalfSetState
from solvar_engine.imaging.sampling import sample_of
from solvar_engine.jobs.fit.job import FitJob

logger = logging.getLogger(__name__)

_FIRST_SPREAD = PoseSpread(0.05, 1.0)  # a guess to measure the spread with
_SPREAD_PARTICLES = 2_500  # of each half-set
_SPREAD_ITERATIONS = 30
MEASURED_SPREAD = "spread_1"
"""Name of the last measurement of the spread in the checkpoint."""

LEAST_SPREAD = PoseSpread(0.052, 1.0)
"""Of the prior, about 3 degrees and 1 px: errors that follow a motion look like none, and must not be believed in."""


def measure_spread(job: FitJob, name: str, problem: CovarianceProblem, state: HalfSetState | None) -> PoseSpread:
    """Measure the errors of the poses on a sample, in the band of the factors, under each half's own factors.

    Parameters
    ----------
    job : FitJob
    name : str
        Under which the result is kept for a resumed run.
    problem : CovarianceProblem
        With the spread that was known so far.
    state : HalfSetState or None
        None to measure under the mean alone, which counts motion in.

    Returns
    -------
    PoseSpread
    """
    saved = job.checkpoint.load(name)
    if saved is None:
        job.progress.stage("errors of the poses")
        problem = problem if state is not None else replace(problem, pose_errors=PoseErrors(_FIRST_SPREAD))
        first = problem.first_band(1.0)
        # measured like factors, so that they must not be marginalised as well
        nuisance, first = first.nuisance, replace(first, nuisance=first.nuisance[:0])
        moments = []
        for half, index in enumerate(problem.halves):
            sample = sample_of(index, _SPREAD_PARTICLES)
            factors = nuisance
            if state is not None:
                factors = torch.cat((change_box(state.factors[half].volumes, first.box_size), factors))
            statistics = collect_statistics(problem.source, sample, first, factors)
            count = len(nuisance)
            moments.append(latent_covariance(statistics, _SPREAD_ITERATIONS)[-count:, -count:])
        spread = problem.pose_errors.spread.rescaled(0.5 * (moments[0] + moments[1]))
        saved = {"turn_rad": torch.tensor(spread.turn_rad), "move_px": torch.tensor(spread.move_px)}
        job.checkpoint.save(name, **saved)
        logger.info(
            "errors of the given poses: about %.2f degrees and %.2f Angstrom about each axis",
            torch.rad2deg(saved["turn_rad"]),
            spread.move_px * problem.source.pixel_size,
        )
    return PoseSpread(float(saved["turn_rad"]), float(saved["move_px"]))


def prior_spread(job: FitJob) -> PoseSpread:
    """Spread of the prior about the given poses: as it was measured, but never narrow."""
    saved = job.checkpoint.load(MEASURED_SPREAD)
    if saved is None:
        raise AssertionError("poses are refined after their spread has been measured")
    return PoseSpread(float(saved["turn_rad"]), float(saved["move_px"])).at_least(LEAST_SPREAD)


def with_pose_errors(job: FitJob, source: PreparedParticles, problem: CovarianceProblem) -> CovarianceProblem:
    """Same problem, for passes that judge single images, with the errors that refined poses still have.

    The factors are fitted at the poses as they are: to first order in the turns of the mean alone, which is all that
    factors of errors can describe, errors of two degrees take away from a motion what looks like a turn: on coarse maps
    a third of the captured variance. The published schedule takes its poses for true throughout.
    """
    if not job.params.refine_poses or job.params.pose_schedule != "newton":
        return problem
    given = job.inputs.stack.pose
    return replace(problem, pose_errors=PoseErrors.about(given, source.pose, source.pixel_size, prior_spread(job)))
