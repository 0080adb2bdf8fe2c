from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import LowImages, low_box, read_low
from solvar_engine.abinitio.sgd.importance import (
    ImportanceSampler,
    PoseSamples,
    Samples,
    annealing,
    importance_distribution,
)
from solvar_engine.abinitio.sgd.likelihood import evaluate
from solvar_engine.abinitio.sgd.quadrature import Quadrature, fibonacci_sphere, kernels
from solvar_engine.estimation.model.bands import change_box
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import DEFAULT_OPTIONS
from solvar_engine.projectors.torch_ref import TorchProjector
from tests.abinitio.sgd.tiny import everything, tiny_images, tiny_quadrature
from tests.abinitio.sources import simulated


def distribution(points: int, seed: int = 0) -> Tensor:
    values = torch.rand(points, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).pow(3) + 0.01
    return values / values.sum()


def test_directions_are_even() -> None:
    direction = fibonacci_sphere(500)
    torch.testing.assert_close(direction.norm(dim=1), torch.ones(500, dtype=torch.float64))
    torch.testing.assert_close(direction.T @ direction / 500, torch.eye(3, dtype=torch.float64) / 3, atol=1e-3, rtol=0)


def test_orientations_look_along_their_directions_at_their_angles() -> None:
    quadrature = Quadrature.for_shell(5, 32, 1.0)
    direction, angle = torch.arange(quadrature.sizes[0]), torch.arange(quadrature.sizes[0]) % quadrature.sizes[1]
    rotation = quadrature.rotation(direction, angle).double()
    torch.testing.assert_close(rotation[:, :, 2], quadrature.direction, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(len(rotation), dtype=torch.float64))
    # R(d, a) is R(d, 0) after a turn by a in the plane of the image
    still = quadrature.rotation(direction, torch.zeros_like(angle)).double()
    turn = torch.atan2((still[:, :, 1] * rotation[:, :, 0]).sum(dim=1), (still[:, :, 0] * rotation[:, :, 0]).sum(dim=1))
    difference = turn - quadrature.angle_rad[angle]
    torch.testing.assert_close(difference.cos(), torch.ones_like(difference), atol=1e-6, rtol=0)
    # the frame at a direction near z is nearly that of z
    top = still[int(quadrature.direction[:, 2].argmax())]
    assert float(torch.trace(top)) > 2.9


def test_weights_add_up() -> None:
    quadrature = Quadrature.for_shell(6, 32, 1.5)
    for log_weight, size in zip(quadrature.log_weight, quadrature.sizes, strict=True):
        assert len(log_weight) == size and float(log_weight.exp().sum()) == pytest.approx(1)
    ratio = quadrature.log_weight[2] - quadrature.log_weight[2].max()
    torch.testing.assert_close(ratio, -quadrature.shift_px.square().sum(dim=1) / (2 * 1.5**2))


def test_a_higher_shell_has_more_points() -> None:
    coarse, fine = (Quadrature.for_shell(shell, 32, 1.5) for shell in (5, 10))
    factor = [after / before for after, before in zip(fine.sizes, coarse.sizes, strict=True)]
    assert factor[0] == pytest.approx(4, rel=0.1) and factor[1] == pytest.approx(2, rel=0.1) and factor[2] > 2.5


def test_annealing_as_printed() -> None:
    assert annealing(0) == (1.0, 0.0)
    alpha, exponent = annealing(399)  # seven times fifty
    assert alpha == pytest.approx(2 ** (-7 / 4)) and 1 / exponent == pytest.approx(2 ** (10 / 7))
    assert annealing(50)[0] == pytest.approx(2**-0.25)
    assert annealing(5000) == (0.05, 1 / 1.25)


def test_the_distribution_mixes_the_annealed_marginal_with_the_uniform_one() -> None:
    marginal = torch.tensor([0.5, 0.0, 0.1], dtype=torch.float64)
    found = importance_distribution(marginal, torch.eye(3, dtype=torch.float64), 0.3, 0.5)
    root = torch.tensor([0.5**0.5, 0.0, 0.1**0.5], dtype=torch.float64)
    torch.testing.assert_close(found, 0.7 * root / root.sum() + 0.1)


