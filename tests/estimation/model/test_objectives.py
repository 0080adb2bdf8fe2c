"""Statistics, likelihood and least squares, against dense covariance matrices in double precision."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.model.mixture import GaussianMixture
from solvar_engine.estimation.model.objectives import OBJECTIVES, MixtureLikelihood, latent_posterior
from solvar_engine.estimation.model.statistics import Statistics, linear_mixtures
from tests.estimation.problems import DENSE_OBJECTIVES, DenseModel
from tests.reconstruction.simulated import noise

IMAGES, PIXELS, RANK = 5, 17, 3
DEVIATION = 0.6  # of the relative error of the contrast
EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(scope="module")
def columns() -> Tensor:
    """Projections of mean and factors and the images themselves, (n, N, r + 2)."""
    return noise(IMAGES, PIXELS, RANK + 2, dtype=torch.float64)


@pytest.fixture(scope="module")
def contrast() -> Tensor:
    return torch.tensor([1.0, 0.4, 1.7, 0.0, -0.3], dtype=torch.float64)


@pytest.fixture(scope="module")
def prior() -> Tensor:
    root = noise(RANK, RANK, seed=3, dtype=torch.float64)
    return root @ root.T + 0.1 * torch.eye(RANK, dtype=torch.float64)


def products_of(columns: Tensor) -> Tensor:
    return columns.transpose(1, 2) @ columns


def model_at(columns: Tensor, contrast: Tensor) -> DenseModel:
    a = contrast[:, None]
    return DenseModel(columns[..., -1], a * columns[..., 0], a[..., None] * columns[..., 1:-1])


def joint_at(columns: Tensor, contrast: Tensor) -> Statistics:
    return Statistics.with_contrast_error(products_of(columns), contrast, DEVIATION)


def joint_model_at(columns: Tensor, contrast: Tensor) -> DenseModel:
    """With the slice of the mean as one more factor."""
    model = model_at(columns, contrast)
    return replace(model, loadings=torch.cat((model.loadings, DEVIATION * model.mean[..., None]), dim=-1))


def test_statistics_at_a_contrast_are_those_of_the_scaled_model(columns, contrast) -> None:
    statistics = Statistics.at_contrast(products_of(columns), contrast)
    model = model_at(columns, contrast)
    gram = model.loadings.transpose(1, 2) @ model.loadings
    inner = (model.loadings.transpose(1, 2) @ model.error[..., None])[..., 0]
    torch.testing.assert_close(statistics.gram, gram, **EXACT)
    torch.testing.assert_close(statistics.inner, inner, **EXACT)
    torch.testing.assert_close(statistics.residual, model.error.square().sum(dim=1), **EXACT)


def test_without_contrast_only_the_image_is_left(columns) -> None:
    statistics = Statistics.at_contrast(products_of(columns), torch.zeros(IMAGES))
    assert not statistics.gram.any() and not statistics.inner.any()
    torch.testing.assert_close(statistics.residual, columns[..., -1].square().sum(dim=1), **EXACT)


def test_single_precision_contrast_keeps_double_precision(columns) -> None:
    statistics = Statistics.at_contrast(products_of(columns), torch.full((IMAGES,), 0.5))
    assert statistics.gram.dtype == statistics.inner.dtype == statistics.residual.dtype == torch.float64


def test_likelihood_equals_the_dense_gaussian(columns, contrast) -> None:
    posterior = latent_posterior(Statistics.at_contrast(products_of(columns), contrast))
    torch.testing.assert_close(posterior.objective, model_at(columns, contrast).objective(), **EXACT)


def test_posterior_equals_conditioning_of_the_joint_gaussian(columns, contrast) -> None:
    posterior = latent_posterior(Statistics.at_contrast(products_of(columns), contrast))
    mean, covariance = model_at(columns, contrast).posterior()
    torch.testing.assert_close(posterior.mean, mean, **EXACT)
    torch.testing.assert_close(posterior.covariance, covariance, **EXACT)
    outer = mean[:, :, None] * mean[:, None, :]
    torch.testing.assert_close(posterior.second_moment(), covariance + outer, **EXACT)


def test_any_prior_equals_the_dense_gaussian(columns, contrast, prior) -> None:
    statistics = Statistics.at_contrast(products_of(columns), contrast)
    posterior = latent_posterior(statistics, torch.linalg.inv(prior))
    model = model_at(columns, contrast)
    mean, covariance = model.posterior(prior)
    loose = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(posterior.objective, model.objective(prior), **loose)
    torch.testing.assert_close(posterior.mean, mean, **loose)
    torch.testing.assert_close(posterior.covariance, covariance, **loose)


def test_gauge_of_the_latents_does_not_matter(columns, prior) -> None:
    """Factors V with prior Gamma are factors V Gamma^(1/2) with prior I."""
    root = torch.linalg.cholesky(prior)
    changed = torch.cat((columns[..., :1], columns[..., 1:-1] @ root, columns[..., -1:]), dim=-1)
    ones = torch.ones(IMAGES, dtype=torch.float64)
    first = latent_posterior(Statistics.at_contrast(products_of(columns), ones), torch.linalg.inv(prior))
    second = latent_posterior(Statistics.at_contrast(products_of(changed), ones))
    torch.testing.assert_close(first.objective, second.objective, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(first.mean, second.mean @ root.T, rtol=1e-9, atol=1e-9)


def test_contrast_search_needs_no_other_statistics(columns) -> None:
    """The likelihood of one image over a grid of contrasts, from its products alone."""
    grid = torch.linspace(0.2, 2.0, 9, dtype=torch.float64)
    one = columns[:1].expand(len(grid), -1, -1)
    searched = latent_posterior(Statistics.at_contrast(products_of(one), grid)).objective
    torch.testing.assert_close(searched, model_at(one, grid).objective(), **EXACT)
    assert float(searched.max() - searched.min()) > 0.1


def test_error_of_the_contrast_is_one_more_factor(columns, contrast) -> None:
    statistics, model = joint_at(columns, contrast), joint_model_at(columns, contrast)
    torch.testing.assert_close(statistics.gram, model.loadings.transpose(1, 2) @ model.loadings, **EXACT)
    posterior = latent_posterior(statistics)
    mean, covariance = model.posterior()
    torch.testing.assert_close(posterior.objective, model.objective(), **EXACT)
    torch.testing.assert_close(posterior.mean, mean, **EXACT)
    torch.testing.assert_close(posterior.covariance, covariance, **EXACT)


@pytest.mark.parametrize("out", [[RANK], [0, 2], [0, 1, 2], []])
def test_integrating_columns_out_leaves_the_posterior_of_the_others(columns, contrast, prior, out) -> None:
    """For any prior of the others: they never see those integrated out but through the covariance of the image."""
    keep = [j for j in range(RANK + 1) if j not in out]
    precision = torch.eye(RANK + 1, dtype=torch.float64)
    precision[: len(keep), : len(keep)] += 0.3 * torch.ones(len(keep), len(keep), dtype=torch.float64)
    statistics = joint_at(columns, contrast)
    marginal = latent_posterior(statistics.integrate_out(out), precision[: len(keep), : len(keep)])
    order = keep + out
    ordered = Statistics(statistics.gram[:, order][:, :, order], statistics.inner[:, order], statistics.residual)
    whole = latent_posterior(ordered, precision)
    torch.testing.assert_close(marginal.objective, whole.objective, **EXACT)
    torch.testing.assert_close(marginal.mean, whole.mean[:, : len(keep)], **EXACT)
    torch.testing.assert_close(marginal.covariance, whole.covariance[:, : len(keep), : len(keep)], **EXACT)


# --- objectives


@pytest.mark.parametrize("name", OBJECTIVES)
def test_value_equals_the_dense_formula(columns, contrast, name: str) -> None:
    terms = OBJECTIVES[name].terms(joint_at(columns, contrast), RANK)
    torch.testing.assert_close(terms.value, DENSE_OBJECTIVES[name](joint_model_at(columns, contrast)), **EXACT)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_equals_that_of_the_dense_formula(columns, contrast, name: str) -> None:
    """A moments - e weights^T, with respect to A, against automatic differentiation of the dense matrices."""
    terms = OBJECTIVES[name].terms(joint_at(columns, contrast), RANK)
    model = joint_model_at(columns, contrast)
    gradient = model.loadings @ terms.moments - model.error[:, :, None] * terms.weights[:, None, :]
    loadings = model.loadings.clone().requires_grad_()
    DENSE_OBJECTIVES[name](replace(model, loadings=loadings)).sum().backward()
    torch.testing.assert_close(gradient, loadings.grad[..., :-1], **EXACT)


@pytest.mark.parametrize("kinds", [3, 1])
def test_likelihood_under_a_mixture_and_its_gradient_are_those_of_dense_ones(columns, contrast, prior, kinds) -> None:
    """Each Gaussian of the latents makes one of images, in which the contrast's column is as without a mixture."""
    shape = torch.linspace(0.5, 1.5, kinds, dtype=torch.float64)[:, None, None]
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    mixture = GaussianMixture(weights, noise(3, RANK, seed=7, dtype=torch.float64), shape * prior)
    model = joint_model_at(columns, contrast)
    terms = MixtureLikelihood(mixture).terms(joint_at(columns, contrast), RANK)
    loadings = model.loadings.clone().requires_grad_()
    likelihood = []
    for weight, mean, covariance in zip(weights, mixture.means, mixture.covariances.expand(3, -1, -1), strict=True):
        both = torch.block_diag(covariance, torch.ones(1, 1, dtype=torch.float64))
        shown = replace(model, loadings=loadings, mean=model.mean + loadings[..., :-1] @ mean)
        likelihood.append(weight.log() - shown.objective(both))
    value = -torch.stack(likelihood).logsumexp(dim=0)
    torch.testing.assert_close(terms.value, value, **EXACT)
    value.sum().backward()
    gradient = model.loadings @ terms.moments - model.error[:, :, None] * terms.weights[:, None, :]
    torch.testing.assert_close(gradient, loadings.grad[..., :-1], **EXACT)


