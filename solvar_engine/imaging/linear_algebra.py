"""Linear algebra of sets of volumes: mixtures, bases, inner products."""

from __future__ import annotations

import torch
from torch import Tensor


def mix(factors: Tensor, matrix: Tensor) -> Tensor:
    """Linear combinations of factors or their transforms: column j of the result is sum_i factors_i matrix_ij."""
    return torch.einsum("izyx,ij->jzyx", factors, matrix.to(factors))


def orthonormal_basis(volumes: Tensor) -> Tensor:
    """Orthonormal volumes with the span of volumes (c, z, y, x), fewer if these depend on each other."""
    unit = volumes / volumes.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None, None]
    values, vectors = torch.linalg.eigh(inner_products(unit, unit))
    keep = values > 1e-6
    return mix(unit, vectors[:, keep] / values[keep].sqrt())


def inner_products(factors1: Tensor, factors2: Tensor) -> Tensor:
    """Real-space inner products, shape (r1, r2), float64."""
    first, second = factors1.flatten(1), factors2.flatten(1)
    return first.double() @ second.double().T
