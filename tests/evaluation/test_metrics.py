"""All scores together, on an estimate that is the truth and on one that knows nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from solvar_engine.evaluation.covariance_scores import state_factor
from solvar_engine.evaluation.metrics import Estimate, Truth, evaluate_estimate
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.imaging.types import Pose

BOX, COUNT, STATES = 10, 400, 5
KEYS = {
    "captured_variance", "captured_variance_2", "covariance_error", "covariance_error_scaled",
    "eigenvalues_true", "eigenvalues_estimated", "latent_r2", "latent_r2_poly", "state_accuracy", "latent_calibration",
    "fsc_auc_mean", "fsc_auc_std", "fsc_auc_median", "fsc_auc_mean_only", "rotation_error_deg",
    "rotation_error_start_deg", "shift_error_px", "shift_error_start_px", "contrast_r2",
}  # fmt: skip


def make_truth(states: int = STATES) -> Truth:
    rng = np.random.default_rng(0)
    body = 3 * rng.standard_normal((BOX, BOX, BOX))
    motion = rng.standard_normal((2, BOX, BOX, BOX))
    t = np.linspace(-1, 1, states) if states > 1 else np.zeros(1)
    volumes = body + t[:, None, None, None] * motion[0] + t[:, None, None, None] ** 2 * motion[1]
    state = rng.integers(0, states, COUNT)
    generator = torch.Generator().manual_seed(0)
    return Truth(
        volumes=volumes.astype(np.float32),
        mask=np.ones((BOX, BOX, BOX), dtype=np.float32),
        state=state,
        coordinates=t[state][:, None] if states > 1 else np.zeros((COUNT, 0)),
        contrast=rng.normal(1, 0.2, COUNT),
        pose=Pose(random_rotations(COUNT, generator), torch.randn(COUNT, 2, generator=generator)),
        pixel_size=2.0,
        is_junk=np.zeros(COUNT, dtype=bool),
    )


def perfect_estimate(truth: Truth, scale: float = 1.0) -> Estimate:
    """The truth itself, in other units: volumes divided by `scale`."""
    weight = np.bincount(truth.state, minlength=len(truth.volumes)).astype(float)
    mean, factor = state_factor(truth.volumes / scale, weight)
    _, singular, vectors = np.linalg.svd(factor.reshape(len(factor), -1), full_matrices=False)
    eigenvolumes = vectors[:2].astype(np.float32)
    deviation = truth.volumes / scale - mean
    z = deviation.reshape(len(deviation), -1) @ eigenvolumes.T
    return Estimate(
        mean=mean,
        eigenvolumes=eigenvolumes.reshape(2, BOX, BOX, BOX),
        eigenvalues=singular[:2].astype(float) ** 2,
        z=z[truth.state],
        contrast=truth.contrast.astype(np.float32),
        pose=truth.pose,
        start_pose=None,
    )


@pytest.mark.parametrize("scale", [1.0, -4.0])
def test_the_truth_scores_perfectly_in_any_units(scale: float) -> None:
    truth = make_truth()
    evaluation = evaluate_estimate(perfect_estimate(truth, scale), truth)
    scores = evaluation.scores
    assert set(scores) == KEYS
    for key in ("captured_variance", "captured_variance_2", "latent_r2", "contrast_r2"):
        assert scores[key] == pytest.approx(1.0, abs=1e-4), key
    assert scores["latent_r2_poly"] > 0.99
    assert scores["covariance_error"] < 1e-3
    assert scores["eigenvalues_estimated"] == pytest.approx(scores["eigenvalues_true"][:2], rel=1e-4)
    assert scores["fsc_auc_mean"] == pytest.approx((BOX / 2 - 1) / BOX, abs=1e-4)
    assert scores["rotation_error_deg"] < 1e-3 and scores["shift_error_px"] < 1e-4
    assert scores["rotation_error_start_deg"] is None and scores["shift_error_start_px"] is None
    assert scores["state_accuracy"] is None  # a motion has no classes
    for component in evaluation.components:
        assert component.variance_along == pytest.approx(component.eigenvalue, rel=1e-4)


@pytest.mark.parametrize("scale", [1.0, -4.0])
def test_errors_are_compared_with_the_stated_ones(scale: float) -> None:
    """Errors of half of what is stated, of another size for every particle, and a component that is dead."""
    truth, rng = make_truth(), np.random.default_rng(4)
    perfect = perfect_estimate(truth, scale)
    deviation = np.abs(scale) ** -1 * rng.uniform(0.5, 2.0, size=perfect.z.shape)
    estimate = dataclasses.replace(
        perfect, z=perfect.z + 0.5 * deviation * rng.choice([-1, 1], size=perfect.z.shape), deviation=deviation
    )
    assert evaluate_estimate(estimate, truth).scores["latent_calibration"] == pytest.approx(0.5, rel=1e-3)
    estimate.deviation[:, 1] = 1e-9
    dead = dataclasses.replace(estimate, eigenvalues=perfect.eigenvalues * [1, 1e-9])
    assert evaluate_estimate(dead, truth).scores["latent_calibration"] == pytest.approx(0.5, rel=1e-3)
    assert evaluate_estimate(perfect, truth).scores["latent_calibration"] is None


def test_dead_components_do_not_count() -> None:
    """Standardised, noise of a component without variance would hide the others from the nearest neighbours."""
    truth = make_truth()
    whole = perfect_estimate(truth)
    dead = np.random.default_rng(3).standard_normal((COUNT, 3)).astype(np.float32)
    with_dead = dataclasses.replace(
        whole,
        eigenvolumes=np.concatenate((whole.eigenvolumes, 0 * whole.eigenvolumes[:1].repeat(3, axis=0))),
        eigenvalues=np.concatenate((whole.eigenvalues, [1e-4 * whole.eigenvalues[0]] * 3)),
        z=np.concatenate((whole.z, dead), axis=1),
    )
    alone, beside = (evaluate_estimate(estimate, truth).scores for estimate in (whole, with_dead))
    for key in ("latent_r2", "latent_r2_poly"):
        assert beside[key] == alone[key]
    alive = dataclasses.replace(with_dead, eigenvalues=np.full(5, whole.eigenvalues[0]))
    assert evaluate_estimate(alive, truth).scores["latent_r2"] < alone["latent_r2"] - 0.01


def test_classes_are_counted_and_start_poses_compared() -> None:
    truth = make_truth(states=2)
    truth = dataclasses.replace(truth, coordinates=(truth.coordinates > 0).astype(float))
    moved = Pose(truth.pose.rotation, truth.pose.shift + 2.0 * torch.randn(COUNT, 2))
    estimate = dataclasses.replace(perfect_estimate(truth), start_pose=moved)
    scores = evaluate_estimate(estimate, truth).scores
    assert scores["state_accuracy"] == 1.0
    assert scores["shift_error_start_px"] == pytest.approx(np.sqrt(np.pi / 2), rel=0.15)
    assert scores["shift_error_px"] < 1e-4


def test_a_static_truth_leaves_heterogeneity_out() -> None:
    truth = make_truth(states=1)
    estimate = dataclasses.replace(
        perfect_estimate(make_truth()), mean=truth.volumes[0], eigenvalues=np.array([0.2, 0.1])
    )
    evaluation = evaluate_estimate(estimate, truth)
    scores = evaluation.scores
    for key in ("captured_variance", "captured_variance_2", "covariance_error", "covariance_error_scaled"):
        assert scores[key] is None
    for key in ("latent_r2", "latent_r2_poly", "state_accuracy"):
        assert scores[key] is None
    assert scores["eigenvalues_true"] == []
    assert scores["eigenvalues_estimated"] == pytest.approx([0.2, 0.1])
    assert evaluation.components == ()


def test_an_estimate_without_components_is_scored() -> None:
    truth = make_truth()
    empty = dataclasses.replace(
        perfect_estimate(truth),
        eigenvolumes=np.zeros((0, BOX, BOX, BOX), dtype=np.float32),
        eigenvalues=np.zeros(0),
        z=np.zeros((COUNT, 0), dtype=np.float32),
    )
    scores = evaluate_estimate(empty, truth).scores
    assert scores["captured_variance"] == 0.0
    assert scores["covariance_error"] == pytest.approx(1.0)
    assert scores["latent_r2"] is None
    assert scores["fsc_auc_mean"] == scores["fsc_auc_mean_only"]


def test_volumes_of_another_box_are_refused() -> None:
    truth = make_truth()
    other = dataclasses.replace(truth, volumes=truth.volumes[:, 1:, 1:, 1:])
    with pytest.raises(ValueError, match="true volumes of"):
        evaluate_estimate(perfect_estimate(truth), other)


def test_junk_is_left_out_of_every_score() -> None:
    truth = make_truth()
    rng = np.random.default_rng(1)
    is_junk = rng.random(COUNT) < 0.3
    estimate = dataclasses.replace(perfect_estimate(truth), start_pose=truth.pose)
    rows = np.flatnonzero(~is_junk)
    alone = dataclasses.replace(truth, state=truth.state[rows], contrast=truth.contrast[rows])
    mean, factor = state_factor(truth.volumes, np.bincount(alone.state, minlength=STATES).astype(float))
    _, singular, vectors = np.linalg.svd(factor.reshape(STATES, -1), full_matrices=False)
    # perfect for the molecule, nonsense for junk
    z, contrast = estimate.z.copy(), estimate.contrast.copy()
    z[is_junk] = 100 * rng.standard_normal((int(is_junk.sum()), 2))
    contrast[is_junk] = -5.0
    shift = truth.pose.shift.clone()
    shift[torch.from_numpy(is_junk)] += 50.0 * torch.randn(int(is_junk.sum()), 2)
    estimate = dataclasses.replace(
        estimate,
        mean=mean,
        eigenvolumes=vectors[:2].reshape(2, BOX, BOX, BOX).astype(np.float32),
        eigenvalues=singular[:2] ** 2,
        z=z,
        contrast=contrast,
        pose=Pose(truth.pose.rotation, shift),
        start_pose=Pose(truth.pose.rotation, shift),
    )
    scores = evaluate_estimate(estimate, dataclasses.replace(truth, is_junk=is_junk)).scores
    for key in ("captured_variance", "latent_r2", "contrast_r2"):
        assert scores[key] == pytest.approx(1.0, abs=1e-3), key
    assert scores["covariance_error"] < 1e-3
    assert scores["shift_error_px"] < 1e-4 and scores["shift_error_start_px"] < 1e-4
    spoilt = evaluate_estimate(estimate, truth).scores
    assert spoilt["latent_r2"] < 0.9 and spoilt["contrast_r2"] < 0.1 and spoilt["shift_error_px"] > 1.0
    assert spoilt["covariance_error"] > 1e-3


def test_junk_alone_cannot_be_scored() -> None:
    truth = make_truth()
    with pytest.raises(ValueError, match="no image shows the molecule"):
        evaluate_estimate(perfect_estimate(truth), dataclasses.replace(truth, is_junk=np.ones(COUNT, dtype=bool)))