def test_the_number_of_draws_is_the_effective_sample_size_times_the_scale() -> None:
    q = distribution(300)
    samples = Samples.drawn(q, 10.0, torch.Generator().manual_seed(1))
    number = math.ceil(10 / float(q.square().sum()))
    count = samples.log_factor.exp() * number * q[samples.index]
    torch.testing.assert_close(count, count.round())
    assert float(count.sum()) == pytest.approx(number)
    assert len(samples.index.unique()) == len(samples.index) < number  # duplicates are looked at once


def test_kernels_are_as_wide_as_the_spacing_of_what_is_known() -> None:
    coarse, fine = Quadrature.for_shell(5, 32, 1.5), Quadrature.for_shell(8, 32, 1.5)
    for kernel, before, now in zip(kernels(coarse, fine), coarse.sizes, fine.sizes, strict=True):
        assert kernel.shape == (before, now)
        torch.testing.assert_close(kernel.sum(dim=1), torch.ones(before, dtype=torch.float64))
    directions, angles, shifts = kernels(coarse, fine)
    apart = (coarse.direction @ fine.direction.T).clamp(-1, 1).arccos()
    # a normal density over the plane has a mean square distance of twice the variance per axis
    rms = (directions * apart.square()).sum(dim=1).mean().sqrt()
    assert float(rms) == pytest.approx(2**0.5 * coarse.spacing_rad, rel=0.1)
    turn = torch.remainder(coarse.angle_rad[:, None] - fine.angle_rad + math.pi, 2 * math.pi) - math.pi
    assert float((angles * turn.square()).sum(dim=1).mean().sqrt()) == pytest.approx(coarse.spacing_rad, rel=0.15)
    middle = int(coarse.shift_px.norm(dim=1).argmin())
    ratio = shifts[middle] / shifts[middle].max()
    torch.testing.assert_close(ratio, (-fine.shift_px.square().sum(dim=1) / (2 * coarse.spacing_px**2)).exp())


def drawn_poses(quadrature: Quadrature, scale: float, generator: torch.Generator) -> PoseSamples:
    uneven = [distribution(size, seed) + 0.5 / size for seed, size in enumerate(quadrature.sizes)]
    first, second, third = (Samples.drawn(part / part.sum(), scale, generator) for part in uneven)
    return first, second, third


def test_sampled_likelihoods_are_right_on_average() -> None:
    projector, volume, images = tiny_images(1, signal=0.3)
    quadrature = tiny_quadrature()
    full = evaluate(projector, volume, images, quadrature, [everything(quadrature)])
    generator = torch.Generator().manual_seed(7)
    draws = 1500
    repeated = LowImages(images.disk, images.images.expand(draws, -1), images.ctf.expand(draws, -1))
    samples = [drawn_poses(quadrature, 0.8, generator) for _ in range(draws)]
    found = evaluate(projector, volume, repeated, quadrature, samples)
    ratio = (found.log_likelihood - full.log_likelihood).exp()
    error = float(ratio.std()) / draws**0.5
    assert error < 0.05
    assert float(ratio.mean()) == pytest.approx(1, abs=4 * error)
    assert found.evaluated < 0.3


def test_marginals_of_samples_are_marginals() -> None:
    projector, volume, images = tiny_images(1)
    quadrature = tiny_quadrature()
    full = evaluate(projector, volume, images, quadrature, [everything(quadrature)])
    generator = torch.Generator().manual_seed(8)
    first, _, third = everything(quadrature)
    # only one factor is sampled, with many draws: the other marginals are nearly those of the full sum
    angles = Samples.drawn(distribution(quadrature.sizes[1]), 300.0, generator)
    found = evaluate(projector, volume, images, quadrature, [(first, angles, third)])
    for factor in (0, 2):
        whole, sampled = full.log_marginals[0][factor].exp(), found.log_marginals[0][factor].exp()
        torch.testing.assert_close(sampled, whole, rtol=0.3, atol=0.03)
    # each sampled point has its own marginal, not as often as it was drawn
    expected = full.log_marginals[0][1][angles.index].log_softmax(dim=0)
    torch.testing.assert_close(found.log_marginals[0][1], expected)


