"""How far the factors of two independent half-sets agree, shell by shell."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import volume_to_ft
from solvar_engine.imaging.shells import coefficients_per_shell, shell_count, shell_sum

_POOLED_COEFFICIENTS = 200  # shells with fewer are pooled with their neighbours


def factor_fsc(factors1: Tensor, factors2: Tensor) -> Tensor:
    """Correlation per factor and shell of two aligned half-sets, pooled over neighbours of small shells.

    Parameters
    ----------
    factors1, factors2 : Tensor, shape (r, z, y, x)

    Returns
    -------
    Tensor, shape (r, shells), float64
    """
    box_size = factors1.shape[-1]
    first, second = volume_to_ft(factors1), volume_to_ft(factors2)
    cross = shell_sum((first * second.conj()).real, box_size)
    power1, power2 = shell_sum(first.abs() ** 2, box_size), shell_sum(second.abs() ** 2, box_size)
    pool = _pooling(box_size).to(cross.device)
    cross, power1, power2 = cross @ pool.T, power1 @ pool.T, power2 @ pool.T
    return cross / (power1 * power2).clamp_min(1e-300).sqrt()


def covariance_fsc(factors1: Tensor, factors2: Tensor) -> Tensor:
    """Correlation of two low-rank covariances V V^T for each pair of shells (Yadgar et al. 2026, eq. 10).

    The block of a covariance between two shells is of low rank, too, so its inner products need only those of the
    factors: <A, B>_ij = sum_mn <a_m, b_n>_i <a_m, b_n>_j.

    Parameters
    ----------
    factors1, factors2 : Tensor, shape (r, z, y, x)

    Returns
    -------
    Tensor, shape (shells, shells), float64
        The diagonal compares the covariances within each shell; zero without factors.
    """
    box_size = factors1.shape[-1]
    if not (factors1.shape[0] and factors2.shape[0]):
        return torch.zeros(shell_count(box_size), shell_count(box_size), dtype=torch.float64, device=factors1.device)
    first, second = volume_to_ft(factors1), volume_to_ft(factors2)

    def inner(left: Tensor, right: Tensor) -> Tensor:
        products = torch.cat([shell_sum((field * right.conj()).real, box_size) for field in left])
        return products.T @ products

    norm = (inner(first, first) * inner(second, second)).clamp_min(1e-300).sqrt()
    return inner(first, second) / norm


def _pooling(box_size: int) -> Tensor:
    """Rows of weights that average each shell with as many neighbours as it needs; made on the CPU."""
    counts = coefficients_per_shell(box_size)
    shells = counts.shape[0]
    pooling = torch.zeros(shells, shells, dtype=torch.float64)
    for shell in range(shells):
        reach = 1
        while reach < shells and counts[max(0, shell - reach) : shell + reach + 1].sum() < _POOLED_COEFFICIENTS:
            reach += 1
        pooling[shell, max(0, shell - reach) : shell + reach + 1] = 1.0
    return pooling
