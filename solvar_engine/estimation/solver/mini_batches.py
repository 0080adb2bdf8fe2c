"""How the particles of an epoch are dealt into mini-batches."""

from __future__ import annotations

import torch
from torch import Tensor


def split_batches(index: Tensor, count: int, generator: torch.Generator) -> list[Tensor]:
    """Deal particles at random into ``count`` mini-batches of nearly equal size, each in file order.

    The order comes from a generator of the CPU, so that it is the same on every device.
    """
    shuffled = index[torch.randperm(index.shape[0], generator=generator, device=generator.device)]
    return [part.sort().values for part in shuffled.tensor_split(count)]
