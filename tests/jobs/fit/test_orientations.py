"""A doubt of orientations that the mean raised is taken back where components tell them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from solvar_engine.contract.params import FitParams
from solvar_engine.contract.run import RunDir, prepared, write_params
from solvar_engine.distributed.world import ALONE
from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.alternation.problem import Masks
from solvar_engine.estimation.judging.given_poses import mean_and_error
from solvar_engine.estimation.model.objectives import OBJECTIVES
from solvar_engine.estimation.solver.epochs import Factors
from solvar_engine.estimation.solver.half_sets import HalfSetState
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.decisions import ImageDecisions, add_cautions, read_cautions, read_decisions, write_decisions
from solvar_engine.jobs.fit import orientations
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.mean import MeanEstimate
from tests.jobs.fit.test_results import BOX, PHANTOM, RANK, components
from tests.jobs.prepared import particles_of
from tests.reconstruction.simulated import LinearPhantom, noise

IMAGES = 300
JOB = SimpleNamespace(world=ALONE)


def fit(
    are_own: bool = True, known: tuple[float, float] = (1.0, 1.0), phantom: LinearPhantom = PHANTOM
) -> HalfSetFit:
    """Images of two motions at their own orientations or others', and half-sets that know a share of the motions."""
    source = particles_of(phantom, noise(IMAGES, RANK), BOX)
    if not are_own:
        source = source.with_pose(Pose(source.pose.rotation.roll(7, dims=0), source.pose.shift))
    everyone, one = torch.arange(IMAGES), torch.ones(BOX, BOX, BOX)
    problem = CovarianceProblem(
        source, (everyone[::2], everyone[1::2]), 0 * one, one, one, RANK, 0, SliceOptions(), OBJECTIVES["ml"], 0.0
    )
    factors = [Factors(share * PHANTOM.factors(BOX), torch.eye(RANK, dtype=torch.float64), 0.0) for share in known]
    state = HalfSetState(1, (factors[0], factors[1]), torch.zeros(RANK, 0, dtype=torch.float64), (0.0, 0.0))
    mean = PHANTOM.mean(BOX)
    means = [mean * (share > 0) for share in known]
    estimate = MeanEstimate(mean, means[0], means[1], torch.ones(BOX // 2, dtype=torch.float64))
    outlier = torch.zeros(IMAGES, dtype=torch.bool)
    return HalfSetFit(source, estimate, Masks(one, one), problem, state, outlier)


def gain_of(halves: HalfSetFit) -> tuple[float, float]:
    return mean_and_error(orientations._gain_of_orientations(JOB, halves, components()))


def test_images_are_likelier_at_their_own_orientations_only() -> None:
    gain, error = gain_of(fit())
    assert gain > 8 * error
    gain, error = gain_of(fit(are_own=False))
    assert abs(gain) < 4 * error


def test_components_tell_orientations_where_the_mean_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orientations, "filtered_halves", lambda mean: (0 * mean.mean, 0 * mean.mean))
    halves = fit(phantom=replace(PHANTOM, mean_mass=0 * PHANTOM.mean_mass))
    gain, error = gain_of(halves)
    assert gain > 8 * error
    nothing = replace(components(), eigenvalues=torch.full((RANK,), 1e-9, dtype=torch.float64))
    assert float(orientations._gain_of_orientations(JOB, halves, nothing).abs().max()) < 1e-3


def test_each_half_is_judged_by_the_other() -> None:
    """What the second half does not know, the first half's images cannot tell."""
    gains = orientations._gain_of_orientations(JOB, fit(known=(1.0, 0.0)), components())
    assert float(gains[: IMAGES // 2].abs().max()) < 1e-3 < float(gains[IMAGES // 2 :].mean())


@pytest.mark.parametrize(("gain", "stays"), [(0.2, True), (3.0, False)])
def test_doubt_is_taken_back_in_the_record(gain: float, stays: bool, tmp_path: Path, monkeypatch) -> None:
    params = FitParams(particles="list.star", output=str(tmp_path / "run"), rank=1)
    run = RunDir(params.output)
    evidence = gain + torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(200)
    monkeypatch.setattr(orientations, "_gain_of_orientations", lambda *_: evidence)
    with prepared(run, params, resume=False):
        write_params(run, params)
        write_decisions(run, ImageDecisions(1.0, 1.0, 0.1, 0.1, True))
        doubts = ["The orientations in list.star do not seem to belong to its images", "the mask is small"]
        add_cautions(run, doubts)
        orientations.settle_doubt_of_orientations(
            SimpleNamespace(world=ALONE, run=run), fit(), replace(components(), eigenvalues=torch.ones(RANK))
        )
        assert read_decisions(run).poses_are_foreign is stays
        assert read_cautions(run) == (doubts if stays else doubts[1:])
