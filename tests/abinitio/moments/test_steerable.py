from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import LowImages
from solvar_engine.abinitio.moments.analytic import MapMoments, MomentPair, angles_of
from solvar_engine.abinitio.moments.basis import BallBasis
from solvar_engine.abinitio.moments.recovery import relative_errors, sampling_error
from solvar_engine.abinitio.moments.steerable import PADDING, EmpiricalMoments, RingInterpolation, moments_of
from solvar_engine.imaging.fourier import HalfDisk, images_to_disk, shift_phases
from solvar_engine.imaging.harmonics import real_harmonics
from solvar_engine.imaging.rotation import random_rotations

BOX, SHELL = 32, 5
SHIFT_PX = 1.0
DISK = HalfDisk.create(BOX, SHELL + PADDING)
RING = torch.arange(2, SHELL + 1, dtype=torch.float64)


def slices(basis: BallBasis, coefficients: Tensor, rotation: Tensor, frequency: Tensor) -> Tensor:
    """In closed form, at frequencies (p, 2); (n, p)."""
    ring = frequency.norm(dim=1)
    in_plane = torch.nn.functional.pad(frequency / ring.clamp_min(1e-9)[:, None], (0, 1))
    angular = real_harmonics(basis.last_degree, in_plane @ rotation.double().mT)[..., basis.harmonic]
    phase = torch.pow(torch.tensor(-1j, dtype=torch.complex128), basis.degree)
    return ((angular * basis.of_frequency(ring)) + 0j) @ (phase * coefficients)


def astigmatic(count: int, generator: torch.Generator) -> Tensor:
    """Smooth functions with zeros, each with a direction of its own."""
    frequency = DISK.pixels.double()
    angle = 3.14 * torch.rand(count, 1, generator=generator)
    along = frequency[:, 0] * angle.cos() + frequency[:, 1] * angle.sin()
    strength = 0.04 + 0.03 * torch.rand(count, 1, generator=generator)
    return torch.sin(0.4 + strength * (frequency.square().sum(dim=1) + 0.5 * along.square())).float()


@pytest.fixture(scope="module")
def basis() -> BallBasis:
    return BallBasis.create(BOX, 9.0, 4.5)


@pytest.fixture(scope="module")
def truth(basis: BallBasis) -> tuple[Tensor, MomentPair]:
    generator = torch.Generator().manual_seed(2)
    coefficients = 14 * torch.randn(len(basis), generator=generator, dtype=torch.float64) / basis.root
    angles = RingInterpolation(DISK, RING).angles
    return coefficients, MapMoments(basis, RING, angles).uniform(coefficients, SHIFT_PX / BOX)


@pytest.fixture(scope="module")
def images(basis: BallBasis, truth: tuple[Tensor, MomentPair]) -> LowImages:
    count, generator = 6_000, torch.Generator().manual_seed(0)
    rotation = random_rotations(count, generator)
    clean = torch.cat([slices(basis, truth[0], part, DISK.pixels.double()) for part in rotation.split(1000)])
    moved = shift_phases(DISK, SHIFT_PX * torch.randn(count, 2, generator=generator), BOX)
    noise = images_to_disk(torch.randn(count, BOX, BOX, generator=generator), DISK)
    transfer = astigmatic(count, generator)
    signal = clean.to(noise.dtype) * moved * transfer
    power = float(signal[:, DISK.shell >= 2].abs().square().mean())
    assert 0.3 < power < 3, power  # as strong as the noise
    return LowImages(DISK, signal + noise, transfer)


def error(found: Tensor, expected: Tensor, weight: Tensor) -> float:
    return float((weight * (found - expected)).norm() / (weight * expected).norm())


def second_error(found: EmpiricalMoments, expected: MomentPair) -> float:
    return error(found.moments.second, expected.second, found.weight[:, :, None])


