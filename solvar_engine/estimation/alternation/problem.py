"""What the alternation is about, and in which order its steps come."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.estimation.alternation.state import AlternationState, Step
from solvar_engine.estimation.model.objectives import Objective
from solvar_engine.estimation.poses.schedules import PoseSchedule
from solvar_engine.estimation.poses.uncertainty import LEAST_SPREAD, PoseErrors, PoseSpread
from solvar_engine.estimation.solver.schedule import Schedule
from solvar_engine.imaging.types import ParticleSource
from solvar_engine.projectors.options import SliceOptions


@dataclass(frozen=True)
class Masks:
    """Soft masks of a fit; without a focus mask both are the same.

    Attributes
    ----------
    mean : Tensor, shape (z, y, x)
        Around the molecule.
    factors : Tensor, shape (z, y, x)
        Where variability is sought: nowhere larger than that of the mean.
    """

    mean: Tensor
    factors: Tensor


def rounds_of(schedule: Schedule, box_size: int, refines_poses: bool) -> list[int]:
    """Units of the half-set fit after which images are judged and, if asked for, poses refined.

    The first time is after the first band, when the model knows enough to tell, the last at the end. Poses are refined
    after every band.
    """
    ends = schedule.band_ends(box_size)
    return ends if refines_poses else [ends[0], ends[-1]]


def of_no_half(halves: tuple[Tensor, Tensor], count: int) -> Tensor:
    """Which of the particles, shape (count,), bool, are in no half-set: images that cannot be used."""
    is_left_out = torch.ones(count, dtype=torch.bool)
    is_left_out[torch.cat(halves)] = False
    return is_left_out


@dataclass(frozen=True)
class AlternationProblem:
    """Everything that stays fixed while a fit alternates.

    Attributes
    ----------
    source : ParticleSource
        As it came: at the given poses, whitened by the noise of the background, the sign of the contrast settled.
    halves : tuple of two Tensors, int64
        Particles of each half-set; those of none are outliers throughout.
    masks : Masks
    rank : int
        Factors that are fitted.
    seed : int
    options : SliceOptions
    objective : Objective
    refines_contrast : bool
        Whether images are used at the contrasts that are found for them.
    pose_schedule : PoseSchedule or None
        How poses are refined; None if the given ones are taken as they are.
    schedule : Schedule
        Of the factors.
    """

    source: ParticleSource
    halves: tuple[Tensor, Tensor]
    masks: Masks
    rank: int
    seed: int
    options: SliceOptions
    objective: Objective
    refines_contrast: bool = False
    pose_schedule: PoseSchedule | None = None
    schedule: Schedule = Schedule()

    @property
    def rounds(self) -> list[int]:
        """Units of the half-set fit that each round ends after, see `rounds_of`."""
        return rounds_of(self.schedule, self.source.box_size, self.pose_schedule is not None)

    def next_step(self, state: AlternationState) -> Step | None:
        """What follows a state; None after the last one."""
        if state.rounds == len(self.rounds):
            return None
        if state.judged is None and state.junk is None:
            return Step.FIND_JUNK
        if self._measures_spread(state) and state.done == self._units_before_spread(state):
            return Step.MEASURE_SPREAD
        if state.done < self.rounds[state.rounds]:
            return Step.FIT_FACTORS
        if self.pose_schedule is not None and state.pose_rounds == state.rounds:
            return Step.REFINE_POSES
        return Step.JUDGE_IMAGES

    def next_stop(self, state: AlternationState) -> int:
        """Unit of the half-set fit that a state may go on to before another step comes."""
        return self._units_before_spread(state) if self._measures_spread(state) else self.rounds[state.rounds]

    def _measures_spread(self, state: AlternationState) -> bool:
        return self.pose_schedule is not None and state.rounds == 0 and state.spread is None

    def _units_before_spread(self, state: AlternationState) -> int:
        """The spread is measured under the mean alone, and again when the half-sets have first been compared."""
        return 0 if state.rough_spread is None else self.schedule.first_round_units(self.source.box_size)

    def images(self, state: AlternationState) -> ParticleSource:
        """The images at the noise, contrasts and poses of a state."""
        source = self.source
        if state.judged is not None:
            source = source.with_noise(state.judged.noise, state.judged.noise_ratio)
            if self.refines_contrast:
                source = source.with_contrast(state.judged.contrast)
        return source if state.pose is None else source.with_pose(state.pose)

    def outlier(self, state: AlternationState) -> Tensor:
        """Particles (n,), bool, that are left out in a state; from the start, those that are in no half-set."""
        if state.judged is not None:
            return state.judged.outlier
        return of_no_half(self.halves, len(self.source)) if state.junk is None else state.junk

    def errors_while_fitting(self, state: AlternationState) -> PoseErrors:
        """Errors of the poses that the factors are fitted beside: those of the given ones, while these stand.

        So the factors hold motions only; else the first ones would hold the errors, and a refinement that takes motion
        along them for granted could not remove any. Afterwards the factors are fitted at the poses as they are: to
        first order in the turns of the mean alone, which is all that factors of errors can describe, errors of two
        degrees take away from a motion what looks like a turn: on coarse maps a third of the captured variance.
        """
        spread = state.rough_spread if state.spread is None else state.spread
        return PoseErrors() if state.pose_rounds or spread is None else PoseErrors(spread)

    def prior_spread(self, state: AlternationState) -> PoseSpread | None:
        """Spread of the true poses about the given ones, never narrow; None if poses are taken for true."""
        if self.pose_schedule is None or not self.pose_schedule.has_prior or state.spread is None:
            return None
        return state.spread.at_least(LEAST_SPREAD)

    def errors_of_refined(self, state: AlternationState) -> PoseErrors:
        """Errors that the poses of a state still have, for passes that judge single images."""
        spread = self.prior_spread(state)
        if spread is None or state.pose is None:
            return PoseErrors()
        return PoseErrors.about(self.source.pose, state.pose, self.source.pixel_size, spread)
