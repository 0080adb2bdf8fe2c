"""Every particle is given to its nearest point."""

from __future__ import annotations

import numpy as np
import pytest

from solvar_engine.latent import nearest_point


def test_nearest_point_is_that_of_the_full_distance_matrix():
    rng = np.random.default_rng(0)
    z, points = rng.normal(size=(200, 3)), rng.normal(size=(7, 3))
    distance = np.linalg.norm(z[:, None] - points[None], axis=2)
    np.testing.assert_array_equal(nearest_point(z, points), distance.argmin(axis=1))


def test_the_first_of_equally_near_points_wins():
    assert nearest_point(np.array([[1.0]]), np.array([[0.0], [2.0]])).tolist() == [0]


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        nearest_point(np.zeros((4, 2)), np.zeros((2, 3)))
