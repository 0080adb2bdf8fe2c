"""How many components are real, decided on images that did not shape them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.judging.heldout import likelihood_gains
from solvar_engine.estimation.judging.rank import (
    DECOYS,
    MARGIN,
    RankDecision,
    decide_rank,
    judged_of,
    keep_components,
    make_decoys,
    without_slow,
)
from solvar_engine.estimation.model.statistics import Statistics
from solvar_engine.estimation.solver.epochs import Factors
from solvar_engine.estimation.solver.half_sets import HalfSetState
from solvar_engine.imaging.fourier import volume_to_ft
from solvar_engine.imaging.linear_algebra import inner_products
from tests.estimation.judging.test_components import BOX, EVERYWHERE, loadings, observe, orthonormal
from tests.reconstruction.simulated import noise

IMAGES = 1000
MEAN = noise(BOX, BOX, BOX, seed=90)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def values(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


# --- decoys


def test_decoys_have_the_power_of_the_components_and_other_phases() -> None:
    factors = orthonormal(2)
    decoys = make_decoys(factors, torch.zeros(BOX, BOX, BOX), EVERYWHERE, 4, generator())
    for number, decoy in enumerate(decoys):
        power, expected = volume_to_ft(decoy).abs(), volume_to_ft(factors[number % 2]).abs()
        assert float((power * expected).sum() / (power.norm() * expected.norm())) > 0.98
    overlaps = inner_products(decoys, decoys)
    torch.testing.assert_close(overlaps.diagonal(), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-5)
    assert float((overlaps - torch.eye(4)).abs().max()) < 0.9


def test_decoys_stay_inside_the_mask_and_are_orthogonal_to_mean_and_factors() -> None:
    mask = torch.zeros(BOX, BOX, BOX)
    mask[3:-2, 2:-3, 4:-1] = 1.0
    factors = orthonormal(3) * mask
    decoys = make_decoys(factors, MEAN, mask, 5, generator())
    assert not decoys[:, mask == 0].any()
    assert float(inner_products(decoys, torch.cat((MEAN[None] / MEAN.norm(), factors))).abs().max()) < 1e-5


def test_decoys_follow_the_generator() -> None:
    first, again, other = (make_decoys(orthonormal(1), MEAN, EVERYWHERE, 2, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


# --- decision


def judge(truth: Tensor, halves: tuple[Tensor, Tensor], lacking: tuple[int, int] = (0, 0)) -> RankDecision:
    """Judge factors of the half-sets on images of a truth, of which each half may lack the last components."""
    held_out = []
    for half, volumes in enumerate(halves):
        decoys = make_decoys(volumes, MEAN, EVERYWHERE, DECOYS, generator(half))
        there = truth[: len(truth) - lacking[half]]
        held_out.append(observe(torch.cat((volumes, decoys)), there, seed=10 + 10 * half, images=IMAGES))
    return decide_rank(halves, (held_out[0], held_out[1]))


def with_junk(truth: Tensor, junk: int, scale: float, shared: bool = False) -> tuple[Tensor, Tensor]:
    """Halves that found the truth and some directions of noise, each its own or both the same."""
    halves = []
    for half in range(2):
        volumes = noise(junk, BOX, BOX, BOX, seed=60 if shared else 60 + half)
        volumes = volumes / volumes.flatten(1).norm(dim=1)[:, None, None, None]
        halves.append(torch.cat((truth, scale * volumes)))
    return halves[0], halves[1]


def test_components_are_tried_beside_the_others_at_their_held_out_variances() -> None:
    """In images that show two components alike, what one of them adds depends on how wide the other one is."""
    truth = loadings(orthonormal(2), values(9.0, 0.04))
    held_out = []
    for half in range(2):
        columns = noise(IMAGES, 40, 2 + DECOYS, seed=50 + half, dtype=torch.float64)
        columns[..., 0] += columns[..., 1]
        columns[..., 2:] *= 0.01
        z = noise(IMAGES, 2, seed=52 + half, dtype=torch.float64)
        images = (columns[..., :2] @ z[..., None])[..., 0] + noise(IMAGES, 40, seed=54 + half, dtype=torch.float64)
        inner = (columns.transpose(1, 2) @ images[..., None])[..., 0]
        held_out.append(Statistics(columns.transpose(1, 2) @ columns, inner, images.square().sum(dim=1)))
    decision = decide_rank((truth, truth), (held_out[0], held_out[1]))
    assert decision.kept.all() and not bool(((decision.eigenvalues > 0.8) & (decision.eigenvalues < 1.2)).any())
    for gains, statistics, weights in zip(decision.gains, held_out, decision.weights, strict=True):
        expected = likelihood_gains(statistics, weights, decision.eigenvalues)
        torch.testing.assert_close(gains, expected[:2], rtol=1e-6, atol=1e-6)
        wrong = likelihood_gains(statistics, weights, decision.eigenvalues.sqrt())
        assert float((wrong[:2] - gains).abs().max()) > 0.1


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("real", [0, 1, 3])
def test_real_components_are_kept_and_noise_is_not(real: int, shared: bool) -> None:
    """Also noise that both half-sets have in common: their agreement alone decides nothing."""
    truth = loadings(orthonormal(3), values(9.0, 4.0, 1.0))[:real]
    decision = judge(truth, with_junk(truth, 4, 1.5, shared))
    assert decision.kept.tolist() == [True] * real + [False] * 4
    assert bool((decision.gains[:, :real] > 100).all())
    assert bool((decision.gains[:, real:] < decision.decoy_gains[:, real:] + MARGIN).all())
    if shared:
        assert float(decision.agreement.min()) > 0.9
    assert decision.least_gain == pytest.approx(float(decision.decoy_gains.max()) + MARGIN)


@pytest.mark.parametrize("lacking", [(0, 1), (1, 0)])
def test_component_that_only_one_half_of_the_images_shows_is_not_kept(lacking: tuple[int, int]) -> None:
    truth = loadings(orthonormal(2), values(9.0, 4.0))
    decision = judge(truth, (truth, truth), lacking=lacking)
    assert decision.kept.tolist() == [True, False]
    assert sorted((decision.gains[:, 1] > 100).tolist()) == [False, True]


def test_component_whose_versions_disagree_is_kept_if_it_is_in_both_halves_of_the_images() -> None:
    """Each half has some of a real direction, but buried in noise of its own: images tell that it is there."""
    truth = loadings(orthonormal(2), values(9.0, 9.0))
    halves = []
    for half in range(2):
        junk = noise(1, BOX, BOX, BOX, seed=70 + half)
        halves.append(torch.cat((truth[:1], 0.5 * truth[1:] + 3.0 * junk / junk.norm())))
    decision = judge(truth, (halves[0], halves[1]))
    assert decision.kept.tolist() == [True, True]
    assert float(decision.agreement[1]) < 0.5 and bool((decision.gains[:, 1] > 100).all())


@pytest.mark.parametrize(("variance", "own", "is_kept"), [(0.3, 0.0, True), (2.0, 1.2, False), (4.0, 1.2, True)])
def test_small_gains_count_where_the_versions_agree(variance: float, own: float, is_kept: bool) -> None:
    """About 20 of log-likelihood are enough for two that are alike, and too little for two of noise of their own."""
    truth = loadings(orthonormal(2), values(9.0, variance))
    halves = []
    for half in range(2):
        junk = noise(1, BOX, BOX, BOX, seed=70 + half)
        weak = truth[1:] if own == 0 else 0.5 * truth[1:] + own * variance**0.5 * junk / junk.norm()
        halves.append(torch.cat((truth[:1], weak)))
    decision = judge(truth, (halves[0], halves[1]))
    assert float(decision.gains[:, 1].min()) > float(decision.decoy_gains[:, 1].max()) + MARGIN
    assert (float(decision.agreement[1]) < 0.2) == (own > 0) and decision.kept.tolist() == [True, is_kept]


def test_more_particles_are_judged_where_there_are_more() -> None:
    counts = [len(judged_of(torch.arange(count))) for count in (3_000, 20_000, 100_000)]
    assert counts == [3_000, 5_000, 20_000]


def test_wrong_noise_variance_makes_no_component() -> None:
    """Noise 10 % stronger than thought lifts all directions, decoys included, past any fixed threshold."""
    truth = loadings(orthonormal(1), values(9.0))
    halves = with_junk(truth, 3, 1.5, shared=True)
    held_out = []
    for half, volumes in enumerate(halves):
        directions = torch.cat((volumes, make_decoys(volumes, MEAN, EVERYWHERE, DECOYS, generator(half))))
        statistics = observe(directions, truth, seed=10 + 10 * half, images=4 * IMAGES)
        held_out.append(type(statistics)(statistics.gram, statistics.inner * 1.1**0.5, statistics.residual))
    decision = decide_rank(halves, (held_out[0], held_out[1]))
    assert decision.kept.tolist() == [True, False, False, False]
    assert float(decision.decoy_gains.min()) > 5


# --- going on with what is real


def test_half_sets_are_reduced_to_the_kept_components() -> None:
    truth = loadings(orthonormal(2), values(9.0, 4.0))
    halves = with_junk(truth, 3, 1.5)
    decision = judge(truth, halves)
    identity = torch.eye(5, dtype=torch.float64)
    correlation = torch.ones(5, 4, dtype=torch.float64)
    state = HalfSetState(7, (Factors(halves[0], identity), Factors(halves[1], identity)), correlation, (1.0, 2.0))
    reduced = keep_components(state, decision)
    assert reduced.done == 7 and reduced.objective == (1.0, 2.0) and reduced.correlation.shape == (2, 4)
    for factors in reduced.factors:
        overlap = inner_products(factors.volumes, truth) / values(9.0, 4.0)
        torch.testing.assert_close(overlap, torch.eye(2, dtype=torch.float64), rtol=0, atol=0.15)
        assert torch.equal(factors.second_moment, torch.eye(2, dtype=torch.float64))


def test_nothing_may_be_left() -> None:
    nothing = torch.zeros(0, BOX, BOX, BOX)
    halves = with_junk(nothing, 2, 1.0)
    decision = judge(nothing, halves)
    identity = torch.eye(2, dtype=torch.float64)
    correlation = torch.ones(2, 4, dtype=torch.float64)
    state = HalfSetState(7, (Factors(halves[0], identity), Factors(halves[1], identity)), correlation, (0.0, 0.0))
    reduced = keep_components(state, decision)
    assert reduced.factors[0].volumes.shape == (0, BOX, BOX, BOX) and reduced.correlation.shape == (0, 4)


@pytest.mark.parametrize(("others", "stays"), [(4, False), (5, True)])
def test_a_slow_component_goes_unless_many_others_are_real(others: int, stays: bool) -> None:
    kept, is_slow = torch.arange(8) <= others, torch.arange(8) == 1
    found = without_slow(kept, is_slow)
    assert bool(found[1]) is stays and torch.equal(found[~is_slow], kept[~is_slow])
