"""Scores of an estimated covariance of volumes against the covariance of known states.

Both covariances are low-rank, S = U U^T with one column of U per state and S^ = W W^T with one per component,
so everything follows from the small Gram matrices of U and W; no voxel-by-voxel matrix is ever formed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 18
"""Voxels that are converted to float64 at a time."""


@dataclass(frozen=True)
class CovarianceScores:
    """Agreement of two covariances; see :func:`covariance_scores` for the definitions.

    Attributes
    ----------
    captured_variance : float
        Share of the true variance inside the span of all estimated components.
    captured_variance_2 : float
        True variance inside the span of the first two components, over the most that two components can hold.
    covariance_error : float
        ||S^ - S||_F / ||S||_F.
    covariance_error_scaled : float
        The same after the best rescaling of S^.
    eigenvalues_true : ndarray, shape (m,), float64
        Positive eigenvalues of S, descending.
    variance_along : ndarray, shape (r,), float64
        True variance along each estimated component (its Rayleigh quotient).
    """

    captured_variance: float
    captured_variance_2: float
    covariance_error: float
    covariance_error_scaled: float
    eigenvalues_true: NDArray[np.float64]
    variance_along: NDArray[np.float64]


def mean_scale(
    estimated: NDArray[np.floating], true: NDArray[np.floating], mask: NDArray[np.floating]
) -> float:
    """Least-squares scale alpha that takes an estimated mean volume onto the true one inside a mask.

    Parameters
    ----------
    estimated, true : ndarray, shape (z, y, x)
    mask : ndarray, shape (z, y, x)
        Weights of the voxels, 0 to 1.

    Returns
    -------
    float
        Estimated eigenvalues are to be multiplied by its square.

    Raises
    ------
    ValueError
        If the estimate is zero inside the mask.

    Examples
    --------
    >>> mean_scale(np.full((2, 2, 2), 2.0), np.full((2, 2, 2), 3.0), np.ones((2, 2, 2)))
    1.5
    """
    estimate, weight = estimated.astype(np.float64), mask.astype(np.float64)
    power = float((weight * estimate**2).sum())
    if power == 0.0:
        raise ValueError(
            "the estimated mean volume is zero inside the mask: it cannot be scaled to the truth"
        )
    return float((weight * estimate * true).sum()) / power


def state_factor(
    volumes: NDArray[np.floating], weight: NDArray[np.floating]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and covariance factor of a weighted set of states.

    Parameters
    ----------
    volumes : ndarray, shape (states, ...)
        One volume per state.
    weight : ndarray, shape (states,)
        Number or share of the particles in each state.

    Returns
    -------
    mean : ndarray, shape (...), float32
    factor : ndarray, shape (states, ...), float32
        sqrt(weight) times the deviation from the mean: the covariance is the sum of its outer products.

    Examples
    --------
    >>> mean, factor = state_factor(np.array([[1.0], [3.0]]), np.array([1.0, 1.0]))
    >>> float(mean[0]), float((factor**2).sum().round(5))
    (2.0, 1.0)
    """
    share = np.asarray(weight, dtype=np.float64) / np.sum(weight)
    mean = np.zeros(volumes.shape[1:], dtype=np.float64)
    for volume, part in zip(volumes, share, strict=True):
        mean += part * volume
    factor = np.empty(volumes.shape, dtype=np.float32)
    for row, (volume, part) in enumerate(zip(volumes, share, strict=True)):
        factor[row] = np.sqrt(part) * (volume - mean)
    return mean.astype(np.float32), factor


def covariance_scores(
    true_factor: NDArray[np.floating],
    eigenvolumes: NDArray[np.floating],
    eigenvalues: NDArray[np.floating],
) -> CovarianceScores:
    """Compare an estimated covariance with the true one over the whole box, without a mask.

    With P_k the projection onto the span of the first k eigenvolumes, captured variance is ||P_k U||_F^2 /
    ||U||_F^2.

    Parameters
    ----------
    true_factor : ndarray, shape (states, voxels)
        U^T, as :func:`state_factor` makes it.
    eigenvolumes : ndarray, shape (r, voxels)
        Of unit norm, nearly orthogonal; r may be 0.
    eigenvalues : ndarray, shape (r,)
        In the units of the truth.

    Raises
    ------
    ValueError
        If the shapes disagree or the truth does not vary.

    Examples
    --------
    >>> truth = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> scores = covariance_scores(truth, np.eye(3)[:1], np.array([4.0]))
    >>> scores.captured_variance, round(scores.covariance_error, 4)
    (0.8, 0.2425)
    """
    if true_factor.shape[1] != eigenvolumes.shape[1] or len(eigenvolumes) != len(eigenvalues):
        raise ValueError(
            f"the truth has {true_factor.shape[1]} voxels, the {len(eigenvolumes)} eigenvolumes have "
            f"{eigenvolumes.shape[1]}, and there are {len(eigenvalues)} eigenvalues"
        )
    true_gram = _gram(true_factor, true_factor)
    total = float(np.trace(true_gram))
    if total <= 0.0:
        raise ValueError("the true states do not differ: there is no covariance to compare with")
    spectrum = np.linalg.eigvalsh(true_gram)[::-1]
    cross = _gram(true_factor, eigenvolumes)
    own = _gram(eigenvolumes, eigenvolumes)
    norm = np.sqrt(np.asarray(eigenvalues, dtype=np.float64).clip(min=0.0))
    inner = float((cross**2 @ norm**2).sum())
    square_true = float((true_gram**2).sum())
    square_estimated = float(((own * np.outer(norm, norm)) ** 2).sum())
    return CovarianceScores(
        captured_variance=_captured(cross, own, len(own)) / total,
        captured_variance_2=_captured(cross, own, 2) / float(spectrum[:2].sum()),
        covariance_error=_root(square_estimated + square_true - 2.0 * inner, square_true),
        covariance_error_scaled=_root(square_true - _ratio(inner**2, square_estimated), square_true),
        eigenvalues_true=spectrum[spectrum > 1e-9 * total].astype(np.float64),
        variance_along=_ratio_per_row((cross**2).sum(axis=0), np.diag(own)),
    )


def _gram(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Inner products of rows, in float64, a chunk of voxels at a time."""
    result = np.zeros((len(first), len(second)))
    for start in range(0, first.shape[1], _CHUNK):
        part = slice(start, start + _CHUNK)
        result += first[:, part].astype(np.float64) @ second[:, part].astype(np.float64).T
    return result


def _captured(cross: NDArray[np.float64], own: NDArray[np.float64], count: int) -> float:
    """||P_k U||_F^2 from the inner products of the truth with, and among, the first k components."""
    part = cross[:, :count]
    return float((part * (part @ np.linalg.pinv(own[:count, :count], hermitian=True))).sum())


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0.0 else 0.0


def _ratio_per_row(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0.0)


def _root(square: float, reference: float) -> float:
    """sqrt(square / reference), where rounding may have made the square of a zero negative."""
    return float(np.sqrt(max(square, 0.0) / reference))
