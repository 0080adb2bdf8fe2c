"""Models of half-sets, and what they explain of images, against dense Gaussians and least squares."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.model.half_models import Explained, HalfModel, explain, half_version, scale_to_images
from solvar_engine.imaging.linear_algebra import mix
from tests.estimation.problems import DenseModel, full_band, in_double
from tests.reconstruction.simulated import LinearPhantom, Simulation, noise, real_rows, relative_error, simulate

BOX, RANK, IMAGES = 12, 3, 40
VARIANCES = torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64)


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    """Images whose contrasts differ by much."""
    phantom = LinearPhantom.create(RANK, strength=0.5).scaled(6.0)
    return simulate(phantom, IMAGES, BOX, contrast=torch.linspace(0.4, 1.8, IMAGES))


@pytest.fixture(scope="module")
def model(simulation: Simulation) -> HalfModel:
    """The truth, its components in units in which their coordinates have other variances than one."""
    components = simulation.phantom.factors(BOX) / VARIANCES.sqrt().float()[:, None, None, None]
    return HalfModel(simulation.phantom.mean(BOX), components, VARIANCES)


@pytest.fixture(scope="module")
def dense(simulation: Simulation, model: HalfModel) -> DenseModel:
    source, band = simulation.source.double(), in_double(full_band(simulation))
    joint = DenseModel.of(source, band, model.components.double())
    return replace(joint, loadings=joint.loadings[..., :RANK])  # contrasts are known


@pytest.fixture(scope="module")
def explained(simulation: Simulation, model: HalfModel) -> Explained:
    """All images, in batches of seven."""
    source = replace(simulation.source, batch_limit=7)
    parts = list(explain(source, source.everyone, source.disk, model))
    return Explained(*(torch.cat([getattr(part, name) for part in parts]) for name in Explained.__dataclass_fields__))


def test_coordinates_are_the_mean_of_the_dense_posterior(simulation, explained, dense) -> None:
    mean, _ = dense.posterior(torch.diag(VARIANCES))
    assert torch.equal(explained.index, simulation.source.everyone)
    assert explained.z.dtype == torch.float64
    assert relative_error(explained.z, mean) < 1e-3


def test_precision_is_that_of_the_dense_posterior_with_its_prior(explained, dense) -> None:
    _, covariance = dense.posterior(torch.diag(VARIANCES))
    torch.testing.assert_close(explained.precision, torch.linalg.inv(covariance), rtol=1e-3, atol=1e-3)
    likelihood = explained.precision - torch.diag(1 / VARIANCES)
    gram = dense.loadings.transpose(1, 2) @ dense.loadings
    torch.testing.assert_close(likelihood, gram, rtol=2e-3, atol=2e-3)


def test_what_is_explained_is_the_best_combination_at_the_contrast_of_each_image(simulation, explained, dense) -> None:
    """The projection of image less mean onto the components, without prior."""
    best = torch.linalg.lstsq(dense.loadings, dense.error[..., None]).solution
    expected = dense.mean + (dense.loadings @ best)[..., 0]
    found = real_rows(explained.images.to(torch.complex128), simulation.source.disk)
    assert relative_error(found, expected) < 1e-3
    for row in (0, IMAGES - 1):  # the faintest and the strongest
        assert relative_error(found[row], expected[row]) < 1e-3


def test_what_an_image_does_not_determine_stays_at_the_mean(simulation, model) -> None:
    source = simulation.source
    blank = replace(model, components=model.components * torch.tensor([1.0, 0.0, 1.0])[:, None, None, None])
    two = HalfModel(model.mean, model.components[[0, 2]], VARIANCES[[0, 2]])
    (first,), (second,) = (list(explain(source, source.everyone[:5], source.disk, m)) for m in (blank, two))
    assert bool(first.images.isfinite().all())
    assert relative_error(first.images, second.images) < 1e-3


def test_model_at_a_point_moves_along_its_components(model: HalfModel) -> None:
    point = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    expected = model.mean + 2 * model.components[0] - model.components[1] + 0.5 * model.components[2]
    torch.testing.assert_close(model.at(point), expected)


def test_half_version_is_the_nearest_point_of_the_span_of_the_factors() -> None:
    eigenvolumes, factors = noise(2, BOX, BOX, BOX), noise(3, BOX, BOX, BOX, seed=1)
    eigenvolumes = eigenvolumes + mix(factors, noise(3, 2, seed=2))
    matrix = factors.flatten(1).double().T
    best = matrix @ torch.linalg.lstsq(matrix, eigenvolumes.flatten(1).double().T).solution
    torch.testing.assert_close(half_version(eigenvolumes, factors).flatten(1).double(), best.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("factor", [3.0, -0.5])
def test_scale_of_the_mean_is_the_one_that_the_images_were_made_with(factor: float) -> None:
    """At their own contrasts and transfer functions, by least squares; the pixels of the full plane count alike."""
    contrast = torch.linspace(0.4, 1.8, IMAGES)
    phantom = LinearPhantom.create(1)
    clean = simulate(phantom.scaled(abs(factor)), IMAGES, BOX, noise=0.0, contrast=contrast)
    flat = replace(clean, z=torch.zeros_like(clean.z))
    source = clean.source
    signal = phantom.scaled(factor).slices(flat.z, source.rotation, source.disk) * source.ctf * contrast[:, None]
    source = replace(source, images=signal, batch_limit=7)
    found = scale_to_images(source, source.everyone, source.disk, phantom.mean(BOX))
    assert found == pytest.approx(factor, rel=0.01)


def test_scale_of_the_mean_is_that_of_least_squares_in_noise(simulation) -> None:
    source, mean = simulation.source, simulation.phantom.mean(BOX)
    joint = DenseModel.of(source.double(), in_double(full_band(simulation)), torch.zeros(0, BOX, BOX, BOX).double())
    expected = float((joint.mean * joint.images).sum() / joint.mean.square().sum())
    assert scale_to_images(source, source.everyone, source.disk, mean) == pytest.approx(expected, rel=1e-3)


def test_images_of_nothing_have_no_scale() -> None:
    source = simulate(LinearPhantom.create(1), 4, BOX).source

    def zero(values: Tensor) -> Tensor:
        return torch.zeros_like(values)

    source = replace(source, images=zero(source.images), ctf=zero(source.ctf))
    assert scale_to_images(source, source.everyone, source.disk, noise(BOX, BOX, BOX)) == 0.0
