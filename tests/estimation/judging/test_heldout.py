"""The scale of the covariance on held-out images, from small statistics alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from solvar_engine.estimation.judging.heldout import advantage_of_few, likelihood_gains
from solvar_engine.estimation.model.fixed_factors import collect_statistics, latent_covariance
from solvar_engine.estimation.model.statistics import Statistics
from tests.estimation.problems import DenseModel, full_band, in_double
from tests.reconstruction.simulated import LinearPhantom, noise, relative_error, simulate

IMAGES, PIXELS = 4000, 30


def draw(gamma: Tensor, *, strength: float = 0.4, images: int = IMAGES, seed: int = 0) -> tuple[Statistics, DenseModel]:
    """Images with their own loadings, latents z ~ N(0, gamma) and unit noise."""
    rank = gamma.shape[0]
    loadings = strength * noise(images, PIXELS, rank, seed=seed, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(gamma)
    root = vectors * values.clamp_min(0).sqrt()
    z = noise(images, rank, seed=seed + 1, dtype=torch.float64) @ root.T
    data = (loadings @ z[..., None])[..., 0] + noise(images, PIXELS, seed=seed + 2, dtype=torch.float64)
    model = DenseModel(data, torch.zeros_like(data), loadings)
    gram = loadings.transpose(1, 2) @ loadings
    inner = (loadings.transpose(1, 2) @ data[..., None])[..., 0]
    return Statistics(gram, inner, data.square().sum(dim=1)), model


def test_known_covariance_is_recovered() -> None:
    root = noise(3, 3, seed=7, dtype=torch.float64)
    gamma = root @ root.T + 0.2 * torch.eye(3, dtype=torch.float64)
    statistics, _ = draw(gamma)
    assert relative_error(latent_covariance(statistics), gamma) < 0.08


def test_scale_is_found_from_any_start() -> None:
    """Also when the true variance is far from the unit variance that iterations begin with."""
    for scale in (0.05, 20.0):
        gamma = scale * torch.diag(torch.tensor([1.0, 0.4], dtype=torch.float64))
        statistics, _ = draw(gamma)
        found = latent_covariance(statistics).diagonal()
        # The sampling error of a variance: sqrt(2 / n) times that variance and the noise's 1 / G.
        error = (2 / IMAGES) ** 0.5 * (gamma.diagonal() + 1 / 4.8)
        assert bool(((found - gamma.diagonal()).abs() < 3 * error).all())


@pytest.mark.parametrize("strength", [0.4, 0.13])
def test_directions_of_noise_get_no_variance(strength: float) -> None:
    """Factors that show strongly in the images (G = 4.8) and weakly (G = 0.5)."""
    gamma = torch.diag(torch.tensor([2.0, 0.0, 0.5, 0.0], dtype=torch.float64))
    statistics, _ = draw(gamma, strength=strength)
    found = latent_covariance(statistics)
    error = (2 / IMAGES) ** 0.5 / (PIXELS * strength**2)
    assert float(found[1, 1]) < 2.5 * error and float(found[3, 3]) < 2.5 * error
    assert float(found[0, 0]) == pytest.approx(2.0, rel=0.15)
    assert float(found[2, 2]) == pytest.approx(0.5, rel=0.25)


def test_every_iteration_makes_the_images_more_likely() -> None:
    gamma = torch.diag(torch.tensor([3.0, 0.2], dtype=torch.float64))
    statistics, model = draw(gamma, images=300)
    objectives = [float(model.objective(latent_covariance(statistics, iterations=n)).sum()) for n in (0, 1, 2, 20)]
    assert all(later < earlier for earlier, later in zip(objectives, objectives[1:], strict=False))


def test_result_is_a_maximum_of_the_dense_likelihood() -> None:
    gamma = torch.tensor([[1.5, 0.4], [0.4, 0.6]], dtype=torch.float64)
    statistics, model = draw(gamma, images=300)
    found = latent_covariance(statistics, iterations=400)
    best = float(model.objective(found).sum())
    for seed in range(4):
        change = noise(2, 2, seed=seed, dtype=torch.float64)
        change = 0.03 * (change + change.T)
        assert float(model.objective(found + change).sum()) > best


def test_number_of_images_does_not_decide_the_chunks() -> None:
    """More images than fit in one chunk give the average of all."""
    gamma = torch.eye(2, dtype=torch.float64)
    statistics, _ = draw(gamma, images=3000)
    twice = Statistics(*(torch.cat([part, part]) for part in (statistics.gram, statistics.inner, statistics.residual)))
    torch.testing.assert_close(latent_covariance(twice, 5), latent_covariance(statistics, 5), rtol=1e-9, atol=1e-9)
    weights, variances = noise(2, 2, seed=5, dtype=torch.float64), torch.tensor([0.9, 0.4], dtype=torch.float64)
    gains = [likelihood_gains(images, weights, variances) for images in (statistics, twice)]
    torch.testing.assert_close(gains[1], 2 * gains[0], rtol=1e-9, atol=1e-6)


def best_objective(model: DenseModel, covariance: Tensor, direction: Tensor, *, with_variance: bool) -> float:
    """Least dense objective over the mean of one coordinate and perhaps its variance, beside a fixed covariance."""

    def objective(parameters: np.ndarray) -> float:
        variance = float(np.exp(parameters[1])) if with_variance else 0.0
        shifted = replace(model, mean=model.mean + model.loadings @ direction * float(parameters[0]))
        return float(shifted.objective(covariance + variance * torch.outer(direction, direction)).sum())

    return float(minimize(objective, [0.0, -1.0], method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-7}).fun)


def test_gains_are_differences_of_the_best_dense_likelihoods() -> None:
    """Of each component beside the others and, last, of a further direction beside all of them."""
    gamma = torch.diag(torch.tensor([1.0, 0.5, 0.1, 0.3], dtype=torch.float64))
    statistics, model = draw(gamma, images=60)
    shift = torch.tensor([0.4, 0.0, -0.2, 0.3], dtype=torch.float64)
    moved = (model.loadings @ shift[:, None])[..., 0]
    model = replace(model, images=model.images + moved)
    inner = (model.loadings.transpose(1, 2) @ model.error[..., None])[..., 0]
    statistics = Statistics(statistics.gram, inner, model.error.square().sum(dim=1))
    weights = noise(3, 3, seed=5, dtype=torch.float64)
    variances = torch.tensor([0.9, 0.4, 0.2], dtype=torch.float64)
    gains = likelihood_gains(statistics, weights, variances)
    directions = torch.block_diag(weights, torch.ones(1, 1, dtype=torch.float64))
    for tried in range(4):
        kept = torch.cat((variances, variances.new_zeros(1)))
        kept[tried] = 0.0
        covariance = directions @ torch.diag(kept) @ directions.T
        without, best = (
            best_objective(model, covariance, directions[:, tried], with_variance=choice) for choice in (False, True)
        )
        assert float(gains[tried]) == pytest.approx(without - best, rel=1e-4, abs=1e-3)
    assert gains.shape == (4,) and int((gains > 10).sum()) == 3


def test_shift_common_to_all_images_is_no_variability() -> None:
    """It makes each image more likely, but by another mean, not by a variance."""
    statistics, model = draw(torch.zeros(1, 1, dtype=torch.float64))
    inner = statistics.inner + 0.2 * statistics.gram[:, 0]
    shifted = Statistics(statistics.gram, inner, statistics.residual)
    one = torch.ones(1, 1, dtype=torch.float64)
    assert float((0.5 * inner.square() / statistics.gram[:, 0]).sum()) > 2000
    assert float(likelihood_gains(shifted, one, one[0])[0]) < 10


def test_real_components_gain_and_noise_does_not() -> None:
    gamma = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    statistics, _ = draw(gamma)
    found = latent_covariance(statistics)
    gains = likelihood_gains(statistics, torch.eye(2, dtype=torch.float64), found.diagonal().clamp_min(1e-4))
    assert float(gains[0]) > 1000
    assert float(gains[1]) < 15


def test_variance_at_which_a_component_stands_does_not_matter_to_itself() -> None:
    statistics, _ = draw(torch.ones(1, 1, dtype=torch.float64), images=50)
    one = torch.ones(1, 1, dtype=torch.float64)
    gains = [float(likelihood_gains(statistics, one, scale * one[0])[0]) for scale in (0.1, 1.0, 30.0)]
    assert gains[0] > 1 and gains == pytest.approx([gains[0]] * 3, rel=1e-9)


def test_statistics_of_a_source_are_its_inner_products() -> None:
    contrast = torch.linspace(0.5, 1.5, 30)
    simulation = simulate(LinearPhantom.create(2).scaled(3.0), 30, 12, contrast=contrast)
    source, band = simulation.source, replace(full_band(simulation), contrast_variance=0.04)
    factors = simulation.phantom.factors(12)
    index = source.everyone[5:27].flip(0)
    statistics = collect_statistics(replace(source, batch_limit=10), index, band, factors)
    model = DenseModel.of(source.double(), in_double(band), factors.double())
    loadings, of_contrast = model.loadings[..., :2], model.loadings[..., 2:]
    covariance = torch.eye(loadings.shape[1], dtype=torch.float64) + of_contrast @ of_contrast.transpose(1, 2)
    weighted = torch.linalg.solve(covariance, loadings).transpose(1, 2)
    gram = (weighted @ loadings)[index]
    inner = (weighted @ model.error[..., None])[index, :, 0]
    assert statistics.gram.dtype == torch.float32
    torch.testing.assert_close(statistics.gram.double(), gram, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(statistics.inner.double(), inner, rtol=1e-4, atol=1e-3)
    residual = (model.error * torch.linalg.solve(covariance, model.error)).sum(dim=1)[index]
    residual += torch.linalg.slogdet(covariance).logabsdet[index]
    torch.testing.assert_close(statistics.residual.double(), residual, rtol=1e-4, atol=1e-3)


def of_one_coordinate(z: Tensor, seed: int) -> tuple[Statistics, Tensor, Tensor]:
    """Images that know one coordinate each, some better than others, and what they know of it."""
    information = 0.2 + torch.rand(len(z), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    inner = information * z + information.sqrt() * noise(len(z), seed=seed + 1, dtype=torch.float64)
    return Statistics(information[:, None, None], inner[:, None], torch.zeros_like(inner)), information, inner


def best_log_density(log_density, starts: list[list[float]]) -> float:
    return max(-minimize(lambda x: -log_density(*x).sum(), x, method="Nelder-Mead", options={"maxiter": 4000}).fun
               for x in starts)  # fmt: skip


@pytest.mark.parametrize(("kind", "few_are_better"), [("few", True), ("all", False)])
def test_what_is_in_few_images_is_told_from_what_varies_in_all(kind: str, few_are_better: bool) -> None:
    count = 2500
    z = 1.2 * noise(count, seed=3, dtype=torch.float64)
    if kind == "few":
        z = torch.where(torch.arange(count) < 0.06 * count, 0.5 * z - 4.0, 0.1)
    statistics, information, inner = of_one_coordinate(z, seed=4)
    one = torch.ones(1, dtype=torch.float64)
    found = float(advantage_of_few(statistics, one[:, None], one, one > 0, share=0.2))
    q, h = information.numpy(), inner.numpy()

    def normal(mean: float, variance: float) -> np.ndarray:
        total = q + q**2 * abs(variance)
        return -0.5 * np.log(total) - 0.5 * (h - q * mean) ** 2 / total

    def few(part: float, common: float, mean: float, variance: float) -> np.ndarray:
        share = 1e-4 + (0.2 - 1e-4) / (1 + np.exp(-part))
        return np.logaddexp(np.log1p(-share) + normal(common, 0.0), np.log(share) + normal(mean, variance))

    of_few = best_log_density(few, [[0.0, 0.0, -4.0, 1.0], [0.0, 0.0, 0.5, 9.0], [2.0, -0.5, 2.0, 1.0]])
    assert found == pytest.approx(of_few - best_log_density(normal, [[0.0, 1.0]]), abs=2.0)
    assert found > 50 if few_are_better else found < -50


def test_only_the_chosen_components_are_looked_at() -> None:
    statistics, _ = draw(torch.diag(torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)))
    chosen, identity = torch.tensor([True, False, True]), torch.eye(3, dtype=torch.float64)
    variances = torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)
    every = advantage_of_few(statistics, identity, variances, torch.ones(3, dtype=torch.bool), 0.2)
    torch.testing.assert_close(advantage_of_few(statistics, identity, variances, chosen, 0.2), every[chosen])
