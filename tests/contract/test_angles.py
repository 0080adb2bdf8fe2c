from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from solvar_engine.contract.angles import relion_to_rotation, rotation_to_relion
from solvar_engine.imaging.rotation import random_rotations


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


def test_view_direction_is_given_by_the_first_two_angles():
    # rot and tilt are the spherical angles of the axis along which the volume is projected
    rot, tilt = np.deg2rad([40.0, 70.0])
    axis = relion_to_rotation(*np.array([[40.0], [70.0], [15.0]]))[0, :, 2]
    np.testing.assert_allclose(axis, [np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)])


def test_round_trip(angles):
    np.testing.assert_allclose(np.stack(rotation_to_relion(relion_to_rotation(*angles))), angles, atol=1e-9)


@pytest.mark.parametrize("tilt", [0.0, 1e-6, 1e-4, 1e-2, 179.9999, 180.0])
def test_poles_are_exact_even_from_single_precision(tilt):
    rotation = relion_to_rotation(*np.array([[33.0], [tilt], [44.0]])).astype(np.float32)
    angles = rotation_to_relion(rotation)
    assert 0 <= angles[1][0] <= 180
    np.testing.assert_allclose(relion_to_rotation(*angles), rotation, atol=1e-6)


def test_orientations_that_rounding_moved_off_a_pole_survive(angles):
    # products of rotations in single precision leave the pole by their rounding error: about 1e-7
    generator = torch.Generator().manual_seed(0)
    first, second = random_rotations(200, generator), random_rotations(200, generator)
    product = first @ second
    at_the_pole = torch.from_numpy(relion_to_rotation(angles[0], 0 * angles[1], angles[2])).float()
    rotation = (product @ (product.transpose(1, 2) @ at_the_pole)).numpy()
    np.testing.assert_allclose(relion_to_rotation(*rotation_to_relion(rotation)), rotation, atol=1e-6)
