"""How the particles of an epoch are dealt into mini-batches."""

from __future__ import annotations

import torch

from solvar_engine.estimation.solver.mini_batches import split_batches


def test_batches_are_a_partition_of_nearly_equal_size_in_file_order() -> None:
    index = torch.arange(5, 52, 2)
    parts = split_batches(index, 5, torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat(parts).sort().values, index)
    sizes = [len(part) for part in parts]
    assert len(sizes) == 5 and max(sizes) - min(sizes) <= 1
    assert all(bool((part.diff() > 0).all()) for part in parts)
    assert not torch.equal(torch.cat(parts), index)


def test_batches_depend_on_the_seed_only() -> None:
    index = torch.arange(40)
    first, same, other = (split_batches(index, 4, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first[0], other[0])
