"""The oracle knows what it is said to know, and its latent coordinates are those of the particles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.oracle import oracle_estimate, true_components
from solvar_engine.contract.params import SimulateParams
from solvar_engine.evaluation.covariance_scores import state_factor
from solvar_engine.evaluation.metrics import Truth
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs import run_simulate as simulate

BOX, PARTICLES = 16, 400


@pytest.fixture(scope="module")
def hinge(tmp_path_factory):
    """Clear images of the hinge whose particle list has wrong poses; the truth has the right ones."""
    folder = tmp_path_factory.mktemp("hinge") / "data"
    simulate.run(
        SimulateParams(
            output=str(folder),
            phantom=("hinge",),
            particles=PARTICLES,
            box=BOX,
            pixel_size=12.0,
            snr=2.0,
            rotation_error=10.0,
        )
    )
    return folder


def few_states() -> Truth:
    """Three states of eight voxels, one of them twice as frequent, and a mask over half of them."""
    generator = np.random.default_rng(0)
    state = np.array([0, 0, 1, 2])
    mask = np.zeros((2, 2, 2), dtype=np.float32)
    mask[0] = 1
    return Truth(
        volumes=generator.normal(size=(3, 2, 2, 2)).astype(np.float32),
        mask=mask,
        state=state,
        coordinates=np.zeros((4, 0)),
        contrast=np.ones(4),
        pose=Pose(torch.eye(3).expand(4, 3, 3), torch.zeros(4, 2)),
        pixel_size=1.0,
        is_junk=np.zeros(4, dtype=bool),
    )


def test_components_are_those_of_the_masked_covariance() -> None:
    truth = few_states()
    mean, components = true_components(truth, 5)
    particles = truth.volumes[truth.state].reshape(4, 8).astype(np.float64)
    assert np.allclose(mean.numpy().ravel(), particles.mean(axis=0), atol=1e-6)
    masked = (particles - particles.mean(axis=0)) * truth.mask.ravel()
    values, vectors = np.linalg.eigh(masked.T @ masked / 4)
    assert components.eigenvalues.shape == (2,)  # three states differ in two dimensions
    assert np.allclose(components.eigenvalues, values[::-1][:2])
    overlap = components.eigenvolumes.reshape(2, 8).double().numpy() @ vectors[:, ::-1][:, :2]
    assert np.allclose(np.abs(overlap), np.eye(2), atol=1e-5)


def test_latents_are_the_projections_of_the_true_volumes(hinge) -> None:
    estimate, truth = oracle_estimate(hinge, 2)
    _, factor = state_factor(truth.volumes, np.bincount(truth.state, minlength=50).astype(float))
    share = np.sqrt(np.bincount(truth.state, minlength=50) / PARTICLES)
    deviation = (factor / np.maximum(share, 1e-9)[:, None, None, None] * truth.mask).reshape(50, -1)
    expected = deviation[truth.state] @ estimate.eigenvolumes.reshape(2, -1).T
    slope = np.polyfit(expected[:, 0], estimate.z[:, 0], 1)[0]
    assert np.corrcoef(expected[:, 0], estimate.z[:, 0])[0, 1] > 0.95
    assert slope == pytest.approx(1.0, abs=0.15)


def test_a_smaller_working_box_leaves_the_units_of_the_truth(tmp_path) -> None:
    folder = tmp_path / "data"
    simulate.run(SimulateParams(output=str(folder), phantom=("hinge",), particles=200, box=24, pixel_size=8.0, snr=2.0))
    whole, _ = oracle_estimate(folder, 1)
    cropped, _ = oracle_estimate(folder, 1, box_size=16)
    spread = [np.sqrt((estimate.z**2).mean() / estimate.eigenvalues[0]) for estimate in (whole, cropped)]
    assert spread[0] == pytest.approx(1.0, abs=0.15)
    assert spread[1] == pytest.approx(1.0, abs=0.15)


def test_a_molecule_without_states_has_no_component(tmp_path) -> None:
    folder = tmp_path / "data"
    simulate.run(SimulateParams(output=str(folder), phantom=("static",), particles=120, box=16, pixel_size=12.0))
    estimate, _ = oracle_estimate(folder, 3)
    assert estimate.z.shape == (120, 0)
