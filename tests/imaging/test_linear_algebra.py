"""Mixtures and inner products of volumes."""

from __future__ import annotations

import torch

from solvar_engine.imaging.linear_algebra import inner_products, mix
from tests.reconstruction.simulated import noise

BOX, RANK = 12, 3


def test_mixing_and_inner_products_are_matrix_products() -> None:
    factors = noise(RANK, BOX, BOX, BOX)
    matrix = noise(RANK, 2, seed=3, dtype=torch.float64)
    flat = factors.flatten(1).double()
    torch.testing.assert_close(mix(factors, matrix).flatten(1).double(), matrix.T @ flat, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(inner_products(factors, factors[:2]), flat @ flat[:2].T)
