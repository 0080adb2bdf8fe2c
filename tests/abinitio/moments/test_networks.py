from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from solvar_engine.abinitio.moments.analytic import MapMoments, MomentPair
from solvar_engine.abinitio.moments.encoder import MomentEncoder, load_encoder, save_encoder
from solvar_engine.abinitio.moments.networks import ANGLES, FourierNet, MapEncoder, MomentNetwork
from solvar_engine.abinitio.moments.recovery import kam_loss
from solvar_engine.abinitio.moments.training import (
    Structures,
    encoder_loss,
    fit_network,
    train_encoder,
    training_moments,
)
from solvar_engine.imaging.harmonics import rotations_to

BOX, LARGEST = 9, 0.08


def encoder(last_degree: int | None = 2, largest_shift_std: float = 0.12, seed: int = 0) -> MapEncoder:
    torch.manual_seed(seed)
    return MapEncoder(BOX, last_degree, largest_shift_std)


@pytest.fixture(scope="module")
def data() -> MomentPair:
    made = encoder()
    structures = Structures(BOX, made.direction, made.view_weight)
    return training_moments(structures, 3, LARGEST, torch.Generator().manual_seed(1))


def one_of(data: MomentPair, number: int = 0) -> MomentPair:
    return MomentPair(data.first[number], data.second[number])


def stirred(network: MomentNetwork, seed: int = 3) -> MomentNetwork:
    """In double precision, with a refinement that is not zero."""
    torch.manual_seed(seed)
    network.refinement = FourierNet(is_zero=False)
    return network.double()


def loss_of(network: MomentNetwork, data: MomentPair) -> Tensor:
    ring = network.encoder.model.ring
    return kam_loss(network(data.first, data.second)[0], data, ring, torch.ones(len(ring), len(ring)).double())


def test_estimates_have_the_strength_of_the_moments(data: MomentPair) -> None:
    network = encoder()
    with torch.no_grad():
        found, stronger = network(data.first, data.second), network(3 * data.first, 9 * data.second)
    assert found.coefficients.shape == (3, len(network.model.basis)) and found.probability.shape == (3, 98)
    torch.testing.assert_close(found.probability.sum(dim=1), torch.ones(3).double())
    assert float(found.probability.min()) > 0
    assert 0 < float(found.shift_std.min()) and float(found.shift_std.max()) < 0.12
    torch.testing.assert_close(stronger.coefficients, 3 * found.coefficients, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(stronger.probability, found.probability, rtol=1e-4, atol=1e-7)


def test_structures_are_chains_in_the_middle() -> None:
    made = encoder()
    structures = Structures(BOX, made.direction, made.view_weight)
    maps = structures.maps(2, torch.Generator().manual_seed(0))
    torch.testing.assert_close(maps.norm(dim=1), torch.ones(2).double())
    for coefficients in maps:
        volume = structures.basis.volume(coefficients).double()
        axis = torch.arange(BOX).double() - BOX // 2
        total = volume.sum()
        assert float(total) > 0
        for dims in ((1, 2), (0, 2), (0, 1)):
            assert abs(float((volume.sum(dim=dims) * axis).sum() / total)) < 0.3


def test_views_are_densities_over_the_quadrature() -> None:
    made = encoder()
    structures = Structures(BOX, made.direction, made.view_weight)
    concentration = torch.tensor([2.0, 1.0]).double()
    found = structures.views(torch.eye(3).double()[:2], concentration, torch.tensor([[0.3, 0.6]]).double())[0]
    mean = 1 / concentration.tanh() - 1 / concentration  # of a density of von Mises and Fisher
    expected = mean * torch.tensor([1.0, 2.0]).double() / 3
    torch.testing.assert_close(found @ structures.direction[:, :2], expected, rtol=1e-5, atol=1e-7)


def test_moments_of_a_batch_are_those_of_each(data: MomentPair) -> None:
    network = encoder()
    structures = Structures(BOX, network.direction, network.view_weight)
    maps = structures.maps(2, torch.Generator().manual_seed(4))
    views = torch.softmax(torch.randn(2, 98, generator=torch.Generator().manual_seed(5)).double(), dim=1)
    shifts = torch.tensor([0.0, 0.05]).double()
    batch = structures.moments(maps, views, shifts)
    model = MapMoments(structures.basis, network.model.ring, ANGLES, network.direction)
    for number in range(2):
        alone = model.of_views(maps[number], views[number], float(shifts[number]))
        torch.testing.assert_close((batch.first[number], batch.second[number]), (alone.first, alone.second))
    with torch.no_grad():
        losses, found = encoder_loss(network, data), network(data.first, data.second)
    mine = network.model.of_views(found.coefficients[1], found.probability[1], found.shift_std[1])
    ring = network.model.ring
    expected = kam_loss(mine, one_of(data, 1), ring, torch.ones(len(ring), len(ring)).double())
    assert float(losses[1]) == pytest.approx(float(expected))


def test_refinement_is_of_a_real_map() -> None:
    torch.manual_seed(1)
    frequency = torch.randn(5, 3)
    network = FourierNet(is_zero=False)
    torch.testing.assert_close(network(-frequency), network(frequency).conj())
    assert float(network(frequency).abs().min().detach()) > 0
    assert float(FourierNet(is_zero=True)(frequency).abs().max().detach()) == 0


@pytest.mark.parametrize("last_degree", [None, 2])
def test_moments_of_refined_maps_are_means_over_views(last_degree: int | None, data: MomentPair) -> None:
    """Brute force: slices at the frequencies of each view, of FourierNet and of the basis, turned in their planes."""
    network = stirred(MomentNetwork(encoder(last_degree)))
    pair = one_of(data)
    with torch.no_grad():
        moments, estimate = network(pair.first, pair.second)
    ring = network.encoder.model.ring
    phi = 2 * torch.pi / ANGLES * torch.arange(ANGLES).double()
    circle = torch.stack((phi.cos(), phi.sin(), 0 * phi))
    places = ring[:, None, None] * (rotations_to(network.encoder.direction) @ circle).mT[:, None]
    with torch.no_grad():
        slices = network.refinement(places / ring[-1]) * network.encoder.strength(pair.second)
    if last_degree is not None:
        volume = network.encoder.model.basis.volume(estimate.coefficients[0]).double()
        axis = torch.arange(BOX).double() - BOX // 2
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1]).flatten(1)
        phase = -2 * torch.pi / BOX * (places @ grid)
        slices = slices + (torch.polar(torch.ones_like(phase), phase) @ (volume.flatten() + 0j)) / BOX
    probability, shift = estimate.probability[0], 2 * torch.pi * estimate.shift_std[0]
    first = torch.einsum("v,vra->r", probability + 0j, slices).real / ANGLES * torch.exp(-((shift * ring) ** 2) / 2)
    torch.testing.assert_close(moments.first, first, rtol=0.02, atol=0.01 * float(first.abs().max()))
    for step in (0, 3):
        turned = slices.roll(-step, dims=2)
        second = torch.einsum("v,vra,vsa->rs", probability + 0j, turned, slices.conj()).real / ANGLES
        distance = (ring[:, None] * torch.polar(torch.ones(()).double(), phi[step]) - ring).abs()
        second = second * torch.exp(-((shift * distance) ** 2) / 2)
        torch.testing.assert_close(moments.second[:, :, step], second, rtol=0.02, atol=0.01 * float(second.max()))


