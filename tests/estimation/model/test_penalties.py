"""The penalty of the factors against dense matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.model.penalties import WeightedPrior
from solvar_engine.imaging.fourier import ft_to_volume, low_pass, volume_to_ft
from solvar_engine.imaging.shells import radial_average, shell_sum, shells_to_volume
from tests.estimation.volumes import BOX, RANK, any_factors, any_rotation, any_second_moment
from tests.reconstruction.simulated import noise

SHELLS = BOX // 2
PRECISION = torch.linspace(0.5, 4.0, RANK * SHELLS, dtype=torch.float64).reshape(RANK, SHELLS)


@pytest.fixture(scope="module")
def factors() -> Tensor:
    return any_factors()


@pytest.fixture(scope="module")
def second_moment() -> Tensor:
    return any_second_moment()


def dense_matrices(weight: Tensor) -> Tensor:
    """W of every shell, written out: (shells, r, r)."""
    root = PRECISION.sqrt()
    return torch.stack([torch.diag(root[:, s]) @ weight @ torch.diag(root[:, s]) for s in range(SHELLS)])


def form(matrices: Tensor, volumes: Tensor) -> Tensor:
    """1/2 sum V^T W V over the coefficients, where real space counts as sums over voxels do."""
    transform = volume_to_ft(volumes)
    fields = shells_to_volume(matrices.permute(1, 2, 0), BOX)
    pulled = torch.einsum("ijzyx,jzyx->izyx", fields.to(transform.dtype), transform)
    return 0.5 * shell_sum((transform.conj() * pulled).real, BOX).sum() / BOX


def test_gradient_of_the_penalty_equals_finite_differences(factors, second_moment) -> None:
    """The form is of second order, so that central differences are exact."""
    volumes = low_pass(factors.double(), SHELLS - 1)
    matrices = dense_matrices(second_moment)
    gradient = ft_to_volume(WeightedPrior(PRECISION, BOX, second_moment).gradient(volume_to_ft(volumes)), BOX)
    for seed in range(3):
        direction = low_pass(noise(*volumes.shape, seed=seed, dtype=torch.float64), SHELLS - 1)
        expected = 0.5 * float(form(matrices, volumes + direction) - form(matrices, volumes - direction))
        slope = float((gradient * direction).sum())
        assert slope == pytest.approx(expected, rel=1e-5, abs=1e-6 * float(gradient.norm() * direction.norm()))


def test_diagonal_of_the_penalty_is_twice_that_of_the_rotated_matrices(second_moment) -> None:
    """Twice, since the weight grows with the factors."""
    vectors = any_rotation()
    expected = 2 * (vectors.T @ dense_matrices(second_moment) @ vectors).diagonal(dim1=1, dim2=2).T
    diagonal = WeightedPrior(PRECISION, BOX, second_moment).diagonal(vectors)
    torch.testing.assert_close(radial_average(diagonal, BOX), expected, rtol=1e-5, atol=1e-5)
    assert bool((diagonal > 0).all())
