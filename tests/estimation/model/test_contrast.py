"""The spread of the contrast, from what each image says of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.model.contrast import LARGEST_VARIANCE, contrast_evidence, contrast_variance
from solvar_engine.estimation.model.expectation import contrast_variance_without_factors
from tests.estimation.problems import full_band
from tests.reconstruction.simulated import LinearPhantom, noise, simulate

IMAGES, PIXELS, RANK = 6, 15, 2


def images(variance: float, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Information of each image on its contrast, the error of its contrast, and its evidence."""
    generator = torch.Generator().manual_seed(seed)
    gram = 20 + 400 * torch.rand(count, generator=generator, dtype=torch.float64)
    error = variance**0.5 * torch.randn(count, generator=generator, dtype=torch.float64)
    inner = gram * error + gram.sqrt() * torch.randn(count, generator=generator, dtype=torch.float64)
    return gram, error, torch.stack((gram, inner), dim=1)


def test_evidence_is_generalised_least_squares() -> None:
    """Against dense covariances: p^T Sigma^-1 p and p^T Sigma^-1 e."""
    columns = noise(IMAGES, PIXELS, RANK + 2, dtype=torch.float64)
    contrast = torch.linspace(0.5, 1.5, IMAGES, dtype=torch.float64)
    evidence = contrast_evidence(columns.transpose(1, 2) @ columns, contrast)
    for image, a, (gram, inner) in zip(columns, contrast, evidence, strict=True):
        mean, factors, data = a * image[:, 0], a * image[:, 1:-1], image[:, -1]
        weighted = torch.linalg.solve(torch.eye(PIXELS, dtype=torch.float64) + factors @ factors.T, mean)
        assert float(gram) == pytest.approx(float(weighted @ mean), rel=1e-10)
        assert float(inner) == pytest.approx(float(weighted @ (data - mean)), rel=1e-10)


@pytest.mark.parametrize("variance", [0.0025, 0.04, 0.25])
def test_variance_is_found(variance: float) -> None:
    *_, evidence = images(variance, 20_000)
    assert contrast_variance(evidence) == pytest.approx(variance, rel=0.04)


def test_variance_is_the_maximum_of_the_likelihood() -> None:
    gram, _, evidence = images(0.04, 300)

    def objective(variance: float) -> float:
        spread = gram + variance * gram**2
        return float((spread.log() + evidence[:, 1] ** 2 / spread).sum())

    found = contrast_variance(evidence)
    assert objective(found) < min(objective(1.02 * found), objective(found / 1.02))


def test_images_of_equal_contrast_have_no_spread_beyond_its_uncertainty() -> None:
    for seed in range(5):
        *_, evidence = images(0.0, 5_000, seed)
        assert contrast_variance(evidence) < 2e-4  # one image alone would know it to 5e-3


def test_spread_without_bound_is_bounded() -> None:
    assert contrast_variance(torch.tensor([[10.0, 1000.0]])) == LARGEST_VARIANCE


@pytest.mark.parametrize("deviation", [0.0, 0.25])
def test_spread_of_simulated_images_is_found_without_factors(deviation: float) -> None:
    generator = torch.Generator().manual_seed(3)
    contrast = 1 + deviation * torch.randn(800, generator=generator)
    still = LinearPhantom.create(1, strength=0.0).scaled(6.0)
    simulation = simulate(still, 800, 12, contrast=contrast)
    source = replace(simulation.source, contrast=torch.ones(800))
    variance = contrast_variance_without_factors(source, source.everyone, full_band(simulation))
    assert variance**0.5 == pytest.approx(deviation, rel=0.1, abs=0.05)
