"""One pass over images: objective, moments and gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.expectation import expectation_pass, posterior_pass
from solvar_engine.estimation.model.objectives import OBJECTIVES
from tests.estimation.problems import DENSE_OBJECTIVES, DenseModel, full_band, in_double
from tests.projectors.backends import BACKENDS, Backend, Sampling
from tests.reconstruction.simulated import LinearPhantom, MemorySource, noise, real_rows, relative_error, simulate

BOX, IMAGES, RANK = 12, 40, 3
FEW = 5
CONTRAST_VARIANCE = 0.05
CONTRASTS = {"contrast one": torch.ones(IMAGES), "spread contrast": torch.linspace(0.4, 1.8, IMAGES)}


@pytest.fixture(scope="module", params=list(CONTRASTS))
def problem(request) -> tuple[MemorySource, Band]:
    phantom = LinearPhantom.create(RANK).scaled(3.0)
    simulation = simulate(phantom, IMAGES, BOX, contrast=CONTRASTS[request.param])
    return simulation.source, replace(full_band(simulation), contrast_variance=CONTRAST_VARIANCE)


@pytest.fixture(scope="module")
def factors() -> Tensor:
    """Not the true ones, so that the gradient is not small."""
    return 3.0 * (LinearPhantom.create(RANK).factors(BOX) + 0.7 * LinearPhantom.create(RANK, seed=9).factors(BOX))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_sums_equal_the_dense_model(problem, factors, name: str) -> None:
    source, band = problem[0].double(), in_double(problem[1])
    result = expectation_pass(source, source.everyone, band, factors.double(), OBJECTIVES[name])
    model = DenseModel.of(source, band, factors.double())
    mean, covariance = (of_all[..., :RANK] for of_all in model.posterior())
    covariance = covariance[:, :RANK]
    assert result.objective == pytest.approx(float(DENSE_OBJECTIVES[name](model).sum()), rel=1e-10)
    expected = covariance.sum(dim=0) + mean.T @ mean
    torch.testing.assert_close(result.second_moment, expected, rtol=1e-9, atol=1e-9)
    loadings = model.loadings[..., :RANK]
    gram = (loadings.transpose(1, 2) @ loadings).sum(dim=0)
    torch.testing.assert_close(result.information, {"ml": mean.T @ mean, "ls": gram}[name], rtol=1e-9, atol=1e-9)
    assert result.count == IMAGES


@pytest.fixture(scope="module")
def operator(problem) -> Tensor:
    """The projector of the first images as matrices, from voxels to real numbers: (images, N, voxels)."""
    source, band = problem[0].double(), in_double(problem[1])
    rotation, ctf = source.rotation[:FEW], source.ctf[:FEW] * source.contrast[:FEW, None]
    columns = []
    for voxels in torch.eye(BOX**3, dtype=torch.float64).view(-1, BOX, BOX, BOX).split(BOX**2):
        slices = band.projector.project(band.projector.to_grid(voxels), rotation, ctf)
        columns.append(real_rows(slices.transpose(1, 2), band.disk).transpose(1, 2))
    return torch.cat(columns, dim=-1)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_equals_automatic_differentiation_of_the_dense_objective(
    problem, factors, operator, name: str
) -> None:
    source, band = problem[0].double(), in_double(problem[1])
    gradient = expectation_pass(source, source.everyone[:FEW], band, factors.double(), OBJECTIVES[name]).gradient
    model = DenseModel.of(source, band, factors.double())
    variable = factors.double().flatten(1).T.requires_grad_()
    loadings = torch.cat((operator @ variable, model.loadings[:FEW, :, RANK:]), dim=2)
    dense = DenseModel(model.images[:FEW], model.mean[:FEW], loadings)
    DENSE_OBJECTIVES[name](dense).sum().backward()
    exact = {"rtol": 1e-10, "atol": 1e-10 * float(gradient.abs().max())}
    torch.testing.assert_close(gradient.flatten(1).T, variable.grad, **exact)


BACKEND_SAMPLINGS = [
    pytest.param(backend, sampling, id=f"{backend.name}-{sampling}")
    for backend in BACKENDS
    for sampling in backend.samplings
    if sampling.oversampling in (None, 2) and not backend.is_slow
]


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(("backend", "sampling"), BACKEND_SAMPLINGS)
def test_gradient_equals_finite_differences_through_every_projector(
    problem, factors, name: str, backend: Backend, sampling: Sampling
) -> None:
    """By the five-point rule, which is exact for the least squares: they are of fourth order in the factors."""
    is_double = backend.dtype == torch.float64
    source = problem[0].double() if is_double else problem[0]
    projector = backend.create(BOX, problem[1].disk, **sampling.options)
    band = replace(problem[1], projector=projector, mean=problem[1].mean.to(backend.dtype))
    factors = factors.to(backend.dtype)
    gradient = expectation_pass(source, source.everyone, band, factors, OBJECTIVES[name]).gradient.double()
    step = 0.1 if name == "ls" else 0.002 if is_double else 0.015
    for seed in range(2):
        random = noise(*factors.shape, seed=seed, dtype=torch.float64)
        direction = gradient / gradient.norm() + random / random.norm()
        direction = (direction * factors.norm() / direction.norm()).to(backend.dtype)
        values = [
            float(DENSE_OBJECTIVES[name](DenseModel.of(source, band, factors + shift * step * direction)).sum())
            for shift in (-2, -1, 1, 2)
        ]
        expected = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
        slope = float((gradient * direction).sum())
        tolerance = {"ml": 1e-7, "ls": 1e-10}[name] if is_double else 3e-4
        assert slope == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_fast_projector_gives_the_gradient_of_the_reference(problem, factors, name: str) -> None:
    source, band = problem
    objective = OBJECTIVES[name]
    fast = expectation_pass(source, source.everyone, band, factors, objective)
    exact = expectation_pass(source.double(), source.everyone, in_double(band), factors.double(), objective)
    assert relative_error(fast.gradient.double(), exact.gradient) < 1e-4
    assert fast.objective == pytest.approx(exact.objective, rel=1e-5)
    torch.testing.assert_close(fast.second_moment, exact.second_moment, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_size_and_order_of_batches_do_not_matter(problem, factors, name: str) -> None:
    source, band = problem
    objective = OBJECTIVES[name]
    whole = expectation_pass(source, source.everyone, band, factors, objective)
    for limit, index in ((7, source.everyone), (IMAGES, source.everyone.flip(0))):
        parts = expectation_pass(replace(source, batch_limit=limit), index, band, factors, objective)
        assert relative_error(parts.gradient, whole.gradient) < 1e-5
        assert parts.objective == pytest.approx(whole.objective, rel=1e-6)
        torch.testing.assert_close(parts.second_moment, whole.second_moment, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(parts.information, whole.information, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_sums_over_disjoint_images_add_up(problem, factors, name: str) -> None:
    source, band = problem
    objective = OBJECTIVES[name]
    whole = expectation_pass(source, source.everyone, band, factors, objective)
    first, second = (
        expectation_pass(source, source.everyone[start::2], band, factors, objective) for start in (0, 1)
    )
    assert first.count + second.count == whole.count
    assert relative_error(first.gradient + second.gradient, whole.gradient) < 1e-5
    assert first.objective + second.objective == pytest.approx(whole.objective, rel=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_vanishes_without_factors(problem, factors, name: str) -> None:
    source, band = problem
    gradient = expectation_pass(source, source.everyone, band, 0 * factors, OBJECTIVES[name]).gradient
    assert not gradient.any(), "V = 0 is a saddle point: the sign of V does not matter"


def test_pass_yields_every_image_once_with_its_own_posterior(problem, factors) -> None:
    source, band = problem[0].double(), in_double(problem[1])
    order = source.everyone.flip(0)
    passes = list(posterior_pass(replace(source, batch_limit=16), order, band, factors.double()))
    assert torch.equal(torch.cat([batch.index for batch, *_ in passes]), order)
    assert [len(batch) for batch, *_ in passes] == [16, 16, 8]
    mean, covariance = DenseModel.of(source, band, factors.double()).posterior()
    joint_mean = torch.cat([p.mean for *_, p in passes])
    joint_covariance = torch.cat([p.covariance for *_, p in passes])
    torch.testing.assert_close(joint_mean, mean[order], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(joint_covariance, covariance[order], rtol=1e-9, atol=1e-9)
    assert passes[0][1].shape == (16, len(band.disk), 1 + RANK)


def test_nuisance_factors_are_marginalised_but_not_fitted(problem, factors) -> None:
    """The last factor fixed: the same objective as when all are fitted, and the gradient of the others."""
    source, band = problem[0].double(), in_double(problem[1])
    for name, objective in OBJECTIVES.items():
        whole = expectation_pass(source, source.everyone, band, factors.double(), objective)
        fixed = replace(band, nuisance=factors[-1:].double())
        part = expectation_pass(source, source.everyone, fixed, factors[:-1].double(), objective)
        assert part.objective == pytest.approx(whole.objective, rel=1e-10), name
        torch.testing.assert_close(part.gradient, whole.gradient[:-1])
        torch.testing.assert_close(part.second_moment, whole.second_moment[:-1, :-1])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_nuisance_may_be_expected_elsewhere_than_at_zero(problem, factors, operator, name: str) -> None:
    """As if the mean of every image were moved along the nuisance factors: value, gradient and posterior."""
    source, band = problem[0].double(), in_double(problem[1])
    fitted, fixed = factors[:-1].double(), factors[-1:].double()
    expected = noise(IMAGES, 1, seed=7, dtype=torch.float64)
    band = replace(band, nuisance=fixed, nuisance_mean=expected)
    few = source.everyone[:FEW]
    found = expectation_pass(source, few, band, fitted, OBJECTIVES[name])

    plain = DenseModel.of(source, band, torch.cat((fitted, fixed)))
    mean = plain.mean + plain.loadings[:, :, RANK - 1] * expected
    of_contrast = CONTRAST_VARIANCE**0.5 * mean
    variable = fitted.flatten(1).T.requires_grad_()
    of_fixed = plain.loadings[:FEW, :, RANK - 1 : RANK]
    loadings = torch.cat((operator @ variable, of_fixed, of_contrast[:FEW, :, None]), dim=2)
    dense = DenseModel(plain.images[:FEW], mean[:FEW], loadings)
    value = DENSE_OBJECTIVES[name](dense).sum()
    value.backward()
    assert found.objective == pytest.approx(value.item(), rel=1e-10)
    exact = {"rtol": 1e-10, "atol": 1e-10 * float(found.gradient.abs().max())}
    torch.testing.assert_close(found.gradient.flatten(1).T, variable.grad, **exact)

    latents, covariance = DenseModel(dense.images, dense.mean, loadings.detach()).posterior()
    (_, slices, _, posterior), *_ = posterior_pass(source, few, band, fitted)
    torch.testing.assert_close(posterior.mean, latents, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(posterior.covariance, covariance, rtol=1e-9, atol=1e-9)
    seen = real_rows(slices[:, :, 0] * source.contrast[:FEW, None], band.disk)
    torch.testing.assert_close(seen, mean[:FEW])
