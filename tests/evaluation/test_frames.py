"""An estimate that is the truth in another hand, turned, moved, and drifting with the motion: all undone exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from solvar_engine.evaluation.frames import (
    aligned_estimate,
    aligned_pose,
    comoving_truth,
    find_frame,
)
from solvar_engine.evaluation.metrics import Estimate, Truth
from solvar_engine.imaging.frames import in_frame, polished
from solvar_engine.imaging.rotation import angular_distance_deg, random_rotations, rotvec_to_rotation
from solvar_engine.imaging.symmetry import symmetry_operators
from solvar_engine.imaging.types import Pose

BOX, PIXEL_SIZE, COUNT = 24, 2.0, 300
NO_SYMMETRY = torch.eye(3, dtype=torch.float64)[None]
PLACES = np.array([[3.0, 1.0, -2.0], [-4.0, 2.0, 1.0], [0.0, -3.0, 4.0], [1.0, 4.0, 2.0]])  # px, (x, y, z)
WEIGHTS = np.array([1.0, 0.8, 1.3, 0.6])
TURN = rotvec_to_rotation(torch.tensor([[1.1, -0.6, 0.4]], dtype=torch.float64))[0]
MOVE = torch.tensor([1.5, -2.5, 0.8], dtype=torch.float64)  # Angstrom


def blobs(places: np.ndarray) -> np.ndarray:
    """Gaussian blobs at places (k, 3), px from the centre, (x, y, z)."""
    z, y, x = np.indices((BOX,) * 3) - BOX // 2
    grid = np.stack([x, y, z], axis=-1)
    squared = ((grid[None] - places[:, None, None, None]) ** 2).sum(axis=-1)
    return np.tensordot(WEIGHTS, np.exp(-squared / (2 * 1.5**2)), axes=1).astype(np.float32)


def true_poses(seed: int = 0) -> Pose:
    generator = torch.Generator().manual_seed(seed)
    return Pose(random_rotations(COUNT, generator), torch.randn(COUNT, 2, generator=generator))


def displaced(pose: Pose, turn: Tensor, move: Tensor, is_mirrored: bool) -> Pose:
    """Poses that see, at G (x + t), what the given ones see at x: a map that was moved, turned and mirrored."""
    rotation = turn @ pose.rotation.double()
    shift = pose.shift.double() + pose.rotation.double().mT[:, :2] @ move
    if is_mirrored:
        rotation = rotation @ torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    return Pose(rotation.float(), shift.float())


def displaced_places(is_mirrored: bool) -> np.ndarray:
    """Where the blobs of the map are that such poses see."""
    moved = (PLACES + MOVE.numpy() / PIXEL_SIZE) @ TURN.numpy().T
    return -moved if is_mirrored else moved


def spoilt(pose: Pose, share: float) -> Pose:
    """The same with a share of the orientations replaced by others."""
    rotation, wrong = pose.rotation.clone(), int(share * COUNT)
    rotation[:wrong] = random_rotations(wrong, torch.Generator().manual_seed(9))
    return Pose(rotation, pose.shift)


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_hand_rotation_and_move_are_undone(is_mirrored):
    true = true_poses()
    found = displaced(true, TURN, MOVE, is_mirrored)
    frame = find_frame(spoilt(found, 0.3), true, NO_SYMMETRY)
    assert frame.is_mirrored == is_mirrored
    torch.testing.assert_close(frame.rotation, TURN, atol=1e-5, rtol=0)
    torch.testing.assert_close(frame.move, MOVE, atol=1e-4, rtol=0)
    assert not frame.is_inlier[: int(0.25 * COUNT)].double().mean() > 0.05 and frame.is_inlier[90:].all()
    pose = aligned_pose(found, true, frame, NO_SYMMETRY)
    assert float(angular_distance_deg(pose.rotation, true.rotation).max()) < 0.1
    torch.testing.assert_close(pose.shift, true.shift, atol=1e-3, rtol=0)


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_the_map_goes_with_the_poses(is_mirrored):
    true = true_poses()
    frame = find_frame(displaced(true, TURN, MOVE, is_mirrored), true, NO_SYMMETRY)
    volume, target = blobs(displaced_places(is_mirrored)), blobs(PLACES)
    aligned = in_frame(volume, frame, PIXEL_SIZE)
    assert np.corrcoef(aligned.ravel(), target.ravel())[0, 1] > 0.995
    np.testing.assert_allclose(aligned, target, atol=0.05)


def test_polishing_mends_a_frame_that_is_a_little_off():
    true = true_poses()
    frame = find_frame(displaced(true, TURN, MOVE, True), true, NO_SYMMETRY)
    error = rotvec_to_rotation(torch.tensor([[0.06, -0.04, 0.05]], dtype=torch.float64))[0]
    off = replace(frame, rotation=frame.rotation @ error, move=frame.move + 1.0)
    volume, target = blobs(displaced_places(True)), blobs(PLACES)
    mended = polished(off, volume, target, np.ones_like(target), PIXEL_SIZE)
    angles = [float(angular_distance_deg(one.rotation[None], frame.rotation[None])) for one in (off, mended)]
    assert angles[0] > 4 and angles[1] < 1
    assert float((mended.move - frame.move).norm()) < 0.2


def test_orientations_that_a_symmetry_makes_equal_count_as_one():
    true, group = true_poses(), symmetry_operators("C3")
    found = displaced(true, TURN, torch.zeros(3, dtype=torch.float64), False)
    mates = group[torch.arange(COUNT) % 3].float() @ found.rotation
    frame = find_frame(Pose(mates, found.shift), true, group)
    assert frame.is_inlier.all()
    pose = aligned_pose(Pose(mates, found.shift), true, frame, group)
    assert float(angular_distance_deg(pose.rotation, true.rotation).max()) < 0.1


def truth_of(states: int, pose: Pose) -> Truth:
    """A blob that moves along x with the state."""
    state = np.arange(COUNT) % states
    coordinate = state / (states - 1)
    volumes = np.stack([blobs(places_of(value)) for value in np.unique(coordinate)])
    mask, contrast, is_junk = np.ones((BOX,) * 3, np.float32), np.ones(COUNT), np.zeros(COUNT, dtype=bool)
    return Truth(volumes, mask, state, coordinate[:, None], contrast, pose, PIXEL_SIZE, is_junk)


def places_of(coordinate: float) -> np.ndarray:
    return PLACES + np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [3 * coordinate, 0, 0]])


def test_a_frame_that_drifts_with_the_motion_is_followed():
    truth = truth_of(5, true_poses())
    coordinate = torch.from_numpy(truth.coordinates[:, 0])
    turn = rotvec_to_rotation(coordinate[:, None] * torch.tensor([[0.2, 0.0, -0.1]], dtype=torch.float64))
    move = coordinate[:, None] * torch.tensor([[2.0, 1.0, -1.0]], dtype=torch.float64)
    rotation = turn @ truth.pose.rotation.double()
    shift = truth.pose.shift.double() + torch.einsum("nji,nj->ni", rotation, move)[:, :2]
    seen = Pose(rotation.float(), shift.float())
    everyone = torch.ones(COUNT, dtype=torch.bool)
    moved = comoving_truth(truth, seen, everyone, PIXEL_SIZE)
    assert float(angular_distance_deg(moved.pose.rotation, seen.rotation).max()) < 0.1
    torch.testing.assert_close(moved.pose.shift, seen.shift, atol=1e-3, rtol=0)
    expected = blobs(places_of(1.0) @ turn[4].numpy().T + move[4].numpy() / PIXEL_SIZE)
    np.testing.assert_allclose(moved.volumes[4], expected, atol=0.05)
    np.testing.assert_allclose(moved.volumes[0], truth.volumes[0], atol=0.02)


def test_an_aligned_estimate_has_unit_eigenvolumes_in_the_frame_of_the_truth():
    true = true_poses()
    truth = truth_of(3, true)
    found = displaced(true, TURN, MOVE, True)
    volume = blobs(displaced_places(True))
    unit = volume / np.linalg.norm(volume)
    z, contrast = np.zeros((COUNT, 1), np.float32), np.ones(COUNT, np.float32)
    estimate = Estimate(volume, unit[None], np.ones(1), z, contrast, found, None)
    aligned = aligned_estimate(estimate, truth, find_frame(found, true, NO_SYMMETRY), NO_SYMMETRY, PIXEL_SIZE)
    target = blobs(PLACES)
    assert np.linalg.norm(aligned.eigenvolumes[0]) == pytest.approx(1, abs=1e-5)
    assert float((aligned.eigenvolumes[0] * target).sum() / np.linalg.norm(target)) > 0.995
    np.testing.assert_allclose(aligned.mean, target, atol=0.05)
