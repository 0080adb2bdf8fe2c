"""Scores of covariances on cases whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from solvar_engine.evaluation.covariance_scores import covariance_scores, mean_scale, state_factor

VOXELS = 6**3


def random_truth(seed: int = 0, states: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factor of some weighted states with its eigenvectors (r, voxels) and eigenvalues."""
    rng = np.random.default_rng(seed)
    volumes = rng.standard_normal((states, VOXELS)) @ np.diag(np.linspace(0.1, 2, VOXELS))
    _, factor = state_factor(volumes, rng.uniform(1, 3, states))
    _, singular, vectors = np.linalg.svd(factor, full_matrices=False)
    rank = states - 1
    return factor, vectors[:rank], singular[:rank] ** 2


def test_the_exact_covariance_has_no_error() -> None:
    factor, vectors, eigenvalues = random_truth()
    scores = covariance_scores(factor, vectors, eigenvalues)
    assert scores.captured_variance == pytest.approx(1.0, abs=1e-6)
    assert scores.captured_variance_2 == pytest.approx(1.0, abs=1e-6)
    assert scores.covariance_error < 1e-3  # the root of the rounding of float32 factors
    assert scores.covariance_error_scaled < 1e-3
    assert scores.eigenvalues_true == pytest.approx(eigenvalues, rel=1e-4)
    assert scores.variance_along == pytest.approx(eigenvalues, rel=1e-4)


def test_errors_equal_those_of_the_full_matrices() -> None:
    factor, _, _ = random_truth()
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(factor.T + 0.5 * rng.standard_normal((VOXELS, len(factor))))[0][:, :3].T
    eigenvalues = np.array([30.0, 20.0, 5.0])
    scores = covariance_scores(factor, basis, eigenvalues)
    true = factor.T.astype(float) @ factor
    estimated = basis.T * eigenvalues @ basis
    norm = np.linalg.norm(true)
    assert scores.covariance_error == pytest.approx(np.linalg.norm(estimated - true) / norm, rel=1e-5)
    best = (estimated * true).sum() / (estimated**2).sum()
    scaled = np.linalg.norm(best * estimated - true) / norm
    assert scores.covariance_error_scaled == pytest.approx(scaled, rel=1e-5)
    captured = np.trace(basis @ true @ basis.T)
    assert scores.captured_variance == pytest.approx(captured / np.trace(true), rel=1e-5)
    best_two = np.linalg.eigvalsh(true)[-2:].sum()
    captured_2 = np.trace(basis[:2] @ true @ basis[:2].T) / best_two
    assert scores.captured_variance_2 == pytest.approx(captured_2, rel=1e-5)


def test_a_wrong_scale_is_an_error_only_without_rescaling() -> None:
    factor, vectors, eigenvalues = random_truth()
    scores = covariance_scores(factor, vectors, 0.4 * eigenvalues)
    assert scores.covariance_error == pytest.approx(0.6, rel=1e-4)
    assert scores.covariance_error_scaled < 1e-3
    assert scores.captured_variance == pytest.approx(1.0, abs=1e-6)


def test_components_that_are_not_orthogonal_do_not_count_twice() -> None:
    truth = np.diag([2.0, 1.0, 0.0])
    twice = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert covariance_scores(truth, twice, np.ones(2)).captured_variance == pytest.approx(0.8)


def test_components_beside_the_truth_capture_nothing() -> None:
    truth = np.diag([2.0, 1.0, 0.0])
    scores = covariance_scores(truth, np.array([[0.0, 0.0, 1.0]]), np.array([3.0]))
    assert scores.captured_variance == 0.0
    assert scores.variance_along.tolist() == [0.0]
    assert scores.covariance_error == pytest.approx(np.sqrt(1 + 9 / 17))
    assert scores.covariance_error_scaled == pytest.approx(1.0)


def test_an_empty_estimate_misses_everything() -> None:
    factor, _, _ = random_truth()
    scores = covariance_scores(factor, np.zeros((0, VOXELS)), np.zeros(0))
    assert (scores.captured_variance, scores.captured_variance_2) == (0.0, 0.0)
    assert scores.covariance_error == pytest.approx(1.0)
    assert scores.covariance_error_scaled == pytest.approx(1.0)


def test_one_component_is_compared_with_the_best_two() -> None:
    truth = np.diag([2.0, 1.0])
    scores = covariance_scores(truth, np.array([[1.0, 0.0]]), np.array([4.0]))
    assert scores.captured_variance_2 == pytest.approx(0.8)


def test_states_are_weighted_by_their_particles() -> None:
    volumes = np.array([[0.0, 0.0], [4.0, 0.0]])
    mean, factor = state_factor(volumes, np.array([3, 1]))
    assert mean.tolist() == [1.0, 0.0]
    covariance = factor.T @ factor
    assert covariance[0, 0] == pytest.approx(3.0)  # p (1 - p) d^2


def test_the_scale_of_the_mean_sees_the_mask_only() -> None:
    true = np.random.default_rng(0).standard_normal((4, 4, 4))
    mask = np.zeros((4, 4, 4))
    mask[1:3] = 1.0
    estimated = np.where(mask > 0, -0.5 * true, 7.0)
    assert mean_scale(estimated, true, mask) == pytest.approx(-2.0)
    with pytest.raises(ValueError, match="zero inside the mask"):
        mean_scale(np.zeros((4, 4, 4)), true, mask)


def test_a_truth_without_variability_is_refused() -> None:
    with pytest.raises(ValueError, match="do not differ"):
        covariance_scores(np.zeros((1, 8)), np.zeros((1, 8)), np.ones(1))


def test_boxes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="8 voxels, the 1 eigenvolumes have 27"):
        covariance_scores(np.ones((1, 8)), np.ones((1, 27)), np.ones(1))
