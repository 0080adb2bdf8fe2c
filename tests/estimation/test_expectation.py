"""One pass over images: objective, moments and gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.bands import Band
from solvar_engine.estimation.expectation import expectation_pass, posterior_pass
from solvar_engine.projectors.base import INTERPOLATIONS
from tests.estimation.problems import DenseModel, full_band, in_double
from tests.reconstruction.simulated import LinearPhantom, MemorySource, noise, relative_error, simulate

BOX, IMAGES, RANK = 12, 40, 3
CONTRASTS = {"contrast one": torch.ones(IMAGES), "spread contrast": torch.linspace(0.4, 1.8, IMAGES)}


@pytest.fixture(scope="module", params=list(CONTRASTS))
def problem(request) -> tuple[MemorySource, Band]:
    phantom = LinearPhantom.create(RANK).scaled(3.0)
    simulation = simulate(phantom, IMAGES, BOX, contrast=CONTRASTS[request.param])
    return simulation.source, full_band(simulation)


@pytest.fixture(scope="module")
def factors() -> Tensor:
    """Not the true ones, so that the gradient is not small."""
    return 3.0 * (LinearPhantom.create(RANK).factors(BOX) + 0.7 * LinearPhantom.create(RANK, seed=9).factors(BOX))


def test_objective_and_moments_equal_the_dense_model(problem, factors) -> None:
    source, band = problem[0].double(), in_double(problem[1])
    result = expectation_pass(source, source.everyone, band, factors.double())
    model = DenseModel.of(source, band, factors.double())
    mean, covariance = model.posterior()
    assert result.objective == pytest.approx(float(model.objective().sum()), rel=1e-10)
    expected = covariance.sum(dim=0) + mean.T @ mean
    torch.testing.assert_close(result.second_moment, expected, rtol=1e-9, atol=1e-9)
    assert result.count == IMAGES


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("seed", range(4))
def test_gradient_equals_finite_differences_of_the_dense_objective(
    problem, factors, seed: int, interpolation: str
) -> None:
    source, band = problem[0].double(), in_double(problem[1], interpolation)
    factors = factors.double()
    direction = noise(*factors.shape, seed=seed, dtype=torch.float64)
    direction *= factors.norm() / direction.norm()
    gradient = expectation_pass(source, source.everyone, band, factors).gradient
    step = 1e-4
    above, below = (
        DenseModel.of(source, band, factors + sign * step * direction).objective().sum() for sign in (1, -1)
    )
    expected = float(above - below) / (2 * step)
    slope = float((gradient.double() * direction).sum())
    assert abs(expected) > 0.1
    assert slope == pytest.approx(expected, rel=1e-5, abs=1e-5 * float(gradient.norm() * direction.norm()))


def test_fast_projector_gives_the_gradient_of_the_reference(problem, factors) -> None:
    source, band = problem
    fast = expectation_pass(source, source.everyone, band, factors)
    exact = expectation_pass(source.double(), source.everyone, in_double(band), factors.double())
    assert relative_error(fast.gradient.double(), exact.gradient) < 1e-4
    assert fast.objective == pytest.approx(exact.objective, rel=1e-5)
    torch.testing.assert_close(fast.second_moment, exact.second_moment, rtol=1e-4, atol=1e-4)


def test_size_and_order_of_batches_do_not_matter(problem, factors) -> None:
    source, band = problem
    whole = expectation_pass(source, source.everyone, band, factors)
    for limit, index in ((7, source.everyone), (IMAGES, source.everyone.flip(0))):
        parts = expectation_pass(replace(source, batch_limit=limit), index, band, factors)
        assert relative_error(parts.gradient, whole.gradient) < 1e-5
        assert parts.objective == pytest.approx(whole.objective, rel=1e-6)
        torch.testing.assert_close(parts.second_moment, whole.second_moment, rtol=1e-6, atol=1e-6)


def test_sums_over_disjoint_images_add_up(problem, factors) -> None:
    source, band = problem
    whole = expectation_pass(source, source.everyone, band, factors)
    first, second = (expectation_pass(source, source.everyone[start::2], band, factors) for start in (0, 1))
    assert first.count + second.count == whole.count
    assert relative_error(first.gradient + second.gradient, whole.gradient) < 1e-5
    assert first.objective + second.objective == pytest.approx(whole.objective, rel=1e-6)


def test_gradient_vanishes_where_there_is_no_image(problem, factors) -> None:
    """Volumes outside the band of the images make no difference to any image."""
    source, band = problem
    gradient = expectation_pass(source, source.everyone, band, 0 * factors).gradient
    assert not gradient.any(), "V = 0 is a saddle point: m = 0"


def test_pass_yields_every_image_once_with_its_own_posterior(problem, factors) -> None:
    source, band = problem[0].double(), in_double(problem[1])
    order = source.everyone.flip(0)
    passes = list(posterior_pass(replace(source, batch_limit=16), order, band, factors.double()))
    assert torch.equal(torch.cat([batch.index for batch, *_ in passes]), order)
    assert [len(batch) for batch, *_ in passes] == [16, 16, 8]
    mean, covariance = DenseModel.of(source, band, factors.double()).posterior()
    torch.testing.assert_close(torch.cat([p.mean for *_, p in passes]), mean[order], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.cat([p.covariance for *_, p in passes]), covariance[order], rtol=1e-9, atol=1e-9)
    assert passes[0][1].shape == (16, len(band.disk), 1 + RANK)
