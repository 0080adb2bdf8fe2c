"""The regularised half-set mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvar_engine.imaging.fourier import low_pass, volume_to_ft
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.imaging.shells import fsc, radial_average, shell_index_volume, shell_sum
from solvar_engine.reconstruction.mean import (
    ITERATIONS,
    MeanEstimate,
    estimate_mean,
    filtered_halves,
    precision_from_fsc,
    weak_precision,
)
from solvar_engine.reconstruction.normal_equations import NormalEquations, accumulate_normal_equations, solve
from tests.reconstruction.simulated import LinearPhantom, noise, relative_error, simulate

BOX = 16
PHANTOM = LinearPhantom.create(1, strength=0.0).scaled(3.0)


@pytest.fixture(scope="module")
def halves() -> tuple[NormalEquations, NormalEquations]:
    source = simulate(PHANTOM, 600, BOX).source
    first, second = (accumulate_normal_equations(source, source.everyone[start::2]) for start in (0, 1))
    return first, second


def test_low_shells_are_right_and_the_halves_say_so(halves) -> None:
    estimate = estimate_mean(*halves)
    truth = PHANTOM.mean(BOX)
    assert float(fsc(estimate.mean, truth)[1:4].min()) > 0.98
    assert float(estimate.fsc[1:4].min()) > 0.9
    torch.testing.assert_close(estimate.fsc, fsc(estimate.half1, estimate.half2))


def test_half_set_correlation_predicts_that_to_the_truth(halves) -> None:
    """sqrt(2 F / (1 + F)) of the unfiltered whole (Rosenthal & Henderson 2003)."""
    estimate = estimate_mean(*halves)
    both = halves[0] + halves[1]
    whole = solve(both, weak_precision(both), iterations=ITERATIONS)
    predicted = (2 * estimate.fsc / (1 + estimate.fsc)).clamp_min(0).sqrt()
    told = slice(1, 7)  # in the last shell the correlation is no larger than its standard error
    torch.testing.assert_close(fsc(whole, PHANTOM.mean(BOX))[told], predicted[told], rtol=0, atol=0.04)


def test_filtered_mean_is_closer_to_the_truth_than_an_unfiltered_one(halves) -> None:
    both = halves[0] + halves[1]
    truth = PHANTOM.mean(BOX)
    filtered = relative_error(estimate_mean(*halves).mean, truth)
    assert filtered < 0.8 * relative_error(solve(both, weak_precision(both)), truth)
    assert filtered < 0.3


def test_filter_is_the_signal_to_noise_ratio_of_all_images(halves) -> None:
    """2 F / (1 + F), what the correlation F of the halves says of their sum."""
    estimate = estimate_mean(*halves)
    both = halves[0] + halves[1]
    whole = volume_to_ft(solve(both, 1e-2 * weak_precision(both)))
    filtered = volume_to_ft(estimate.mean)
    gain = shell_sum((filtered * whole.conj()).real, BOX) / shell_sum(whole.abs() ** 2, BOX)
    shells = (estimate.fsc > 0.3) & (estimate.fsc < 0.97)
    assert int(shells.sum()) >= 3
    expected = 2 * estimate.fsc / (1 + estimate.fsc)
    torch.testing.assert_close(gain[shells], expected[shells], rtol=0, atol=0.08)


def test_mask_decides_where_the_halves_are_compared(halves) -> None:
    mask = sphere_mask(BOX, 5.0)
    masked, whole = estimate_mean(*halves, mask), estimate_mean(*halves)
    torch.testing.assert_close(masked.fsc, fsc(masked.half1, masked.half2, mask))
    assert torch.equal(masked.half1, whole.half1)
    assert float(masked.fsc[3:].mean()) > float(whole.fsc[3:].mean())


def test_halves_are_independent(halves) -> None:
    """The first half-map does not change with the images of the second half."""
    doubled = NormalEquations(2 * halves[1].right_side, halves[1].kernel_ft, halves[1].shell_max)
    usual, changed = estimate_mean(*halves), estimate_mean(halves[0], doubled)
    assert torch.equal(changed.half1, usual.half1)
    assert relative_error(changed.half2, usual.half2) > 0.5


def test_pure_noise_has_no_mean() -> None:
    source = simulate(PHANTOM.scaled(0.0), 300, BOX).source
    first, second = (accumulate_normal_equations(source, source.everyone[start::2]) for start in (0, 1))
    estimate = estimate_mean(first, second)
    assert float(estimate.fsc[2:].abs().mean()) < 0.25
    assert float(estimate.mean.norm()) < 0.5 * float(estimate.half1.norm())


def test_weak_precision_is_a_share_of_each_shell(halves) -> None:
    density = radial_average(halves[0].density(), BOX)
    precision = weak_precision(halves[0], 0.05)
    assert bool((precision > 0).all())
    floor = 1e-5 * float(density.max())
    torch.testing.assert_close(radial_average(precision, BOX), 0.05 * density, rtol=1e-3, atol=floor)


def test_precision_is_the_noise_to_signal_ratio_of_the_halves() -> None:
    """With signal variance tau and noise 1 / D, F = tau / (tau + 1/D), hence 1/tau = D (1 - F) / F."""
    density = torch.tensor([10.0, 20.0, 40.0])
    tau = torch.tensor([0.5, 0.1, 0.02], dtype=torch.float64)
    correlation = tau / (tau + 1 / density)
    torch.testing.assert_close(precision_from_fsc(correlation, density), 1 / tau)
    several = precision_from_fsc(correlation.expand(3, -1), density)
    torch.testing.assert_close(several, (1 / tau).expand(3, -1))


@pytest.mark.parametrize("correlation", [-1.0, 0.0, 1.0])
def test_precision_stays_finite_at_the_extremes(correlation: float) -> None:
    precision = precision_from_fsc(torch.tensor([correlation]), torch.tensor([2.0]))
    assert 1e-3 < float(precision) < 1e4


def test_prior_is_measured_not_guessed(halves) -> None:
    """The estimated prior variance of well-measured shells is the power of the true map."""
    estimate = estimate_mean(*halves)
    density = radial_average(0.5 * (halves[0] + halves[1]).density(), BOX)
    variance = 1 / precision_from_fsc(estimate.fsc, density)
    # In units where the energy of a volume is the sum over coefficients divided by the box size.
    power = radial_average(volume_to_ft(PHANTOM.mean(BOX)).abs() ** 2, BOX) / BOX
    ratio = variance[2:6] / power[2:6]
    assert 0.5 < float(ratio.min()) and float(ratio.max()) < 2.5


def test_filtered_halves_keep_of_each_shell_what_the_halves_agree_on() -> None:
    """F of either half: Wiener's gain for one of them, where that of the average would be 2 F / (1 + F)."""
    first, second = noise(BOX, BOX, BOX, seed=1), noise(BOX, BOX, BOX, seed=2)
    correlation = torch.linspace(1.1, -0.2, (BOX - 1) // 2 + 1, dtype=torch.float64)
    filtered = filtered_halves(MeanEstimate(first + second, first, second, correlation))
    shell = shell_index_volume(BOX)
    for half, found in zip((first, second), filtered, strict=True):
        before, after = volume_to_ft(half), volume_to_ft(found)
        for number, value in enumerate(correlation.clamp(0, 1).tolist()):
            kept = before[shell == number] * value
            torch.testing.assert_close(after[shell == number], kept, rtol=1e-3, atol=1e-3)


def test_half_maps_of_noise_agree_by_chance_only() -> None:
    """A few standard deviations at most, while a molecule that is seen in four shells only is far beyond."""
    box_size, found = 24, []
    for seed in range(10):
        first, second = torch.randn(2, box_size, box_size, box_size, generator=torch.Generator().manual_seed(seed))
        found.append(MeanEstimate(first, first, second, fsc(first, second)).significance())
    assert max(found) < 4.0 and np.std(found) > 0.3
    low = low_pass(first, 4.0)
    seen = [low + 0.5 * noise(box_size, box_size, box_size, seed=seed) for seed in (1, 2)]
    assert MeanEstimate(first, *seen, fsc(*seen)).significance() > 8.0
    # shells with n coefficients count by n: 1 in shell s alone is the root of n standard deviations
    shells = torch.zeros(8)
    shells[1] = 1
    assert MeanEstimate(first, first, first, shells).significance() == pytest.approx((2 * np.pi) ** 0.5)
