"""Where an alternation stands: all that is needed to go on from there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from solvar_engine.estimation.poses.uncertainty import PoseSpread
from solvar_engine.estimation.solver.half_sets import HalfSetState
from solvar_engine.imaging.types import Pose


class Step(Enum):
    """What an alternation does between two states."""

    FIND_JUNK = "images without a particle"
    MEASURE_SPREAD = "errors of the poses"
    FIT_FACTORS = "half-sets"
    REFINE_POSES = "poses"
    JUDGE_IMAGES = "noise and outliers"


@dataclass(frozen=True)
class JudgedImages:
    """What the model makes of the images.

    Attributes
    ----------
    noise : Tensor, shape (groups, shells), float32
        Variance.
    outlier : Tensor, shape (n,), bool
        No estimate sees these any more.
    contrast : Tensor, shape (n,), float32
        Of mean 1 without outliers.
    doubted_share : float
        Share of images that look like outliers, if it is so large that none is left out; else 0.
    noise_ratio : Tensor or None, shape (micrographs, shells), float32
        Variance in each micrograph over that of its group.
    """

    noise: Tensor
    outlier: Tensor
    contrast: Tensor
    doubted_share: float
    noise_ratio: Tensor | None = None


@dataclass(frozen=True)
class PoseGain:
    """What a round of refinement of the poses did to a half-set.

    Attributes
    ----------
    objective : float
        Mean of the objective per image, at the refined poses.
    gain : float
        By how much it was lowered.
    """

    objective: float
    gain: float


@dataclass(frozen=True)
class AlternationState:
    """Where an alternation stands.

    Attributes
    ----------
    rounds : int
        Rounds finished: factors fitted up to the end of a band, poses refined, images judged.
    pose_rounds : int
        How often poses have been refined: in the present round, too, if it is one more than ``rounds``.
    factors : HalfSetState or None
        None before the first epoch.
    rough_spread, spread : PoseSpread or None
        Of the errors of the given poses, as measured under the mean alone, which counts motion in, and with factors.
    pose : Pose or None
        Of all particles; None while the given ones are in use.
    pose_gain : tuple of two PoseGains or None
        Of the last refinement.
    junk : Tensor, shape (n,), bool, or None
        Outliers that were found before any factor was fitted; None before the first step.
    judged : JudgedImages or None
        From the last finished round.
    means : tuple of two Tensors, shape (z, y, x), or None
        Mean of each half-set before its poses or noise changed last, filtered and masked.
    """

    rounds: int = 0
    pose_rounds: int = 0
    factors: HalfSetState | None = None
    rough_spread: PoseSpread | None = None
    spread: PoseSpread | None = None
    pose: Pose | None = None
    pose_gain: tuple[PoseGain, PoseGain] | None = None
    junk: Tensor | None = None
    judged: JudgedImages | None = None
    means: tuple[Tensor, Tensor] | None = None

    @property
    def done(self) -> int:
        """Units of the half-set fit that are finished."""
        return 0 if self.factors is None else self.factors.done