def test_one_gaussian_is_the_likelihood_without_a_mixture(columns, contrast) -> None:
    statistics = joint_at(columns, contrast)
    one = MixtureLikelihood(GaussianMixture.one(RANK))
    found, expected = (objective.terms(statistics, RANK) for objective in (one, OBJECTIVES["ml"]))
    for name in ("value", "weights", "moments", "information", "second_moment"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), **EXACT)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_moments_of_the_latents_are_those_of_the_posterior(columns, contrast, name: str) -> None:
    statistics = joint_at(columns, contrast)
    expected = latent_posterior(statistics).second_moment()[:, :-1, :-1]
    torch.testing.assert_close(OBJECTIVES[name].terms(statistics, RANK).second_moment, expected, **EXACT)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_information_is_what_multiplies_the_factors_less_what_is_not_known(columns, contrast, name: str) -> None:
    """Of moments: without the uncertainty of the latents, or the noise."""
    model = joint_model_at(columns, contrast)
    terms = OBJECTIVES[name].terms(joint_at(columns, contrast), RANK)
    unknown = {"ml": model.posterior()[1][:, :-1, :-1], "ls": torch.eye(RANK, dtype=torch.float64)}[name]
    torch.testing.assert_close(terms.information + unknown, terms.moments[:, :-1], **EXACT)


