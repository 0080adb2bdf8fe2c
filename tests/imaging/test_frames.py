"""Maps laid on each other: any hand, turn and move is found, and poses go with the map."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvar_engine.imaging.frames import Frame, best_frame, in_frame
from solvar_engine.imaging.rotation import angular_distance_deg, random_rotations, rotvec_to_rotation
from solvar_engine.imaging.types import Pose

BOX, PIXEL_SIZE, WIDTH = 24, 2.5, 1.25
PLACES = np.array([[4.0, 1.0, -2.0], [-4.0, 2.0, 1.0], [0.0, -3.0, 4.0], [1.0, 4.0, 2.0]])  # px, (x, y, z)
WEIGHTS = np.array([1.0, 0.7, 1.3, 0.5])
TURN = rotvec_to_rotation(torch.tensor([[1.4, -1.7, 0.9]], dtype=torch.float64))[0]
MOVE = torch.tensor([4.5, -3.0, 2.0], dtype=torch.float64)  # Angstrom


def blobs(places):
    """Gaussian blobs at places (k, 3), px from the centre, (x, y, z)."""
    z, y, x = np.indices((BOX,) * 3) - BOX // 2
    squared = ((np.stack([x, y, z], axis=-1)[None] - places[:, None, None, None]) ** 2).sum(axis=-1)
    return np.tensordot(WEIGHTS, np.exp(-squared / (2 * WIDTH**2)), axes=1).astype(np.float32)


def places_in(frame):
    """Where the blobs of a map are that lies in a frame: V(+-G (x + t)) has them at x."""
    return (-1 if frame.is_mirrored else 1) * (PLACES + frame.move.numpy() / PIXEL_SIZE) @ frame.rotation.numpy().T


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_any_frame_is_found(is_mirrored):
    frame = Frame(TURN, MOVE, is_mirrored)
    volume, reference = blobs(places_in(frame)), blobs(PLACES)
    np.testing.assert_allclose(in_frame(volume, frame, PIXEL_SIZE), reference, atol=0.04)
    found = best_frame(volume, reference, np.ones_like(volume), PIXEL_SIZE)
    assert found.is_mirrored == is_mirrored
    assert float(angular_distance_deg(found.rotation[None], TURN[None])) < 0.5
    assert float((found.move - MOVE).norm()) < 0.1


def test_only_small_turns_of_the_same_hand_are_tried_if_that_is_asked_for():
    turn = rotvec_to_rotation(torch.tensor([[0.3, -0.2, 0.3]], dtype=torch.float64))[0]
    for frame in (Frame(turn, MOVE, False), Frame(turn, MOVE, True)):
        volume, reference = blobs(places_in(frame)), blobs(PLACES)
        found = best_frame(volume, reference, np.ones_like(volume), PIXEL_SIZE, largest_turn=0.8)
        assert not found.is_mirrored
        if not frame.is_mirrored:
            assert float(angular_distance_deg(found.rotation[None], turn[None])) < 1.0
            assert float((found.move - MOVE).norm()) < 0.1


def projection(places, pose, row):
    """Where the blobs of a map appear in an image: RELION's A x less the origin, Angstrom."""
    seen = PIXEL_SIZE * places @ pose.rotation[row].double().numpy()[:, :2]
    return seen - pose.shift[row].double().numpy()


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_poses_go_with_the_map(is_mirrored):
    frame = Frame(TURN, MOVE, is_mirrored)
    generator = torch.Generator().manual_seed(1)
    pose = Pose(random_rotations(5, generator), torch.randn(5, 2, generator=generator))
    moved = frame.posed(pose)
    for row in range(5):
        np.testing.assert_allclose(
            projection(PLACES, moved, row), projection(places_in(frame), pose, row), atol=1e-4
        )
