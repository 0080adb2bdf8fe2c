"""What images have of themselves in the components that they helped to find."""

from __future__ import annotations

import torch

from solvar_engine.estimation.judging.components import LatentBatch
from solvar_engine.estimation.judging.own_influence import _Moments, without_own_influence
from tests.reconstruction.simulated import noise

COUNT = 5000


def of_double(*shape: int, seed: int = 0) -> torch.Tensor:
    return noise(*shape, seed=seed, dtype=torch.float64)


def moments(coordinates: torch.Tensor, variance: torch.Tensor, influence: torch.Tensor) -> _Moments:
    """Of coordinates (n, r) that their images' own influence lengthens, and of as many that are free of it."""
    longer = coordinates / (1 - variance * influence)
    sums = longer.square(), coordinates.square(), variance * longer.square(), (variance * longer).square()
    return _Moments(*(values.sum(dim=0) for values in sums))


def test_influence_is_what_makes_coordinates_longer_than_held_out_ones() -> None:
    expected = torch.tensor([0.3, 0.7, 0.0], dtype=torch.float64)
    variance = 0.1 + 0.8 * torch.rand(COUNT, 3, generator=torch.Generator().manual_seed(1)).double()
    found = moments(of_double(COUNT, 3), variance, expected).influence()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_coordinates_that_are_no_longer_than_held_out_ones_have_no_influence() -> None:
    ones = torch.ones(2, dtype=torch.float64)
    shorter = _Moments(in_sample=ones, held_out=torch.tensor([1.2, 9.0]).double(), linear=ones, square=ones)
    assert not shorter.influence().any()


def test_influence_is_taken_from_the_images_that_were_fitted() -> None:
    """m - P h m in units of the prior, P the whole posterior covariance; others, and all precisions, stay."""
    eigenvalues = torch.tensor([4.0, 0.25], dtype=torch.float64)
    root = of_double(6, 2, 2, seed=3)
    precision = root @ root.mT + torch.diag(1 / eigenvalues)
    z, zero = of_double(6, 2, seed=4), torch.zeros(6)
    latents = LatentBatch(torch.arange(6), z.float(), precision.float(), zero.double(), zero, zero)
    influence = torch.tensor([0.3, 0.9], dtype=torch.float64)
    rows = torch.tensor([0, 2, 5])
    found = without_own_influence(latents, rows, eigenvalues, influence)
    deviation = eigenvalues.sqrt()
    for row in range(6):
        unit = z[row] / deviation
        covariance = torch.linalg.inv(precision[row]) / (deviation[:, None] * deviation)
        expected = (unit - covariance @ (influence * unit)) * deviation if row in rows else z[row]
        torch.testing.assert_close(found.z[row].double(), expected, rtol=1e-5, atol=1e-5)
    assert found.precision is latents.precision
    assert float((found.z - latents.z).abs().max()) > 0.1
