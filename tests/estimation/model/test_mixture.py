"""Mixtures of Gaussians fitted to images, against dense formulas and known densities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.model.mixture import (
    GaussianMixture,
    fit_mixture,
    mixture_posterior,
    split,
)
from solvar_engine.estimation.model.objectives import latent_posterior
from solvar_engine.estimation.model.statistics import Statistics
from tests.reconstruction.simulated import noise

PIXELS = 9


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images_of(z: Tensor, strength: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor, Statistics]:
    """Images (n, N) of latent coordinates under random loadings (n, N, r), in unit noise."""
    count, rank = z.shape
    loadings = strength * noise(count, PIXELS, rank, seed=seed + 1, dtype=torch.float64)
    images = (loadings @ z[..., None])[..., 0] + noise(count, PIXELS, seed=seed + 2, dtype=torch.float64)
    gram, inner = loadings.transpose(1, 2) @ loadings, (loadings.transpose(1, 2) @ images[..., None])[..., 0]
    return images, loadings, Statistics(gram, inner, images.square().sum(dim=1))


def any_mixture(parts: int, rank: int, is_shared: bool = False) -> GaussianMixture:
    root = noise(1 if is_shared else parts, rank, rank, seed=5, dtype=torch.float64)
    weights = torch.linspace(1.0, 3.0, parts, dtype=torch.float64)
    covariances = root @ root.mT + 0.2 * torch.eye(rank, dtype=torch.float64)
    return GaussianMixture(weights / weights.sum(), noise(parts, rank, seed=6, dtype=torch.float64), covariances)


@pytest.mark.parametrize(("parts", "rank", "is_shared"), [(1, 1, False), (3, 2, False), (2, 4, False), (3, 4, True)])
def test_posterior_equals_that_of_dense_gaussians(parts: int, rank: int, is_shared: bool) -> None:
    """Each Gaussian makes an image Gaussian: its evidence and conditional moments, from N-by-N covariances."""
    images, loadings, statistics = images_of(noise(70, rank, dtype=torch.float64))
    mixture = any_mixture(parts, rank, is_shared)
    log_share, means, covariances = [], [], []
    of_each = mixture.covariances.expand(parts, -1, -1)
    for weight, mu, gamma in zip(mixture.weights, mixture.means, of_each, strict=True):
        cross = gamma @ loadings.mT
        covariance = loadings @ cross + torch.eye(PIXELS, dtype=torch.float64)
        error = images - loadings @ mu
        gain = torch.linalg.solve(covariance, cross.mT).mT
        density = torch.distributions.MultivariateNormal(torch.zeros(PIXELS, dtype=torch.float64), covariance)
        log_share.append(weight.log() + density.log_prob(error))
        means.append(mu + (gain @ error[..., None])[..., 0])
        covariances.append(gamma - gain @ cross.mT)
    log_share, means = torch.stack(log_share, dim=1), torch.stack(means, dim=1)
    share = log_share.softmax(dim=1)
    seconds = torch.stack(covariances, dim=1) + means[..., :, None] * means[..., None, :]
    plain = torch.distributions.MultivariateNormal(
        torch.zeros(PIXELS, dtype=torch.float64), torch.eye(PIXELS, dtype=torch.float64)
    )
    found = mixture_posterior(statistics, mixture)
    exact = {"rtol": 1e-8, "atol": 1e-8}
    torch.testing.assert_close(found.evidence, log_share.logsumexp(dim=1) - plain.log_prob(images), **exact)
    torch.testing.assert_close(found.mean, torch.einsum("nk,nkr->nr", share, means), **exact)
    torch.testing.assert_close(found.second_moment, torch.einsum("nk,nkij->nij", share, seconds), **exact)
    torch.testing.assert_close(found.total, share.sum(dim=0), **exact)
    torch.testing.assert_close(found.first, torch.einsum("nk,nkr->kr", share, means), **exact)
    outer = torch.einsum("nk,nkij->kij", share, seconds)
    torch.testing.assert_close(mixture_posterior(statistics, mixture, of_each=True).outer, outer, **exact)
    torch.testing.assert_close(found.outer, outer.sum(dim=0, keepdim=True) if is_shared else outer, **exact)


def test_one_gaussian_is_the_posterior_without_a_mixture() -> None:
    _, _, statistics = images_of(noise(20, 3, dtype=torch.float64))
    found, expected = mixture_posterior(statistics, GaussianMixture.one(3)), latent_posterior(statistics)
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.covariance(), expected.covariance)
    torch.testing.assert_close(-found.evidence + 0.5 * statistics.residual, expected.objective)


CENTRES = torch.tensor([[1.6, 0.0], [-0.4, 0.0]], dtype=torch.float64)  # with weights 1 : 4 of mean zero
WEIGHTS = torch.tensor([0.2, 0.8], dtype=torch.float64)


def two_wells(count: int, seed: int = 0) -> Tensor:
    state = torch.multinomial(WEIGHTS, count, replacement=True, generator=generator(seed))
    return CENTRES[state] + 0.2 * noise(count, 2, seed=seed + 9, dtype=torch.float64)


def test_wells_are_found_although_images_blur_them() -> None:
    """Populations, places and widths of the truth; the posterior means of one Gaussian have one crowd only."""
    truth = two_wells(3000)
    _, _, statistics = images_of(truth, strength=0.6)
    found = fit_mixture(statistics, 2, generator())
    order = found.means[:, 0].argsort(descending=True)
    torch.testing.assert_close(found.weights[order], WEIGHTS, rtol=0, atol=0.05)
    torch.testing.assert_close(found.means[order], CENTRES, rtol=0, atol=0.12)
    assert bool((found.covariances.diagonal(dim1=1, dim2=2) < 0.12).all())
    one, two = (mixture_posterior(statistics, m).mean for m in (GaussianMixture.one(2), found))
    errors = [float((mean - truth).square().mean()) for mean in (one, two)]
    assert errors[1] < 0.6 * errors[0]


def test_the_same_images_give_the_same_mixture() -> None:
    _, _, statistics = images_of(two_wells(500))
    first, second = (fit_mixture(statistics, 3, generator(4)) for _ in range(2))
    assert torch.equal(first.means, second.means)


def test_a_mixture_is_scaled_with_its_coordinates() -> None:
    mixture, deviation = any_mixture(2, 3), torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)
    _, _, statistics = images_of(noise(10, 3, dtype=torch.float64))
    scale = 1 / deviation
    wider = Statistics(
        scale[:, None] * statistics.gram * scale, statistics.inner * scale, statistics.residual
    )
    found = mixture_posterior(wider, mixture.scaled(deviation))
    expected = mixture_posterior(statistics, mixture)
    torch.testing.assert_close(found.evidence, expected.evidence)
    torch.testing.assert_close(found.mean, expected.mean * deviation)


def test_a_gaussian_is_split_along_the_states_that_it_holds() -> None:
    """Two wells on the second axis in one Gaussian, one in the other: the first is split between the wells."""
    state = torch.arange(900) % 3
    centres = torch.tensor([[2.0, 1.5], [2.0, -1.5], [-2.0, 0.0]], dtype=torch.float64)
    _, _, statistics = images_of(centres[state] + 0.1 * noise(900, 2, seed=3, dtype=torch.float64))
    half = torch.full((2,), 0.5, dtype=torch.float64)
    both = GaussianMixture(half, centres[1:] * torch.tensor([1.0, 0.0]), 0.5 * torch.eye(2, dtype=torch.float64)[None])
    found = split(both, statistics)
    assert found.weights.tolist() == [0.25] * 4
    torch.testing.assert_close(found.means[[0, 2]].mean(dim=0), centres[:2].mean(dim=0), rtol=0, atol=0.1)
    step = (found.means[0] - found.means[2]).abs()
    assert step[1] > 1.5 and step[0] < 0.2
