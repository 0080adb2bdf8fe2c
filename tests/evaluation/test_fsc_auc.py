"""The area under the Fourier shell correlation against its definition and its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvar_engine.evaluation.fsc_auc import fsc_auc
from solvar_engine.evaluation.metrics import PARTICLES_COMPARED
from solvar_engine.imaging.sampling import sample_of_at_least

BOX = 12


def curve_by_definition(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """FSC over i - 1 <= |k| < i of the full transforms, 1 at i = 0."""
    axis = np.arange(BOX) - BOX // 2
    radius = np.sqrt(sum(grid**2 for grid in np.meshgrid(axis, axis, axis, indexing="ij")))
    one, two = (np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(volume))) for volume in (first, second))
    curve = [1.0]
    for i in range(1, BOX // 2):
        band = (radius >= i - 1) & (radius < i)
        a, b = one[band], two[band]
        curve.append(abs((a * b.conj()).sum().real / np.sqrt((abs(a) ** 2).sum() * (abs(b) ** 2).sum())))
    return np.array(curve)


def random_volumes(count: int) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(0).standard_normal((count, BOX, BOX, BOX)).astype(np.float32)
    )


def test_perfect_volumes_reach_the_largest_value() -> None:
    states = random_volumes(2)
    eigenvolumes = (states[1] - states[0])[None]
    state = np.array([0, 1, 1])
    found = fsc_auc(states[0], eigenvolumes, state[:, None], lambda row: states[state[row]], range(3))
    largest = (BOX / 2 - 1) / BOX
    assert found["mean"] == pytest.approx(largest, abs=1e-5)
    assert found["median"] == pytest.approx(largest, abs=1e-5)
    assert found["std"] < 1e-5
    assert found["mean_only"] < largest - 0.1


def test_areas_follow_the_definition() -> None:
    mean, truth, component = random_volumes(3)
    mask = torch.zeros(BOX, BOX, BOX)
    mask[2:9, 3:10, 1:8] = 1.0
    found = fsc_auc(mean, component[None], np.array([[0.7]]), lambda _: truth, [0], mask)
    volume = (mean + 0.7 * component) * mask
    x = np.arange(BOX // 2) / BOX
    expected = np.trapezoid(curve_by_definition(volume.numpy(), (truth * mask).numpy()), x)
    assert found["mean"] == pytest.approx(expected, rel=1e-4)
    mean_only = np.trapezoid(curve_by_definition((mean * mask).numpy(), (truth * mask).numpy()), x)
    assert found["mean_only"] == pytest.approx(mean_only, rel=1e-4)


def test_without_components_only_the_mean_is_scored() -> None:
    mean, truth = random_volumes(2)
    nothing = torch.zeros(0, BOX, BOX, BOX)
    found = fsc_auc(mean, nothing, np.zeros((2, 0)), lambda _: truth, [0, 1])
    assert found["mean"] == found["mean_only"]


def test_particles_are_evenly_spaced() -> None:
    for count, expected in ((10000, range(0, 10000, 100)), (7, range(7)), (250, range(0, 250, 2))):
        assert sample_of_at_least(np.arange(count), PARTICLES_COMPARED).tolist() == list(expected)
