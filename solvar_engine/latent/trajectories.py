"""Paths through the latent space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvar_engine.imaging.sampling import random_rows, sample_of_at_least
from solvar_engine.latent.checks import as_latent_matrix
from solvar_engine.latent.density import log_density

DENSITY_PARTICLES = 5_000
PATH_PARTICLES = 1_000
PATH_NEIGHBORS = 12
LINE_POINTS = 41
SMOOTHING_ROUNDS = 8
HIGHEST_COST = 30.0
"""Largest logarithm of a density ratio that counts: beyond, all is equally empty."""


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


def dense_path(
    anchors: NDArray[np.floating],
    z: NDArray[np.floating],
    precision: NDArray[np.floating],
    n_points: int,
    *,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Lead a path from anchor to anchor where particles are dense.

    The path of least integral of ds / density over a graph of neighbouring particles, a thousand of them drawn at
    random, and of points on the straight line; its corners are smoothed.

    Parameters
    ----------
    anchors : ndarray, shape (m, r)
        Points that the path goes through, m >= 2, in order.
    z : ndarray, shape (n, r)
        Posterior means of the particles.
    precision : ndarray, shape (n, r, r)
        Of their posteriors.
    n_points : int
        The number of points, at least 2.
    seed : int
        Draws the particles.

    Returns
    -------
    ndarray, shape (n_points, r), float64
        At equal distances; the first and the last are the first and the last anchor.

    Raises
    ------
    ValueError
        As :func:`resample_polyline`.
    """
    anchors, coordinates = as_latent_matrix(anchors, "anchors"), as_latent_matrix(z)
    resample_polyline(anchors, n_points)  # refuses what is no path
    sample = random_rows(len(z), DENSITY_PARTICLES, np.random.default_rng(seed))
    coordinates, precision = coordinates[sample], precision[sample]
    ends = zip(anchors[:-1], anchors[1:], strict=True)
    legs = [_dense_leg(start, end, coordinates, precision) for start, end in ends]
    return resample_polyline(np.concatenate([legs[0][:1], *(leg[1:] for leg in legs)]), n_points)


def _dense_leg(
    start: NDArray[np.float64], end: NDArray[np.float64], z: NDArray[np.float64], precision: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Path between two points, its corners smoothed."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra
    from sklearn.neighbors import NearestNeighbors

    if np.array_equal(start, end):
        return np.stack([start, end])
    line = resample_polyline(np.stack([start, end]), LINE_POINTS)
    nodes = np.concatenate([line, sample_of_at_least(z, PATH_PARTICLES)])
    count = min(PATH_NEIGHBORS + 1, len(nodes))
    near = NearestNeighbors(n_neighbors=count).fit(nodes).kneighbors(nodes, return_distance=False)
    along = np.arange(LINE_POINTS - 1)
    pairs = np.stack([np.append(np.repeat(np.arange(len(nodes)), count), along), np.append(near.ravel(), along + 1)])
    first, second = np.unique(pairs, axis=1)  # the costs of an edge that is named twice would be added
    length = np.linalg.norm(nodes[first] - nodes[second], axis=1)
    is_edge = length > 0
    first, second, length = first[is_edge], second[is_edge], length[is_edge]
    density = log_density(nodes, z, precision)
    cost = length * np.exp(np.minimum(density.max() - 0.5 * (density[first] + density[second]), HIGHEST_COST))
    graph = coo_array((cost, (first, second)), shape=(len(nodes),) * 2).tocsr()
    before = dijkstra(graph, directed=False, indices=0, return_predecessors=True)[1]
    way = [LINE_POINTS - 1]
    while way[-1] != 0:
        way.append(int(before[way[-1]]))
    return _without_corners(resample_polyline(nodes[way[::-1]], LINE_POINTS))


def _without_corners(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average neighbours along a path; its ends stay."""
    for _ in range(SMOOTHING_ROUNDS):
        path = np.concatenate([path[:1], 0.25 * path[:-2] + 0.5 * path[1:-1] + 0.25 * path[2:], path[-1:]])
    return path