@pytest.mark.parametrize("last_degree", [None, 2])
def test_gradients_of_weights_are_differences(last_degree: int | None, data: MomentPair) -> None:
    network, pair = stirred(MomentNetwork(encoder(last_degree))), one_of(data)
    loss_of(network, pair).backward()
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        direction = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        step = 1e-6 * direction / direction.norm()
        with torch.no_grad():
            weight += step
            above = float(loss_of(network, pair))
            weight -= 2 * step
            below = float(loss_of(network, pair))
            weight += step
        assert weight.grad is not None
        expected = float((weight.grad * step).sum())
        assert above - below == pytest.approx(2 * expected, rel=1e-3, abs=1e-12)


def test_training_lowers_the_loss() -> None:
    network = encoder()
    data = training_moments(
        Structures(BOX, network.direction, network.view_weight), 32, LARGEST, torch.Generator().manual_seed(9)
    )
    before = float(encoder_loss(network, data).mean().detach())
    losses = list(train_encoder(network, LARGEST, torch.Generator().manual_seed(0), 40, 16, 2e-3))
    assert len(losses) == 40
    assert float(encoder_loss(network, data).mean().detach()) < 0.4 * before


def test_weights_are_fitted_to_the_moments_of_one_structure(data: MomentPair) -> None:
    pair = one_of(data)
    steps = list(fit_network(MomentNetwork(encoder()), pair, 150, 2e-3))
    assert len(steps) == 150
    assert sum(steps[-1][:2]) < 0.1 < sum(steps[0][:2])
    blind = list(fit_network(MomentNetwork(encoder(largest_shift_std=0.0)), pair, 2, 1e-3))
    assert blind[-1][2] == 0


def test_networks_come_back_with_their_training(tmp_path: Path, data: MomentPair) -> None:
    network = encoder(largest_shift_std=0.1)
    path = tmp_path / "maps.safetensors"
    save_encoder(network, path, {"structures": 10})
    again, training = load_encoder(path, MapEncoder)
    assert training == {"structures": 10} and again.settings == network.settings
    found, expected = again(data.first, data.second), network(data.first, data.second)
    assert all(torch.equal(getattr(found, name), getattr(expected, name)) for name in vars(expected))
    with pytest.raises(ValueError, match="holds no MomentEncoder"):
        load_encoder(path, MomentEncoder)
