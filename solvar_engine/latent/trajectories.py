"""Paths through the latent space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvar_engine.latent.checks import as_latent_matrix


def resample_polyline(anchors: NDArray[np.floating], n_points: int) -> NDArray[np.float64]:
    """Place points at equal distances along the straight segments between anchors.

    Parameters
    ----------
    anchors : ndarray, shape (m, r)
        The corners of the path, m >= 2, in order.
    n_points : int
        The number of points, at least 2; the first is the first anchor and the last is the last.

    Returns
    -------
    ndarray, shape (n_points, r), float64
        The points. Inner anchors are met only if one falls on an equal step.

    Raises
    ------
    ValueError
        If there are fewer than two anchors or points, or the path has no length.

    Examples
    --------
    >>> resample_polyline(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]), 5).tolist()
    [[0.0, 0.0], [0.5, 0.0], [1.0, 0.0], [1.0, 0.5], [1.0, 1.0]]
    """
    anchors = as_latent_matrix(anchors, "anchors")
    if len(anchors) < 2:
        raise ValueError(f"a path needs at least two anchors, there is {len(anchors)}")
    if n_points < 2:
        raise ValueError(f"a path needs at least two points, {n_points} asked for")
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(anchors, axis=0), axis=1))])
    if length[-1] == 0:
        raise ValueError("all anchors are the same point: the path has no length")
    # A repeated anchor makes two equal abscissae, which np.interp allows.
    position = np.linspace(0.0, length[-1], n_points)
    return np.stack([np.interp(position, length, column) for column in anchors.T], axis=1)