def test_average_information_is_the_expected_curvature_along_the_size_of_a_factor() -> None:
    """d^2 / dv^2 of 1/2 log(1 + v^2) + 1/2 e^2 / (1 + v^2) over e^2 = 1 + v^2, to first order in v^2, is 2 E[m^2]."""
    size = torch.tensor(0.05, dtype=torch.float64)
    error = (1 + size**2).sqrt()
    known = torch.zeros(1, 2, 2, dtype=torch.float64)
    known[0, 0, 0] = size**2
    inner = torch.stack((size * error, torch.zeros_like(error)))[None]
    information = OBJECTIVES["ml"].terms(Statistics(known, inner, (error**2)[None]), 1).information

    def value(v: Tensor) -> Tensor:
        return 0.5 * torch.log1p(v**2) + 0.5 * error**2 / (1 + v**2)

    curvature = torch.autograd.functional.hessian(value, size)
    assert float(curvature) == pytest.approx(2 * float(information), rel=0.01)


def test_curvature_of_likelihood_lies_between_what_is_known_and_expectation_maximisation(prior) -> None:
    """Along each principal direction of the information in the metric of the second moment: a share, at least 0.3."""
    objective, root = OBJECTIVES["ml"], torch.linalg.cholesky(prior)
    vectors = torch.linalg.qr(noise(RANK, RANK, seed=8, dtype=torch.float64)).Q
    for shares, expected in (([0.4, 0.7, 1.0], [0.4, 0.7, 1.0]), ([0.01, 0.5, 1.2], [0.3, 0.5, 1.0])):
        known, wanted = (
            root @ vectors @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ vectors.T @ root.T
            for values in (shares, expected)
        )
        torch.testing.assert_close(objective.curvature(known, prior), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 3.0, 100.0])
