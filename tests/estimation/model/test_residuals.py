"""What the model leaves unexplained is the noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.model.residuals import ResidualNoise, residual_power
from solvar_engine.imaging.fourier import HalfDisk, images_to_disk
from tests.estimation.problems import DenseModel, full_band, in_double
from tests.reconstruction.simulated import LinearPhantom, noise, simulate

BOX, RANK = 12, 4


def average_power(source, band, factors: Tensor) -> float:
    power = torch.cat([power for _, power, _ in residual_power(source, source.everyone, band, factors)])
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
    assert torch.equal(torch.cat([index for index, _, _ in parts]), source.everyone)
    torch.testing.assert_close(torch.cat([power for _, power, _ in parts]).double(), expected, rtol=1e-6, atol=1e-6)


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


# --- noise from residuals

DISK = HalfDisk.create(24)


def spectrum(steepness: float) -> Tensor:
    """A noise variance per shell that falls smoothly."""
    shell = torch.arange(DISK.shell_max + 1, dtype=torch.float64)
    return 0.5 + 2.0 * torch.exp(-steepness * shell)


def coloured_coefficients(variance: Tensor, count: int, seed: int) -> Tensor:
    return images_to_disk(noise(count, 24, 24, seed=seed), DISK) * variance.sqrt().float()[DISK.shell]


def test_true_spectra_of_two_groups_are_returned_whatever_whitened_before() -> None:
    """Coloured noise without signal, whitened by a wrong first guess."""
    truth = torch.stack((spectrum(0.3), 3.0 * spectrum(0.05)))
    guess = torch.stack((torch.linspace(0.2, 4.0, DISK.shell_max + 1), torch.full((DISK.shell_max + 1,), 2.0)))
    collected = ResidualNoise(2, DISK)
    for seed, group in ((0, 0), (1, 1), (2, 0), (3, 1), (4, 1)):
        whitened = coloured_coefficients(truth[group], 200, seed) / guess[group].sqrt()[DISK.shell]
        collected.add(whitened.abs() ** 2, torch.full((200,), group), torch.ones(200, len(DISK)))
    found = collected.update(guess)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:, 1:].double(), truth[:, 1:], rtol=0.07, atol=0)
    assert torch.equal(found[:, 0], guess[:, 0])  # the origin has no noise of its own


def test_groups_may_be_mixed_in_a_batch_and_have_unequal_sizes() -> None:
    power = torch.ones(5, len(DISK)) * torch.tensor([1.0, 2.0, 2.0, 1.0, 2.0])[:, None]
    group = torch.tensor([0, 1, 1, 0, 1])
    collected = ResidualNoise(2, DISK)
    collected.add(power[:2], group[:2], torch.ones(2, len(DISK)))
    collected.add(power[2:], group[2:], torch.ones(3, len(DISK)))
    found = collected.update(torch.ones(2, DISK.shell_max + 1))
    torch.testing.assert_close(found[:, 1:], torch.tensor([1.0, 2.0])[:, None].expand(-1, DISK.shell_max))


def test_group_without_images_keeps_its_noise() -> None:
    collected = ResidualNoise(2, DISK)
    collected.add(torch.full((3, len(DISK)), 2.0), torch.zeros(3, dtype=torch.int64), torch.ones(3, len(DISK)))
    before = torch.full((2, DISK.shell_max + 1), 5.0)
    assert collected.update(before)[:, 1].tolist() == [10.0, 5.0]


def test_shells_that_a_group_does_not_see_keep_their_noise() -> None:
    collected = ResidualNoise(1, DISK)
    power = torch.where(DISK.shell <= 6, 3.0, 0.0).expand(4, -1)
    collected.add(power, torch.zeros(4, dtype=torch.int64), torch.ones(4, len(DISK)))
    found = collected.update(torch.full((1, DISK.shell_max + 1), 2.0))[0]
    assert found[1:7].tolist() == [6.0] * 6
    assert found[7:].tolist() == [2.0] * (DISK.shell_max - 6)


def test_shell_that_a_group_sees_in_part_is_measured_on_that_part() -> None:
    """A group's own Nyquist cuts through a shell of the common grid; pixels beyond it are exactly zero."""
    seen = DISK.pixels.double().norm(dim=1) <= 7.0
    assert 0 < int(seen[DISK.shell == 7].sum()) < int((DISK.shell == 7).sum())
    collected = ResidualNoise(1, DISK)
    power, kept = torch.where(seen, 3.0, 0.0).expand(4, -1), torch.ones(4, len(DISK))
    collected.add(power, torch.zeros(4, dtype=torch.int64), kept)
    found = collected.update(torch.full((1, DISK.shell_max + 1), 2.0))[0]
    assert float(found[7]) == pytest.approx(6.0)
