"""How poses are refined in a round: by the name of the option."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.poses.descent import descend_poses
from solvar_engine.estimation.poses.refinement import RefinedPoses, refine_poses
from solvar_engine.estimation.poses.uncertainty import PosePrior
from solvar_engine.imaging.types import BatchSource

_STEPS = 3  # Gauss-Newton steps on each image in a round


class PoseSchedule(Protocol):
    """One way to refine poses."""

    @property
    def has_prior(self) -> bool:
        """Whether the given poses count as prior knowledge; else refined poses are taken for true."""
        ...

    def refine(
        self, source: BatchSource, index: Tensor, band: Band, factors: Tensor, prior: PosePrior
    ) -> Iterator[RefinedPoses]:
        """Refine every image's pose under fixed volumes, for one round; arguments as for `refine_poses`."""
        ...


class GaussNewton:
    """A few damped steps on the posterior of each pose."""

    has_prior = True

    def refine(
        self, source: BatchSource, index: Tensor, band: Band, factors: Tensor, prior: PosePrior
    ) -> Iterator[RefinedPoses]:
        """See `refine_poses`."""
        return refine_poses(source, index, band, factors, steps=_STEPS, prior=prior)


class PublishedDescent:
    """The published schedule, which knows no prior."""

    has_prior = False

    def refine(
        self, source: BatchSource, index: Tensor, band: Band, factors: Tensor, prior: PosePrior
    ) -> Iterator[RefinedPoses]:
        """See `descend_poses`."""
        return descend_poses(source, index, band, factors)


POSE_SCHEDULES: Mapping[str, PoseSchedule] = {"newton": GaussNewton(), "paper": PublishedDescent()}
"""By the name of the option."""
