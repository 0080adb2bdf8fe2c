"""Latents that tell the truth, part of it, or nothing."""

from __future__ import annotations

import numpy as np
import pytest

from solvar_engine.evaluation.latent_scores import (
    latent_r2,
    latent_r2_poly,
    state_accuracy,
    states_are_discrete,
)

COUNT = 600


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_curved_latent_of_the_coordinate_scores_nearly_one(rng: np.random.Generator) -> None:
    t = rng.uniform(0, 1, (COUNT, 1))
    z = np.concatenate([np.cos(2 * t), 40 * np.sin(2 * t)], axis=1).astype(np.float32)
    assert latent_r2(z, t) > 0.99
    assert latent_r2_poly(z, t) > 0.99


def test_noise_scores_nothing(rng: np.random.Generator) -> None:
    t, z = rng.uniform(0, 1, (COUNT, 1)), rng.standard_normal((COUNT, 3))
    assert latent_r2(z, t) < 0.05
    assert latent_r2_poly(z, t) < 0.05


def test_coordinates_are_averaged_and_constant_ones_left_out(rng: np.random.Generator) -> None:
    t = rng.uniform(0, 1, (COUNT, 1))
    other, constant = rng.uniform(0, 1, (COUNT, 1)), np.full((COUNT, 1), 0.3)
    both = latent_r2(t, np.concatenate([t, other, constant], axis=1))
    assert both == pytest.approx((latent_r2(t, t) + latent_r2(t, other)) / 2, abs=1e-6)


def test_scores_do_not_depend_on_the_scale_of_latents(rng: np.random.Generator) -> None:
    t = rng.uniform(0, 1, (COUNT, 1))
    z = np.concatenate([t, rng.standard_normal((COUNT, 1))], axis=1)
    assert latent_r2(z * np.array([1e-3, 1e3]), t) == pytest.approx(latent_r2(z, t), abs=1e-6)


def test_separate_clusters_are_classified(rng: np.random.Generator) -> None:
    state = rng.integers(0, 3, COUNT)
    z = np.eye(3)[state] * 10 + rng.standard_normal((COUNT, 3))
    assert state_accuracy(z, state) > 0.99
    assert state_accuracy(rng.standard_normal((COUNT, 3)), state) < 0.45


def test_what_does_not_apply_is_none(rng: np.random.Generator) -> None:
    z = rng.standard_normal((COUNT, 2))
    state = np.zeros(COUNT, dtype=np.int64)
    assert latent_r2(z, np.zeros((COUNT, 0))) is None
    assert latent_r2(z, np.ones((COUNT, 1))) is None
    assert latent_r2(z[:, :0], rng.uniform(size=(COUNT, 1))) is None
    assert latent_r2_poly(z[:, :0], rng.uniform(size=(COUNT, 1))) is None
    assert state_accuracy(z, state) is None
    assert state_accuracy(z, np.arange(COUNT) % (COUNT // 3)) is None  # three particles of a state teach nothing


def test_few_particles_use_the_neighbours_there_are(rng: np.random.Generator) -> None:
    t = rng.uniform(0, 1, (20, 1))
    assert latent_r2(t, t) < 1.0


def test_presence_is_discrete_and_motion_is_not() -> None:
    state = np.array([0, 1, 2])
    assert states_are_discrete(np.array([[0, 1], [1, 1], [0, 0]]), state)
    assert not states_are_discrete(np.array([[0.0], [0.5], [1.0]]), state)
    assert states_are_discrete(np.zeros((3, 0)), state)
    assert not states_are_discrete(np.zeros((3, 0)), np.zeros(3, dtype=np.int64))
