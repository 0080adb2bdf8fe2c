"""Correlation of two half-sets per shell."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.solver.agreement import covariance_fsc, factor_fsc
from solvar_engine.imaging.fourier import low_pass
from solvar_engine.imaging.linear_algebra import mix
from solvar_engine.imaging.shells import fsc
from tests.estimation.volumes import BOX, RANK, any_factors, any_rotation
from tests.reconstruction.simulated import noise


@pytest.fixture(scope="module")
def factors() -> Tensor:
    return any_factors()


def test_equal_factors_correlate_fully_whatever_their_scale(factors) -> None:
    one = torch.ones(RANK, BOX // 2, dtype=torch.float64)
    torch.testing.assert_close(factor_fsc(factors, factors), one)
    torch.testing.assert_close(factor_fsc(0.01 * factors, 7 * factors), one, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(factor_fsc(factors, -factors), -one)


def test_independent_factors_do_not_correlate(factors) -> None:
    correlation = factor_fsc(factors, noise(RANK, BOX, BOX, BOX, seed=13))
    # At least 200 coefficients, half of them independent: standard deviation below a tenth.
    assert float(correlation.abs().max()) < 0.35
    assert float(correlation.square().mean().sqrt()) < 0.1


def test_factors_are_compared_one_by_one(factors) -> None:
    mixed = torch.stack((factors[0], noise(BOX, BOX, BOX, seed=14), -factors[2]))
    correlation = factor_fsc(factors, mixed).mean(dim=1)
    assert float(correlation[0]) == pytest.approx(1.0, abs=1e-6)
    assert abs(float(correlation[1])) < 0.1
    assert float(correlation[2]) == pytest.approx(-1.0, abs=1e-6)


def test_large_shells_keep_their_own_correlation(factors) -> None:
    """Where shells hold many coefficients they are pooled with their two neighbours only."""
    other = low_pass(factors, 5.4)
    correlation = factor_fsc(factors, other)[0]
    plain = fsc(factors[0], other[0])
    assert float(correlation[4]) > 0.95 and float(plain[4]) > 0.99
    assert float(correlation[8:].abs().max()) < 0.2


def test_correlation_of_signal_in_noise_is_its_share() -> None:
    signal = noise(1, BOX, BOX, BOX, seed=1)
    halves = [signal + 0.5 * noise(1, BOX, BOX, BOX, seed=seed) for seed in (2, 3)]
    correlation = factor_fsc(*halves)[0, 3:]
    assert float(correlation.mean()) == pytest.approx(1 / 1.25, abs=0.03)


def test_covariance_correlation_of_equal_subspaces_is_one(factors) -> None:
    one = torch.ones(BOX // 2, dtype=torch.float64)
    torch.testing.assert_close(covariance_fsc(factors, factors).diagonal(), one)
    torch.testing.assert_close(covariance_fsc(factors, 3 * factors).diagonal(), one, rtol=1e-5, atol=1e-5)
    turned = covariance_fsc(factors, mix(factors, any_rotation()))
    torch.testing.assert_close(turned.diagonal(), one, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(turned, torch.ones(BOX // 2, BOX // 2, dtype=torch.float64), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(covariance_fsc(factors, -factors).diagonal(), one)


def test_covariance_correlation_equals_that_of_dense_matrices() -> None:
    """Inner products of the blocks of both covariances over their norms, for all pairs of shells."""
    box_size = 8
    first = noise(2, box_size, box_size, box_size, dtype=torch.float64)
    second = 0.5 * first + noise(2, box_size, box_size, box_size, seed=5, dtype=torch.float64)
    axis = torch.arange(box_size, dtype=torch.float64) - box_size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    shell = (x**2 + y**2 + z**2).sqrt().round().flatten()
    place = torch.stack((x.flatten(), y.flatten(), z.flatten()))
    angle = -2 * torch.pi / box_size * place.T @ place
    transform = torch.polar(torch.ones_like(angle), angle)
    coefficients = [transform @ factors.flatten(1).T.to(torch.complex128) for factors in (first, second)]
    dense = [columns @ columns.conj().T for columns in coefficients]
    correlation = covariance_fsc(first, second)
    shells = box_size // 2
    assert correlation.shape == (shells, shells)
    for row in range(shells):
        for column in range(shells):
            one, two = (covariance[shell == row][:, shell == column] for covariance in dense)
            expected = float((one * two.conj()).sum().real / (one.norm() * two.norm()))
            assert float(correlation[row, column]) == pytest.approx(expected, abs=1e-12)


def test_covariance_correlation_of_independent_subspaces_is_near_zero(factors) -> None:
    correlation = covariance_fsc(factors, noise(RANK, BOX, BOX, BOX, seed=13))
    assert bool((correlation.diagonal() >= 0).all())
    assert float(correlation[5:, 5:].abs().max()) < 0.02
