"""`fit --still-frame`: a frame that turned with the states, as a consensus refinement leaves it, is brought to rest."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from solvar_engine.contract.results import read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import read_status
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.volumes import read_volume
from solvar_engine.estimation.alternation import iteration
from solvar_engine.estimation.alternation.poses import refine_round
from solvar_engine.estimation.poses.still_frame import in_still_frame
from solvar_engine.imaging.pose_derivatives import pose_derivatives
from solvar_engine.imaging.rotation import rotation_to_rotvec
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.fit.plan import FitDemand, plan_fit
from solvar_engine.jobs.simulate.files import DataSetFiles
from tests.jobs.conftest import run_in_process

PIXEL_SIZE = 8.0


def table_of(data: DataSetFiles) -> np.ndarray:
    return np.genfromtxt(data.path / "truth" / "states.csv", delimiter=",", names=True)


def states_of(data: DataSetFiles) -> torch.Tensor:
    """Angle of the hinge of each particle (n, 1), of unit variance."""
    angle = table_of(data)["coordinate_1"]
    return torch.from_numpy((angle - angle.mean()) / angle.std())[:, None]


@pytest.fixture(scope="module")
def drifted(simulate) -> DataSetFiles:
    """Poses as a consensus refinement leaves them: each state is where it resembles the mean of all most."""
    data = simulate("--phantom", "hinge", "--particles", 600, "--box", 24, "--pixel-size", PIXEL_SIZE, "--snr", 1)
    stack = ParticleStack.from_star(data.particles)
    states, number = states_of(data), table_of(data)["state"]
    volumes = torch.stack([read_volume(path).data for path in sorted((data.path / "truth" / "volumes").iterdir())])
    of_each = torch.tensor([float(states[number == one + 1].mean()) for one in range(len(volumes))]).double()
    mean = volumes.mean(dim=0)
    factor = torch.einsum("s,szyx->zyx", of_each.float(), volumes - mean) / of_each.square().sum().float()
    columns = pose_derivatives(mean).flatten(1).T.double()
    drift = -torch.linalg.lstsq(columns, factor.flatten()[:, None].double()).solution
    stack.write_star(data.particles, pose=in_still_frame(stack.pose, drift, states, PIXEL_SIZE))
    return data


def options(data: DataSetFiles, run: RunDir) -> tuple[object, ...]:
    return ("--output", run.path, "--rank", 1, "--mask", data.mask, "--refine-poses", "--still-frame")


@pytest.fixture(scope="module")
def stilled(drifted, tmp_path_factory) -> RunDir:
    run = RunDir(tmp_path_factory.mktemp("fit") / "run")
    assert run_in_process("fit", drifted.particles, *options(drifted, run)) == 0
    return run


def drift_deg(found: Pose, data: DataSetFiles) -> float:
    """By how many degrees orientations turn with a state of unit variance, beside the true ones."""
    true = ParticleStack.from_star(data.path / "truth" / "particles.star", root=data.path).pose
    turn = rotation_to_rotvec(found.rotation.double() @ true.rotation.double().mT)
    states = states_of(data)
    return float(torch.rad2deg((states * (turn - turn.mean(dim=0))).mean(dim=0).norm()))


def test_the_body_stands_still_again(drifted, stilled, engine, tmp_path) -> None:
    before = drift_deg(ParticleStack.from_star(drifted.particles).pose, drifted)
    after = drift_deg(ParticleStack.from_star(stilled.particles, root=drifted.path).pose, drifted)
    assert before > 2.0 and after < 0.3 * before
    said = re.search(r"the frame turned by ([\d.]+) degrees and moved by ([\d.]+) Angstrom", stilled.log.read_text())
    assert said is not None and float(said[1]) == pytest.approx(before, rel=0.3)
    scores = tmp_path / "scores.json"
    assert engine("evaluate", stilled.path, drifted.path, "--json", scores).code == 0
    assert json.loads(scores.read_text())["captured_variance_2"] > 0.7
    # changes are those from the poses that were given, not from those that the second fit began with
    changes = StarFile.read(stilled.particles).particles.numbers("solvarRotationChange")["solvarRotationChange"]
    assert changes.mean() > 0.7 * before


def test_a_fit_that_was_stopped_after_the_frame_was_found_goes_on(drifted, stilled, engine, monkeypatch, tmp_path):
    """In the first refinement of poses in the new frame, which is the third of all."""
    rounds, run = [], RunDir(tmp_path / "run")

    def stop(*arguments):
        rounds.append(read_status(run.status).step)
        if len(rounds) == 3:
            raise RuntimeError("stopped")
        return refine_round(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(iteration, "refine_round", stop)
        assert engine("fit", drifted.particles, *options(drifted, run), "--resume").code == 1
        assert rounds == sorted(set(rounds)) and "still frame" not in read_status(run.status).stage
    assert engine("fit", drifted.particles, *options(drifted, run), "--resume").code == 0
    np.testing.assert_allclose(read_latents(run.latents).z, read_latents(stilled.latents).z, rtol=1e-4, atol=1e-4)
    status = json.loads(run.status.read_text())
    assert status["step"] == status["steps"]


def test_a_second_fit_is_in_the_expected_time() -> None:
    demand = FitDemand(10_000, 64, 6, 2, 2, 2000, pose_rounds=3)
    once, twice = (plan_fit(replace(demand, fits=fits)) for fits in (1, 2))
    assert 1.5 * once.seconds < twice.seconds <= 2 * once.seconds


@pytest.mark.parametrize(
    ("others", "text"),
    [((), "--still-frame belongs to --refine-poses"), (("--refine-poses", "--symmetry", "C2"), "without symmetry")],
)
def test_what_does_not_go_together(others, text, drifted, engine, tmp_path) -> None:
    outcome = engine("fit", drifted.particles, "--output", tmp_path / "run", "--rank", 1, "--still-frame", *others)
    assert outcome.code == 2 and text in outcome.error
