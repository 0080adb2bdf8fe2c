"""Points along a path are equally spaced and keep its ends."""

from __future__ import annotations

import numpy as np
import pytest

from solvar_engine.latent import resample_polyline


def test_points_are_equally_spaced_on_the_path():
    anchors = np.array([[0.0, 0.0, 1.0], [3.0, 4.0, 1.0], [3.0, 4.0, 6.0]])
    points = resample_polyline(anchors, 11)
    np.testing.assert_allclose(np.linalg.norm(np.diff(points, axis=0), axis=1), 1.0)
    np.testing.assert_allclose(points[[0, 5, 10]], anchors, atol=1e-12)


def test_one_coordinate_and_a_repeated_anchor():
    points = resample_polyline(np.array([[0.0], [2.0], [2.0], [1.0]]), 4)
    np.testing.assert_allclose(points[:, 0], [0.0, 1.0, 2.0, 1.0])


def test_bad_paths_are_refused():
    with pytest.raises(ValueError, match="at least two anchors"):
        resample_polyline(np.zeros((1, 2)), 5)
    with pytest.raises(ValueError, match="no length"):
        resample_polyline(np.ones((3, 2)), 5)
    with pytest.raises(ValueError, match="at least two points"):
        resample_polyline(np.array([[0.0], [1.0]]), 1)
