"""What a fit says of refined poses: how far they have moved, and how well they are known."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.judging.bootstrap import ErrorFactors
from solvar_engine.estimation.judging.components import Components
from solvar_engine.estimation.poses.likelihood import pose_deviation
from solvar_engine.imaging.rotation import angular_distance_deg
from solvar_engine.imaging.types import Pose

logger = logging.getLogger(__name__)


def pose_columns(
    halves: HalfSetFit, components: Components, given: Pose, errors: ErrorFactors
) -> dict[str, Tensor]:
    """Columns of how far poses have moved, and of their posterior standard deviations, in degrees and Angstrom."""
    source = halves.source
    turn, move = pose_deviation(source, halves.problem.full_band(), components.scaled(), halves.pose_spread)
    angle, distance = _change(source.pose, given)
    return {
        "solvarRotationChange": angle.double(),
        "solvarShiftChange": distance.double(),
        "solvarRotationStd": errors.turn**0.5 * torch.rad2deg(turn),
        "solvarShiftStd": errors.move**0.5 * move * source.pixel_size,
    }


def _change(pose: Pose, given: Pose) -> tuple[Tensor, Tensor]:
    """Angle (degrees) and distance (Angstrom) of each pose from the given one."""
    return angular_distance_deg(pose.rotation, given.rotation), (pose.shift - given.shift).norm(dim=1)


def say_change(pose: Pose, given: Pose) -> None:
    """Log by how much poses differ from the given ones."""
    turn, move = _change(pose, given)
    logger.info(
        "poses differ from the given ones by %.2f degrees and %.2f Angstrom on average",
        float(turn.mean()),
        float(move.mean()),
    )
