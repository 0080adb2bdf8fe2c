"""The flat map keeps neighbours together, repeats with a seed and copes with few, many and equal
particles."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from solvar_engine.latent import embed_2d


def two_groups(n_particles: int, n_components: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two groups apart along the first coordinate."""
    rng = np.random.default_rng(seed)
    group = np.arange(n_particles) % 2
    z = rng.normal(size=(n_particles, n_components)).astype(np.float32)
    z[:, 0] += 12.0 * group
    return z, group


def fraction_of_like_neighbours(coordinates: np.ndarray, group: np.ndarray) -> float:
    """How often the nearest neighbour in the map belongs to the same group."""
    distance = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    return float(np.mean(group[distance.argmin(axis=1)] == group))


@pytest.mark.parametrize("n_components", [1, 2, 5])
def test_groups_stay_apart(n_components):
    z, group = two_groups(200, n_components)
    embedding = embed_2d(z)
    assert embedding.shape == (200, 2) and embedding.dtype == np.float32
    assert fraction_of_like_neighbours(embedding, group) > 0.98


def test_the_same_seed_gives_the_same_map_and_another_seed_another():
    z, _ = two_groups(120, 3)
    np.testing.assert_array_equal(embed_2d(z, seed=4), embed_2d(z, seed=4))
    assert not np.array_equal(embed_2d(z, seed=4), embed_2d(z, seed=5))


def test_particles_beyond_the_limit_are_placed_beside_their_neighbours(caplog):
    z, group = two_groups(300, 3)
    with caplog.at_level(logging.INFO):
        embedding = embed_2d(z, max_fitted=150)
    assert "150 of the 300" in caplog.text
    assert np.isfinite(embedding).all()
    assert fraction_of_like_neighbours(embedding, group) > 0.98


@pytest.mark.parametrize("n_particles", [0, 1, 3, 9, 10, 12])
def test_few_particles(n_particles):
    z, _ = two_groups(n_particles, 2)
    coordinates = embed_2d(z)
    assert coordinates.shape == (n_particles, 2) and np.isfinite(coordinates).all()
    if n_particles < 10:
        np.testing.assert_allclose(coordinates, z)


def test_equal_particles_do_not_break_the_map():
    assert np.isfinite(embed_2d(np.ones((40, 2)))).all()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="no columns"):
        embed_2d(np.zeros((20, 0)))
    with pytest.raises(ValueError, match="row 1"):
        embed_2d(np.array([[0.0], [np.inf]]))
