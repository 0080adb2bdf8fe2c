"""Results are written where they belong, and what is there is not made again."""

from __future__ import annotations

import json

import pytest

from benchmarks import common


def test_a_part_of_the_results_is_replaced_and_the_rest_left_alone(tmp_path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text("# Results\n\nWritten by a person.\n", encoding="utf-8")
    common.publish("one", "first", path)
    common.publish("two", "second", path)
    path.write_text(path.read_text() + "\nWhy.\n", encoding="utf-8")
    common.publish("one", "first again", path)
    text = path.read_text()
    assert text.startswith("# Results\n\nWritten by a person.\n") and text.endswith("\nWhy.\n")
    assert "first again" in text and "first\n" not in text and "second" in text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.12345, "0.123"), (1234.5, "1234"), (6, "6"), ([1.0, 2.5], "1 2.5"), ([], "-")]
)
def test_numbers_are_shown_short(value, text) -> None:
    assert common.shown(value) == text


def test_data_and_runs_that_are_there_are_not_made_again(tmp_path, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(common, "engine", lambda *arguments, **_: calls.append(arguments[0]) or common.Call(9, 5, 1))
    monkeypatch.setattr(common, "engine_commit", lambda: "abc")
    data = common.simulated(tmp_path, "hinge", particles=100)
    run = common.fitted(tmp_path, data, rank=2, box=None)
    assert calls == ["simulate", data / "particles.star"] and run.name.endswith("-rank2-abc")
    data.mkdir()
    (data / "particles.star").touch()
    run.mkdir()
    (run / "status.json").write_text(json.dumps({"state": "finished"}))
    (tmp_path / f"{run.name}.json").write_text(json.dumps({"latent_r2": 0.5}))
    assert common.fitted(tmp_path, common.simulated(tmp_path, "hinge", particles=100), rank=2) == run
    assert common.evaluated(run, data, 1) == {"latent_r2": 0.5} and common.cpu_seconds_of(run) == 5
    assert len(calls) == 2


def test_a_run_of_another_program_has_its_own_name_and_no_cost_if_it_was_interrupted(tmp_path, monkeypatch) -> None:
    programs = []
    monkeypatch.setattr(common, "engine", lambda *_, program: programs.append(program) or common.Call(9, 5, 1))
    monkeypatch.setattr(common, "engine_commit", lambda: "abc")
    interrupted = tmp_path / "data-rank2-slow-abc"
    interrupted.mkdir()
    (interrupted / "status.json").write_text(json.dumps({"state": "failed"}))
    for folder in (tmp_path, tmp_path / "new"):
        folder.mkdir(exist_ok=True)
        run = common.fitted(folder, tmp_path / "data", program=("slow.py",), label="slow", rank=2)
        assert run == folder / interrupted.name
        assert common.cpu_seconds_of(run) == (None if folder == tmp_path else 5)
    assert programs == [("slow.py",)] * 2


def test_a_command_that_fails_is_an_error_and_its_cost_is_measured(tmp_path) -> None:
    call = common.engine("--version", log=tmp_path / "log")
    assert call.seconds > 0 and call.cpu_seconds > 0
    with pytest.raises(common.subprocess.CalledProcessError):
        common.engine("no-such-command", log=tmp_path / "log")
    assert "no-such-command" in (tmp_path / "log").read_text()
