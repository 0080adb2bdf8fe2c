"""Posterior moments of latent coordinates under a mixture of Gaussians, by a compiled loop over images."""

from __future__ import annotations

import numba
import numpy as np

from solvar_engine.projectors.numba_cells import compiled

BLOCKS = 64
"""Of images with sums of their own, so that the result does not depend on the number of threads."""

_LEAST_SHARE = 1e-12  # of an image in a Gaussian that is counted


@compiled
def add_posteriors(gram, inner, precision, pull, constant, mean, second, evidence, total, first, outer):  # type: ignore[no-untyped-def]  # noqa: E501
    """Fill in the moments of every image and the sums of every Gaussian.

    Parameters
    ----------
    gram : ndarray, shape (n, r, r)
    inner : ndarray, shape (n, r)
        What images know of their coordinates: exp(b^T z - z^T G z / 2).
    precision : ndarray, shape (k, r, r) or (1, r, r)
        C^-1 of each Gaussian, or of all.
    pull : ndarray, shape (k, r)
        C^-1 mu of each.
    constant : ndarray, shape (k,)
        log weight + log det(C^-1) / 2 - mu^T C^-1 mu / 2.
    mean, second, evidence : ndarray, shape (n, r), (n, r, r) and (n,)
        Filled with E[z], E[z z^T] and the log of the integral over z.
    total, first : ndarray, shape (blocks, k) and (blocks, k, r)
        Sums of responsibilities, and of these times z, are added.
    outer : ndarray, shape (blocks, k, r, r) or (blocks, 1, r, r)
        Sums of responsibilities times z z^T, of each Gaussian or of all, are added.
    """
    count, rank = inner.shape
    parts, kinds = len(constant), len(precision)
    blocks = total.shape[0]
    for block in numba.prange(blocks):
        lower, inverse = np.empty((rank, rank)), np.empty((rank, rank))
        covariance, half_log = np.empty((kinds, rank, rank)), np.empty(kinds)
        places, share = np.empty((parts, rank)), np.empty(parts)
        for n in range(block * count // blocks, (block + 1) * count // blocks):
            for kind in range(kinds):
                half_log[kind] = 0.0
                for i in range(rank):
                    for j in range(i + 1):
                        entry = gram[n, i, j] + precision[kind, i, j]
                        for p in range(j):
                            entry -= lower[i, p] * lower[j, p]
                        lower[i, j] = np.sqrt(entry) if i == j else entry / lower[j, j]
                    half_log[kind] += np.log(lower[i, i])
                for i in range(rank):
                    for j in range(rank):
                        inverse[i, j] = 1.0 if i == j else 0.0
                    for p in range(i):
                        for j in range(p + 1):
                            inverse[i, j] -= lower[i, p] * inverse[p, j]
                    for j in range(i + 1):
                        inverse[i, j] /= lower[i, i]
                for i in range(rank):
                    for j in range(rank):
                        covariance[kind, i, j] = 0.0
                for p in range(rank):
                    for i in range(p + 1):
                        for j in range(p + 1):
                            covariance[kind, i, j] += inverse[p, i] * inverse[p, j]
            for k in range(parts):
                kind = k if kinds > 1 else 0
                for i in range(rank):
                    places[k, i] = 0.0
                for j in range(rank):
                    known = inner[n, j] + pull[k, j]
                    for i in range(rank):
                        places[k, i] += known * covariance[kind, j, i]
                value = 0.0
                for j in range(rank):
                    value += (inner[n, j] + pull[k, j]) * places[k, j]
                share[k] = constant[k] - half_log[kind] + 0.5 * value
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
                if weight < _LEAST_SHARE:
                    continue
                kind = k if kinds > 1 else 0
                place = k if outer.shape[1] > 1 else 0
                total[block, k] += weight
                for i in range(rank):
                    mean[n, i] += weight * places[k, i]
                    first[block, k, i] += weight * places[k, i]
                    for j in range(rank):
                        moment = weight * (covariance[kind, i, j] + places[k, i] * places[k, j])
                        second[n, i, j] += moment
                        outer[block, place, i, j] += moment
