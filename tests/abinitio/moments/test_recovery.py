from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from solvar_engine.abinitio.moments.analytic import MapMoments, MomentPair
from solvar_engine.abinitio.moments.basis import BallBasis
from solvar_engine.abinitio.moments.recovery import (
    MomentObjective,
    RecoveryOptions,
    recovered,
    relative_errors,
)
from solvar_engine.abinitio.moments.steerable import EmpiricalMoments
from solvar_engine.imaging.harmonics import sphere_quadrature
from solvar_engine.imaging.symmetry import symmetry_operators

BOX, ANGLES = 16, 12
RING = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
SHIFT_STD = 0.03


@pytest.fixture(scope="module")
def basis() -> BallBasis:
    return BallBasis.create(BOX, 6.0, 3.0)


def exact(basis: BallBasis, views: bool, seed: int = 0) -> tuple[Tensor, EmpiricalMoments]:
    """Coefficients of a map of blobs and its moments, of uniform views or of others."""
    direction, weight = sphere_quadrature(2 * basis.last_degree + 2)
    model = MapMoments(basis, RING, ANGLES, direction)
    generator = torch.Generator().manual_seed(seed)
    values, inside = basis.on_grid()
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    places = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1], dim=-1)[inside]
    centre = 2.5 * torch.randn(5, 3, generator=generator, dtype=torch.float64)
    density = torch.exp(-(places[:, None] - centre).square().sum(dim=2) / 8).sum(dim=1)
    coefficients = values.T @ density
    share = weight * torch.exp(1.5 * direction[:, 0] ** 2 + direction[:, 1] * direction[:, 2]) if views else weight
    moments = model.of_views(coefficients, share / share.sum(), SHIFT_STD)
    return coefficients, EmpiricalMoments(RING, moments, torch.ones(3, 3).double(), 100)


def test_errors_are_norms_over_the_plane() -> None:
    data = MomentPair(torch.ones(3).double(), torch.ones(3, 3, ANGLES).double())
    model = MomentPair(torch.tensor([1.0, 1.0, 2.0]).double(), data.second.clone())
    model.second[0, 1] += 2
    model.second[1, 0] += 2
    weight = torch.ones(3, 3).double()
    first, second = relative_errors(model, data, RING, weight)
    assert float(first) == pytest.approx(math.sqrt(3 / 6))
    assert float(second) == pytest.approx(math.sqrt(2 * 2 * 4 / 36))
    weight[0, 1] = weight[1, 0] = weight[2, 2] = 0
    first, second = relative_errors(model, data, RING, weight)
    assert float(first) == float(second) == 0


@pytest.mark.parametrize(("degree", "fits_shifts", "group"), [(0, False, "C1"), (2, True, "C1"), (1, True, "C2")])
def test_gradients_are_differences(basis: BallBasis, degree: int, fits_shifts: bool, group: str) -> None:
    _, data = exact(basis, views=True)
    operators = symmetry_operators(group)
    objective = MomentObjective(data, basis, degree, fits_shifts, 0.05, operators)
    generator = torch.Generator().manual_seed(1)
    at = objective.random_start(generator)
    at += 0.1 * at.abs().max() * torch.randn(len(at), generator=generator, dtype=torch.float64)
    _, gradient = objective.value_and_gradient(at.numpy())
    for direction in torch.randn(4, len(at), generator=generator, dtype=torch.float64):
        step = 1e-5 * direction
        difference = float(objective.value(at + step) - objective.value(at - step)) / 2e-5
        assert float(torch.from_numpy(gradient) @ direction) == pytest.approx(difference, rel=1e-4, abs=1e-8)


def test_the_map_itself_has_no_error(basis: BallBasis) -> None:
    coefficients, data = exact(basis, views=False)
    objective = MomentObjective(data, basis, shift_std=SHIFT_STD, positivity=0.0)
    assert float(objective.value(coefficients)) < 1e-20
    assert float(objective.value(-coefficients)) == pytest.approx(4.0)  # the second moment cannot tell
    negative = MomentObjective(data, basis, shift_std=SHIFT_STD, positivity=2.0)
    share = float(negative.value(-coefficients)) - 4.0
    assert 1.8 < share <= 2.0


def test_moments_of_uneven_views_tell_power_and_shifts(basis: BallBasis) -> None:
    coefficients, data = exact(basis, views=True)
    options = RecoveryOptions(starts=3, iterations=600, views_degree=2, fits_shifts=True)
    found = min(recovered(data, basis, 0.05, options, torch.Generator().manual_seed(0)), key=lambda one: one.objective)
    assert found.first_error < 0.001 and found.second_error < 0.002
    assert found.shift_std == pytest.approx(SHIFT_STD, rel=0.1)
    assert float(found.log_density[3:].norm()) > 0.3
    power = [coefficients[basis.degree == degree].norm() for degree in range(basis.last_degree + 1)]
    mine = [found.coefficients[basis.degree == degree].norm() for degree in range(basis.last_degree + 1)]
    torch.testing.assert_close(torch.stack(mine), torch.stack(power), rtol=0.2, atol=0.02 * float(power[0]))


def test_uniform_views_leave_the_correlations(basis: BallBasis) -> None:
    coefficients, data = exact(basis, views=False)
    options = RecoveryOptions(starts=2, iterations=300)
    for found in recovered(data, basis, SHIFT_STD, options, torch.Generator().manual_seed(2)):
        assert found.second_error < 0.02
        assert float(found.coefficients[0] / coefficients[0]) > 0  # the first moment tells the sign
