"""A round of refinement of all poses between the bands of a fit.

Each half-set's poses are refined under its own mean and factors, and then brought back to the frame of the given poses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.distributed.world import World
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

    def refined_half(half: int) -> tuple[Pose, PoseGain]:
        nonlocal done
        index, of_half = this.halves[half], state.factors[half]
        band = _band_of_half(problem, means[half], of_half)
        factors = change_box(of_half.volumes, band.box_size)
        found = _Found(index, len(source), len(factors), source.pixel_size)
        for refined in this.schedule.refine(source, index, band, factors, this.prior):
            found.put(refined)
            watch((done + source.world.size * found.count) / len(source))
        done += len(index)
        found.complete(source.world)
        moved = Pose(found.rotation, pose.shift[index] + found.moved)
        # Until the last round volumes are fitted anew afterwards: a step that is too long brings them there faster.
        states = found.states if this.is_last else StatePosterior.certain(found.states.mean)
        gain = PoseGain(float(found.objective) / len(index), float(found.gain) / len(index))
        return in_frame_of(moved, this.given[index], states), gain

    gains = []
    for index, (of_half, gain) in zip(this.halves, source.world.of_halves(refined_half), strict=True):
        pose.rotation[index], pose.shift[index] = of_half.rotation, of_half.shift
        gains.append(gain)
    return pose, (gains[0], gains[1])


class _Found:
    """What a round finds in one half-set, in the order of its particles; tables of all particles are on the CPU."""

    def __init__(self, index: Tensor, count: int, rank: int, pixel_size: float) -> None:
        self._place = torch.zeros(count, dtype=torch.int64)
        self._place[index] = torch.arange(len(index))
        self._pixel_size = pixel_size
        self.count = 0
        self.rotation, self.moved = torch.zeros(len(index), 3, 3), torch.zeros(len(index), 2)
        self.states = StatePosterior.certain(torch.zeros(len(index), rank))
        self.objective, self.gain = torch.zeros(2, dtype=torch.float64)

    def put(self, refined: RefinedPoses) -> None:
        """Enter some particles; the last of their latent coordinates is that of the contrast."""
        rows = self._place[refined.index]
        self.rotation[rows] = refined.rotation.cpu()
        self.moved[rows] = refined.shift_px.cpu() * self._pixel_size
        cross = refined.cross_covariance[:, :, :-1].float().cpu()
        self.states.mean[rows] = refined.latents[:, :-1].float().cpu()
        self.states.covariance[rows] = refined.latent_covariance[:, :-1, :-1].float().cpu()
        self.states.with_turn[rows], self.states.with_shift[rows] = cross[:, :3], self._pixel_size * cross[:, 3:]
        self.count += len(rows)
        self.objective += refined.objective.sum().cpu()
        self.gain += (refined.objective_start - refined.objective).sum().cpu()

    def complete(self, world: World) -> None:
        """Take in what other processes have found."""
        states = self.states
        self.rotation, self.moved, self.objective, self.gain, *states_of_all = world.total(
            self.rotation, self.moved, self.objective, self.gain,
            states.mean, states.covariance, states.with_turn, states.with_shift,
        )  # fmt: skip
        self.states = StatePosterior(*states_of_all)


def _band_of_half(problem: CovarianceProblem, mean: Tensor, factors: Factors) -> Band:
    """The full band around a half-set's own mean."""
    return replace(
        problem, mean=mean, pose_errors=PoseErrors(), contrast_variance=factors.contrast_variance
    ).full_band()
