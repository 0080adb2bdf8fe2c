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


def mean_second_moment(statistics: Statistics, root: Tensor) -> Tensor:
    """Average over images of S + m m^T, the posterior covariance and mean under the prior N(0, R R^T).

    Parameters
    ----------
    statistics : Statistics
        Of r factors.
    root : Tensor, shape (r, r), float64
        R. With a root of the covariance, a vanishing variance is no division by zero.

    Returns
    -------
    Tensor, shape (r, r), float64
        With S = R (I + R^T G R)^-1 R^T and m = S b, of each image's matrix G and inner products b.
    """
    sums = np.zeros((_BLOCKS, *root.shape))
    _add_second_moments(
        np.ascontiguousarray(statistics.gram.cpu().numpy()),
        np.ascontiguousarray(statistics.inner.cpu().numpy()),
        np.ascontiguousarray(root.cpu().numpy()),
        sums,
    )
    return torch.from_numpy(sums.sum(axis=0)).to(root.device) / statistics.gram.shape[0]


@compiled
def _add_second_moments(gram, inner, root, sums):  # type: ignore[no-untyped-def]
    count, rank = inner.shape
    blocks = sums.shape[0]
    for block in numba.prange(blocks):
        product = np.empty((rank, rank))
        lower = np.empty((rank, rank))
        half = np.empty((rank, rank))
        rotated, mean = np.empty(rank), np.empty(rank)
        total = sums[block]
        for n in range(block * count // blocks, (block + 1) * count // blocks):
            for i in range(rank):
                for j in range(rank):
                    product[i, j] = 0.0
                for k in range(rank):
                    for j in range(rank):
                        product[i, j] += gram[n, i, k] * root[k, j]
            # lower Cholesky factor of I + R^T G R
            for i in range(rank):
                for j in range(i + 1):
                    value = 1.0 if i == j else 0.0
                    for k in range(rank):
                        value += root[k, i] * product[k, j]
                    for k in range(j):
                        value -= lower[i, k] * lower[j, k]
                    lower[i, j] = np.sqrt(value) if i == j else value / lower[j, j]
            # half = lower^-1 R^T, so that S = half^T half
            for i in range(rank):
                for j in range(rank):
                    half[i, j] = root[j, i]
                for k in range(i):
                    for j in range(rank):
                        half[i, j] -= lower[i, k] * half[k, j]
                for j in range(rank):
                    half[i, j] /= lower[i, i]
            for i in range(rank):
                rotated[i] = 0.0
                for j in range(rank):
                    rotated[i] += half[i, j] * inner[n, j]
            for j in range(rank):
                mean[j] = 0.0
                for i in range(rank):
                    mean[j] += half[i, j] * rotated[i]
            for i in range(rank):
                for j in range(rank):
                    total[i, j] += mean[i] * mean[j]
            for k in range(rank):
                for i in range(rank):
                    for j in range(rank):
                        total[i, j] += half[k, i] * half[k, j]
