"""The number and the width of Gaussians that images choose, against known densities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.model.mixture import GaussianMixture, fit_mixture, mixture_posterior
from solvar_engine.estimation.model.mixture_choice import averaged_mixture, choose_mixture, find_density, share_of_width
from solvar_engine.estimation.model.statistics import Statistics
from tests.estimation.model.test_mixture import any_mixture, generator, images_of, two_wells
from tests.reconstruction.simulated import noise


def calibration(statistics: Statistics, mixture: GaussianMixture, truth: Tensor) -> float:
    """Root mean square of the errors of posterior means over the stated ones."""
    found = mixture_posterior(statistics, mixture)
    error = (found.mean - truth).square() / found.covariance().diagonal(dim1=1, dim2=2)
    return float(error.mean()) ** 0.5


def test_held_out_images_choose_one_gaussian_where_there_is_one() -> None:
    _, _, statistics = images_of(noise(2000, 2, dtype=torch.float64), strength=0.5)
    assert len(choose_mixture(statistics, generator())) == 1


def test_held_out_images_choose_more_where_there_are_more() -> None:
    _, _, statistics = images_of(two_wells(3000), strength=0.5)
    chosen = choose_mixture(statistics, generator())
    assert len(chosen) >= 2
    mean = (chosen.weights[:, None] * chosen.means).sum(dim=0)
    torch.testing.assert_close(mean, torch.zeros(2, dtype=torch.float64), rtol=0, atol=0.08)
    assert float(chosen.weights.sum()) == pytest.approx(1)


def test_an_average_of_mixtures_states_errors_that_hold() -> None:
    """A ring of 300 images: one mixture of 8 Gaussians follows their noise, and claims to know more than it does."""
    angle = torch.linspace(0, 2 * torch.pi, 301, dtype=torch.float64)[:300]
    truth = 2**0.5 * torch.stack((angle.cos(), angle.sin()), dim=1)
    for seed in range(3):
        _, _, statistics = images_of(truth, strength=0.5, seed=10 * seed)
        one = fit_mixture(statistics, 8, generator(seed))
        average = averaged_mixture(statistics, one, generator(seed))
        assert len(average) == len(average.covariances) > len(one)
        assert float(average.weights.sum()) == pytest.approx(1)
        of_one, of_average = (calibration(statistics, mixture, truth) for mixture in (one, average))
        assert 1.0 < of_average < of_one


def test_many_states_are_found_as_gaussians_of_one_covariance() -> None:
    """40 places of 75 images each, in six dimensions: Gaussians of their own would have 27 numbers each to find."""
    centres = noise(40, 6, dtype=torch.float64)
    state = torch.arange(3000) // 75
    unit = (centres - centres.mean(dim=0))[state] / centres.std(dim=0, unbiased=False)
    _, _, statistics = images_of(unit, strength=1.5)
    chosen = choose_mixture(statistics, generator())
    assert len(chosen) >= 32 and len(chosen.covariances) == 1
    errors = [
        float((mixture_posterior(statistics, mixture).mean - unit).square().mean())
        for mixture in (GaussianMixture.one(6), chosen)
    ]
    assert errors[1] < 0.6 * errors[0]


def five_states(strength: float, seed: int) -> tuple[Tensor, Statistics]:
    """Places of 2,000 images of five states in three dimensions, and what the images show of them."""
    centres = noise(5, 3, seed=seed, dtype=torch.float64)
    truth = ((centres - centres.mean(dim=0)) / centres.std(dim=0, unbiased=False))[torch.arange(2000) % 5]
    return truth, images_of(truth, strength=strength, seed=seed)[2]


def width(mixture: GaussianMixture) -> float:
    return float(mixture.covariances.diagonal(dim1=1, dim2=2).mean())


@pytest.mark.parametrize("seed", [0, 20])
def test_gaussians_of_distinct_states_are_narrow(seed: int) -> None:
    """Expectation maximisation alone leaves them as wide as the noise of an image, and stated errors too wide."""
    truth, statistics = five_states(0.5, seed)
    chosen = choose_mixture(statistics, generator(seed // 10))
    assert len(chosen.covariances) == 1
    plain = fit_mixture(statistics, len(chosen), generator(seed // 10), is_shared=True)
    assert width(chosen) < 0.1 * width(plain)
    assert calibration(statistics, plain, truth) < 0.83
    assert 0.83 < calibration(statistics, chosen, truth) < 1.1


@pytest.mark.parametrize("seed", [0, 10])
def test_few_gaussians_that_are_narrow_are_not_averaged(seed: int) -> None:
    """The images are clear enough for Gaussians with a covariance each."""
    _, statistics = five_states(1.0, seed)
    chosen = choose_mixture(statistics, generator(seed))
    assert 1 < len(chosen) == len(chosen.covariances)
    plain = fit_mixture(statistics, len(chosen), generator(seed))
    assert width(chosen) < 0.3 * width(plain)
    density = find_density(statistics, generator(seed))
    assert len(density) == len(chosen) and torch.equal(density.means, chosen.means)


def test_gaussians_of_a_smooth_density_keep_their_width() -> None:
    """States fill a disk, with no gaps between them: narrower Gaussians would claim more than images tell."""
    angle, radius = torch.rand(2, 3000, generator=generator(3), dtype=torch.float64)
    truth = 2 * radius.sqrt()[:, None] * torch.stack(((6.2832 * angle).cos(), (6.2832 * angle).sin()), dim=1)
    _, _, statistics = images_of(truth, strength=1.0)
    chosen = choose_mixture(statistics, generator())
    assert len(chosen) >= 2
    assert 0.9 < calibration(statistics, chosen, truth) < 1.1


@pytest.mark.parametrize("is_shared", [False, True])
def test_share_of_the_width_is_that_in_what_images_scatter(is_shared: bool) -> None:
    _, _, statistics = images_of(noise(50, 2, dtype=torch.float64))
    mixture, expected = any_mixture(3, 2, is_shared), 0.0
    for weight, covariance in zip(mixture.weights, mixture.covariances.expand(3, -1, -1), strict=True):
        seen = [torch.linalg.inv(covariance + torch.linalg.inv(gram)) for gram in statistics.gram]
        expected += float(weight * (covariance @ torch.stack(seen).mean(dim=0)).trace()) / 2
    assert 0 < expected < 1
    assert share_of_width(mixture, statistics) == pytest.approx(expected)
