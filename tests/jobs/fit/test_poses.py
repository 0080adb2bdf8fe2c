"""`fit --refine-poses`: errors of orientations and shifts shrink, and the files say so."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from solvar_engine.contract.files import read_csv
from solvar_engine.contract.results import read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import read_status
from solvar_engine.data.particles import ParticleStack
from solvar_engine.estimation.alternation import iteration
from solvar_engine.estimation.alternation.poses import refine_round
from solvar_engine.imaging.rotation import angular_distance_deg
from solvar_engine.jobs.fit.job import POSE_STEPS
from solvar_engine.jobs.fit.plan import FitDemand, plan_fit
from solvar_engine.jobs.simulate.files import DataSetFiles
from tests.jobs.conftest import run_in_process


@pytest.fixture(scope="module")
def disturbed(simulate) -> DataSetFiles:
    return simulate(
        *("--phantom", "hinge", "--particles", 600, "--box", 24, "--pixel-size", 8, "--snr", 1),
        *("--rotation-error", 4, "--shift-error", 0.5),
    )


@pytest.fixture(scope="module")
def refined(disturbed, tmp_path_factory) -> RunDir:
    folder = tmp_path_factory.mktemp("fit") / "run"
    options = ("--output", folder, "--rank", 2, "--mask", disturbed.mask, "--refine-poses")
    assert run_in_process("fit", disturbed.particles, *options) == 0
    return RunDir(folder)


def test_errors_shrink(disturbed, refined, engine, tmp_path) -> None:
    scores = tmp_path / "scores.json"
    assert engine("evaluate", refined.path, disturbed.path, "--json", scores).code == 0
    found = json.loads(scores.read_text())
    assert found["rotation_error_deg"] < 0.6 * found["rotation_error_start_deg"]
    assert found["shift_error_px"] < 0.3 * found["shift_error_start_px"]
    assert found["captured_variance_2"] > 0.6


def test_particles_have_new_poses_and_their_uncertainty(disturbed, refined) -> None:
    before, after = StarFile.read(disturbed.particles).particles, StarFile.read(refined.particles).particles
    assert after.text("rlnImageName") == before.text("rlnImageName")
    assert after.text("rlnDefocusU") == before.text("rlnDefocusU")
    for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"):
        assert not np.allclose(after.numbers(name)[name], before.numbers(name)[name], atol=1e-3), name
    turn, move = after.numbers("solvarRotationStd", "solvarShiftStd").values()
    changes = after.numbers("solvarRotationChange", "solvarShiftChange")
    assert 4 < changes["solvarRotationChange"].mean() < 10 and 3 < changes["solvarShiftChange"].mean() < 8
    assert 0.3 < np.median(turn) < 6 and 0.2 < np.median(move) < 6
    files = refined.particles, disturbed.truth.particles
    found, true = (ParticleStack.from_star(path, disturbed.path).pose for path in files)
    errors = angular_distance_deg(found.rotation, true.rotation), (found.shift - true.shift).norm(dim=1)
    for error, stated in zip(errors, (turn, move), strict=True):
        assert 0.6 < np.median(stated) / float(error.median()) < 1.3
    assert "errors in images that were made from the model, over the stated ones" in refined.log.read_text()


def test_rounds_are_recorded(refined) -> None:
    metrics = read_csv(refined.metrics)
    assert list(metrics["stage"]).count("poses") == 2 * len(set(metrics["shell_max"][metrics["stage"] == "half-sets"]))
    log = refined.log.read_text()
    assert "errors of the given poses: about" in log and "poses differ from the given ones by" in log


def test_an_interrupted_refinement_goes_on_to_the_same_numbers(disturbed, refined, engine, monkeypatch, tmp_path):
    """Stopped in its second round, after poses, noise and outliers of the first are on disk."""
    rounds, run = [], RunDir(tmp_path / "run")

    def stop(*arguments):
        rounds.append(read_status(run.status).step)
        if len(rounds) == 2:
            raise RuntimeError("stopped")
        found = refine_round(*arguments)
        assert read_status(run.status).step == rounds[0] + POSE_STEPS
        assert read_status(run.status).stage == "poses, round 1 of 2"
        return found

    options = ("--output", run.path, "--rank", 2, "--mask", disturbed.mask, "--refine-poses", "--resume")
    with monkeypatch.context() as patch:
        patch.setattr(iteration, "refine_round", stop)
        assert engine("fit", disturbed.particles, *options).code == 1
    assert engine("fit", disturbed.particles, *options).code == 0
    np.testing.assert_allclose(read_latents(run.latents).z, read_latents(refined.latents).z, rtol=1e-4, atol=1e-4)
    status = json.loads(run.status.read_text())
    assert status["step"] == status["steps"]


def test_rounds_of_poses_are_in_the_expected_time() -> None:
    demand = FitDemand(10_000, 64, 6, 2, 2, 2000)
    plain = plan_fit(demand)
    refined, published = (plan_fit(replace(demand, pose_rounds=3, pose_schedule=name)) for name in ("newton", "paper"))
    assert 1.5 * plain.seconds < refined.seconds < 4 * plain.seconds
    assert published.seconds > 5 * refined.seconds


def test_a_schedule_without_refinement_is_refused(disturbed, engine, tmp_path) -> None:
    options = ("--output", tmp_path / "run", "--rank", 2, "--pose-schedule", "paper")
    outcome = engine("fit", disturbed.particles, *options)
    assert outcome.code == 2 and "--pose-schedule belongs to --refine-poses" in outcome.error


def test_nearest_interpolation_is_refused(disturbed, engine, tmp_path) -> None:
    options = ("--output", tmp_path / "run", "--rank", 2, "--refine-poses", "--projector", "nearest")
    outcome = engine("fit", disturbed.particles, *options)
    assert outcome.code == 2 and "--refine-poses needs --projector trilinear or nufft" in outcome.error
    assert not (tmp_path / "run").exists()
