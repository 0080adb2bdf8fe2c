"""A flat map of the latent space by UMAP (McInnes, Healy and Melville, 2018, arXiv:1802.03426)."""

from __future__ import annotations

import logging
import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from solvar_engine.imaging.sampling import random_rows
from solvar_engine.latent.checks import as_latent_matrix

logger = logging.getLogger(__name__)

NEIGHBORS = 15
MINIMUM_DISTANCE = 0.1
PLACING_NEIGHBORS = 5
SMALLEST_FIT = 10


def embed_2d(z: NDArray[np.floating], *, seed: int = 0, max_fitted: int = 100_000) -> NDArray[np.float32]:
    """Lay the latent space out in two dimensions with UMAP.

    The map starts from the first two coordinates instead of a spectral layout, so that its large-scale order
    follows the two leading motions (Kobak and Linderman, 2021, Nat. Biotechnol. 39:156, on why the start
    matters), and the same seed gives the same map. UMAP runs on one thread whenever it has a seed: about one
    minute per 50,000 particles.

    Parameters
    ----------
    z : ndarray, shape (n, r)
        Latent coordinates, one row per particle, r >= 1.
    seed : int
        Seed of the layout and of the choice of fitted particles.
    max_fitted : int
        With more particles than this, the map is computed from so many, drawn at random; each other one is
        placed at the mean of its five nearest fitted neighbours, weighted by inverse distance, with a notice.

    Returns
    -------
    ndarray, shape (n, 2), float32
        Position of each particle, in arbitrary units; with fewer than 10 particles the first two coordinates of z.

    Raises
    ------
    ValueError
        If z has no columns or holds a value that is not finite.

    Examples
    --------
    >>> embed_2d(np.random.default_rng(0).normal(size=(50, 3))).shape
    (50, 2)
    """
    z = as_latent_matrix(z)
    if z.shape[1] == 0:
        raise ValueError("z has no columns: there is nothing to lay out")
    rng = np.random.default_rng(seed)
    n_particles = len(z)
    if n_particles < SMALLEST_FIT:
        return _leading_plane(z).astype(np.float32)
    if n_particles <= max_fitted:
        return _fit_umap(z, rng, seed)
    logger.info(
        "The map is computed from %d of the %d particles; the others are placed by their nearest neighbours.",
        max_fitted,
        n_particles,
    )
    fitted = random_rows(n_particles, max_fitted, rng)
    others = np.setdiff1d(np.arange(n_particles), fitted, assume_unique=True)
    coordinates = np.empty((n_particles, 2), dtype=np.float32)
    coordinates[fitted] = _fit_umap(z[fitted], rng, seed)
    coordinates[others] = _place_by_neighbours(z[others], z[fitted], coordinates[fitted])
    return coordinates


def _fit_umap(z: NDArray[np.float64], rng: np.random.Generator, seed: int) -> NDArray[np.float32]:
    """Run UMAP from the leading plane of z."""
    n_neighbors = max(2, min(NEIGHBORS, len(z) - 1))
    with warnings.catch_warnings():
        # UMAP warns that TensorFlow is absent, that given neighbours do not help to place further points, and uses
        # names that newer versions of scikit-learn deprecate: nothing that a user can act on.
        warnings.simplefilter("ignore", ImportWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", message=r"precomputed_knn\[2\]")
        from umap import UMAP

        _keep_compiled()
        model = UMAP(
            n_components=2,
            n_neighbors=n_neighbors,
            precomputed_knn=_nearest(z, n_neighbors),
            min_dist=MINIMUM_DISTANCE,
            init=_initial_layout(z, rng),
            random_state=seed,
            n_jobs=1,  # what a seed imposes; said here so that UMAP does not warn
        )
        return np.asarray(model.fit_transform(z.astype(np.float32)), dtype=np.float32)


def _nearest(z: NDArray[np.float64], count: int) -> tuple[NDArray[np.int64], NDArray[np.float32], None]:
    """Find the nearest particles of each, itself first, as UMAP takes them: indices and distances, shape (n, count).

    In so few dimensions a tree finds them exactly, in less time than numba needs to compile UMAP's own search.
    """
    distance, index = cKDTree(z).query(z, k=count)
    return index, distance.astype(np.float32), None


def _keep_compiled() -> None:
    """Let numba keep what it compiles for UMAP, which else costs each process some ten seconds."""
    from umap import layouts, umap_

    for function in (
        umap_.smooth_knn_dist,
        umap_.compute_membership_strengths,
        layouts._nb_optimize_layout_euclidean_single_epoch,
    ):
        function.enable_caching()


def _leading_plane(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the first two columns of z; a missing second one is zero."""
    plane = np.zeros((len(z), 2))
    plane[:, : min(2, z.shape[1])] = z[:, :2]
    return plane


def _initial_layout(z: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    """Scale the leading plane to UMAP's usual extent; a little noise keeps equal particles apart."""
    plane = _leading_plane(z)
    plane = plane - plane.mean(axis=0)
    spread = plane.std(axis=0).max()
    scaled = 10.0 * plane / spread if spread > 0 else plane
    return (scaled + rng.normal(scale=0.1, size=plane.shape)).astype(np.float32)


def _place_by_neighbours(
    z: NDArray[np.float64], fitted_z: NDArray[np.float64], fitted_coordinates: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Place particles at the inverse-distance mean of their nearest fitted neighbours."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(PLACING_NEIGHBORS, len(fitted_z))).fit(fitted_z)
    distance, neighbour = search.kneighbors(z)
    weight = 1.0 / np.maximum(distance, 1e-12 + 1e-6 * distance.mean())
    weight /= weight.sum(axis=1, keepdims=True)
    return np.einsum("nk,nkc->nc", weight, fitted_coordinates[neighbour]).astype(np.float32)
