"""Samples of particles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvar_engine.imaging.sampling import random_rows, sample_of, sample_of_at_least


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (7, 7), (8, 4), (14, 7), (15, 5), (700, 7), (0, 0)])
def test_sample_is_spread_evenly_over_the_particles_and_no_larger_than_asked_for(count: int, kept: int) -> None:
    index = 3 * torch.arange(count) + 5
    sample = sample_of(index, 7)
    assert len(sample) == kept
    stride = -(-count // 7)
    assert torch.equal(sample, 3 * stride * torch.arange(kept) + 5)


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (7, 7), (13, 13), (14, 7), (15, 8), (20, 10), (21, 7), (0, 0)])
def test_sample_is_no_smaller_than_asked_for(count: int, kept: int) -> None:
    rows = np.arange(2 * count).reshape(count, 2)
    sample = sample_of_at_least(rows, 7)
    assert len(sample) == kept
    assert np.array_equal(sample, rows[np.arange(kept) * max(1, count // 7)])


@pytest.mark.parametrize("count", [5, 20, 1000])
def test_random_rows_are_in_order_without_repeats_and_spread_over_all(count: int) -> None:
    rows = [random_rows(count, 20, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(rows[0], rows[1])
    assert len(rows[0]) == min(count, 20) and (np.diff(rows[0]) > 0).all()
    assert np.array_equal(rows[0], np.arange(count)) if count <= 20 else not np.array_equal(rows[0], rows[2])
    assert rows[0].min() < 0.5 * count <= rows[0].max() + 1 <= count
