"""From factors to eigenvolumes, eigenvalues and latent coordinates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.judging.components import (
    Components,
    believed_variances,
    find_components,
    held_out_axes,
    in_gauge_of_halves,
    latent_coordinates,
    with_spectra_of,
)
from solvar_engine.estimation.judging.heldout import likelihood_gains
from solvar_engine.estimation.model.statistics import Statistics
from solvar_engine.estimation.solver.epochs import Factors
from solvar_engine.imaging.fourier import ft_to_volume, volume_to_ft
from solvar_engine.imaging.linear_algebra import inner_products, mix
from solvar_engine.imaging.shells import shell_count, shells_to_volume
from tests.estimation.problems import DenseModel, full_band, in_double
from tests.reconstruction.simulated import LinearPhantom, noise, relative_error, simulate

BOX, IMAGES = 12, 4000
EIGENVALUES = torch.tensor([9.0, 4.0, 1.0], dtype=torch.float64)
EVERYWHERE = torch.ones(BOX, BOX, BOX)


def components_of(
    full: Factors, halves: tuple[Tensor, Tensor], held_out: tuple[Statistics, Statistics], mask: Tensor = EVERYWHERE
) -> Components:
    return find_components(in_gauge_of_halves(full, halves) * mask, halves, held_out, mask)


def orthonormal(count: int) -> Tensor:
    """Smooth volumes with a positive third moment, orthonormal."""
    volumes = LinearPhantom.create(count, seed=2).factors(BOX)
    basis = torch.linalg.qr(volumes.flatten(1).double().T).Q.T
    sign = torch.where((basis**3).sum(dim=1) < 0, -1.0, 1.0)
    return (basis * sign[:, None]).float().reshape(count, BOX, BOX, BOX)


def loadings(directions: Tensor, eigenvalues: Tensor) -> Tensor:
    return directions * eigenvalues.sqrt().float()[:, None, None, None]


def observe(
    factors: Tensor, truth: Tensor, *, strength: float = 1.0, seed: int = 0, images: int = IMAGES
) -> Statistics:
    """Statistics of images that show the whole volume truth z, z ~ N(0, I), times a strength, in unit noise."""
    rank = factors.shape[0]
    gram = strength**2 * inner_products(factors, factors)
    z = noise(images, truth.shape[0], seed=seed, dtype=torch.float64)
    # The noise of the inner products has the Gram matrix for covariance.
    values, vectors = torch.linalg.eigh(gram)
    white = noise(images, rank, seed=seed + 1, dtype=torch.float64) @ (vectors * values.clamp_min(0).sqrt()).T
    inner = strength**2 * z @ inner_products(truth, factors) + white
    return Statistics(gram.expand(images, -1, -1), inner, torch.full((images,), 1e3, dtype=torch.float64))


def rotation(rank: int, seed: int = 3) -> Tensor:
    return torch.linalg.qr(noise(rank, rank, seed=seed, dtype=torch.float64)).Q


# --- eigenvolumes and eigenvalues


@pytest.fixture(scope="module")
def perfect() -> Components:
    """Halves that found the truth but for its scale, and all images in another gauge."""
    truth = loadings(orthonormal(3), EIGENVALUES)
    turned = mix(truth, rotation(3))
    moment = torch.tensor([[1.5, 0.2, 0.0], [0.2, 0.8, 0.1], [0.0, 0.1, 1.0]], dtype=torch.float64)
    shrunken = mix(turned, torch.linalg.inv(torch.linalg.cholesky(moment)).T)
    # V E V^T = truth: undo what the gauge will put back.
    full = Factors(shrunken, torch.eye(3, dtype=torch.float64))
    values, vectors = torch.linalg.eigh(moment)
    root = (vectors * values.sqrt()) @ vectors.T
    full = Factors(mix(turned, torch.linalg.inv(root)), moment)
    halves = (1.3 * truth, 0.6 * truth)
    held_out = (observe(halves[0], truth, seed=10), observe(halves[1], truth, seed=20))
    return components_of(full, halves, held_out)


def test_known_eigenvolumes_are_found_with_their_sign(perfect) -> None:
    truth = orthonormal(3)
    cosines = inner_products(perfect.eigenvolumes, truth).diagonal()
    assert float(cosines.min()) > 0.99
    assert bool(((perfect.eigenvolumes.flatten(1).double() ** 3).sum(dim=1) > 0).all())


def test_eigenvolumes_are_orthonormal(perfect) -> None:
    inner = inner_products(perfect.eigenvolumes, perfect.eigenvolumes)
    torch.testing.assert_close(inner, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-4)


def test_eigenvalues_are_measured_on_the_other_half(perfect) -> None:
    """Whatever the scale of the half-sets' own factors; descending."""
    torch.testing.assert_close(perfect.eigenvalues, EIGENVALUES, rtol=0.1, atol=0)
    torch.testing.assert_close(perfect.eigenvalues_in_sample, EIGENVALUES, rtol=0.03, atol=0)
    assert bool((perfect.eigenvalues.diff() < 0).all())


