"""k-means finds separated groups, numbers them along the first coordinate and repeats with a seed."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from solvar_engine.latent import kmeans_clusters


@pytest.fixture
def three_groups() -> tuple[np.ndarray, np.ndarray]:
    """Three well separated groups in three dimensions and the group of each row."""
    rng = np.random.default_rng(3)
    centres = np.array([[8.0, 0.0, 0.0], [-8.0, 4.0, 0.0], [0.0, -4.0, 0.0]])
    group = rng.integers(0, 3, size=300)
    return (centres[group] + rng.normal(size=(300, 3))).astype(np.float32), group


def test_groups_are_recovered_and_numbered_along_the_first_coordinate(three_groups):
    z, group = three_groups
    clusters = kmeans_clusters(z, 3, seed=1)
    np.testing.assert_array_equal(clusters.labels, np.array([2, 0, 1])[group])
    assert np.all(np.diff(clusters.centres[:, 0]) > 0)
    np.testing.assert_array_equal(clusters.sizes, np.bincount(clusters.labels))


def test_centres_are_the_means_of_their_members(three_groups):
    z, _ = three_groups
    clusters = kmeans_clusters(z, 4)
    for cluster in range(4):
        np.testing.assert_allclose(
            clusters.centres[cluster], z[clusters.labels == cluster].mean(axis=0), rtol=1e-5
        )


def test_the_same_seed_gives_the_same_clusters(three_groups):
    z, _ = three_groups
    first, second = (kmeans_clusters(z, 7, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.centres, second.centres)


def test_only_the_named_columns_measure_distance(three_groups):
    z, group = three_groups
    z = z.copy()
    z[:, 2] = 100 * np.random.default_rng(0).normal(size=len(z))
    clusters = kmeans_clusters(z, 3, columns=np.array([0, 1]))
    np.testing.assert_array_equal(clusters.labels, np.array([2, 0, 1])[group])
    assert clusters.centres.shape == (3, 3)


def test_more_clusters_than_particles_are_reduced_with_a_notice(caplog):
    z = np.array([[0.0], [1.0], [1.0], [5.0]])
    with caplog.at_level(logging.WARNING):
        clusters = kmeans_clusters(z, 10)
    assert clusters.labels.tolist() == [0, 1, 1, 2]
    assert "3 clusters instead of 10" in caplog.text


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="row 2"):
        kmeans_clusters(np.array([[0.0], [1.0], [np.nan]]), 2)
    with pytest.raises(ValueError, match="at least 1"):
        kmeans_clusters(np.zeros((3, 1)), 0)
    with pytest.raises(ValueError, match=r"\(5, 0\)"):
        kmeans_clusters(np.zeros((5, 0)), 2)
    with pytest.raises(ValueError, match="matrix"):
        kmeans_clusters(np.zeros(5), 2)
