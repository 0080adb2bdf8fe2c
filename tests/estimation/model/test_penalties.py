"""Penalties of the factors against dense matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.model.penalties import FactorPrior, Penalty, WeightedPrior
from solvar_engine.imaging.fourier import ft_to_volume, low_pass, volume_to_ft
from solvar_engine.imaging.shells import radial_average, shell_sum, shells_to_volume
from tests.estimation.volumes import BOX, RANK, any_factors, any_rotation, any_second_moment
from tests.reconstruction.simulated import noise, relative_error

SHELLS = BOX // 2
PRECISION = torch.linspace(0.5, 4.0, RANK * SHELLS, dtype=torch.float64).reshape(RANK, SHELLS)
ONE = torch.eye(RANK, dtype=torch.float64)


@pytest.fixture(scope="module")
def factors() -> Tensor:
    return any_factors()


@pytest.fixture(scope="module")
def second_moment() -> Tensor:
    return any_second_moment()


def penalties(weight: Tensor) -> dict[str, Penalty]:
    return {"plain": FactorPrior(PRECISION, BOX), "weighted": WeightedPrior(PRECISION, BOX, weight)}


def dense_matrices(name: str, weight: Tensor) -> Tensor:
    """W of every shell, written out: (shells, r, r)."""
    root = PRECISION.sqrt()
    matrices = [torch.diag(root[:, s]) @ weight @ torch.diag(root[:, s]) for s in range(SHELLS)]
    return torch.diag_embed(PRECISION.T) if name == "plain" else torch.stack(matrices)


def form(matrices: Tensor, volumes: Tensor) -> Tensor:
    """1/2 sum V^T W V over the coefficients, where real space counts as sums over voxels do."""
    transform = volume_to_ft(volumes)
    fields = shells_to_volume(matrices.permute(1, 2, 0), BOX)
    pulled = torch.einsum("ijzyx,jzyx->izyx", fields.to(transform.dtype), transform)
    return 0.5 * shell_sum((transform.conj() * pulled).real, BOX).sum() / BOX


@pytest.mark.parametrize("name", ["plain", "weighted"])
def test_gradient_of_a_penalty_equals_finite_differences(factors, second_moment, name: str) -> None:
    """The form is of second order, so that central differences are exact."""
    volumes = low_pass(factors.double(), SHELLS - 1)
    matrices = dense_matrices(name, second_moment)
    gradient = ft_to_volume(penalties(second_moment)[name].gradient(volume_to_ft(volumes)), BOX)
    for seed in range(3):
        direction = low_pass(noise(*volumes.shape, seed=seed, dtype=torch.float64), SHELLS - 1)
        expected = 0.5 * float(form(matrices, volumes + direction) - form(matrices, volumes - direction))
        slope = float((gradient * direction).sum())
        assert slope == pytest.approx(expected, rel=1e-5, abs=1e-6 * float(gradient.norm() * direction.norm()))


@pytest.mark.parametrize("name", ["plain", "weighted"])
def test_diagonal_of_a_penalty_is_that_of_the_rotated_matrices(second_moment, name: str) -> None:
    """Twice of it for the weighted one, whose weight grows with the factors."""
    vectors = any_rotation()
    matrices = vectors.T @ dense_matrices(name, second_moment) @ vectors
    expected = {"plain": 1, "weighted": 2}[name] * matrices.diagonal(dim1=1, dim2=2).T
    diagonal = penalties(second_moment)[name].diagonal(vectors)
    torch.testing.assert_close(radial_average(diagonal, BOX), expected, rtol=1e-5, atol=1e-5)
    assert bool((diagonal > 0).all())


def test_weighted_prior_of_weight_one_is_the_prior(factors) -> None:
    transform = volume_to_ft(factors)
    plain, weighted = (penalty.gradient(transform) for penalty in penalties(ONE).values())
    assert relative_error(weighted, plain) < 1e-5
