"""Rotations against SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from solvar_engine.imaging.rotation import (
    angular_distance_deg,
    random_rotations,
    rotation_to_rotvec,
    rotvec_to_rotation,
)


def test_rotation_vectors_are_those_of_scipy() -> None:
    rotvec = np.random.default_rng(1).normal(size=(200, 3)) * 3
    matrix = rotvec_to_rotation(torch.from_numpy(rotvec))
    np.testing.assert_allclose(matrix.numpy(), Rotation.from_rotvec(rotvec).as_matrix(), atol=1e-12)
    expected = Rotation.from_matrix(matrix.numpy()).as_rotvec()
    np.testing.assert_allclose(rotation_to_rotvec(matrix).numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 1e-10, 1e-5, math.pi - 1e-7, math.pi])
def test_rotation_vectors_of_extreme_angles(angle: float) -> None:
    axis = torch.nn.functional.normalize(torch.tensor([[1.0, 2, 3], [0, 0, 1], [-1, 1, 0]]).double(), dim=1)
    matrix = rotvec_to_rotation(axis * angle)
    back = rotvec_to_rotation(rotation_to_rotvec(matrix))
    torch.testing.assert_close(back, matrix)
    torch.testing.assert_close(rotation_to_rotvec(matrix).norm(dim=1), torch.full((3,), angle).double())


def test_angular_distance_is_the_magnitude_of_scipy() -> None:
    first, second = (Rotation.random(200, random_state=np.random.RandomState(seed)) for seed in (0, 1))
    distance = angular_distance_deg(torch.from_numpy(first.as_matrix()), torch.from_numpy(second.as_matrix()))
    np.testing.assert_allclose(distance.numpy(), np.degrees((first.inv() * second).magnitude()), atol=1e-9)


def test_small_angular_distances_keep_their_digits() -> None:
    turned = rotvec_to_rotation(torch.tensor([[0.0, 1e-6, 0.0]], dtype=torch.float64))
    distance = angular_distance_deg(torch.eye(3, dtype=torch.float64)[None], turned).item()
    assert distance == pytest.approx(math.degrees(1e-6), rel=1e-6)


def test_random_rotations_are_uniform_and_repeat_with_their_seed() -> None:
    rotation = random_rotations(20_000, torch.Generator().manual_seed(3))
    assert torch.equal(rotation[:5], random_rotations(20_000, torch.Generator().manual_seed(3))[:5])
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(20_000))
    # Haar measure: every entry has mean 0 and variance 1/3; the angle has density (1 - cos) / pi.
    assert rotation.mean(dim=0).abs().max().item() < 0.02
    assert (rotation**2).mean(dim=0).sub(1 / 3).abs().max().item() < 0.01
    angle = angular_distance_deg(torch.eye(3).expand(20_000, 3, 3), rotation).deg2rad()
    assert angle.mean().item() == pytest.approx(math.pi / 2 + 2 / math.pi, abs=0.02)
