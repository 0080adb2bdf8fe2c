"""The density is the average of the particles' posteriors, and paths follow it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from solvar_engine.latent import dense_path, mixture_clusters
from solvar_engine.latent.density import log_density
from solvar_engine.latent.distances import kernel_bandwidths, marginal_precision, squared_distances


def random_precisions(rng, count, rank):
    root = rng.normal(size=(count, rank, rank))
    return root @ root.transpose(0, 2, 1) + 0.5 * np.eye(rank)


def test_density_is_the_mean_of_the_posteriors():
    rng = np.random.default_rng(0)
    z, precision, points = rng.normal(size=(7, 3)), random_precisions(rng, 7, 3), rng.normal(size=(4, 3))
    expected = [
        np.mean([multivariate_normal.pdf(x, m, np.linalg.inv(p)) for m, p in zip(z, precision, strict=True)])
        for x in points
    ]
    np.testing.assert_allclose(np.exp(log_density(points, z, precision)), expected, rtol=1e-10)
    with pytest.raises(ValueError, match="do not belong together"):
        log_density(points, z, precision[:, :2])


def test_distances_are_those_of_each_posterior():
    rng = np.random.default_rng(1)
    z, precision, point = rng.normal(size=(5, 4)), random_precisions(rng, 5, 4), rng.normal(size=4)
    expected = [(m - point) @ p @ (m - point) for m, p in zip(z, precision, strict=True)]
    np.testing.assert_allclose(squared_distances(z, precision, point), expected, rtol=1e-12)


def test_marginal_precision_forgets_the_other_coordinates():
    precision = random_precisions(np.random.default_rng(2), 3, 4)
    columns = np.array([0, 2])
    for found, whole in zip(marginal_precision(precision, columns), precision, strict=True):
        np.testing.assert_allclose(np.linalg.inv(found), np.linalg.inv(whole)[np.ix_(columns, columns)], rtol=1e-9)


def test_coordinate_of_which_nothing_is_known_says_nothing_about_the_others():
    precision = random_precisions(np.random.default_rng(2), 2, 3)
    precision[1, 1] = precision[1, :, 1] = 0
    columns = np.array([0, 2])
    found = marginal_precision(precision, columns)
    np.testing.assert_allclose(found[1], precision[1][np.ix_(columns, columns)], rtol=1e-12)
    expected = np.linalg.inv(precision[0])[np.ix_(columns, columns)]
    np.testing.assert_allclose(np.linalg.inv(found[0]), expected, rtol=1e-9)
    np.testing.assert_array_equal(marginal_precision(precision, np.arange(3)), precision)


def test_each_kernel_holds_a_multiple_of_the_particles_of_the_last():
    rng = np.random.default_rng(3)
    halves = (rng.chisquare(2, size=900), rng.chisquare(2, size=1100))
    widths = kernel_bandwidths(halves, count=4, minimum=50)
    inside = [[int((half < h * h).sum()) for h in widths] for half in halves]
    assert min(inside[0][0], inside[1][0]) == 50
    sizes = np.sum(inside, axis=0)
    assert len(widths) == 4 and sizes[-1] == pytest.approx(2000 * 2 / 3, abs=2)
    ratios = sizes[1:] / sizes[:-1]
    np.testing.assert_allclose(ratios, ratios[0], rtol=0.02)
    assert ratios[0] > 1.5
    # from a quarter of a half-set to two thirds of all there is room for two steps
    assert len(kernel_bandwidths(halves, count=20, minimum=400)) == 3


def test_bandwidths_ascend_when_all_particles_are_at_one_place():
    same = np.zeros(40)
    assert (np.diff(kernel_bandwidths((same, same))) > 0).all()


def ring(rng, count=1500):
    """Particles on three quarters of a circle, open at the bottom."""
    angle = rng.uniform(-0.25 * np.pi, 1.25 * np.pi, size=count)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.03 * rng.normal(size=(count, 2))


def test_path_follows_the_particles_where_a_line_would_leave_them():
    z = ring(np.random.default_rng(4))
    precision = np.broadcast_to(400.0 * np.eye(2), (len(z), 2, 2))
    ends = np.array([[np.cos(-0.2 * np.pi), np.sin(-0.2 * np.pi)], [np.cos(1.2 * np.pi), np.sin(1.2 * np.pi)]])
    path = dense_path(ends, z, precision, 15)
    np.testing.assert_allclose(path[[0, -1]], ends)
    radius = np.linalg.norm(path, axis=1)
    assert radius.min() > 0.85 and radius.max() < 1.15
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert steps.max() < 1.1 * steps.min()


def test_path_through_an_even_cloud_is_nearly_straight():
    rng = np.random.default_rng(5)
    z = rng.uniform(-1, 1, size=(3000, 2))
    precision = np.broadcast_to(25.0 * np.eye(2), (len(z), 2, 2))
    path = dense_path(np.array([[-0.6, 0.0], [0.6, 0.0]]), z, precision, 9)
    assert np.abs(path[:, 1]).max() < 0.15


def test_path_without_length_is_refused():
    with pytest.raises(ValueError, match="no length"):
        dense_path(np.zeros((2, 2)), np.ones((5, 2)), np.ones((5, 1, 1)) * np.eye(2), 4)


def test_mixture_separates_crossing_clouds_that_kmeans_cannot():
    rng = np.random.default_rng(6)
    long, wide = rng.normal(size=(400, 2)) * [3.0, 0.1], rng.normal(size=(400, 2)) * [0.1, 3.0] + [0.0, 8.0]
    clusters = mixture_clusters(np.concatenate([long, wide]), 2, seed=0)
    labels = clusters.labels
    assert (labels[:400] == labels[0]).mean() > 0.98 and (labels[400:] == labels[-1]).mean() > 0.98
    assert labels[0] != labels[-1]
    np.testing.assert_allclose(clusters.centres[labels[0]], long.mean(axis=0), atol=0.2)


def test_no_kernel_is_narrower_than_the_uncertainty_of_the_particles():
    near = np.random.default_rng(7).uniform(0, 0.05, size=500)
    assert kernel_bandwidths((near, near), uncertainty=2.0)[0] == pytest.approx(np.sqrt(2.0))
