"""The gauge of factors: V and V R give the same covariance, so one of them is chosen, the same in both half-sets."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.imaging.linear_algebra import inner_products, mix


def fix_gauge(factors: Tensor, second_moment: Tensor) -> Tensor:
    """Bring factors to mean(S + m m^T) = I with orthogonal columns, sorted by norm.

    Parameters
    ----------
    factors : Tensor, shape (r, z, y, x)
    second_moment : Tensor, shape (r, r)
        mean(S + m m^T) of the images under these factors.

    Returns
    -------
    Tensor, shape (r, z, y, x)
        The covariance V mean(S + m m^T) V^T is unchanged.
    """
    values, vectors = torch.linalg.eigh(second_moment.double())
    root = vectors * values.clamp_min(1e-12).sqrt() @ vectors.T
    scaled = mix(factors, root)
    inner = inner_products(scaled, scaled)
    return mix(scaled, torch.linalg.eigh(inner).eigenvectors.flip(1))


def align_halves(factors1: Tensor, factors2: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate the factors of two half-sets onto each other by the SVD of their cross-covariance.

    Parameters
    ----------
    factors1, factors2 : Tensor, shape (r, z, y, x)
        Each in its gauge.

    Returns
    -------
    tuple of two Tensors
        Column j of one now corresponds to column j of the other, most agreeing first.
    """
    left, _, right = torch.linalg.svd(inner_products(factors1, factors2))
    return mix(factors1, left), mix(factors2, right.T)