def test_perfect_halves_agree_and_explain_each_other(perfect) -> None:
    torch.testing.assert_close(perfect.agreement, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-4)
    assert bool((perfect.likelihood_gain > 100).all())


def test_sign_does_not_depend_on_that_of_the_factors(perfect) -> None:
    truth = loadings(orthonormal(3), EIGENVALUES)
    flipped = truth * torch.tensor([-1.0, 1.0, -1.0])[:, None, None, None]
    held_out = (observe(flipped, truth, seed=10), observe(flipped, truth, seed=20))
    full = Factors(flipped, torch.eye(3, dtype=torch.float64))
    components = components_of(full, (flipped, flipped), held_out)
    assert float(inner_products(components.eigenvolumes, perfect.eigenvolumes).diagonal().min()) > 0.99


def test_variances_that_make_no_held_out_image_more_likely_are_not_believed() -> None:
    """The rest by the share 1 - s^2 / v^2 that a gain of v^2 / (2 s^2) tells of."""
    variances, gain = (torch.tensor(v, dtype=torch.float64) for v in ((9.0, 1.0, 1.0, 1.0), (2.0, 0.0, 0.4, 1000.0)))
    expected = torch.tensor([9 * 0.75, 9e-4, 9e-4, 0.9995], dtype=torch.float64)
    torch.testing.assert_close(believed_variances(variances, gain), expected)


def test_components_that_are_not_believed_come_last() -> None:
    """A third direction of the halves that is not in the images, however large they claim it to be."""
    truth = loadings(orthonormal(3), torch.tensor([9.0, 4.0, 30.0], dtype=torch.float64))
    held_out = (observe(truth, truth[:2], seed=10), observe(truth, truth[:2], seed=20))
    full = Factors(truth, torch.eye(3, dtype=torch.float64))
    components = components_of(full, (truth, truth), held_out)
    torch.testing.assert_close(components.eigenvalues[:2], EIGENVALUES[:2], rtol=0.1, atol=0)
    assert float(components.eigenvalues[2]) < 0.01
    assert float(inner_products(components.eigenvolumes, orthonormal(3)).diagonal().min()) > 0.99
    assert bool((components.eigenvalues.diff() <= 0).all())


def test_halves_in_another_gauge_than_all_images_find_the_same() -> None:
    """All images are rotated to the halves' factors first, since a direction is scaled by what its like has shown."""
    truth = loadings(orthonormal(3), EIGENVALUES)
    turned = mix(truth, rotation(3))
    halves = (1.2 * turned, turned)
    held_out = (observe(halves[0], truth, seed=10), observe(halves[1], truth, seed=20))
    components = components_of(Factors(truth, torch.eye(3, dtype=torch.float64)), halves, held_out)
    assert float(inner_products(components.eigenvolumes, orthonormal(3)).diagonal().min()) > 0.99
    torch.testing.assert_close(components.eigenvalues, EIGENVALUES, rtol=0.1, atol=0)


def test_axes_are_mixtures_of_the_factors_of_each_half() -> None:
    """Whatever the norms of these: the same axis from either half, but for what their images tell by chance."""
    truth = loadings(orthonormal(3), EIGENVALUES)
    turned = mix(truth, rotation(3))
    halves = (1.3 * turned, turned * torch.tensor([0.5, 2.0, 1.0])[:, None, None, None])
    held_out = (observe(halves[0], truth, seed=10), observe(halves[1], truth, seed=20))
    axes = held_out_axes(turned, halves, held_out)
    for half, weights in zip(halves, axes.weights, strict=True):
        found = inner_products(mix(half, weights), axes.eigenvolumes)
        torch.testing.assert_close(found, torch.eye(3, dtype=torch.float64), rtol=0, atol=0.03)


