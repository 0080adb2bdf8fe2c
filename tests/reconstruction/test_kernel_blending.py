"""How much of a detail is signal, against correlations that are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.imaging.fourier import ft_to_volume, volume_radius, volume_to_ft
from solvar_engine.reconstruction.kernel_blending import agreement_gain, blend_kernels
from solvar_engine.reconstruction.kernel_regression import KernelSums, half_set_estimates
from solvar_engine.reconstruction.windows import LocalWindows
from tests.reconstruction.simulated import noise, relative_error

BOX = 48


@pytest.fixture(scope="module")
def windows() -> LocalWindows:
    return LocalWindows.create(BOX)


@pytest.fixture(scope="module")
def inner(windows) -> Tensor:
    """Windows that lie inside the box."""
    return windows.weight_of(torch.ones(BOX, BOX, BOX)) > 0.99


def certain(gain: Tensor) -> Tensor:
    """F of the gain 2 F / (1 + F)."""
    return gain / (2 - gain)


def test_chance_that_is_subtracted_is_the_deviation_of_the_correlation_of_noise(windows, inner) -> None:
    """Of identical details all but chance is certain; noise alone exceeds that once in six times, not every other."""
    detail = windows.analyse(noise(BOX, BOX, BOX))
    chance = 1 - certain(agreement_gain(detail, detail, windows))[0]
    assert bool((chance.diff() < 0).all()) and float(chance[-1]) < 0.1 < float(chance[1])
    correlations, exceeded = [], []
    for seed in range(1, 9, 2):
        pair = [windows.analyse(noise(BOX, BOX, BOX, seed=seed + half)) for half in (0, 1)]
        cross = windows.products(*pair)[inner]
        power = windows.powers(pair[0])[inner] * windows.powers(pair[1])[inner]
        correlations.append(cross / power.sqrt())
        exceeded.append((agreement_gain(*pair, windows)[inner] > 0).double())
    deviation = torch.cat(correlations).square().mean(dim=0).sqrt()
    # shells that are not smoothed
    torch.testing.assert_close(chance[2:], deviation[2:], rtol=0.3, atol=0)
    # smoothed ones deviate less
    assert float(torch.cat(exceeded)[:, 2:].mean()) < 0.2


def test_gain_is_that_of_wiener_for_the_average_of_both(windows, inner) -> None:
    """Half-sets with a share F of signal: what is certain of it is F less chance, and detail of other sign is none."""
    signal = windows.analyse(noise(BOX, BOX, BOX))
    chance = 1 - certain(agreement_gain(signal, signal, windows))[0]
    for share in (0.5, 0.8):
        details = [
            share**0.5 * signal + (1 - share) ** 0.5 * windows.analyse(noise(BOX, BOX, BOX, seed=seed))
            for seed in (1, 2)
        ]
        found = certain(agreement_gain(*details, windows)[inner]).mean(dim=0)
        torch.testing.assert_close(found[3:], (share - chance)[3:], rtol=0.1, atol=0)
    assert not agreement_gain(signal, -signal, windows).any()


def test_detail_is_added_inside_the_mask_only(windows) -> None:
    """Windows that do not touch it keep the volume of the flat kernel, though narrower ones agree there as well."""
    density = torch.ones(2, BOX, BOX, BOX // 2 + 1) * (volume_radius(BOX) < BOX // 2)
    truth = [volume_to_ft(noise(BOX, BOX, BOX, seed=seed)) for seed in (1, 2)]
    halves = [
        KernelSums(torch.stack([part + 0.1 * volume_to_ft(noise(BOX, BOX, BOX, seed=seed)) for part in truth]), density)
        for seed in (3, 4)
    ]
    mask = torch.zeros(BOX, BOX, BOX)
    mask[4:10, 4:10, 4:10] = 1.0
    nothing = torch.zeros(BOX, BOX, BOX // 2 + 1, dtype=torch.complex64)
    blend = blend_kernels((halves[0], halves[1]), (nothing, nothing), windows, mask)
    flat = half_set_estimates((halves[0], halves[1]), (nothing, nothing), 1, mask)
    far = (slice(windows.size + 10, None),) * 3
    for half, estimate in zip((blend.half1, blend.half2), flat, strict=True):
        volume = ft_to_volume(estimate, BOX)
        torch.testing.assert_close(half[far], volume[far])
        assert relative_error(half * mask, volume * mask) > 0.3


def test_strength_of_a_half_does_not_matter(windows) -> None:
    first, second = (windows.analyse(noise(BOX, BOX, BOX) + noise(BOX, BOX, BOX, seed=seed)) for seed in (1, 2))
    torch.testing.assert_close(agreement_gain(first, second, windows), agreement_gain(3 * first, 0.2 * second, windows))
