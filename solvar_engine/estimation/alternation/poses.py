"""A round of refinement of all poses between the bands of a fit.

Each half-set's poses are refined under its own mean and factors, and then brought back to the frame of the given poses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.estimation.alternation.state import PoseGain
from solvar_engine.estimation.model.bands import Band, change_box
from solvar_engine.estimation.poses.refinement import RefinedPoses
from solvar_engine.estimation.poses.schedules import PoseSchedule
from solvar_engine.estimation.poses.uncertainty import PoseErrors, PosePrior
from solvar_engine.estimation.solver.epochs import Factors
from solvar_engine.estimation.solver.half_sets import HalfSetState
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.imaging.gauge import StatePosterior, in_frame_of
from solvar_engine.imaging.types import ParticleSource, Pose


@dataclass(frozen=True)
class PoseRound:
    """What a round of refinement is about.

    Attributes
    ----------
    source : ParticleSource
        At the present poses.
    halves : tuple of two Tensors, int64
        All particles of each half-set.
    given : Pose
        Of all particles, as the fit was given them.
    prior : PosePrior
        About the given poses, for the images of the source.
    schedule : PoseSchedule
    is_last : bool
        Whether no volume is fitted to the poses any more.
    """

    source: ParticleSource
    halves: tuple[Tensor, Tensor]
    given: Pose
    prior: PosePrior
    schedule: PoseSchedule
    is_last: bool


def refine_round(
    this: PoseRound,
    problem: CovarianceProblem,
    means: tuple[Tensor, Tensor],
    state: HalfSetState,
    watch: Callable[[float], object],
) -> tuple[Pose, tuple[PoseGain, PoseGain]]:
    """Refine all poses once under the present volumes.

    Parameters
    ----------
    this : PoseRound
    problem : CovarianceProblem
    means : tuple of two Tensors, shape (z, y, x)
        Filtered and masked means of the half-sets at the present poses.
    state : HalfSetState
        At the end of a band, in its gauge.
    watch : callable
        Told the share of all images that is done.

    Returns
    -------
    pose : Pose
        In the frame of the given poses.
    gains : tuple of two PoseGains
        Of the half-sets.
    """
    source, done = this.source, 0
    pose = Pose(source.pose.rotation.clone(), source.pose.shift.clone())
    gains = []
    for index, mean, of_half in zip(this.halves, means, state.factors, strict=True):
        band = _band_of_half(problem, mean, of_half)
        factors = change_box(of_half.volumes, band.box_size)
        found = _Found(pose, StatePosterior.certain(torch.zeros(len(index), len(factors))), source.pixel_size)
        for refined in this.schedule.refine(source, index, band, factors, this.prior):
            found.put(refined)
            watch((done + found.count) / len(source))
        done += len(index)
        # Until the last round volumes are fitted anew afterwards: a step that is too long brings them there faster.
        states = found.states if this.is_last else StatePosterior.certain(found.states.mean)
        in_frame = in_frame_of(pose[index], this.given[index], states)
        pose.rotation[index], pose.shift[index] = in_frame.rotation, in_frame.shift
        gains.append(PoseGain(found.objective / len(index), found.gain / len(index)))
    return pose, (gains[0], gains[1])


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
        """Enter the next particles; the last of their latent coordinates is that of the contrast."""
        rows = slice(self.count, self.count + len(refined.index))
        self.pose.rotation[refined.index] = refined.rotation
        self.pose.shift[refined.index] += refined.shift_px * self.pixel_size
        cross = refined.cross_covariance[:, :, :-1].float()
        self.states.mean[rows] = refined.latents[:, :-1].float()
        self.states.covariance[rows] = refined.latent_covariance[:, :-1, :-1].float()
        self.states.with_turn[rows], self.states.with_shift[rows] = cross[:, :3], self.pixel_size * cross[:, 3:]
        self.count = rows.stop
        self.objective += float(refined.objective.sum())
        self.gain += float((refined.objective_start - refined.objective).sum())


def _band_of_half(problem: CovarianceProblem, mean: Tensor, factors: Factors) -> Band:
    """The full band around a half-set's own mean."""
    return replace(
        problem, mean=mean, pose_errors=PoseErrors(), contrast_variance=factors.contrast_variance
    ).full_band()
