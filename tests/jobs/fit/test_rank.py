"""`fit --rank auto` from end to end, down to no component at all and what the other commands make of that."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from solvar_engine.contract.files import read_csv
from solvar_engine.contract.results import RANK_COLUMNS, read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import StatusTracker, read_status
from tests.jobs.conftest import BOX, PARTICLES, PIXEL_SIZE, RANK, run_in_process


def automatic_fit(data, folder) -> RunDir:
    assert run_in_process("fit", data.particles, "--output", folder, "--rank", "auto") == 0
    return RunDir(folder)


@pytest.fixture(scope="module")
def moving(hinge, tmp_path_factory):
    """The hinge, fitted with an automatic rank; not to be changed."""
    return automatic_fit(hinge, tmp_path_factory.mktemp("moving") / "run")


@pytest.fixture(scope="module")
def static(simulate):
    """300 images of one state."""
    size = ("--particles", PARTICLES, "--box", BOX, "--pixel-size", PIXEL_SIZE, "--snr", 0.2)
    return simulate("--phantom", "static", *size)


@pytest.fixture(scope="module")
def rigid(static, tmp_path_factory):
    """The fit of a molecule that has one state, analysed."""
    run = automatic_fit(static, tmp_path_factory.mktemp("rigid") / "run")
    assert run_in_process("analyze", run.path) == 0
    return run


# --- a molecule that moves


def test_only_real_components_are_kept_and_the_table_says_why(moving) -> None:
    table, eigenvalues = read_csv(moving.rank), read_csv(moving.eigenvalues)
    assert tuple(table) == RANK_COLUMNS
    np.testing.assert_array_equal(table["candidate"], np.arange(1, 11))
    assert (np.diff(table["eigenvalue"]) <= 0).all()
    kept = table["kept"] == 1
    assert 1 <= kept.sum() <= 4 and kept[0]
    for half in ("half1", "half2"):
        assert (table[f"gain_{half}"][kept] > table[f"decoy_max_{half}"][kept]).all()
    assert len(eigenvalues["component"]) == kept.sum() == read_latents(moving.latents).z.shape[1]
    assert eigenvalues["eigenvalue"][0] == pytest.approx(table["eigenvalue"][0], rel=0.1)
    assert not any("not reproducible" in str(label) for label in eigenvalues["label"])
    log = moving.log.read_text()
    assert f"{kept.sum()} of 10 candidates are kept" in log
    assert log.count("on held-out images it gains") == 10 and log.count(": real") == kept.sum()
    assert json.loads(moving.params.read_text())["options"]["rank"] == "auto"


def test_first_component_is_that_of_a_fit_with_a_fixed_rank(moving, fitted) -> None:
    automatic, fixed = (read_latents(run.latents).z[:, 0] for run in (moving, fitted))
    assert abs(np.corrcoef(automatic, fixed)[0, 1]) > 0.98


def test_fixed_rank_keeps_all_and_says_which_are_real(fitted) -> None:
    table = read_csv(fitted.rank)
    assert len(table["kept"]) == RANK and table["kept"][0] == 1
    assert len(read_csv(fitted.eigenvalues)["component"]) == RANK


@pytest.mark.parametrize("lost", [("full",), ("rank", "full")])
def test_resumed_after_the_decision_it_ends_at_the_same_numbers(lost, moving, hinge, engine, tmp_path) -> None:
    run = RunDir(tmp_path / "run")
    shutil.copytree(moving.path, run.path)
    for name in lost:
        (run.checkpoint / f"{name}.npz").unlink()
    run.latents.unlink()
    StatusTracker(run.status, "fit").update(state="failed")
    outcome = engine("fit", hinge.particles, "--output", run.path, "--rank", "auto", "--resume")
    assert outcome.code == 0, outcome.error
    assert ("candidate 1:" in outcome.error) is ("rank" in lost)
    assert run.latents.read_bytes() == moving.latents.read_bytes()
    assert run.rank.read_bytes() == moving.rank.read_bytes()
    assert read_status(run.status).step == read_status(run.status).steps


def test_another_rank_is_not_a_resumed_one(moving, hinge, engine) -> None:
    assert "(was auto, now 3)" in engine("fit", hinge.particles, "--output", moving.path, "--rank", 3, "--resume").error


# --- a molecule that does not


def test_one_state_has_no_component(rigid, static) -> None:
    table = read_csv(rigid.eigenvalues)
    assert list(table)[:2] == ["component", "eigenvalue"] and len(table["component"]) == 0
    assert not read_csv(rigid.rank)["kept"].any()
    latents = read_latents(rigid.latents)
    assert latents.z.shape == (PARTICLES, 0) and latents.precision.shape == (PARTICLES, 0, 0)
    assert np.isfinite(latents.contrast).all()
    assert not list(rigid.eigenvolumes.iterdir())
    assert "no reproducible variability" in read_status(rigid.status).message
    likelihood = StarFile.read(rigid.particles).particles.numbers("solvarLogLikelihood")["solvarLogLikelihood"]
    assert np.isfinite(likelihood).all() and np.ptp(likelihood) > 0
    assert not read_csv(rigid.fsc)["fsc_covariance"].any()
    assert (read_csv(rigid.fsc)["fsc_mean"][1:4] > 0.9).all()


def test_its_analysis_says_so_and_still_has_a_report(rigid) -> None:
    page = rigid.report.read_text()
    assert "No reproducible variability was found: every particle is explained by the mean map." in page
    assert "None of 10 candidates makes particles" in page
    assert len(read_csv(rigid.clusters)["row"]) == len(read_csv(rigid.embedding)["row"]) == 0


def test_its_only_state_is_the_mean(rigid, engine, tmp_path) -> None:
    outcome = engine("reconstruct", rigid.path, "--output", tmp_path / "states", "--clusters", 3)
    assert outcome.code == 2
    assert "kept no component: its only state is" in outcome.error and "mean.mrc" in outcome.error


def test_its_evaluation_leaves_out_what_does_not_apply(rigid, static, engine, tmp_path) -> None:
    assert engine("evaluate", rigid.path, static.truth.path, "--json", tmp_path / "out.json").code == 0
    scores = json.loads((tmp_path / "out.json").read_text())
    absent = ("captured_variance", "captured_variance_2", "covariance_error", "latent_r2", "state_accuracy")
    assert [scores[key] for key in absent] == [None] * len(absent)
    assert scores["eigenvalues_estimated"] == []
    assert scores["fsc_auc_mean"] == pytest.approx(scores["fsc_auc_mean_only"])


def test_no_component_of_a_molecule_that_moves_is_scored_as_such(rigid, moving, hinge, engine, tmp_path) -> None:
    """All of the truth is missed: an error of one, nothing captured."""
    run = RunDir(tmp_path / "run")
    shutil.copytree(moving.path, run.path)
    shutil.copy(rigid.eigenvalues, run.eigenvalues)
    shutil.copy(rigid.latents, run.latents)
    assert engine("evaluate", run.path, hinge.truth.path, "--json", tmp_path / "out.json").code == 0
    scores = json.loads((tmp_path / "out.json").read_text())
    assert scores["captured_variance"] == 0 and scores["covariance_error"] == pytest.approx(1)
    assert scores["state_accuracy"] is None and scores["latent_r2"] is None