def test_images_are_looked_at_everywhere_first_and_then_where_they_were() -> None:
    projector, volume, images = tiny_images(4, signal=8.0)
    quadrature = tiny_quadrature()
    sampler = ImportanceSampler(10, 10.0, torch.Generator().manual_seed(9), worth=0.99)
    rows = torch.tensor([7, 2, 5, 0])
    first = sampler.samples(rows, quadrature, 5)
    full = evaluate(projector, volume, images, quadrature, first)
    assert full.evaluated == 1
    sampler.keep(rows, first, full.log_marginals, 5, 49)
    still_uniform = sampler.samples(rows, quadrature, 5)[0]
    assert tuple(len(factor.index) for factor in still_uniform) == quadrature.sizes
    sampler.keep(rows, first, full.log_marginals, 5, 5000)
    # the same images in another order, as they were kept
    again = evaluate(projector, volume, images[[2, 0]], quadrature, sampler.samples(rows[[2, 0]], quadrature, 5))
    assert again.evaluated < 0.7
    torch.testing.assert_close(again.log_likelihood, full.log_likelihood[[2, 0]], rtol=0.02, atol=0)
    assert sampler.samples(torch.tensor([3]), quadrature, 5)[0][0].index.shape == (quadrature.sizes[0],)


def test_ten_draws_for_each_effective_sample_are_within_a_thousandth_of_the_full_sum() -> None:
    source, _, volume = simulated(40, signal=0.7)
    rows, shell = torch.arange(40), 8
    images = read_low(source, rows, shell)
    low = change_box(volume, low_box(images.disk), shell)
    projector = create_projector(len(low), images.disk, DEFAULT_OPTIONS)
    quadrature = Quadrature.for_shell(shell, 32, 0.7)
    constant = 0.5 * float(images.disk.weight.sum()) * math.log(2 * math.pi)
    errors, evaluated = [], []
    for scale in (1.0, 10.0):
        sampler = ImportanceSampler(40, scale, torch.Generator().manual_seed(11), worth=1.0)
        first = sampler.samples(rows, quadrature, shell)
        full = evaluate(projector, low, images, quadrature, first)
        sampler.keep(rows, first, full.log_marginals, shell, 5000)
        found = evaluate(projector, low, images, quadrature, sampler.samples(rows, quadrature, shell))
        error = (found.log_likelihood - full.log_likelihood).abs() / (constant - full.log_likelihood)
        errors.append(float(error.mean()))
        evaluated.append(found.evaluated)
    assert errors[1] < 0.001 < errors[0]
    assert evaluated[0] < evaluated[1] < 0.5


def test_what_a_coarse_quadrature_told_serves_a_finer_one() -> None:
    disk = HalfDisk.create(32, 7)
    coarse, fine = Quadrature.for_shell(5, 32, 1.0), Quadrature.for_shell(7, 32, 1.0)
    projector = TorchProjector(low_box(disk), disk, interpolation="trilinear", oversampling=2, dtype=torch.float64)
    _, volume, images = tiny_images(3, signal=3.0, projector=projector)
    rows, sampler = torch.arange(3), ImportanceSampler(3, 10.0, torch.Generator().manual_seed(10))
    low = images.cut(5)
    below = TorchProjector(low_box(disk), low.disk, interpolation="trilinear", oversampling=2, dtype=torch.float64)
    samples = sampler.samples(rows, coarse, 5)
    sampler.keep(rows, samples, evaluate(below, volume, low, coarse, samples).log_marginals, 5, 5000)
    found = evaluate(projector, volume, images, fine, sampler.samples(rows, fine, 7))
    full = evaluate(projector, volume, images, fine, [everything(fine)] * 3)
    assert found.evaluated < 0.5
    torch.testing.assert_close(found.log_likelihood, full.log_likelihood, rtol=0.01, atol=0)
    assert bool((found.best == full.best).all())
