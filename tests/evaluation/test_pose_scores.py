"""Pose errors see what the data can tell, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvar_engine.evaluation.pose_scores import contrast_r2, pose_errors
from solvar_engine.imaging.rotation import random_rotations, rotvec_to_rotation
from solvar_engine.imaging.types import Pose

COUNT = 500


@pytest.fixture
def true_pose() -> Pose:
    generator = torch.Generator().manual_seed(0)
    return Pose(random_rotations(COUNT, generator), 5 * torch.randn(COUNT, 2, generator=generator))


def test_a_map_that_is_turned_and_moved_has_no_error(true_pose: Pose) -> None:
    turn = rotvec_to_rotation(torch.tensor([[0.4, -0.8, 1.1]]))
    offset = torch.tensor([3.0, -7.0, 2.0])
    moved = (true_pose.rotation.transpose(1, 2) @ offset)[:, :2]
    rotation_deg, shift_px = pose_errors(
        Pose(turn @ true_pose.rotation, true_pose.shift + moved), true_pose, 2.0
    )
    assert rotation_deg < 1e-3
    assert shift_px < 1e-4


def test_independent_errors_are_measured_in_degrees_and_pixels(true_pose: Pose) -> None:
    generator = torch.Generator().manual_seed(1)
    turn = rotvec_to_rotation(np.radians(3.0) * torch.randn(COUNT, 3, generator=generator))
    error = 1.5 * torch.randn(COUNT, 2, generator=generator)
    estimated = Pose(turn @ true_pose.rotation, true_pose.shift + error)
    rotation_deg, shift_px = pose_errors(estimated, true_pose, 3.0)
    assert rotation_deg == pytest.approx(3.0 * np.sqrt(8 / np.pi), rel=0.05)
    assert shift_px == pytest.approx(0.5 * np.sqrt(np.pi / 2), rel=0.05)


def test_the_other_hand_is_not_forgiven(true_pose: Pose) -> None:
    # poses of the mirrored map: the rotations seen in a mirror along z
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    mirrored = Pose(mirror @ true_pose.rotation @ mirror, true_pose.shift)
    assert pose_errors(mirrored, true_pose, 1.0)[0] > 30.0


def test_sets_of_different_size_are_refused(true_pose: Pose) -> None:
    with pytest.raises(ValueError, match="499 estimated poses cannot be compared with 500"):
        pose_errors(true_pose[1:], true_pose, 1.0)


def test_contrasts_are_correlated() -> None:
    true = np.random.default_rng(0).normal(1, 0.2, COUNT)
    assert contrast_r2(3 * true + 1, true) == pytest.approx(1.0)
    assert contrast_r2(-true, true) == pytest.approx(1.0)
    assert contrast_r2(np.ones(COUNT), true) is None
    assert contrast_r2(true, np.ones(COUNT)) is None
