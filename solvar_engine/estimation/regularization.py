"""Gauge, half-set agreement and the prior that does not shrink eigenvalues.

At a stationary point mean(S_i + m_i m_i^T) = I + V^T T^-1 V / n: an eigenvalue above one of that matrix measures how
much a prior has shrunk V. A prior variance that is estimated from the shrunken V feeds back and collapses. The Fourier
shell correlation of two independent half-sets ignores the scale of a shell, so a prior made from it cannot.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import volume_to_ft
from solvar_engine.imaging.shells import coefficients_per_shell, shell_sum
from solvar_engine.reconstruction.mean import precision_from_fsc

_POOLED_COEFFICIENTS = 200  # shells with fewer are pooled with their neighbours


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


def component_fsc(factors1: Tensor, factors2: Tensor) -> Tensor:
    """Correlation per component and shell of two aligned half-sets, pooled over neighbours of small shells.

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
    pool = _pooling(box_size)
    cross, power1, power2 = cross @ pool.T, power1 @ pool.T, power2 @ pool.T
    return cross / (power1 * power2).clamp_min(1e-300).sqrt()


def covariance_fsc(factors1: Tensor, factors2: Tensor) -> Tensor:
    """Correlation of two low-rank covariances within each shell: the diagonal of eq. 10 (Yadgar et al. 2026, A.2).

    Parameters
    ----------
    factors1, factors2 : Tensor, shape (r, z, y, x)

    Returns
    -------
    Tensor, shape (shells,), float64
    """
    box_size = factors1.shape[-1]
    first, second = volume_to_ft(factors1), volume_to_ft(factors2)

    def energy(left: Tensor, right: Tensor) -> Tensor:
        rows = [shell_sum((field * right.conj()).real, box_size) for field in left]
        return (torch.stack(rows) ** 2).sum(dim=(0, 1))

    norm = (energy(first, first) * energy(second, second)).clamp_min(1e-300).sqrt()
    return energy(first, second) / norm


def _pooling(box_size: int) -> Tensor:
    """Rows of weights that average each shell with as many neighbours as it needs."""
    counts = coefficients_per_shell(box_size)
    shells = counts.shape[0]
    pooling = torch.zeros(shells, shells, dtype=torch.float64)
    for shell in range(shells):
        reach = 1
        while reach < shells and counts[max(0, shell - reach) : shell + reach + 1].sum() < _POOLED_COEFFICIENTS:
            reach += 1
        pooling[shell, max(0, shell - reach) : shell + reach + 1] = 1.0
    return pooling


def component_precision(correlation: Tensor, half_density: Tensor) -> Tensor:
    """Inverse prior variance 1/tau_js = D_s (1 - F_js) / F_js, D that of one half-set.

    Parameters
    ----------
    correlation : Tensor, shape (r, shells)
    half_density : Tensor, shape (shells,)

    Returns
    -------
    Tensor, shape (r, shells), float64
    """
    return precision_from_fsc(correlation.clamp_min(0.02), half_density)


def extend_shells(values: Tensor, shells: int, decay: float = 0.0) -> Tensor:
    """Continue values per shell to higher shells from the average of the last three.

    Parameters
    ----------
    values : Tensor, shape (..., known shells)
    shells : int
    decay : float
        Exponent of the fall with the shell number, (last / shell)^decay: a correlation that is not measured yet is
        better guessed low, because noise that was let in stays, and shrinkage does not hide correlation.

    Returns
    -------
    Tensor, shape (..., shells)
    """
    known = values.shape[-1]
    if shells <= known:
        return values[..., :shells]
    last = values[..., -3:].mean(dim=-1, keepdim=True)
    fall = ((known - 1) / torch.arange(known, shells, dtype=values.dtype)) ** decay
    return torch.cat((values, last * fall), dim=-1)


def mix(factors: Tensor, matrix: Tensor) -> Tensor:
    """Linear combinations of factors: column j of the result is sum_i factors_i matrix_ij."""
    return torch.einsum("izyx,ij->jzyx", factors, matrix.to(factors))


def inner_products(factors1: Tensor, factors2: Tensor) -> Tensor:
    """Real-space inner products, shape (r1, r2), float64."""
    first, second = factors1.flatten(1), factors2.flatten(1)
    return first.double() @ second.double().T
