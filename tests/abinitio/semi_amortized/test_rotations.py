from __future__ import annotations

import math

import pytest
import torch

from solvar_engine.abinitio.semi_amortized.rotations import cosine_distance, increment, s2s2_to_rotation
from solvar_engine.imaging.rotation import angular_distance_deg, random_rotations, rotvec_to_rotation


def vectors(length: float) -> torch.Tensor:
    direction = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return length * direction / direction.norm(dim=1, keepdim=True)


def test_six_numbers_make_rotations() -> None:
    six = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rotation = s2s2_to_rotation(six)
    identity = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(rotation @ rotation.mT, identity)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50, dtype=torch.float64))
    first, second = six[:, :3], six[:, 3:]
    torch.testing.assert_close(rotation[:, :, 0], first / first.norm(dim=1, keepdim=True))
    assert float((rotation[:, :, 2] * second).sum(dim=1).abs().max()) < 1e-12  # the third column is normal to both
    assert bool(((rotation[:, :, 1] * second).sum(dim=1) > 0).all())
    scaled = torch.cat((3 * first, 0.2 * second), dim=1)
    torch.testing.assert_close(s2s2_to_rotation(scaled), rotation)


def test_gradients_of_six_numbers() -> None:
    six = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(s2s2_to_rotation, six)


@pytest.mark.parametrize("length", [0.0, 1e-12, 1e-4, 0.1, 0.7, 0.7072, 2.0, 3.1])
def test_increments_are_exponentials(length: float) -> None:
    omega = vectors(length).requires_grad_()
    torch.testing.assert_close(increment(omega), rotvec_to_rotation(omega.detach()), rtol=1e-13, atol=1e-13)
    assert torch.autograd.gradcheck(increment, omega)


def test_derivatives_at_nought_have_the_limits_of_all_coefficients() -> None:
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)

    def entries(angle: torch.Tensor) -> torch.Tensor:
        rotation = increment(angle * axis)
        return torch.stack((rotation[0, 0], rotation[1, 0]))  # cosine and sine

    found = [torch.zeros(2, dtype=torch.float64)] * 5
    angle = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for part in range(2):
        value = entries(angle)[part]
        for order in range(5):
            found[order] = found[order].clone()
            found[order][part] = value.detach()
            (value,) = torch.autograd.grad(value, angle, create_graph=True)
    expected = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1], [1, 0]], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(found), expected)


def test_single_precision_is_kept_near_nought() -> None:
    for length in (0.0, 1e-20, 1e-6, 1e-3, 0.7):
        omega = vectors(length)
        exact = torch.autograd.functional.jacobian(increment, omega)
        single = torch.autograd.functional.jacobian(increment, omega.float())
        torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=1e-6)


def test_distance_is_that_of_the_angle() -> None:
    first, second = random_rotations(20, torch.Generator().manual_seed(3)).double().split(10)
    angle = angular_distance_deg(first, second) * math.pi / 180
    torch.testing.assert_close(cosine_distance(first, second), 1 - angle.cos())
