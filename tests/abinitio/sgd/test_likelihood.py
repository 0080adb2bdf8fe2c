from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import LowImages
from solvar_engine.abinitio.sgd.importance import Samples
from solvar_engine.abinitio.sgd.likelihood import evaluate, relative_error
from solvar_engine.abinitio.sgd.quadrature import Quadrature
from solvar_engine.imaging.symmetry import symmetry_operators
from solvar_engine.projectors.base import Projector
from tests.abinitio.sgd.tiny import everything, tiny_images, tiny_quadrature

NO_SYMMETRY = symmetry_operators("C1")


def at_length(projector: Projector, volume: Tensor, images: LowImages, quadrature: Quadrature) -> tuple[Tensor, Tensor]:
    """Log-likelihood plus log prior, and squared errors, (n, D, A, T), by differences of images and predictions."""
    directions, angles, shifts = quadrature.sizes
    direction, angle = torch.cartesian_prod(torch.arange(directions), torch.arange(angles)).unbind(1)
    rotation = quadrature.rotation(direction, angle)
    slices = projector.project(projector.to_grid(volume[None]), rotation)[:, :, 0]
    kx, ky = images.disk.pixels.double().unbind(1)
    errors = torch.zeros(len(images), directions * angles, shifts, dtype=torch.float64)
    for number, (x, y) in enumerate(quadrature.shift_px):
        # moving the image by +shift centres it: the image is the centred projection moved by -shift
        moved = torch.exp(2j * math.pi * (kx * x + ky * y) / images.disk.box_size) * slices
        difference = images.images[:, None] - images.ctf[:, None] * moved
        errors[:, :, number] = difference.abs().square() @ images.disk.weight.double()
    log_prior = -quadrature.shift_px.square().sum(dim=1) / 2
    log_prior = log_prior - log_prior.exp().sum().log() - math.log(directions * angles)
    shape = (len(images), directions, angles, shifts)
    return (-0.5 * errors + log_prior).reshape(shape), errors.reshape(shape)


def test_the_full_sum_is_that_of_all_poses_at_length() -> None:
    projector, volume, images = tiny_images(3)
    quadrature = tiny_quadrature()
    joint, errors = at_length(projector, volume, images, quadrature)
    found = evaluate(projector, volume, images, quadrature, [everything(quadrature)] * 3)
    torch.testing.assert_close(found.log_likelihood, joint.logsumexp(dim=(1, 2, 3)))
    posterior = joint.flatten(1).softmax(dim=1).reshape(joint.shape)
    torch.testing.assert_close(found.squared_error, (posterior * errors).sum(dim=(1, 2, 3)))
    for number in range(3):
        for factor, others in enumerate(((1, 2), (0, 2), (0, 1))):
            marginal = posterior[number].sum(dim=others)
            torch.testing.assert_close(found.log_marginals[number][factor].exp(), marginal)
    best = torch.stack(torch.unravel_index(joint.flatten(1).argmax(dim=1), joint.shape[1:]), dim=1)
    assert bool((found.best == best).all())
    assert found.evaluated == 1 and found.gradient is None


def test_the_relative_error_is_one_for_noise_alone() -> None:
    projector, volume, images = tiny_images(200)
    noise = LowImages(images.disk, white(images), images.ctf)
    quadrature = tiny_quadrature()
    one = (Samples.all_of(1), Samples.all_of(1), Samples.all_of(1))
    nothing = evaluate(projector, 0 * volume, noise, quadrature, [one] * 200)
    assert relative_error(nothing, noise) == pytest.approx(1, abs=0.02)


def white(images: LowImages) -> Tensor:
    noise = torch.randn(*images.images.shape, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return torch.view_as_complex(noise) / 2**0.5


@pytest.mark.parametrize("is_sampled", [False, True])
def test_the_gradient_is_the_slope_of_the_likelihood(is_sampled: bool) -> None:
    projector, volume, images = tiny_images(3)
    quadrature = tiny_quadrature()
    samples = [everything(quadrature)] * 3
    if is_sampled:
        generator = torch.Generator().manual_seed(5)
        samples = [
            tuple(  # type: ignore[misc]
                Samples.drawn(torch.full((size,), 1 / size, dtype=torch.float64), 0.5, generator)
                for size in quadrature.sizes
            )
            for _ in range(3)
        ]
    along = torch.randn(volume.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    along *= float(volume.norm() / along.norm())
    found = evaluate(projector, volume, images, quadrature, samples, NO_SYMMETRY)
    step = 1e-5
    above, below = (
        evaluate(projector, volume + sign * step * along, images, quadrature, samples).value for sign in (1, -1)
    )
    assert found.gradient is not None
    assert float((found.gradient * along).sum()) == pytest.approx((above - below) / (2 * step), rel=1e-5)


def test_the_gradient_has_the_symmetry() -> None:
    projector, volume, images = tiny_images(2)
    quadrature = tiny_quadrature()
    group = symmetry_operators("C2")
    samples = [everything(quadrature)] * 2
    turned = volume.flip(1, 2).roll((1, 1), (1, 2))
    symmetric = 0.5 * (volume + turned)
    found = evaluate(projector, symmetric, images, quadrature, samples, group).gradient
    alone = evaluate(projector, symmetric, images, quadrature, samples, NO_SYMMETRY).gradient
    assert found is not None and alone is not None
    inside = slice(1, None)
    back = found.flip(1, 2).roll((1, 1), (1, 2))
    torch.testing.assert_close(found[:, inside, inside], back[:, inside, inside])
    along = symmetric
    assert float((found * along).sum()) == pytest.approx(float((alone * along).sum()), rel=1e-3)
