"""Refinement of poses between the bands of a fit.

While the given poses stand, their errors are factors of every image (`PoseSpread`), so that the components hold motions
only; else the first ones would hold the errors, and a refinement that takes motion along them for granted could not
remove any. Each half-set's poses are refined under its own mean and factors, and then brought back to the frame of the
given poses.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.contract.results import POSE_CHANGE_COLUMNS
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.judging.components import Components
from solvar_engine.estimation.model.bands import Band, change_box
from solvar_engine.estimation.poses.descent import descend_poses
from solvar_engine.estimation.poses.errors import PoseErrors
from solvar_engine.estimation.poses.prior import PosePrior
from solvar_engine.estimation.poses.refinement import RefinedPoses, pose_covariance, refine_poses
from solvar_engine.estimation.solver.epochs import Factors
from solvar_engine.estimation.solver.half_sets import CovarianceProblem, HalfSetState
from solvar_engine.imaging.gauge import StatePosterior, in_frame_of
from solvar_engine.imaging.rotation import angular_distance_deg
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.fit.job import POSE_STEPS, FitJob
from solvar_engine.jobs.fit.pose_errors import prior_spread
from solvar_engine.reconstruction.mean import MeanEstimate, filtered_halves

logger = logging.getLogger(__name__)

_STEPS = 3  # Gauss-Newton steps on each image in a round


def refine_round(
    job: FitJob,
    number: int,
    source: PreparedParticles,
    mean: MeanEstimate,
    problem: CovarianceProblem,
    mask: Tensor,
    state: HalfSetState,
) -> PreparedParticles:
    """Refine all poses once under the present volumes.

    Parameters
    ----------
    job : FitJob
    number : int
        Of the round, from 1.
    source : PreparedParticles
    mean : MeanEstimate
        At the present poses.
    problem : CovarianceProblem
    mask : Tensor, shape (z, y, x)
        Of the mean.
    state : HalfSetState
        At the end of a band, in its gauge.

    Returns
    -------
    PreparedParticles
        At the new poses, in the frame of those that the fit was given.
    """
    prior = PosePrior.about(job.inputs.stack.pose, source.pose, source.pixel_size, prior_spread(job))
    job.progress.stage(f"poses, round {number} of {job.pose_rounds}")
    first, done = job.progress.step, 0
    given = job.inputs.stack.pose
    pose = Pose(source.pose.rotation.clone(), source.pose.shift.clone())
    for half, index in enumerate(job.inputs.halves):
        band = _band_of_half(problem, filtered_halves(mean)[half] * mask, state.factors[half])
        factors = change_box(state.factors[half].volumes, band.box_size)
        found = _Found(pose, StatePosterior.certain(torch.zeros(len(index), len(factors))), source.pixel_size)
        for refined in _refined(job.params.pose_schedule, source, index, band, factors, prior):
            found.put(refined)
            job.progress.to(first + (done + found.count) * POSE_STEPS // len(source))
        done += len(index)
        # Until the last round volumes are fitted anew afterwards: a step that is too long brings them there faster.
        states = found.states if number == job.pose_rounds else StatePosterior.certain(found.states.mean)
        in_frame = in_frame_of(pose[index], given[index], states)
        pose.rotation[index], pose.shift[index] = in_frame.rotation, in_frame.shift
        job.record_epoch(state.done, "poses", half + 1, band.shell_max, found.objective / len(index))
        logger.info("poses of half %d: objective lowered by %.3f an image", half + 1, found.gain / len(index))
    _say_change(pose, given)
    return source.with_pose(pose)


@dataclass
class _Found:
    """What a round has found so far in one half-set.

    Attributes
    ----------
    pose : Pose
        Of all particles of the source; changed in place.
    states : StatePosterior
        Of the particles of the half-set, in their order; changed in place.
    pixel_size : float
    count : int
        Particles so far.
    objective, gain : float
        Sums of the objective, and of what it was lowered by.
    """

    pose: Pose
    states: StatePosterior
    pixel_size: float
    count: int = 0
    objective: float = 0.0
    gain: float = 0.0

    def put(self, refined: RefinedPoses) -> None:
        """Enter the next particles; the first of their latent coordinates is that of the contrast."""
        rows = slice(self.count, self.count + len(refined.index))
        self.pose.rotation[refined.index] = refined.rotation
        self.pose.shift[refined.index] += refined.shift_px * self.pixel_size
        cross = refined.cross_covariance[:, :, 1:].float()
        self.states.mean[rows] = refined.latents[:, 1:].float()
        self.states.covariance[rows] = refined.latent_covariance[:, 1:, 1:].float()
        self.states.with_turn[rows], self.states.with_shift[rows] = cross[:, :3], self.pixel_size * cross[:, 3:]
        self.count = rows.stop
        self.objective += float(refined.objective.sum())
        self.gain += float((refined.objective_start - refined.objective).sum())


def _refined(
    schedule: str, source: PreparedParticles, index: Tensor, band: Band, factors: Tensor, prior: PosePrior
) -> Iterator[RefinedPoses]:
    if schedule == "paper":
        return descend_poses(source, index, band, factors)
    return refine_poses(source, index, band, factors, steps=_STEPS, prior=prior)


def pose_columns(job: FitJob, problem: CovarianceProblem, components: Components, refined: Pose) -> dict[str, Tensor]:
    """Columns of how far poses have moved, and of their posterior standard deviations, in degrees and Angstrom.

    A standard deviation is the root of the sum of the variances about the three axes, or along both: how far an
    estimate is expected to be off, in the mean square.
    """
    source = problem.source
    band = problem.band(source.disk.shell_max, 1.0)
    factors = components.eigenvolumes * components.eigenvalues.sqrt().to(components.eigenvolumes)[:, None, None, None]
    everyone = torch.arange(len(source))
    spread = prior_spread(job) if job.params.pose_schedule == "newton" else None
    turn, move = torch.zeros(2, len(source), dtype=torch.float64)
    for index, covariance in pose_covariance(source, everyone, band, factors, spread):
        variance = covariance.diagonal(dim1=1, dim2=2)
        turn[index], move[index] = variance[:, :3].sum(dim=1).sqrt(), variance[:, 3:].sum(dim=1).sqrt()
    angle, distance = _change(refined, job.inputs.stack.pose)
    columns = (angle.double(), distance.double(), torch.rad2deg(turn), move * source.pixel_size)
    return dict(zip(POSE_CHANGE_COLUMNS, columns, strict=True))


def _band_of_half(problem: CovarianceProblem, mean: Tensor, factors: Factors) -> Band:
    """The full band around a half-set's own mean."""
    problem = replace(problem, mean=mean, pose_errors=PoseErrors(), contrast_variance=factors.contrast_variance)
    return problem.band(problem.source.disk.shell_max, 0.5)


def _change(pose: Pose, given: Pose) -> tuple[Tensor, Tensor]:
    """Angle (degrees) and distance (Angstrom) of each pose from the given one."""
    return angular_distance_deg(pose.rotation, given.rotation), (pose.shift - given.shift).norm(dim=1)


def _say_change(pose: Pose, given: Pose) -> None:
    turn, move = _change(pose, given)
    logger.info(
        "poses differ from the given ones by %.2f degrees and %.2f Angstrom on average",
        float(turn.mean()),
        float(move.mean()),
    )
