"""The prior that the half-sets agree on, and the penalty that it becomes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.model.penalties import WeightedPrior
from solvar_engine.estimation.solver.agreement import factor_fsc
from solvar_engine.estimation.solver.priors import extend_shells, factor_precision, trusted_agreement
from solvar_engine.imaging.fourier import low_pass, volume_to_ft
from solvar_engine.imaging.linear_algebra import mix
from solvar_engine.imaging.shells import shells_to_volume
from tests.estimation.volumes import BOX, RANK, any_factors, any_second_moment
from tests.reconstruction.simulated import LinearPhantom, noise, relative_error


@pytest.fixture(scope="module")
def factors() -> Tensor:
    return any_factors()


@pytest.fixture(scope="module")
def second_moment() -> Tensor:
    return any_second_moment()


def test_prior_is_density_times_noise_over_signal() -> None:
    correlation = torch.tensor([[0.5, 0.8], [0.2, 0.999]], dtype=torch.float64)
    density = torch.tensor([10.0, 20.0])
    expected = torch.tensor([[10.0, 5.0], [40.0, 20 * 0.001 / 0.999]], dtype=torch.float64)
    torch.testing.assert_close(factor_precision(correlation, density), expected)


def test_prior_stays_finite_without_agreement() -> None:
    correlation = torch.tensor([[-0.9, 0.0, 1.0]])
    precision = factor_precision(correlation, torch.full((3,), 10.0))
    assert float(precision.min()) > 0
    assert float(precision[0, 0]) == float(precision[0, 1]) == pytest.approx(490, rel=0.01)


def test_components_that_were_found_keep_what_their_halves_agree_on() -> None:
    """In every shell, however fast their agreement falls, if it is half of the best one's on average."""
    best = torch.linspace(0.95, 0.2, 10, dtype=torch.float64)
    correlation = torch.stack((best, best.flip(0) * best, 0.6 * best))
    trusted = trusted_agreement(correlation, torch.ones(10))
    torch.testing.assert_close(trusted[0], correlation[0])
    torch.testing.assert_close(trusted[2], correlation[2])
    assert float((trusted - correlation).min()) == 0


def test_components_that_were_hardly_found_are_held_to_agree_as_the_best_one_does() -> None:
    """Not in the shells only in which all half-sets agree: there a component would be drawn."""
    coefficients = torch.tensor([1.0, 10.0, 30.0], dtype=torch.float64)
    correlation = torch.tensor([[0.9, 0.8, 0.5], [0.9, 0.1, -0.1], [0.0, 0.0, -0.2]], dtype=torch.float64)
    share = (0.9 * 0.9 + 10 * 0.1 * 0.8) / (0.9**2 + 10 * 0.8**2 + 30 * 0.5**2)
    trusted = trusted_agreement(correlation, coefficients)
    expected = [[0.9, 0.8, 0.5], [0.9, (1 - share) * 0.8, (1 - share) * 0.5], [0.9, 0.8, 0.5]]
    torch.testing.assert_close(trusted, torch.tensor(expected, dtype=torch.float64))
    assert trusted_agreement(correlation[:, :0], coefficients[:0]).shape == (3, 0)
    assert float(trusted_agreement(-correlation.abs(), coefficients).abs().max()) == 0


def test_shrinking_every_shell_does_not_change_the_prior(factors) -> None:
    """No feedback: however a prior has filtered both halves, the next prior is the same."""
    halves = [factors + noise(RANK, BOX, BOX, BOX, seed=seed) for seed in (21, 22)]
    density = torch.linspace(100.0, 10.0, BOX // 2)
    before = factor_precision(factor_fsc(*halves), density)
    collapsed = [1e-3 * half for half in halves]
    torch.testing.assert_close(factor_precision(factor_fsc(*collapsed), density), before, rtol=1e-4, atol=1e-4)
    # A filter that falls slowly over the shells changes only the weights inside a pool.
    phantom = LinearPhantom.create(RANK, sigma=0.02)
    smooth = phantom.factors(BOX)
    pair = [smooth + 0.2 * smooth.std() * noise(RANK, BOX, BOX, BOX, seed=seed) for seed in (23, 24)]
    filtered = [0.5 * half + 0.5 * low_pass(half, 6) for half in pair]
    first, second = factor_fsc(*pair), factor_fsc(*filtered)
    torch.testing.assert_close(second, first, rtol=0, atol=0.12)


def test_weighted_prior_keeps_the_share_on_which_the_halves_agree(factors, second_moment) -> None:
    """(D K + W) V = D K X, whose right side no prior has touched, is solved by F X when K commutes with the filter."""
    shells, density = BOX // 2, 7.0
    correlation = torch.linspace(0.95, 0.05, shells, dtype=torch.float64)
    precision = factor_precision(correlation.expand(RANK, -1), torch.full((shells,), density))
    untouched = low_pass(factors.double(), shells - 1)
    filtered = volume_to_ft(untouched) * shells_to_volume(correlation, BOX)
    penalty = WeightedPrior(precision, BOX, second_moment)
    left = density * mix(filtered, second_moment) + penalty.gradient(filtered)
    inside = shells_to_volume(torch.ones(shells), BOX)
    right = density * mix(volume_to_ft(untouched), second_moment)
    assert relative_error(left * inside, right * inside) < 1e-5


# --- shells beyond the band


def test_known_shells_stay_and_unknown_ones_continue_the_last_three() -> None:
    values = torch.tensor([[9.0, 1.0, 2.0, 3.0], [8.0, 4.0, 4.0, 4.0]])
    extended = extend_shells(values, 6)
    torch.testing.assert_close(extended[:, :4], values)
    torch.testing.assert_close(extended[:, 4:], torch.tensor([[2.0, 2.0], [4.0, 4.0]]))
    assert torch.equal(extend_shells(values, 2), values[:, :2])
    assert torch.equal(extend_shells(values, 4), values)
