"""What the model leaves unexplained is the noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.model.residuals import residual_power
from tests.estimation.problems import DenseModel, full_band, in_double
from tests.reconstruction.simulated import LinearPhantom, simulate

BOX, RANK = 12, 4


def average_power(source, band, factors: Tensor) -> float:
    power = torch.cat([power for _, power in residual_power(source, source.everyone, band, factors)])
    weight = band.disk.weight / band.disk.weight.sum()
    return float((power.double() @ weight.double()).mean())


def test_residual_power_equals_the_dense_expectation() -> None:
    """|e - A m|^2 + diag(A S A^T), real and imaginary parts of a coefficient together."""
    contrast = torch.linspace(0.5, 1.5, 20)
    simulation = simulate(LinearPhantom.create(RANK).scaled(4.0), 20, BOX, contrast=contrast)
    source = simulation.source.double()
    band = replace(in_double(full_band(simulation)), contrast_variance=0.04)
    factors = simulation.phantom.factors(BOX).double()
    model = DenseModel.of(source, band, factors)
    mean, covariance = model.posterior()
    left = model.error - (model.loadings @ mean[..., None])[..., 0]
    spread = torch.einsum("npi,nij,npj->np", model.loadings, covariance, model.loadings)
    total = left.square() + spread
    # Undo real_rows: two real numbers per coefficient, scaled by the root of the weight.
    pixels = len(band.disk)
    expected = total[:, :pixels].clone()
    expected[:, 1:] += total[:, pixels:]
    expected /= band.disk.weight.double()
    limited = replace(source, batch_limit=7)
    parts = list(residual_power(limited, source.everyone, band, factors))
    assert torch.equal(torch.cat([index for index, _ in parts]), source.everyone)
    torch.testing.assert_close(torch.cat([power for _, power in parts]).double(), expected, rtol=1e-6, atol=1e-6)


def test_true_model_leaves_noise_of_variance_one() -> None:
    """And neither the plain residuals, nor those of the posterior mean alone, do."""
    simulation = simulate(LinearPhantom.create(RANK).scaled(2.0), 600, BOX)
    source, band = simulation.source, full_band(simulation)
    factors = simulation.phantom.factors(BOX)
    assert average_power(source, band, factors) == pytest.approx(1.0, abs=0.02)
    assert average_power(source, band, torch.zeros_like(factors)) > 1.1
    model = DenseModel.of(source, band, factors)
    mean, _ = model.posterior()
    left = model.error - (model.loadings @ mean[..., None])[..., 0]
    assert float(left.square().mean()) < 0.985