def test_factors_that_noise_has_turned_against_each_other_are_one_motion() -> None:
    """A strong and a weak direction of each half-set hold the second motion, in one with the other sign."""
    truth = loadings(orthonormal(2), torch.tensor([9.0, 2.0], dtype=torch.float64))
    turn = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.8, -0.6], [0.0, 0.6, 0.8]], dtype=torch.float64)
    halves = []
    for half in range(2):
        junk = noise(1, BOX, BOX, BOX, seed=90 + half)
        known = torch.cat((truth, 1.4 * junk / junk.norm()))
        halves.append(mix(known, turn if half else turn.T))
    held_out = (observe(halves[0], truth, seed=91), observe(halves[1], truth, seed=92))
    axes = held_out_axes(0.5 * (halves[0] + halves[1]), (halves[0], halves[1]), held_out)
    torch.testing.assert_close(axes.eigenvalues[:2], torch.tensor([9.0, 2.0]).double(), rtol=0.15, atol=0)
    assert float(axes.eigenvalues[2]) < 0.2 and float(axes.agreement((halves[0], halves[1]))[1]) > 0.9
    assert abs(float((axes.eigenvolumes[1] * truth[1]).sum() / truth[1].norm())) > 0.85
    for statistics, weights in zip(held_out, axes.weights, strict=True):
        assert float(likelihood_gains(statistics, weights, axes.eigenvalues)[1]) > 200


def noisy_halves(share: float) -> tuple[Components, float]:
    """One component in halves whose independent noise has `share` times its energy, and its true eigenvalue."""
    eigenvalue = 5.0
    direction = noise(1, BOX, BOX, BOX, seed=30)
    truth = direction / direction.norm() * eigenvalue**0.5
    halves = []
    for seed in (31, 32):
        error = noise(1, BOX, BOX, BOX, seed=seed)
        error -= direction * (error * direction).sum() / direction.square().sum()
        halves.append(truth + error / error.norm() * (share * eigenvalue) ** 0.5)
    full = Factors(0.5 * (halves[0] + halves[1]), torch.eye(1, dtype=torch.float64))
    held_out = (observe(halves[0], truth, seed=40), observe(halves[1], truth, seed=50))
    return components_of(full, (halves[0], halves[1]), held_out), eigenvalue


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_eigenvalue_is_the_true_variance_along_the_direction_of_all_images(share: float) -> None:
    """Half-sets see 1 / (1 + share) of the variance, all images 1 / (1 + share / 2)."""
    components, eigenvalue = noisy_halves(share)
    assert float(components.eigenvalues) == pytest.approx(eigenvalue / (1 + share / 2), rel=0.08)
    assert float(components.eigenvalues_in_sample) == pytest.approx(eigenvalue * (1 + share / 2), rel=0.05)


def test_agreement_is_the_correlation_of_the_halves() -> None:
    for share in (0.3, 1.0):
        assert float(noisy_halves(share)[0].agreement) == pytest.approx(1 / (1 + share), abs=0.05)


def test_component_of_noise_has_neither_variance_nor_agreement_nor_gain() -> None:
    truth = loadings(orthonormal(1), EIGENVALUES[:1])
    junk = [noise(1, BOX, BOX, BOX, seed=seed) for seed in (61, 62, 63)]
    junk = [volume / volume.norm() for volume in junk]
    halves = (torch.cat((truth, 2 * junk[0])), torch.cat((truth, 2 * junk[1])))
    full = Factors(torch.cat((truth, 2 * junk[2])), torch.eye(2, dtype=torch.float64))
    held_out = (observe(halves[0], truth, seed=70), observe(halves[1], truth, seed=80))
    components = components_of(full, halves, held_out)
    assert float(components.eigenvalues[0]) == pytest.approx(9.0, rel=0.1)
    assert float(components.eigenvalues[1]) < 0.1
    assert float(components.eigenvalues_in_sample[1]) > 2.0
    assert float(components.agreement[1]) < 0.2
    assert float(components.likelihood_gain[1]) < 15 < 1000 < float(components.likelihood_gain[0])
    assert float(components.eigenvalues[1]) > 0


