"""The compiled average of second moments against dense formulas."""

from __future__ import annotations

import pytest
import torch

from solvar_engine.estimation.model.latent_moments import mean_second_moment
from solvar_engine.estimation.model.statistics import Statistics


@pytest.mark.parametrize("rank", [1, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_average_is_that_of_the_posteriors(rank, dtype):
    generator = torch.Generator().manual_seed(rank)
    slices = torch.randn(100, 9, rank, generator=generator, dtype=torch.float64)
    gram = (slices.transpose(1, 2) @ slices).to(dtype)
    inner = torch.randn(100, rank, generator=generator, dtype=torch.float64).to(dtype)
    root = torch.randn(rank, rank, generator=generator, dtype=torch.float64)
    covariance = torch.linalg.inv(torch.linalg.inv(root @ root.T) + gram.double())
    mean = (covariance @ inner.double()[..., None])[..., 0]
    expected = covariance.mean(dim=0) + mean.T @ mean / 100
    found = mean_second_moment(Statistics(gram, inner, torch.zeros(100, dtype=dtype)), root @ root.T)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_a_variance_may_vanish():
    prior = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    gram = torch.eye(2, dtype=torch.float64).expand(5, 2, 2).contiguous()
    found = mean_second_moment(Statistics(gram, torch.ones(5, 2, dtype=torch.float64), torch.zeros(5)), prior)
    torch.testing.assert_close(found, torch.tensor([[0.75, 0.0], [0.0, 0.0]], dtype=torch.float64))
