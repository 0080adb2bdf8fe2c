"""Gauge, half-set agreement and the prior that does not shrink eigenvalues.

At a stationary point mean(S_i + m_i m_i^T) = I + V^T T^-1 V / n: an eigenvalue above one of that matrix measures how
much a prior has shrunk V. A prior variance that is estimated from the shrunken V feeds back and collapses. The Fourier
shell correlation of two independent half-sets ignores the scale of a shell, so a prior made from it cannot.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import volume_to_ft
from solvar_engine.imaging.linear_algebra import inner_products, mix
from solvar_engine.imaging.shells import coefficients_per_shell, shell_count, shell_sum, shells_to_volume
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
        return factors1.new_zeros(shell_count(box_size), shell_count(box_size), dtype=torch.float64)
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


class Penalty(Protocol):
    """A quadratic form in the factors that is added to an objective.

    In every coefficient k it is 1/2 V_k^T W(k) V_k, with the symmetric r-by-r matrices W in the units of the density.
    """

    def gradient(self, factors_ft: Tensor) -> Tensor:
        """W V of factors (r, z, y, x // 2 + 1), complex."""
        ...

    def diagonal(self, vectors: Tensor) -> Tensor:
        """Curvature along each of the orthonormal mixtures ``vectors`` (r, r) of factors, (r, z, y, x // 2 + 1)."""
        ...

    def precision(self) -> Tensor:
        """How strongly each factor is held down, in the units of the density, (r, z, y, x // 2 + 1)."""
        ...


class ComponentPrior:
    """Gaussian prior of every factor: W is diagonal.

    Parameters
    ----------
    precision : Tensor, shape (r, shells)
        Inverse prior variance.
    box_size : int
    """

    def __init__(self, precision: Tensor, box_size: int) -> None:
        self._field = _shell_fields(precision, box_size)

    def gradient(self, factors_ft: Tensor) -> Tensor:
        """Each coefficient times its inverse prior variance."""
        return self._field * factors_ft

    def diagonal(self, vectors: Tensor) -> Tensor:
        """Inverse prior variances, mixed."""
        return mix(self._field, vectors**2)

    def precision(self) -> Tensor:
        """Inverse prior variances."""
        return self._field


class WeightedPrior:
    """Prior of factors that the images determine by D times a matrix K, not by D alone: W = p^(1/2) K p^(1/2).

    Where p = D (1 - F) / F it keeps the share F of each coefficient, whatever K is: a Wiener filter.

    Parameters
    ----------
    precision : Tensor, shape (r, shells)
        p of each factor.
    box_size : int
    weight : Tensor, shape (r, r)
        K, which is proportional to the square of the factors.
    """

    def __init__(self, precision: Tensor, box_size: int, weight: Tensor) -> None:
        self._precision, self._box_size, self._weight = precision.double(), box_size, weight
        self._root = _shell_fields(precision, box_size).sqrt()

    def gradient(self, factors_ft: Tensor) -> Tensor:
        """W V at the present weight."""
        return self._root * mix(self._root * factors_ft, self._weight)

    def diagonal(self, vectors: Tensor) -> Tensor:
        """Twice that of W, since the weight follows the factors."""
        root = self._precision.sqrt()
        mixed = torch.einsum("ij,is,ik,ks,kj->js", vectors, root, self._weight, root, vectors)
        return _shell_fields(2 * mixed, self._box_size)

    def precision(self) -> Tensor:
        """Inverse prior variances: W without the weight, which is that of the images, too."""
        return self._root**2


def _shell_fields(values: Tensor, box_size: int) -> Tensor:
    """Spread values per shell (r, shells) over spectra, their largest beyond the last shell."""
    return shells_to_volume(values.float(), box_size, beyond=float(values.max()))


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
    fall = ((known - 1) / torch.arange(known, shells, dtype=values.dtype, device=values.device)) ** decay
    return torch.cat((values, last * fall), dim=-1)
