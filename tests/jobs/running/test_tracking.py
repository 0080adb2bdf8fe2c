"""How each command ended can be read in its status file, whatever the reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import AnalyzeParams, EvaluateParams, FitParams
from solvar_engine.contract.run import RunDir, is_finished
from solvar_engine.contract.status import Status, StatusTracker, read_status, status_path, write_status
from solvar_engine.jobs.running.tracking import record_unstarted, tracked
from tests.reports.synthetic_run import write_synthetic_run


def ending_of(path: Path) -> tuple[str, str, str]:
    """Command, state and message of a status file."""
    status = read_status(path)
    assert status is not None
    return status.command, status.state, status.message


@pytest.fixture
def run(tmp_path) -> RunDir:
    """A finished run."""
    return write_synthetic_run(tmp_path / "run")[0]


def fail(*arguments: object, **options: object) -> None:
    raise ZeroDivisionError("a bug")


# ---------------------------------------------------------------- while a command runs


def test_status_says_running_from_the_start_and_failed_with_the_sentence(tmp_path):
    path = tmp_path / "status.json"
    with pytest.raises(UserError), tracked(StatusTracker(path, "fit")) as status:
        assert ending_of(path) == ("fit", "running", "")
        status.update(stage="mean", step=1, steps=9)
        raise UserError("Row 7 is bad.")
    assert ending_of(path) == ("fit", "failed", "Row 7 is bad.")
    found = read_status(path)
    assert found is not None and (found.stage, found.step) == ("mean", 1)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (MemoryError(), "There is too little memory: choose a smaller"),
        (PermissionError(13, "Permission denied", "/r/mean.mrc"), "/r/mean.mrc cannot be used: Permission denied."),
        (KeyError("rank"), "internal error, KeyError: 'rank'"),
        (SystemExit("terminated"), "terminated"),
    ],
)
def test_every_end_has_a_sentence(error, message, tmp_path):
    path = tmp_path / "status.json"
    with pytest.raises(type(error)), tracked(StatusTracker(path, "fit")):
        raise error
    assert ending_of(path)[1] == "failed" and ending_of(path)[2].startswith(message)


def test_status_that_cannot_be_written_does_not_hide_the_error(tmp_path):
    (tmp_path / "gone").mkdir()
    status = StatusTracker(tmp_path / "gone" / "status.json", "fit")
    with pytest.raises(OSError, match="what happened"), tracked(status):
        (tmp_path / "gone" / "status.json").unlink()
        (tmp_path / "gone" / "status.json").mkdir()
        raise OSError("what happened")


# ---------------------------------------------------------------- analyze and reconstruct


def test_finished_analysis(run, engine):
    assert engine("analyze", run.path, "--clusters", 3).code == 0
    assert ending_of(run.analysis_status) == ("analyze", "finished", "analysed 300 particles along 4 components")
    status = read_status(run.analysis_status)
    assert status is not None and status.step == status.steps > 3
    assert is_finished(run), "the status of the fit stays"


def test_failed_analysis(run, engine):
    run.eigenvalues.write_text("")
    outcome = engine("analyze", run.path)
    assert outcome.code == 2
    command, state, message = ending_of(run.analysis_status)
    assert (command, state) == ("analyze", "failed") and outcome.error.splitlines()[-1] == f"error: {message}"


def test_bug_in_an_analysis(run, engine, monkeypatch):
    monkeypatch.setattr("solvar_engine.jobs.run_analyze.embed_2d", fail)
    assert engine("analyze", run.path).code == 1
    assert ending_of(run.analysis_status) == ("analyze", "failed", "internal error, ZeroDivisionError: a bug")
    monkeypatch.undo()
    assert engine("analyze", run.path).code == 0
    assert ending_of(run.analysis_status)[1] == "finished"


def test_analysis_of_what_is_no_finished_run_writes_nothing(run, engine, tmp_path):
    write_status(run.status, Status("fit", state="failed"))
    assert engine("analyze", run.path).code == 2
    assert not run.analysis.exists()
    (tmp_path / "holiday").mkdir()
    assert engine("analyze", tmp_path / "holiday").code == 2
    assert not list((tmp_path / "holiday").iterdir())


def test_bug_in_a_reconstruction(run, engine, monkeypatch, tmp_path):
    monkeypatch.setattr("solvar_engine.jobs.run_reconstruct.linear_state", fail)
    output = tmp_path / "states"
    assert engine("reconstruct", run.path, "--output", output, "--clusters", 2, "--method", "linear").code == 1
    ending = ("reconstruct", "failed", "internal error, ZeroDivisionError: a bug")
    assert ending_of(status_path(output)) == ending
    monkeypatch.undo()
    assert engine("reconstruct", run.path, "--output", output, "--clusters", 2, "--method", "linear").code == 0
    assert ending_of(status_path(output)) == ("reconstruct", "finished", "2 volumes")
    before = {path: path.read_bytes() for path in output.iterdir()}
    assert engine("reconstruct", run.path, "--output", output, "--clusters", 2, "--method", "linear").code == 2
    assert {path: path.read_bytes() for path in output.iterdir()} == before


# ---------------------------------------------------------------- before a command can begin


def test_library_that_is_missing(run, engine, monkeypatch, tmp_path):
    for command in ("fit", "analyze", "reconstruct"):
        monkeypatch.setitem(sys.modules, f"solvar_engine.jobs.run_{command}", None)
    fit, states = tmp_path / "fit", tmp_path / "states"
    assert engine("fit", "p.star", "--output", fit, "--rank", 2).code == 1
    assert engine("analyze", run.path).code == 1
    assert engine("reconstruct", run.path, "--output", states, "--clusters", 2, "--method", "linear").code == 1
    for path, command in (
        (RunDir(fit).status, "fit"), (run.analysis_status, "analyze"), (status_path(states), "reconstruct")
    ):  # fmt: skip
        found, state, message = ending_of(path)
        assert (found, state) == (command, "failed")
        assert message.startswith("internal error, ModuleNotFoundError: ") and command in message
    assert not RunDir(fit).lock.exists()


def test_device_that_is_missing(run, engine, tmp_path):
    output = tmp_path / "states"
    assert engine("reconstruct", run.path, "--output", output, "--clusters", 2, "--device", "cuda:9").code == 2
    assert ending_of(status_path(output))[2].startswith("--device cuda:9 was asked for, but")


def test_folders_that_the_command_would_refuse_are_not_touched(run, tmp_path):
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    error = UserError("no GPU")
    record_unstarted(FitParams(particles="p.star", output=str(run.path), rank=2), error)
    record_unstarted(FitParams(particles="p.star", output=str(run.path), rank=2, resume=True), error)
    record_unstarted(AnalyzeParams(run=str(tmp_path)), error)
    record_unstarted(EvaluateParams(run=str(run.path), truth="truth"), error)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [run.path]
