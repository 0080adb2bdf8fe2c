"""Images of nothing and of another particle, found by comparing explanations of each image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.judging.outliers import (
    PRIOR_SHARE,
    find_outliers,
    image_fits,
    images_of_no_state,
    signal_power,
)
from solvar_engine.imaging.fourier import HalfDisk
from tests.estimation.problems import DenseModel, full_band, in_double
from tests.reconstruction.simulated import LinearPhantom, MemorySource, real_rows, simulate

BOX, RANK, IMAGES, JUNK = 12, 2, 400, 40


@pytest.fixture(scope="module")
def good():
    return simulate(LinearPhantom.create(RANK, strength=0.2).scaled(8.0), IMAGES, BOX)


@pytest.fixture(scope="module")
def mixed(good) -> MemorySource:
    """The first images show nothing, the next ones another particle."""
    other = simulate(LinearPhantom.create(RANK, strength=0.2, seed=5).scaled(8.0), IMAGES, BOX, seed=1)
    nothing = simulate(LinearPhantom.create(RANK).scaled(0.0), IMAGES, BOX, seed=2)
    images = good.source.images.clone()
    images[:JUNK] = nothing.source.images[:JUNK]
    images[JUNK : 2 * JUNK] = other.source.images[JUNK : 2 * JUNK]
    return replace(good.source, images=images)


def all_fits(source, band, factors: Tensor) -> tuple[Tensor, Tensor]:
    index, fits = zip(*image_fits(source, source.everyone, band, factors), strict=True)
    assert torch.equal(torch.cat(index), source.everyone)
    return torch.cat([fit.log_odds for fit in fits]), torch.cat([fit.distance for fit in fits])


def of_unknown(source: MemorySource, disk: HalfDisk, power: Tensor) -> Tensor:
    """Log-likelihood (n,) of independent real numbers of the variance 1 + ctf^2 x power (pixels,)."""
    variance = (1 + power * source.ctf**2).repeat(1, 2)
    variance = torch.cat((variance[:, : len(disk)], variance[:, len(disk) + 1 :]), dim=1)
    return -0.5 * (real_rows(source.images, disk).square() / variance + variance.log()).sum(dim=1)


def test_log_odds_and_distance_equal_the_dense_gaussians(good) -> None:
    source = replace(good.source.double(), batch_limit=17)
    band = replace(in_double(full_band(good)), contrast_variance=0.01)
    factors = good.phantom.factors(BOX).double()
    rows = source.everyone[:30]
    power = signal_power(source, rows, band, factors)[band.disk.shell]
    fits = [fit for _, fit in image_fits(source, rows, band, factors)]
    model = DenseModel.of(source, band, factors)
    covariance = model.covariance()[rows]
    weighted = torch.linalg.solve(covariance, model.error[rows, :, None])[..., 0]
    distance = (model.error[rows] * weighted).sum(dim=1)
    torch.testing.assert_close(torch.cat([fit.distance for fit in fits]), distance, rtol=1e-5, atol=1e-4)
    of_model = -0.5 * (distance + torch.linalg.slogdet(covariance).logabsdet)
    of_noise, of_other = (of_unknown(source, band.disk, strength * power)[rows] for strength in (0, 1))
    prior = torch.tensor((1 - 2 * PRIOR_SHARE) / PRIOR_SHARE).double().log()
    expected = of_model - torch.maximum(of_noise, of_other) + prior
    # the origin, a real number, counts as half of a complex one there
    torch.testing.assert_close(torch.cat([fit.log_odds for fit in fits]), expected, rtol=1e-4, atol=0.02)


def test_contrast_is_that_of_the_dense_posterior(good) -> None:
    """Relative to the one that the image came with."""
    contrast = torch.linspace(0.5, 2.0, 20)
    source = simulate(good.phantom, 20, BOX, contrast=contrast).source
    source = replace(source, contrast=contrast.flip(0), batch_limit=7).double()  # not those that they were made with
    band = replace(in_double(full_band(good)), contrast_variance=0.25)
    factors = good.phantom.factors(BOX).double()
    mean, _ = DenseModel.of(source, band, factors).posterior()
    found = torch.cat([fit.contrast for _, fit in image_fits(source, source.everyone, band, factors)])
    torch.testing.assert_close(found, 1 + 0.5 * mean[:, -1], rtol=1e-5, atol=1e-5)


def test_images_of_nothing_and_of_another_particle_are_found(good, mixed) -> None:
    log_odds, distance = all_fits(mixed, full_band(good), good.phantom.factors(BOX))
    outlier = find_outliers(log_odds, distance, torch.zeros(IMAGES, dtype=torch.int64))
    assert float(outlier[: 2 * JUNK].float().mean()) > 0.9
    assert float(outlier[2 * JUNK :].float().mean()) < 0.02


def test_a_motion_that_the_model_does_not_know_is_no_outlier(good) -> None:
    log_odds, distance = all_fits(good.source, full_band(good), 0 * good.phantom.factors(BOX))
    outlier = find_outliers(log_odds, distance, torch.zeros(IMAGES, dtype=torch.int64))
    assert float(outlier.float().mean()) < 0.02


def test_before_motions_are_known_images_of_nothing_and_ice_are_found(good, mixed) -> None:
    """Another particle may be a rare state of this one."""
    images = mixed.images.clone()
    images[JUNK // 2 : JUNK] += 3.5 * (mixed.images - good.source.images)[JUNK + JUNK // 2 : 2 * JUNK]
    found = images_of_no_state(replace(mixed, images=images), mixed.everyone, full_band(good))
    assert float(found[:JUNK].float().mean()) > 0.9
    assert float(found[JUNK:].float().mean()) < 0.02


def test_images_of_no_state_are_those_of_the_dense_gaussians(good) -> None:
    """Particles that get weaker, then unknown structures that get stronger: the line is the same."""
    source, band = good.source.double(), replace(in_double(full_band(good)), contrast_variance=1.0)
    other = simulate(LinearPhantom.create(RANK, strength=0.2, seed=5).scaled(8.0), IMAGES, BOX, seed=1).source.images
    weaker, stronger = torch.linspace(0, 1, 150)[:, None], torch.linspace(0.3, 6, IMAGES - 150)[:, None]
    noise = simulate(LinearPhantom.create(RANK).scaled(0.0), IMAGES, BOX, seed=2).source.images
    images = torch.cat((noise[:150] + weaker * source.images[:150], noise[150:] + stronger * other[150:]))
    source = replace(source, images=images.to(torch.complex128))
    nothing = band.mean.new_zeros(0, BOX, BOX, BOX)
    power = signal_power(source, source.everyone, band, nothing)[band.disk.shell]
    model = DenseModel.of(source, replace(band, contrast_variance=0.2**2), nothing)
    covariance = model.covariance()
    weighted = torch.linalg.solve(covariance, model.error[:, :, None])[..., 0]
    of_mean = -0.5 * ((model.error * weighted).sum(dim=1) + torch.linalg.slogdet(covariance).logabsdet)
    of_noise, of_state, of_ice = (of_unknown(source, band.disk, strength * power) for strength in (0, 1, 10))
    prior = torch.tensor((1 - 2 * PRIOR_SHARE) / PRIOR_SHARE).double().log()
    log_odds = torch.maximum(of_mean + prior, of_state) - torch.maximum(of_noise, of_ice)
    expected, found = log_odds < 0, images_of_no_state(replace(source, batch_limit=170), source.everyone, band)
    assert 20 < int(expected[:150].sum()) < 130 and 20 < int(expected[150:].sum()) < 230
    assert bool((found == expected)[log_odds.abs() > 0.1].all()) and int((log_odds.abs() > 0.1).sum()) > 380


def test_strength_of_the_signal_is_that_of_its_slices(good) -> None:
    """Of mean and factors together, where the transfer function does not show."""
    band, factors = full_band(good), good.phantom.factors(BOX)
    power = signal_power(good.source, good.source.everyone, band, factors)
    plain = replace(good.source, ctf=torch.ones_like(good.source.ctf))
    expected = signal_power(plain, good.source.everyone, band, factors)
    torch.testing.assert_close(power[1:], expected[1:], rtol=0.2, atol=0.05 * float(expected.max()))
    assert float(power[:3].min()) > 10 * float(power[-1])


def test_strength_of_the_signal_is_that_of_the_full_plane(good) -> None:
    """Power of mean and factors over that of the transfer function, both summed over full shells, mates included."""
    source, band = replace(good.source.double(), batch_limit=100), in_double(full_band(good))
    factors = good.phantom.factors(BOX).double()
    model = DenseModel.of(replace(source, contrast=torch.ones_like(source.contrast)), band, factors)
    of_factors = model.loadings[..., :RANK].square().sum(dim=2)
    shown = (model.mean.square() + of_factors).sum(dim=0)
    seen = real_rows(source.ctf.to(torch.complex128), band.disk).square().sum(dim=0)
    shell = torch.cat((band.disk.shell, band.disk.shell[1:]))
    expected = [float(shown[shell == number].sum() / seen[shell == number].sum()) for number in range(6)]
    found = signal_power(source, source.everyone, band, factors)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=0)


def test_distances_are_compared_within_each_group() -> None:
    generator = torch.Generator().manual_seed(0)
    distance = 1000 + 30 * torch.randn(200, generator=generator, dtype=torch.float64)
    distance[100:] += 900  # a group whose noise is estimated far too low
    distance[[7, 150]] += torch.tensor([600.0, -600.0], dtype=torch.float64)
    group = torch.arange(200) // 100
    found = find_outliers(torch.ones(200, dtype=torch.float64), distance, group)
    assert found.nonzero().flatten().tolist() == [7, 150]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_small_groups_have_the_outliers_that_one_group_has(size: int) -> None:
    """The median of two or three images lies on one of them."""
    generator = torch.Generator().manual_seed(size)
    distance = 1000 + 30 * torch.randn(300, generator=generator, dtype=torch.float64)
    distance[[5, 111, 290]] += 700
    likely = torch.ones(300, dtype=torch.float64)
    found = find_outliers(likely, distance, torch.arange(300) // size)
    assert torch.equal(found, find_outliers(likely, distance, torch.zeros(300, dtype=torch.int64)))
    assert found.nonzero().flatten().tolist() == [5, 111, 290]


def test_a_few_images_beside_a_large_group_are_compared_with_it() -> None:
    distance = 1000 + 30 * torch.randn(203, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    group = torch.zeros(203, dtype=torch.int64)
    group[200:] = 4
    distance[202] = 2000.0
    found = find_outliers(torch.ones(203, dtype=torch.float64), distance, group)
    assert found.nonzero().flatten().tolist() == [202]
