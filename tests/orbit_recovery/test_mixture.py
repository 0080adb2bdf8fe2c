"""Likelihood, gradient, Hessian and EM of the orbit mixture against brute force and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from solvar_engine.orbit_recovery.alignment import alignment_instance
from solvar_engine.orbit_recovery.mixture import OrbitMixture

LENGTH, WINDOW, COUNT, SIGMA = 5, 4, 300, 0.3  # more than one chunk


def made(known: bool) -> tuple[OrbitMixture, Tensor, Tensor, Tensor]:
    """A mixture, a point, the density there, and the observations."""
    instance = alignment_instance(LENGTH, WINDOW, COUNT, SIGMA, seed=3)
    observations, operators = instance.problem._observations, instance.problem._operators
    density = torch.tensor([0.3, 0.1, 0.2, 0.15, 0.25], dtype=torch.float64)
    unknown = instance.signal + 0.1 * torch.arange(LENGTH, dtype=torch.float64)
    if known:
        return OrbitMixture(observations, operators, SIGMA, density), unknown, density, observations
    return instance.problem, torch.cat((unknown, density.log() + 1.7)), density, observations


def terms(point: Tensor, density: Tensor, observations: Tensor) -> Tensor:
    """Weighted likelihoods rho_l exp(-|window(shift_l x) - y_i|^2 / 2 sigma^2), shape (n, l)."""
    rows = []
    for observed in observations:
        shifted = [point[:LENGTH].roll(shift)[:WINDOW] for shift in range(LENGTH)]
        rows.append([math.exp(-float((image - observed).square().sum()) / (2 * SIGMA**2)) for image in shifted])
    return torch.tensor(rows, dtype=torch.float64) * density


@pytest.mark.parametrize("known", [True, False])
def test_value_is_that_of_the_sum_written_out(known: bool) -> None:
    problem, point, density, observations = made(known)
    each = -terms(point, density, observations).sum(dim=1).log()
    rows = torch.tensor([3, 7, 290])
    assert problem.value_and_gradient(point)[0] == pytest.approx(float(each.mean()), rel=1e-12)
    assert problem.value_and_gradient(point, rows)[0] == pytest.approx(float(each[rows].mean()), rel=1e-12)
    assert problem.expectation(point, rows)[0] == pytest.approx(float(each[rows].mean()), rel=1e-12)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("rows", [None, torch.tensor([0, 5, 6, 280])])
def test_gradient_and_hessian_are_those_of_finite_differences(known: bool, rows: Tensor | None) -> None:
    problem, point, *_ = made(known)
    gradient, hessian = problem.value_and_gradient(point, rows)[1], problem.hessian(point, rows)
    for axis, unit in enumerate(1e-5 * torch.eye(len(point), dtype=torch.float64)):
        upper, lower = problem.value_and_gradient(point + unit, rows), problem.value_and_gradient(point - unit, rows)
        assert float(gradient[axis]) == pytest.approx((upper[0] - lower[0]) / 2e-5, abs=1e-6)
        torch.testing.assert_close(hessian[axis], (upper[1] - lower[1]) / 2e-5, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("known", [True, False])
def test_step_of_em_maximises_the_expected_likelihood(known: bool) -> None:
    problem, point, density, observations = made(known)
    rows = torch.arange(40)
    posterior = terms(point, density, observations[rows])
    posterior = posterior / posterior.sum(dim=1, keepdim=True)

    def expected(unknown: Tensor) -> float:
        images = torch.stack([unknown.roll(shift)[:WINDOW] for shift in range(LENGTH)])
        distances = (observations[rows][:, None] - images).square().sum(dim=2)
        return float((posterior * distances).sum())

    found = problem.maximise(problem.expectation(point, rows)[1])
    best = minimize(lambda x: expected(torch.from_numpy(x)), point[:LENGTH].numpy(), tol=1e-12)
    torch.testing.assert_close(found[:LENGTH], torch.from_numpy(best.x), atol=1e-5, rtol=0)
    if not known:
        torch.testing.assert_close(found[LENGTH:].exp(), posterior.mean(dim=0), atol=1e-10, rtol=0)


def test_statistics_are_means_over_rows() -> None:
    problem, point, *_ = made(known=False)
    halves = [problem.expectation(point, torch.arange(start, COUNT, 2)) for start in (0, 1)]
    value, statistics = problem.expectation(point)
    assert value == pytest.approx((halves[0][0] + halves[1][0]) / 2, rel=1e-12)
    torch.testing.assert_close(statistics, (halves[0][1] + halves[1][1]) / 2)


def test_canonical_point_has_the_same_value_and_a_normalised_density() -> None:
    problem, point, density, _ = made(known=False)
    canonical = problem.canonical(point)
    assert problem.value_and_gradient(canonical)[0] == pytest.approx(problem.value_and_gradient(point)[0], rel=1e-12)
    torch.testing.assert_close(canonical[LENGTH:].exp(), density)


def test_a_step_of_em_or_of_the_bound_never_makes_the_value_larger() -> None:
    problem, point, *_ = made(known=True)
    rate = 1 / problem.steepest(point)
    values = [problem.value_and_gradient(point)[0]]
    for _ in range(5):
        values.append(problem.value_and_gradient(problem.maximise(problem.expectation(point)[1]))[0])
        assert values[-1] <= values[-2]
        point = point - rate * problem.value_and_gradient(point)[1]
        values.append(problem.value_and_gradient(point)[0])
        assert values[-1] <= values[-3]


def test_shifted_signals_and_densities_are_as_likely() -> None:
    problem, point, *_ = made(known=False)
    turned = torch.cat((point[:LENGTH].roll(2), point[LENGTH:].roll(-2)))
    assert problem.value_and_gradient(turned)[0] == pytest.approx(problem.value_and_gradient(point)[0], rel=1e-12)


def test_alignment_instance_is_what_it_says() -> None:
    instance = alignment_instance()
    residual = instance.problem._observations
    assert residual.shape == (3000, 12)
    assert float(instance.signal.norm()) == pytest.approx(1.0)
    assert float(instance.density.sum()) == pytest.approx(1.0)
    point = torch.cat((instance.signal, instance.density.log()))
    # of noise: a squared residual of 12 sigma^2 below the best position, nearly
    value, _ = instance.problem.value_and_gradient(point)
    assert 6 < value < 6 + math.log(16)
    gradient = instance.problem.value_and_gradient(point)[1]
    assert float(gradient.norm()) < 0.1 * float(instance.problem.value_and_gradient(instance.start)[1].norm())
