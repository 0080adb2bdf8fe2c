"""What benchmarks of decoders and populations compute, against direct sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.decoders import local_posteriors, softmax
from benchmarks.populations import Wells
from solvar_engine.estimation.model.mixture import GaussianMixture
from solvar_engine.estimation.model.statistics import Statistics


def testlocal_posteriors_are_those_of_dense_gaussians():
    """An image y = centre + B s + noise of variance 1: what it gains is its density over that under nothing."""
    rng = np.random.default_rng(3)
    pixels, rank, centres = 12, 2, rng.normal(size=(3, 12))
    slopes, image = rng.normal(size=(rank, pixels)), rng.normal(size=pixels)
    spreads = [np.diag([1.0, 0.5]), np.array([[1.0, 0.3], [0.3, 2.0]]), np.eye(2) / 7]
    columns = np.concatenate((centres, slopes))
    parts = (columns @ columns.T, columns @ image, np.array(image @ image))
    seen = Statistics(*(torch.from_numpy(part)[None] for part in parts))
    steps, covariances, gains = local_posteriors(seen, spreads)
    for number, spread in enumerate(spreads):
        whole = np.eye(pixels) + slopes.T @ spread @ slopes
        left = image - centres[number]
        expected = -0.5 * left @ np.linalg.solve(whole, left) - 0.5 * np.linalg.slogdet(whole)[1] + 0.5 * image @ image
        assert gains[0, number] == pytest.approx(expected)
        regression = spread @ slopes @ np.linalg.inv(whole)
        np.testing.assert_allclose(steps[0, number], regression @ left)
        np.testing.assert_allclose(covariances[0, number], spread - regression @ slopes.T @ spread)


def test_shares_of_large_logarithms():
    shares, logarithms = softmax(np.array([[1000.0, 1000.0 + np.log(3.0)]]))
    np.testing.assert_allclose(shares, [[0.25, 0.75]])
    np.testing.assert_allclose(logarithms, 1000.0 + np.log(4.0))


def test_points_of_a_density_go_to_the_nearest_state():
    wells = Wells(np.array([[-2.0, 0.0], [2.0, 0.0], [2.5, 0.0]]), None)
    means = torch.tensor([[-2.0, 0.0], [2.0, 0.0]]).double()
    density = GaussianMixture(torch.tensor([0.3, 0.7]).double(), means, 0.01 * torch.eye(2).double()[None])
    np.testing.assert_allclose(wells.of_density(density, seed=1), [0.3, 0.7 * 0.99379, 0.7 * 0.00621], atol=0.005)
    grouped = Wells(np.array([[-2.0, 0.0], [2.0, 0.0], [2.5, 0.0]]), 2)
    assert sorted(grouped.of_density(density, seed=1).round(2)) == [0.3, 0.7]