def test_gain_is_that_of_the_half_that_gains_less() -> None:
    """A component that only one half shows is not believed."""
    truth = loadings(orthonormal(2), EIGENVALUES[:2])
    halves = (truth, truth)
    only_first = truth * torch.tensor([1.0, 0.0])[:, None, None, None]
    full = Factors(truth, torch.eye(2, dtype=torch.float64))
    for held_out in (
        (observe(truth, truth, seed=10), observe(truth, only_first, seed=20)),
        (observe(truth, only_first, seed=20), observe(truth, truth, seed=10)),
    ):
        gains = components_of(full, halves, held_out).likelihood_gain
        assert float(gains[1]) < 15 < 1000 < float(gains[0])


def test_components_stay_inside_the_mask() -> None:
    mask = torch.zeros(BOX, BOX, BOX)
    mask[2:-2, 2:-2, 2:-2] = 1.0
    truth = loadings(orthonormal(2), EIGENVALUES[:2])
    halves = (truth * mask, truth * mask)
    held_out = (observe(halves[0], truth, seed=10), observe(halves[1], truth, seed=20))
    full = Factors(truth, torch.eye(2, dtype=torch.float64))
    components = components_of(full, halves, held_out, mask)
    assert not components.eigenvolumes[:, mask == 0].any()
    inner = inner_products(components.eigenvolumes, components.eigenvolumes)
    torch.testing.assert_close(inner, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-4)


def through(shells: Tensor, volumes: Tensor) -> Tensor:
    """Volumes with each shell multiplied by a number."""
    return ft_to_volume(volume_to_ft(volumes) * shells_to_volume(shells, BOX), BOX)


def test_halves_that_lack_detail_are_brought_to_the_spectra_of_all_images() -> None:
    """Where images show best what the halves lack, variances along these would come out too large."""
    full = through(torch.ones(shell_count(BOX)), loadings(orthonormal(3), EIGENVALUES))
    shells = torch.linspace(1.3, 0.6, shell_count(BOX))
    visible = torch.linspace(0.3, 1.5, shell_count(BOX))  # amplitude over that of the noise
    halves = (through(shells, full), 1.2 * through(shells, full))
    found = []
    for first, second in (halves, with_spectra_of(full, halves)):
        seen, truth = (through(visible, first), through(visible, second)), through(visible, full)
        held_out = (observe(seen[0], truth, seed=10), observe(seen[1], truth, seed=20))
        found.append(find_components(full, (first, second), held_out, EVERYWHERE).eigenvalues)
    of_truth = (observe(truth, truth), observe(truth, truth))
    expected = find_components(full, (full, full), of_truth, EVERYWHERE).eigenvalues
    torch.testing.assert_close(found[1], expected, rtol=0.05, atol=0)
    assert float(found[0][0]) > 1.1 * float(expected[0])


def test_factors_of_nothing_are_filtered_within_limits() -> None:
    junk = noise(3, BOX, BOX, BOX)
    filtered = with_spectra_of(torch.zeros_like(junk), (junk, -junk))
    for volumes in filtered:
        assert bool(torch.isfinite(volumes).all()) and float(volumes.norm()) > 0


# --- latent coordinates


@pytest.fixture(scope="module")
def latent_problem():
    """60 simulated images of different contrast, their band, the true components and coordinates along these."""
    contrast = torch.linspace(0.5, 1.5, 60)
    simulation = simulate(LinearPhantom.create(2).scaled(3.0), 60, BOX, contrast=contrast)
    factors = simulation.phantom.factors(BOX).flatten(1).double()
    values, vectors = torch.linalg.eigh(factors @ factors.T)
    values, vectors = values.flip(0), vectors.flip(1)
    eigenvolumes = ((vectors / values.sqrt()).T @ factors).float().reshape(2, BOX, BOX, BOX)
    nothing = torch.zeros(2, dtype=torch.float64)
    components = Components(eigenvolumes, values, nothing, nothing, nothing)
    band = replace(full_band(simulation), contrast_variance=0.01)
    scores = simulation.z.double() @ factors @ eigenvolumes.flatten(1).double().T
    return simulation.source, band, components, scores


