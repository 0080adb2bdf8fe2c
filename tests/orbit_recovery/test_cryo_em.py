"""Basis, quadrature and projections of the low-dimensional model of cryo-EM."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from solvar_engine.imaging.harmonics import bessel_zeros, real_harmonics
from solvar_engine.imaging.so3_grid import super_fibonacci
from solvar_engine.orbit_recovery.cryo_em import cryo_instance, half_plane, slice_operators
from solvar_engine.orbit_recovery.harmonics import radial_functions, volume_basis
from solvar_engine.orbit_recovery.quadrature import orientations, spherical_design


def test_zeros_are_those_of_the_bessel_functions() -> None:
    of_zero, of_one, _, of_three, _ = bessel_zeros(5)
    np.testing.assert_allclose(of_zero, np.pi * np.arange(1, 6))
    # j_1 vanishes where tan x = x
    np.testing.assert_allclose(np.tan(of_one), of_one, rtol=1e-9)
    # tables of Abramowitz & Stegun, 10.59
    np.testing.assert_allclose(of_three, [6.987932, 10.417119], atol=1e-6)


@pytest.mark.parametrize("degree", [0, 2, 3])
def test_radial_functions_are_orthonormal_in_the_ball(degree: int) -> None:
    nodes, weights = np.polynomial.legendre.leggauss(60)
    radius = torch.from_numpy((nodes + 1) / 2)
    values = radial_functions(radius, degree, 4)
    gram = torch.einsum("n,ns,nt->st", torch.from_numpy(weights / 2) * radius**2, values, values)
    torch.testing.assert_close(gram, torch.eye(4, dtype=torch.float64), atol=1e-10, rtol=0)
    assert float(radial_functions(torch.tensor([1.0, 1.3], dtype=torch.float64), degree, 4).abs().max()) == 0.0


def test_harmonics_are_orthonormal_and_those_of_the_textbook() -> None:
    views = spherical_design(100, 13)
    all_degrees = real_harmonics(4, views)
    gram = 4 * math.pi * all_degrees.T @ all_degrees / len(views)
    torch.testing.assert_close(gram, torch.eye(25, dtype=torch.float64), atol=1e-8, rtol=0)
    x, y, z = views.T
    of_one = math.sqrt(3 / (4 * math.pi)) * torch.stack((y, z, x), dim=1)
    torch.testing.assert_close(all_degrees[:, 1:4], of_one)
    torch.testing.assert_close(all_degrees[:, 4], math.sqrt(15 / (4 * math.pi)) * x * y)


def test_too_few_points_make_no_design() -> None:
    with pytest.raises(ValueError, match="more points"):
        spherical_design(10, 6)


def test_orientations_are_rotations_about_their_views() -> None:
    views = spherical_design(24, 4)
    rotations = orientations(views, 6)
    assert rotations.shape == (144, 3, 3)
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3, dtype=torch.float64).expand(144, 3, 3))
    assert torch.linalg.det(rotations).min() > 0.99
    torch.testing.assert_close(rotations.reshape(24, 6, 3, 3)[:, :, 2], views[:, None].expand(24, 6, 3))
    cosine = (rotations.reshape(24, 6, 3, 3)[:, 0, 0] * rotations.reshape(24, 6, 3, 3)[:, 1, 0]).sum(dim=1)
    torch.testing.assert_close(cosine, torch.full((24,), math.cos(math.pi / 3), dtype=torch.float64))
    # all rotations of degree up to 4, and in-plane orders below 6, have the mean zero
    assert float(rotations.mean(dim=0).abs().max()) < 1e-9


def test_basis_is_that_of_real_volumes() -> None:
    frequency = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 3
    basis = volume_basis(frequency, 3, 4)
    assert basis.shape == (50, 64)
    torch.testing.assert_close(volume_basis(-frequency, 3, 4), basis.conj())


def test_slices_are_projections_of_a_gaussian_off_the_centre() -> None:
    """The transform of a turned Gaussian's projection is known in closed form."""
    box_size, centre, width = 15, torch.tensor([1.0, -0.7, 0.5], dtype=torch.float64), 2.2
    degree, radial = 5, 9
    line = torch.linspace(-1, 1, 13, dtype=torch.float64)
    frequency = torch.cartesian_prod(line, line, line)
    frequency = frequency[frequency.norm(dim=1) < 1]

    def transform(frequency: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        cycles = frequency / 2
        height = (-2 * (math.pi * width * cycles.norm(dim=1)).square()).exp()
        return height * torch.exp(-2j * math.pi * (cycles @ position))

    basis, values = volume_basis(frequency, degree, radial), transform(frequency, centre)
    coefficients = torch.linalg.lstsq(
        torch.cat((basis.real, basis.imag)), torch.cat((values.real, values.imag))[:, None]
    ).solution[:, 0]
    pixels = half_plane(box_size)
    root = torch.full((len(pixels), 1), math.sqrt(2), dtype=torch.float64)
    root[0] = 1
    rotations = super_fibonacci(7)
    slices = slice_operators(rotations, box_size, degree, radial) @ coefficients
    for rotation, found in zip(rotations, slices, strict=True):
        expected = root[:, 0] * transform(pixels, (rotation @ centre)[:2])
        wanted = torch.cat((expected.real, expected.imag[1:]))
        assert float((found - wanted).norm() / wanted.norm()) < 0.01
    with pytest.raises(ValueError, match="odd"):
        slice_operators(rotations, 16)


def test_half_plane_is_one_of_each_pair() -> None:
    pixels = half_plane(5)
    assert pixels[0].tolist() == [0, 0]
    both = torch.cat((pixels, -pixels[1:]))
    line = torch.arange(-2, 3, dtype=torch.float64) / 2.5
    inside = torch.cartesian_prod(line, line)
    inside = inside[inside.norm(dim=1) < 1]
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, inside.tolist()))


def test_instance_has_the_noise_that_it_says() -> None:
    instance = cryo_instance(count=60)
    again = cryo_instance(count=60)
    torch.testing.assert_close(instance.problem._observations, again.problem._observations)
    assert instance.problem.positions == 1200
    assert instance.problem.dimension == 64
    value = instance.problem.value_and_gradient(instance.coefficients)[0]
    predicted = instance.problem._operators @ instance.coefficients
    power = float(predicted.square().sum()) / (1200 * 15**2)
    assert power / instance.problem._variance == pytest.approx(0.34, rel=0.05)
    # of noise: 177 / 2 for the residuals, and the logarithm of the share of orientations that fit
    assert 177 / 2 - 5 < value < 177 / 2 + math.log(1200)
    step = 1e-5 * torch.randn(64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    upper, lower = (instance.problem.value_and_gradient(instance.start + sign * step) for sign in (1, -1))
    gradient = instance.problem.value_and_gradient(instance.start)[1]
    assert upper[0] - lower[0] == pytest.approx(2 * float(gradient @ step), rel=1e-5)
