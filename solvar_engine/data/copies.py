"""Images of one particle that was extracted twice: their noise is the same, whatever else was done to them.

Copies that were scaled, moved in their boxes or written in another format are not equal pixel by pixel, and not every
list has coordinates. But the phases of their coefficients, once they are centred, are those of one piece of a
micrograph, where those of any two particles have nothing in common at frequencies that noise rules. Each image gets a
signature, random projections of these phases; equal ones are found by locality-sensitive hashing of signs of
projections (Charikar, STOC 2002), so that the time grows as the number of images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk

SIGNATURE_LENGTH = 128

_LOWEST = 0.5  # of the last shell: below, it is the molecule that images have in common
_FEWEST_PIXELS, _MOST_PIXELS = 100, 2_000  # of those above
_SEED = 128
_UNIT = 3_500.0 / SIGNATURE_LENGTH**0.5  # of bytes, a tenth of whose range is the standard deviation of one projection
_TABLES, _NEIGHBOURS = 16, 3  # of hashes, and images that are compared behind each in a table
_MORE_BITS = 2  # than tell all images apart
_TOGETHER = 100_000  # pairs
_ALIKE, _NOT_QUITE = 0.65, 0.5  # correlation of copies; of others 0 +- 0.09, and 0.1 more where hashes agree
_MOST_COPIES = 20  # of one image: more are views that differ by little, without noise
_MOST_NOT_QUITE = 0.3  # over copies, where there are copies: else it is signal that makes images alike


def signatures(coefficients: Tensor, disk: HalfDisk) -> Tensor:
    """Describe images by the phases of their high frequencies, in 128 bytes each.

    Parameters
    ----------
    coefficients : Tensor, shape (n, pixels), complex
        Of centred images.
    disk : HalfDisk

    Returns
    -------
    Tensor, shape (n, SIGNATURE_LENGTH), int8
        Nought of empty images, and if there are too few frequencies.
    """
    chosen = torch.nonzero(disk.shell >= _LOWEST * disk.shell_max).flatten()
    if len(chosen) < _FEWEST_PIXELS:
        return torch.zeros(len(coefficients), SIGNATURE_LENGTH, dtype=torch.int8)
    generator = torch.Generator().manual_seed(_SEED)
    chosen = chosen[torch.randperm(len(chosen), generator=generator)[:_MOST_PIXELS].to(chosen.device)]
    projections = torch.randn(2 * len(chosen), SIGNATURE_LENGTH, generator=generator).to(coefficients.device)
    values = coefficients[:, chosen]
    phases = values / values.abs().clamp_min(1e-30)
    projected = torch.view_as_real(phases).flatten(1).float() @ projections
    unit = projected / projected.norm(dim=1, keepdim=True).clamp_min(1e-20)
    return (_UNIT * unit).round().clamp(-127, 127).to(torch.int8).cpu()


def find_copies(signature: Tensor, rows: Tensor) -> NDArray[np.int64] | None:
    """Label images by the particle that they show, by their signatures.

    Parameters
    ----------
    signature : Tensor, shape (n, SIGNATURE_LENGTH)
    rows : Tensor, int64
        Rows to compare: one of each image.

    Returns
    -------
    ndarray of int64, shape (n,), or None
        The same of copies; None if there are none, or what images have in common is signal.
    """
    pairs, likeness = np.zeros((0, 2), dtype=np.int64), np.zeros(0)
    found = [(pairs, likeness), *_candidates(signature[rows].numpy())]
    pairs, likeness = np.concatenate([pair for pair, _ in found]), np.concatenate([value for _, value in found])
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    likeness = likeness[first]
    are_copies = likeness > _ALIKE
    if np.count_nonzero(~are_copies) >= _MOST_NOT_QUITE * np.count_nonzero(are_copies):
        return None
    ends = rows.numpy()[pairs[are_copies]]
    label = linked(ends, len(signature))
    return label if np.bincount(label).max() <= _MOST_COPIES else None


def linked(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Label rows (count,) that pairs (m, 2) of them link, directly or through others."""
    edges = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(count, count))
    return np.asarray(connected_components(edges, directed=False)[1], dtype=np.int64)


def _candidates(signature: NDArray[np.int8]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Pairs of images with the same hash in a table, (m, 2) in order, that are not quite alike or more, and how much.

    A copy of the other sign has the opposite signature: hashes do not tell them apart.
    """
    count = len(signature)
    bits = min(math.ceil(math.log2(max(count, 2))) + _MORE_BITS, 60)
    random = np.random.default_rng(_SEED)
    for _ in range(_TABLES):
        columns = random.permutation(SIGNATURE_LENGTH)[: bits + 1]
        positive = signature[:, columns] > 0
        key = ((positive[:, 1:] == positive[:, :1]) @ (1 << np.arange(bits))).astype(np.int64)
        order = np.argsort(key, kind="stable")
        for step in range(1, _NEIGHBOURS + 1):
            same = np.flatnonzero(key[order[step:]] == key[order[:-step]])
            for start in range(0, len(same), _TOGETHER):
                places = same[start : start + _TOGETHER]
                pairs = np.sort(np.stack((order[places], order[places + step]), axis=1), axis=1)
                likeness = _likeness(signature[pairs[:, 0]], signature[pairs[:, 1]])
                kept = likeness > _NOT_QUITE
                yield pairs[kept], likeness[kept]


def _likeness(first: NDArray[np.int8], second: NDArray[np.int8]) -> NDArray[np.float64]:
    """Correlation of signatures (m, SIGNATURE_LENGTH), whatever its sign; nought of empty images."""
    one, other = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray(np.abs(np.einsum("nk,nk->n", one, other)) / np.maximum(norms, 1e-20), dtype=np.float64)
