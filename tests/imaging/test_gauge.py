"""Poses as a whole are brought back to the frame of others."""

from __future__ import annotations

import pytest
import torch

from solvar_engine.imaging.gauge import StatePosterior, best_global_rotation, in_frame_of
from solvar_engine.imaging.rotation import angular_distance_deg, random_rotations, rotvec_to_rotation
from solvar_engine.imaging.types import Pose

COUNT = 2000


@pytest.fixture
def pose() -> Pose:
    generator = torch.Generator().manual_seed(0)
    return Pose(random_rotations(COUNT, generator), 5 * torch.randn(COUNT, 2, generator=generator))


def moved(pose: Pose, turn: torch.Tensor, offset: torch.Tensor) -> Pose:
    """Poses that see a map turned and moved, by the same for all particles or for each."""
    rotation = rotvec_to_rotation(turn) @ pose.rotation
    shift = (rotation.transpose(1, 2) @ offset.expand(COUNT, 3)[..., None])[:, :2, 0]
    return Pose(rotation, pose.shift + shift)


def test_the_global_rotation_is_found_on_the_left(pose: Pose) -> None:
    turn = rotvec_to_rotation(torch.tensor([[0.2, 0.5, -0.3]], dtype=torch.float64))[0]
    rotation = pose.rotation.double()
    assert torch.allclose(best_global_rotation(turn @ rotation, rotation), turn, atol=1e-6)


def test_a_map_that_is_turned_and_moved_comes_back(pose: Pose) -> None:
    back = in_frame_of(moved(pose, torch.tensor([[0.4, -0.8, 1.1]]), torch.tensor([3.0, -7.0, 2.0])), pose)
    assert float(angular_distance_deg(back.rotation, pose.rotation).max()) < 0.01
    torch.testing.assert_close(back.shift, pose.shift, atol=1e-3, rtol=0)


def test_a_frame_that_drifts_with_the_state_comes_back(pose: Pose) -> None:
    z = torch.randn(COUNT, 2, generator=torch.Generator().manual_seed(1))
    turn = z @ torch.tensor([[0.03, 0.0, 0.01], [0.0, -0.02, 0.0]])
    drifted = moved(pose, turn, z @ torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]))
    back = in_frame_of(drifted, pose, StatePosterior.certain(z))
    assert float(angular_distance_deg(back.rotation, pose.rotation).mean()) < 0.1
    assert float((back.shift - pose.shift).norm(dim=1).mean()) < 0.1
    assert float(angular_distance_deg(in_frame_of(drifted, pose).rotation, pose.rotation).mean()) > 1


def test_corrections_of_independent_errors_are_kept(pose: Pose) -> None:
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(COUNT, 2, generator=generator)
    errors = rotvec_to_rotation(0.05 * torch.randn(COUNT, 3, generator=generator))
    given = Pose(errors @ pose.rotation, pose.shift + torch.randn(COUNT, 2, generator=generator))
    kept = in_frame_of(pose, given, StatePosterior.certain(z))
    assert float(angular_distance_deg(kept.rotation, pose.rotation).mean()) < 0.3
    assert float((kept.shift - pose.shift).norm(dim=1).mean()) < 0.15


def test_errors_of_pose_and_state_together_are_no_drift(pose: Pose) -> None:
    """Images that know a mixture of pose and state badly: their estimates err together, though no frame drifts."""
    generator = torch.Generator().manual_seed(3)
    # z ~ N(0, 1), turn ~ N(0, 0.05^2) per axis of the volume and shift ~ N(0, 1), all independent; each image tells
    # the state and a mixture of state, turn about x and shift along its own x
    prior = torch.diag(torch.tensor([1.0, 0.05, 0.05, 0.05, 1.0, 1.0], dtype=torch.float64).square())
    truth = torch.randn(COUNT, 6, generator=generator, dtype=torch.float64) @ prior.sqrt()
    seen = torch.zeros(3, 6, dtype=torch.float64)
    seen[0, 0], seen[1, 0], seen[1, 1], seen[2, 0], seen[2, 4] = 0.5, 1.0, 20.0, 1.0, 1.0
    precision = torch.linalg.inv(prior) + seen.T @ seen
    covariance = torch.linalg.inv(precision)
    images = truth @ seen.T + torch.randn(COUNT, 3, generator=generator, dtype=torch.float64)
    estimate = images @ seen @ covariance

    given = Pose(pose.rotation.double(), pose.shift.double())
    refined = Pose(rotvec_to_rotation(estimate[:, 1:4]) @ given.rotation, given.shift + estimate[:, 4:])
    in_image = refined.rotation.mT @ covariance[1:4, :1]
    states = StatePosterior(
        estimate[:, :1],
        covariance[:1, :1].expand(COUNT, 1, 1),
        in_image,
        covariance[4:, :1].expand(COUNT, 2, 1),
    )
    kept = in_frame_of(refined, given, states)
    mistaken = in_frame_of(refined, given, StatePosterior.certain(estimate[:, :1]))
    turned, moved_by = (
        [float(angular_distance_deg(other.rotation, refined.rotation).mean()) for other in (kept, mistaken)],
        [float((other.shift - refined.shift).norm(dim=1).mean()) for other in (kept, mistaken)],
    )
    assert turned[0] < 0.2 * turned[1] and turned[1] > 0.5
    assert moved_by[0] < 0.1