def test_full_steps_by_the_curvature_converge(name: str, scale: float) -> None:
    """One factor of one pixel with the right direction: only its length is to be found, from far below or above."""
    variance, factor = 5.0, torch.tensor(scale * 5.0**0.5, dtype=torch.float64)
    objective = OBJECTIVES[name]
    lengths = []
    for _ in range(400):
        # Images whose squared error is exactly what the model expects on average.
        error = torch.tensor(1 + variance, dtype=torch.float64).sqrt()
        known = torch.zeros(1, 2, 2, dtype=torch.float64)  # the contrast's column is empty
        known[0, 0, 0] = factor**2
        inner = torch.stack((factor * error, torch.zeros_like(error)))[None]
        statistics = Statistics(known, inner, (error**2)[None])
        terms = objective.terms(statistics, 1)
        slope = factor * terms.moments[0, 0, 0] - error * terms.weights[0, 0]
        factor = factor - slope / objective.curvature(terms.information[0], terms.second_moment[0])[0, 0]
        lengths.append(float(factor))
    assert lengths[-1] ** 2 == pytest.approx(variance, rel=1e-3)
    # Newton's iteration for a root crosses it once at most, and never alternates about it.
    assert sum((a - variance**0.5) * (b - variance**0.5) < -1e-9 for a, b in itertools.pairwise(lengths)) <= 1


def test_least_squares_is_least_where_the_covariance_is_right(columns) -> None:
    """On average over images that the model draws, no other covariance is nearer."""
    torch.manual_seed(0)
    loadings = columns[:1, :, :-1]
    latents = torch.randn(60_000, RANK + 1, dtype=torch.float64)
    white = torch.randn(60_000, PIXELS, dtype=torch.float64)
    images = latents @ loadings[0].T + white

    def value(scale: float) -> float:
        scaled = scale * loadings.expand(len(images), -1, -1)
        gram = scaled[:1].transpose(1, 2) @ scaled[:1]
        inner = images @ scaled[0]
        statistics = Statistics(gram.expand(len(images), -1, -1), inner, images.square().sum(dim=1))
        return float(OBJECTIVES["ls"].terms(statistics, RANK).value.mean())

    assert value(1.0) < min(value(0.95), value(1.05))


def shown(columns: Tensor, contrast: Tensor, coordinates: Tensor) -> Tensor:
    """a (1 + s c) (mean + factors z), exactly."""
    scale = contrast * (1 + DEVIATION * coordinates[:, -1])
    of_state = columns[..., 0] + (columns[..., 1:-1] @ coordinates[:, :-1, None])[..., 0]
    return scale[:, None] * of_state


def test_mixtures_are_the_model_to_first_order_about_any_point(columns, contrast) -> None:
    about = noise(IMAGES, RANK + 1, seed=7, dtype=torch.float64)
    mixtures = linear_mixtures(contrast, DEVIATION, about)
    found = columns @ mixtures
    left = found[..., -1] - (found[..., :-1] @ about[..., None])[..., 0]
    torch.testing.assert_close(left, columns[..., -1] - shown(columns, contrast, about))
    for k in range(RANK + 1):
        step = torch.zeros_like(about)
        step[:, k] = 1e-5
        slope = (shown(columns, contrast, about + step) - shown(columns, contrast, about - step)) / 2e-5
        torch.testing.assert_close(found[..., k], slope, rtol=1e-6, atol=1e-8)
    statistics, expected = Statistics.of_mixtures(products_of(columns), mixtures), products_of(found)
    torch.testing.assert_close(statistics.gram, expected[:, :-1, :-1])
    torch.testing.assert_close(statistics.inner, expected[:, :-1, -1])
    torch.testing.assert_close(statistics.residual, expected[:, -1, -1])


def test_mixtures_about_nothing_are_the_columns_of_an_uncertain_contrast(columns, contrast) -> None:
    mixtures = linear_mixtures(contrast, DEVIATION, columns.new_zeros(IMAGES, RANK + 1))
    found, expected = Statistics.of_mixtures(products_of(columns), mixtures), joint_at(columns, contrast)
    for name in ("gram", "inner", "residual"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
