"""The models that images of known poses are made of: as far from the fit's as its own error."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from solvar_engine.estimation.judging.bootstrap import ErrorFactors
from solvar_engine.estimation.judging.components import Components
from solvar_engine.imaging.fourier import volume_to_ft
from solvar_engine.imaging.shells import radial_average
from solvar_engine.jobs.fit.bootstrap import _error_of_mean, _models, measure_errors
from solvar_engine.reconstruction.mean import MeanEstimate
from tests.reconstruction.simulated import noise

BOX, RANK = 16, 2


def halves_of_mean(correlation: float) -> MeanEstimate:
    """Half-maps of white noise, with any FSC written beside them."""
    first, second = noise(2, BOX, BOX, BOX, seed=1)
    return MeanEstimate(first + second, first, second, torch.full((BOX // 2 + 1,), correlation, dtype=torch.float64))


@pytest.mark.parametrize("correlation", [0.9, 0.2, 0.0])
def test_the_error_of_the_mean_has_its_posterior_variance(correlation: float) -> None:
    """Noise of unit variance in each half-map leaves 1 / 2 in both, and W / 2 behind a Wiener filter W."""
    error = _error_of_mean(halves_of_mean(correlation))
    power = radial_average(volume_to_ft(error).abs().square(), BOX)[1:].mean()
    of_one = radial_average(volume_to_ft(noise(2, BOX, BOX, BOX, seed=1)[0]).abs().square(), BOX)[1:].mean()
    wiener = 2 * correlation / (1 + correlation)
    assert float(power / of_one) == pytest.approx(wiener / 2, rel=0.1, abs=1e-6)


@dataclass(frozen=True)
class Problem:
    mean: torch.Tensor
    mask: torch.Tensor


def test_images_are_made_of_models_to_either_side_of_the_fit() -> None:
    axes = torch.linalg.qr(noise(BOX**3, RANK, seed=2))[0].T.reshape(RANK, BOX, BOX, BOX)
    values = torch.tensor([4.0, 1.0], dtype=torch.float64)
    components = Components(axes, values, values, values, values)
    factors = [SimpleNamespace(volumes=2 * axes + 0.2 * noise(RANK, BOX, BOX, BOX, seed=s) / BOX**1.5) for s in (3, 4)]
    mean = halves_of_mean(0.8)
    halves = SimpleNamespace(
        mean=mean, problem=Problem(mean.mean, torch.ones(BOX, BOX, BOX)), state=SimpleNamespace(factors=factors)
    )
    first, second = _models(halves, components)
    torch.testing.assert_close(0.5 * (first.problem.mean + second.problem.mean), mean.mean)
    middle = 0.5 * (first.components.eigenvolumes + second.components.eigenvolumes)
    torch.testing.assert_close(middle, axes)
    torch.testing.assert_close(first.problem.mean - mean.mean, _error_of_mean(mean))
    # half-set versions that differ by an eighth of noise of unit norm each: the square of that, once for both
    apart = (first.components.eigenvolumes - axes).flatten(1).norm(dim=1)
    assert apart.tolist() == pytest.approx([0.1 / 2**0.5] * RANK, rel=0.2)


def test_poses_that_are_taken_for_true_have_no_other_errors() -> None:
    values = torch.ones(RANK, dtype=torch.float64)
    components = Components(torch.zeros(RANK, BOX, BOX, BOX), values, values, values, values)
    halves = SimpleNamespace(pose_spread=None, found_spread=None)
    assert measure_errors(SimpleNamespace(), halves, components) == ErrorFactors()
