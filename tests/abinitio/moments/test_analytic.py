from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from solvar_engine.abinitio.moments.analytic import MapMoments, MomentPair
from solvar_engine.abinitio.moments.basis import BallBasis
from solvar_engine.imaging.harmonics import (
    degrees_and_orders,
    real_harmonics,
    rotations_to,
    sphere_quadrature,
)
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.imaging.symmetry import symmetry_operators

BOX, ANGLES = 24, 16
RING = torch.tensor([1.0, 2.5, 4.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def basis() -> BallBasis:
    return BallBasis.create(BOX, 8.0, 4.0)


@pytest.fixture(scope="module")
def coefficients(basis: BallBasis) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(len(basis), generator=generator, dtype=torch.float64) / basis.root


def transform(basis: BallBasis, coefficients: Tensor, frequency: Tensor) -> Tensor:
    """Of a map, at frequencies (..., 3), Fourier pixels, as a sum over its voxels."""
    values, inside = basis.on_grid()
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    places = torch.stack((x, y, z), dim=-1)[inside]
    phase = -2 * math.pi / BOX * frequency @ places.T
    return torch.polar(torch.ones_like(phase), phase) @ (values @ coefficients + 0j) / BOX


def brute_force(
    basis: BallBasis, coefficients: Tensor, direction: Tensor, probability: Tensor, shift_std: float
) -> MomentPair:
    """Averages over views, in-plane angles and, by Gauss and Hermite, shifts of slices that are sums over voxels."""
    phi = 2 * math.pi / ANGLES * torch.arange(ANGLES, dtype=torch.float64)
    circle = torch.stack((phi.cos(), phi.sin(), torch.zeros_like(phi)), dim=-1)
    node, weight = (torch.from_numpy(part) for part in np.polynomial.hermite.hermgauss(10))
    shift = 2**0.5 * shift_std * torch.cartesian_prod(node, node)  # shares of the box
    of_shift = torch.cartesian_prod(weight, weight).prod(dim=1) / math.pi
    frequency = RING[:, None, None] * circle[:, :2]
    phase = 2 * math.pi * frequency @ shift.T
    moved = torch.polar(torch.ones_like(phase), phase)  # (rings, angles, shifts)
    first = torch.zeros(len(RING), dtype=torch.complex128)
    second = torch.zeros(len(RING), len(RING), ANGLES, dtype=torch.complex128)
    for rotation, share in zip(rotations_to(direction), probability, strict=True):
        centred = transform(basis, coefficients, (RING[:, None, None] * circle) @ rotation.T)
        slices = centred[:, :, None] * moved
        first += share * (slices * of_shift).sum(dim=2).mean(dim=1)
        for step in range(ANGLES):
            product = torch.einsum("kas,las,s->kl", slices.roll(-step, 1), slices.conj(), of_shift + 0j)
            second[:, :, step] += share * product / ANGLES
    assert float(second.imag.norm()) < 1e-3 * float(second.norm())
    return MomentPair(first.real, second.real)


def test_harmonics_are_orthonormal_and_start_as_known() -> None:
    direction, weight = sphere_quadrature(10)
    values = real_harmonics(5, direction)
    torch.testing.assert_close(4 * math.pi * values.T @ (values * weight[:, None]), torch.eye(36).double())
    x, y, z = direction.unbind(1)
    torch.testing.assert_close(values[:, 1:4], math.sqrt(3 / (4 * math.pi)) * torch.stack((y, z, x), dim=1))
    torch.testing.assert_close(values[:, 4], math.sqrt(15 / (4 * math.pi)) * x * y)
    assert degrees_and_orders(1)[1].tolist() == [0, -1, 0, 1]


def test_the_quadrature_of_views_has_their_directions() -> None:
    direction, _ = sphere_quadrature(4)
    rotation = rotations_to(torch.cat((direction, torch.tensor([[0.0, 0.0, -1.0]]))))
    torch.testing.assert_close(rotation[:-1, :, 2], direction)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(len(rotation)).double())
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand_as(rotation))


def test_functions_are_orthonormal_and_their_transforms_those_of_their_values(basis: BallBasis) -> None:
    values, _ = basis.on_grid()
    torch.testing.assert_close(values.T @ values, torch.eye(len(basis)).double(), atol=2e-3, rtol=0)
    frequency = random_rotations(4, torch.Generator().manual_seed(0))[:, :, 0].double() * 3.0
    for number in (0, 5, 20, len(basis) - 1):
        one = torch.nn.functional.one_hot(torch.tensor(number), len(basis)).double()
        degree = int(basis.degree[number])
        angular = real_harmonics(basis.last_degree, frequency / 3.0)[:, basis.harmonic[number]]
        expected = (-1j) ** degree * basis.of_frequency(torch.tensor([3.0]))[0, number] * angular
        torch.testing.assert_close(transform(basis, one, frequency), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("shift_std", [0.0, 0.05])
def test_moments_are_averages_over_views_angles_and_shifts(
    basis: BallBasis, coefficients: Tensor, shift_std: float
) -> None:
    direction, weight = sphere_quadrature(2 * basis.last_degree + 2)
    probability = weight * (1 + 0.8 * direction[:, 0] + 0.5 * direction[:, 1] * direction[:, 2])
    model = MapMoments(basis, RING, ANGLES, direction)
    for share in (weight, probability):
        expected = brute_force(basis, coefficients, direction, share, shift_std)
        found = model.of_views(coefficients, share, shift_std)
        for mine, theirs in ((found.first, expected.first), (found.second, expected.second)):
            assert float((mine - theirs).norm()) < 2e-3 * float(theirs.norm())
    uniform, summed = model.uniform(coefficients, shift_std), model.of_views(coefficients, weight, shift_std)
    torch.testing.assert_close(uniform.first, summed.first)
    torch.testing.assert_close(uniform.second, summed.second)
    uneven = model.of_views(coefficients, probability, shift_std)
    assert float((uneven.second - uniform.second).norm()) > 0.02 * float(uniform.second.norm())


def test_maps_of_a_point_group_are_as_symmetric(basis: BallBasis, coefficients: Tensor) -> None:
    operators = symmetry_operators("C2")
    invariants = basis.invariants(operators)
    volume = basis.volume(invariants @ (invariants.T @ coefficients))[1:, 1:, 1:]
    torch.testing.assert_close(volume, volume.flip(1, 2), atol=1e-5, rtol=0)  # C2 turns about z
    assert 0.4 * len(basis) < invariants.shape[1] < 0.6 * len(basis)


def test_a_basis_without_functions_is_an_error() -> None:
    with pytest.raises(ValueError, match="no function in a ball of 1.0 px"):
        BallBasis.create(BOX, 1.0, 2.0)
