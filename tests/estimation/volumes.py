"""Factors without any structure, for what holds for all factors."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reconstruction.simulated import noise

BOX, RANK = 24, 3


def any_factors() -> Tensor:
    return noise(RANK, BOX, BOX, BOX) * torch.tensor([3.0, 2.0, 1.0])[:, None, None, None]


def any_second_moment() -> Tensor:
    root = noise(RANK, RANK, seed=4, dtype=torch.float64)
    return root @ root.T + 0.3 * torch.eye(RANK, dtype=torch.float64)


def any_rotation(rank: int = RANK, seed: int = 6) -> Tensor:
    return torch.linalg.qr(noise(rank, rank, seed=seed, dtype=torch.float64)).Q