def test_interpolation_to_rings_is_that_of_slices(basis: BallBasis, truth: tuple[Tensor, MomentPair]) -> None:
    rotation = random_rotations(5, torch.Generator().manual_seed(1))
    to = RingInterpolation(DISK, RING)
    phi = angles_of(to.angles)
    places = (RING[:, None, None] * torch.stack((phi.cos(), phi.sin()), dim=1)).reshape(-1, 2)
    expected = slices(basis, truth[0], rotation, places).unflatten(1, (len(RING), -1))
    on_disk = slices(basis, truth[0], rotation, DISK.pixels.double()).to(torch.complex64)
    half = to.images(on_disk)
    assert error(half, expected[:, :, : to.angles // 2], torch.ones(1)) < 0.01
    frequency = torch.arange(to.angles // 2 + 1)[:, None] * phi
    fourier = expected @ torch.polar(torch.ones_like(frequency), -frequency).T / to.angles
    assert error(to.coefficients(half), fourier, torch.ones(1)) < 0.01
    transfer = astigmatic(3, torch.Generator().manual_seed(4))
    coefficients = to.coefficients(to.transfer(transfer))
    as_images = to.coefficients(to.images(transfer + 0j))
    torch.testing.assert_close(coefficients, as_images, atol=1e-5, rtol=0)


def test_moments_of_noisy_shifted_images_are_those_of_the_map(
    basis: BallBasis, truth: tuple[Tensor, MomentPair], images: LowImages
) -> None:
    coefficients, expected = truth
    found = moments_of((images[rows] for rows in torch.arange(len(images)).split(1000)), SHELL)
    assert found.count == len(images)
    torch.testing.assert_close(found.ring, RING)
    assert error(found.moments.first, expected.first, found.weight.diagonal()) < 0.03
    assert second_error(found, expected) < 0.05
    # what is left is less the more images there are
    fewer = moments_of([images[:200]], SHELL)
    assert second_error(fewer, expected) > 2 * second_error(found, expected)
    # halves tell how large it is
    true_error = relative_errors(fewer.moments, expected, RING, fewer.weight)[1]
    assert sampling_error(fewer) == pytest.approx(float(true_error), rel=0.3)
    # noise, shifts and transfer functions each matter by more
    interpolation = RingInterpolation(DISK, RING)
    power = images.ctf.square().mean()
    noisy = found.moments.second + interpolation.noise / power
    assert error(noisy, expected.second, found.weight[:, :, None]) > 0.07
    still = MapMoments(basis, RING, interpolation.angles).uniform(coefficients)
    assert second_error(found, still) > 0.1
    signs = LowImages(DISK, images.images, images.ctf.sign())
    assert second_error(moments_of([signs], SHELL), expected) > 0.3


def test_noise_alone_has_no_moments(truth: tuple[Tensor, MomentPair]) -> None:
    generator = torch.Generator().manual_seed(5)
    noise = images_to_disk(torch.randn(8_000, BOX, BOX, generator=generator), DISK)
    found = moments_of([LowImages(DISK, noise, astigmatic(8_000, generator))], SHELL)
    on_rings = RingInterpolation(DISK, RING).noise
    scale = float((found.weight[:, :, None] * on_rings).norm())
    assert float((found.weight[:, :, None] * found.moments.second).norm()) < 0.05 * scale


def test_what_images_were_multiplied_with_does_not_matter(images: LowImages) -> None:
    """Contrast and grey scale are in the transfer function."""
    few = images[:500]
    plain = moments_of([few], SHELL)
    half = moments_of([LowImages(DISK, few.images, -2 * few.ctf)], SHELL)
    torch.testing.assert_close(half.moments.first, plain.moments.first / -2)
    torch.testing.assert_close(half.moments.second, plain.moments.second / 4, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(half.weight, plain.weight)


def test_no_images_are_an_error(images: LowImages) -> None:
    with pytest.raises(ValueError, match="no images"):
        moments_of([], SHELL)
    with pytest.raises(ValueError, match="no images with a contrast transfer"):
        moments_of([LowImages(DISK, images.images[:5], 0 * images.ctf[:5])], SHELL)
