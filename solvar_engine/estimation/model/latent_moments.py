"""Average second moment of latent coordinates under a prior covariance, by a compiled loop over images.

Hundreds of iterations visit each image's r-by-r matrices, for which calls of a library cost more than the arithmetic.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from solvar_engine.estimation.model.statistics import Statistics
from solvar_engine.projectors.numba_cells import compiled

_BLOCKS = 64  # of images with a sum of their own, so that the result does not depend on the number of threads
_LEAST_VARIANCE = 1e-12  # of the largest one, for which a prior that vanishes along a direction is taken


def mean_second_moment(statistics: Statistics, covariance: Tensor) -> Tensor:
    """Average over images of S + m m^T, the posterior covariance and mean under the prior N(0, Gamma).

    Parameters
    ----------
    statistics : Statistics
        Of r factors.
    covariance : Tensor, shape (r, r), float64
        Gamma.

    Returns
    -------
    Tensor, shape (r, r), float64
        With S = (Gamma^-1 + G)^-1 and m = S b, of each image's matrix G and inner products b.
    """
    values, vectors = torch.linalg.eigh(covariance)
    precision = (vectors / torch.maximum(values, _LEAST_VARIANCE * values[-1])) @ vectors.T
    sums = np.zeros((_BLOCKS, *covariance.shape))
    _add_second_moments(
        np.ascontiguousarray(statistics.gram.cpu().numpy()),
        np.ascontiguousarray(statistics.inner.cpu().numpy()),
        np.ascontiguousarray(precision.cpu().numpy()),
        sums,
    )
    lower = torch.from_numpy(sums.sum(axis=0)).to(covariance.device).tril() / statistics.gram.shape[0]
    return lower + lower.tril(-1).T


@compiled
def _add_second_moments(gram, inner, precision, sums):  # type: ignore[no-untyped-def]
    """Add the lower triangle of every image's moment; all inner loops run along rows, which the compiler vectorises."""
    count, rank = inner.shape
    blocks = sums.shape[0]
    for block in numba.prange(blocks):
        upper = np.empty((rank, rank))
        inverse = np.empty((rank, rank))
        rotated, mean = np.empty(rank), np.empty(rank)
        total = sums[block]
        for n in range(block * count // blocks, (block + 1) * count // blocks):
            # Gamma^-1 + G = U^T U
            for i in range(rank):
                for j in range(i, rank):
                    upper[i, j] = precision[i, j] + gram[n, i, j]
            for k in range(rank):
                pivot = 1.0 / np.sqrt(upper[k, k])
                for j in range(k, rank):
                    upper[k, j] *= pivot
                for i in range(k + 1, rank):
                    factor = upper[k, i]
                    for j in range(i, rank):
                        upper[i, j] -= factor * upper[k, j]
            # inverse = U^-T, so that S = inverse^T inverse
            for i in range(rank):
                for j in range(i):
                    inverse[i, j] = 0.0
                inverse[i, i] = 1.0
                for k in range(i):
                    factor = upper[k, i]
                    for j in range(k + 1):
                        inverse[i, j] -= factor * inverse[k, j]
                pivot = 1.0 / upper[i, i]
                for j in range(i + 1):
                    inverse[i, j] *= pivot
            for j in range(rank):
                mean[j] = 0.0
            for i in range(rank):
                rotated[i] = 0.0
                for j in range(i + 1):
                    rotated[i] += inverse[i, j] * inner[n, j]
                for j in range(i + 1):
                    mean[j] += inverse[i, j] * rotated[i]
            for i in range(rank):
                factor = mean[i]
                for j in range(i + 1):
                    total[i, j] += factor * mean[j]
            for k in range(rank):
                for i in range(k + 1):
                    factor = inverse[k, i]
                    for j in range(i + 1):
                        total[i, j] += factor * inverse[k, j]
