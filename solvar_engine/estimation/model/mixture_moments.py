"""Posterior moments of latent coordinates under a mixture of Gaussians, by a compiled loop over images."""

from __future__ import annotations

import numba
import numpy as np

from solvar_engine.projectors.numba_cells import compiled

BLOCKS = 64
"""Of images with sums of their own, so that the result does not depend on the number of threads."""


@compiled
def add_posteriors(gram, inner, precision, pull, constant, mean, second, evidence, total, first, outer):  # type: ignore[no-untyped-def]  # noqa: E501
    """Fill in the moments of every image and the sums of every Gaussian.

    Parameters
    ----------
    gram : ndarray, shape (n, r, r)
    inner : ndarray, shape (n, r)
        What images know of their coordinates: exp(b^T z - z^T G z / 2).
    precision, pull : ndarray, shape (k, r, r) and (k, r)
        C^-1 and C^-1 mu of each Gaussian.
    constant : ndarray, shape (k,)
        log weight + log det(C^-1) / 2 - mu^T C^-1 mu / 2.
    mean, second, evidence : ndarray, shape (n, r), (n, r, r) and (n,)
        Filled with E[z], E[z z^T] and the log of the integral over z.
    total, first, outer : ndarray, shape (blocks, k), (blocks, k, r) and (blocks, k, r, r)
        Sums of responsibilities, and of these times z and z z^T, are added.
    """
    count, rank = inner.shape
    parts = precision.shape[0]
    blocks = total.shape[0]
    for block in numba.prange(blocks):
        lower, inverse = np.empty((rank, rank)), np.empty((rank, rank))
        known = np.empty(rank)
        places, spreads = np.empty((parts, rank)), np.empty((parts, rank, rank))
        share = np.empty(parts)
        for n in range(block * count // blocks, (block + 1) * count // blocks):
            for k in range(parts):
                value = constant[k]
                for i in range(rank):
                    for j in range(i + 1):
                        entry = gram[n, i, j] + precision[k, i, j]
                        for p in range(j):
                            entry -= lower[i, p] * lower[j, p]
                        lower[i, j] = np.sqrt(entry) if i == j else entry / lower[j, j]
                    value -= np.log(lower[i, i])
                for i in range(rank):
                    for j in range(i + 1):
                        entry = 1.0 if i == j else 0.0
                        for p in range(j, i):
                            entry -= lower[i, p] * inverse[p, j]
                        inverse[i, j] = entry / lower[i, i]
                for i in range(rank):
                    entry = 0.0
                    for j in range(i + 1):
                        entry += inverse[i, j] * (inner[n, j] + pull[k, j])
                    known[i] = entry
                    value += 0.5 * entry * entry
                for i in range(rank):
                    entry = 0.0
                    for p in range(i, rank):
                        entry += inverse[p, i] * known[p]
                    places[k, i] = entry
                for i in range(rank):
                    for j in range(i + 1):
                        entry = places[k, i] * places[k, j]
                        for p in range(i, rank):
                            entry += inverse[p, i] * inverse[p, j]
                        spreads[k, i, j] = entry
                        spreads[k, j, i] = entry
                share[k] = value
            largest = share.max()
            norm = 0.0
            for k in range(parts):
                share[k] = np.exp(share[k] - largest)
                norm += share[k]
            evidence[n] = largest + np.log(norm)
            for i in range(rank):
                mean[n, i] = 0.0
                for j in range(rank):
                    second[n, i, j] = 0.0
            for k in range(parts):
                weight = share[k] / norm
                total[block, k] += weight
                for i in range(rank):
                    mean[n, i] += weight * places[k, i]
                    first[block, k, i] += weight * places[k, i]
                    for j in range(rank):
                        second[n, i, j] += weight * spreads[k, i, j]
                        outer[block, k, i, j] += weight * spreads[k, i, j]
