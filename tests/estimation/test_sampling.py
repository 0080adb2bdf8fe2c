"""Samples of particles."""

from __future__ import annotations

import pytest
import torch

from solvar_engine.estimation.sampling import sample_of


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (7, 7), (8, 4), (14, 7), (15, 5), (700, 7), (0, 0)])
def test_sample_is_spread_evenly_over_the_particles_and_no_larger_than_asked_for(count: int, kept: int) -> None:
    index = 3 * torch.arange(count) + 5
    sample = sample_of(index, 7)
    assert len(sample) == kept
    stride = -(-count // 7)
    assert torch.equal(sample, 3 * stride * torch.arange(kept) + 5)
