from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from solvar_engine.contract.star import relion_to_rotation, rotation_to_relion
from solvar_engine.imaging import rotation as imaging_rotation


@pytest.fixture
def angles() -> np.ndarray:
    random = np.random.default_rng(0)
    return np.stack(
        [random.uniform(-180, 180, 200), random.uniform(0, 180, 200), random.uniform(-180, 180, 200)]
    )


def test_convention_is_intrinsic_zyz(angles):
    expected = Rotation.from_euler("ZYZ", angles.T, degrees=True).as_matrix()
    np.testing.assert_allclose(relion_to_rotation(*angles), expected, atol=1e-12)


def test_matrix_is_the_transpose_of_the_one_in_relions_documentation():
    rot, tilt, psi = np.deg2rad([20.0, 50.0, 80.0])
    first_row_of_a = [
        np.cos(psi) * np.cos(tilt) * np.cos(rot) - np.sin(psi) * np.sin(rot),
        np.cos(psi) * np.cos(tilt) * np.sin(rot) + np.sin(psi) * np.cos(rot),
        -np.cos(psi) * np.sin(tilt),
    ]
    rotation = relion_to_rotation(*np.array([[20.0], [50.0], [80.0]]))[0]
    np.testing.assert_allclose(rotation[:, 0], first_row_of_a)


def test_imaging_has_the_same_convention(angles):
    in_torch = imaging_rotation.relion_to_rotation(*torch.from_numpy(angles))
    np.testing.assert_allclose(relion_to_rotation(*angles), in_torch.numpy(), atol=1e-12)


def test_round_trip(angles):
    np.testing.assert_allclose(np.stack(rotation_to_relion(relion_to_rotation(*angles))), angles, atol=1e-9)


@pytest.mark.parametrize("tilt", [0.0, 1e-6, 1e-4, 1e-2, 179.9999, 180.0])
def test_poles_are_exact_even_from_single_precision(tilt):
    rotation = relion_to_rotation(*np.array([[33.0], [tilt], [44.0]])).astype(np.float32)
    angles = rotation_to_relion(rotation)
    assert 0 <= angles[1][0] <= 180
    np.testing.assert_allclose(relion_to_rotation(*angles), rotation, atol=1e-6)