@pytest.fixture(scope="module")
def latents(latent_problem):
    """Posterior of the images, with the dense model of the same."""
    source, band, components, scores = latent_problem
    index = source.everyone.flip(0)
    batches = list(latent_coordinates(replace(source, batch_limit=17), index, band, components))
    model = DenseModel.of(source.double(), in_double(band), components.eigenvolumes.double())
    model = model.about_what_is_shown(0.1, with_contrast(components.eigenvalues))
    return batches, model, components.eigenvalues, index, scores


def with_contrast(eigenvalues: Tensor) -> Tensor:
    """Prior covariance of the latents and the error of the contrast."""
    return torch.diag(torch.cat((eigenvalues, torch.ones(1, dtype=torch.float64))))


def test_latents_equal_the_dense_posterior(latents) -> None:
    batches, model, eigenvalues, index, _ = latents
    mean, covariance = model.posterior(with_contrast(eigenvalues))
    contrast, variance = 1 + 0.1 * mean[:, 2], covariance[:, 2, 2]
    mean, covariance = mean[:, :2], covariance[:, :2, :2]
    assert torch.equal(torch.cat([batch.index for batch in batches]), index)
    torch.testing.assert_close(
        torch.cat([batch.z for batch in batches]).double(), mean[index], rtol=1e-3, atol=1e-3 * float(mean.abs().max())
    )
    precision = torch.cat([batch.precision for batch in batches]).double()
    torch.testing.assert_close(precision, torch.linalg.inv(covariance[index]), rtol=1e-3, atol=1e-4)
    spread = torch.cat([batch.contrast_std for batch in batches]).double()
    torch.testing.assert_close(spread, 0.1 * variance[index].sqrt(), rtol=1e-3, atol=1e-5)
    found = torch.cat([batch.contrast for batch in batches]).double()
    torch.testing.assert_close(found, contrast[index], rtol=1e-3, atol=1e-4)
    assert batches[0].z.dtype == batches[0].precision.dtype == torch.float32


def test_precision_includes_the_prior(latents) -> None:
    """What is left without diag(1 / eigenvalue) is what the images say where their contrast is not known exactly."""
    batches, model, eigenvalues, index, _ = latents
    factors, error = model.loadings[index, :, :2], model.loadings[index, :, 2:]
    covariance = torch.eye(error.shape[1], dtype=torch.float64) + error @ error.transpose(1, 2)
    gram = factors.transpose(1, 2) @ torch.linalg.solve(covariance, factors)
    precision = torch.cat([batch.precision for batch in batches]).double()
    torch.testing.assert_close(precision - torch.diag(1 / eigenvalues), gram, rtol=1e-3, atol=1e-4)


def test_log_likelihood_is_that_of_the_dense_gaussian(latents) -> None:
    batches, model, eigenvalues, index, _ = latents
    found = torch.cat([batch.log_likelihood for batch in batches])
    torch.testing.assert_close(found, -model.objective(with_contrast(eigenvalues))[index], rtol=1e-4, atol=1e-2)


def test_latents_scatter_about_the_truth_by_their_precision(latents) -> None:
    """The Mahalanobis length of the error is that of r independent normal numbers."""
    batches, _, _, index, scores = latents
    error = torch.cat([batch.z for batch in batches]).double() - scores[index]
    precision = torch.cat([batch.precision for batch in batches]).double()
    length = torch.einsum("ni,nij,nj->n", error, precision, error)
    assert float(length.mean()) == pytest.approx(2.0, rel=0.3)
    assert relative_error(torch.cat([batch.z for batch in batches]).double(), scores[index]) < 0.8


def test_contrast_that_is_in_use_already_is_as_uncertain_as_before(latent_problem) -> None:
    """With hardly any variance left beside the estimates, what an image knows of its contrast still counts."""
    source, band, components, _ = latent_problem
    wide = latent_coordinates(source, source.everyone, band, components)
    expected = torch.cat([batch.contrast_std for batch in wide])
    narrow = replace(band, contrast_variance=0.0)
    found = latent_coordinates(source, source.everyone, narrow, components, contrast_variance=0.01)
    torch.testing.assert_close(torch.cat([batch.contrast_std for batch in found]), expected, rtol=0.03, atol=0)
