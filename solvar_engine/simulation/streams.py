"""Independent streams of random numbers: asking for one kind of error or effect leaves the rest as it was."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What a stream is for; a number is never given to another purpose, so that old seeds keep their data sets."""

    STATE = 0
    ROTATION = 1
    SHIFT = 2
    CTF = 3
    CONTRAST = 4
    POSE_ERROR = 5
    NOISE = 6
    BACKGROUND = 7
    NEIGHBOUR = 8
    VIEW = 9
    JUNK_ROWS = 10
    JUNK_IMAGES = 11
    DEFOCUS_ERROR = 12


def stream(seed: int, purpose: Purpose) -> np.random.Generator:
    """Random numbers of one purpose."""
    return np.random.default_rng([seed, purpose])


def torch_stream(seed: int, purpose: Purpose) -> torch.Generator:
    """Random numbers of one purpose, for functions that draw with torch."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, purpose]).generate_state(1)[0]))


def drawn_share(count: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Choose a share of rows, rounded to a whole number of them.

    Parameters
    ----------
    count : int
        Number of rows.
    share : float
        0 to 1.
    rng : numpy.random.Generator
        The order in which it takes the rows does not depend on the share: a larger one adds rows.

    Returns
    -------
    ndarray, shape (round(share x count),), int64
        The rows in the order in which they were drawn.

    Examples
    --------
    >>> len(drawn_share(10, 0.3, np.random.default_rng(0)))
    3
    """
    return rng.permutation(count)[: round(share * count)]
