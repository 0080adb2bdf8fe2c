"""A fit that is killed goes on with --resume to the same numbers; what is to be refused, and how a run is stopped."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import random
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import numpy as np
import pytest

from solvar_engine.contract.files import read_csv
from solvar_engine.contract.results import read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.jobs.simulate.files import DataSetFiles
from tests.jobs.programs import engine_command, engine_environment, wait_until

RANK = 2
# moments of the kills, as a share of an undisturbed run's progress; drawn anew for each, within its third
_THIRDS = ((0.0, 0.35), (0.35, 0.65), (0.65, 0.95))


@pytest.fixture(scope="module")
def data(larger_hinge) -> DataSetFiles:
    return larger_hinge


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory) -> RunDir:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    command = engine_command("fit", data.particles, "--output", folder, "--rank", RANK)
    result = subprocess.run(command, env=engine_environment(), capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return RunDir(folder)


def status_of(folder: Path) -> dict[str, object]:
    path = folder / "status.json"
    return json.loads(path.read_text()) if path.exists() else {"step": -1, "steps": 1, "state": ""}


def has_reached(folder: Path, process: subprocess.Popen[str], step: int) -> bool:
    """Whether this process, not one before it, says that it has come so far."""
    status = status_of(folder)
    return status.get("pid") == process.pid and int(status["step"]) >= step  # type: ignore[call-overload]


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("cache_mb", [2000, 0], ids=["memory", "scratch"])
def test_killed_three_times_it_ends_at_the_same_numbers(cache_mb, data, undisturbed, engine_program, tmp_path):
    chance = random.Random()
    steps = int(status_of(undisturbed.path)["steps"])  # type: ignore[call-overload]
    folder = tmp_path / "run"
    arguments = ("fit", data.particles, "--output", folder, "--rank", RANK, "--cache-mb", cache_mb, "--resume")
    moments, seconds = [], [0.0]
    for low, high in _THIRDS:
        process = engine_program(*arguments)
        step = int(steps * chance.uniform(low, high))
        assert wait_until(lambda at=step, by=process: has_reached(folder, by, at)), process.communicate()[1]
        pause = chance.uniform(0, 0.1)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
        process.communicate()
        moments.append((step, pause))
        seconds.append(float(status_of(folder)["seconds"]))  # type: ignore[arg-type]
    process = engine_program(*arguments)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    run = RunDir(folder)
    expected, found = read_latents(undisturbed.latents), read_latents(run.latents)
    difference = np.linalg.norm(found.z - expected.z) / np.linalg.norm(expected.z)
    assert difference < 1e-4, moments
    np.testing.assert_allclose(found.precision, expected.precision, rtol=1e-3, atol=1e-3 * expected.precision.max())
    assert run.particles.read_text().count("\n") == undisturbed.particles.read_text().count("\n")
    seconds.append(float(status_of(folder)["seconds"]))  # type: ignore[arg-type]
    # Equal neighbours: the last kill may come after the run has said that it is finished.
    assert seconds == sorted(seconds) and seconds[-1] > seconds[0]
    _check_books(run, undisturbed)


def _check_books(run: RunDir, undisturbed: RunDir) -> None:
    """The books of a run that was killed: no gap in progress, nothing left behind, one log of all its parts."""
    status = status_of(run.path)
    assert status["state"] == "finished" and status["step"] == status["steps"]
    assert set(content_of(run.path)) == set(content_of(undisturbed.path))
    log = run.log.read_text()
    assert log.count("Expecting about") >= 2 and "Traceback" not in log
    metrics = read_csv(run.metrics)
    assert (np.diff(metrics["seconds"]) >= 0).all()
    assert len(metrics["iteration"]) >= len(read_csv(undisturbed.metrics)["iteration"]) - 2 * len(_THIRDS)


def test_other_options_are_refused_and_named(data, engine, engine_program, tmp_path):
    folder = tmp_path / "run"
    arguments = ("fit", data.particles, "--output", folder)
    process = engine_program(*arguments, "--rank", RANK)
    assert wait_until(lambda: (folder / "checkpoint" / "start.npz").exists())
    process.kill()
    process.wait()
    before = content_of(folder)
    for options, text in (
        (("--rank", 3), "--rank (was 2, now 3)"),
        (("--rank", RANK, "--box", 24), "--box (was None, now 24)"),
        (("--rank", RANK, "--seed", 5), "--seed (was 0, now 5)"),
        (("--rank", RANK, "--mask", data.mask), "--mask"),
        (("--rank", RANK, "--focus-mask", data.mask), "--focus-mask (was None, now "),
        (("--rank", RANK, "--projector", "nearest"), "--projector (was trilinear, now nearest)"),
    ):
        outcome = engine(*arguments, *options, "--resume")
        assert outcome.code == 2 and "started with other options" in outcome.error
        assert text in outcome.error and outcome.error.splitlines()[-1].startswith("error: ")
        assert content_of(folder) == before
    outcome = engine(*arguments, "--rank", RANK)
    assert outcome.code == 2 and "not empty" in outcome.error and "--resume" in outcome.error
    assert content_of(folder) == before


def test_finished_run_needs_its_images_no_more(undisturbed, data, engine, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name, content in content_of(undisturbed.path).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    record = json.loads((folder / "params.json").read_text())
    record["options"]["particles"] = str(tmp_path / "moved.star")
    (folder / "params.json").write_text(json.dumps(record))
    before = content_of(folder)
    outcome = engine("fit", tmp_path / "moved.star", "--output", folder, "--rank", RANK, "--resume")
    assert outcome.code == 0 and "nothing to do" in outcome.error
    assert engine("fit", tmp_path / "moved.star", "--output", folder, "--rank", 5, "--resume").code == 2
    assert content_of(folder) == before


def test_second_fit_of_the_same_folder_is_refused(data, engine, engine_program, tmp_path):
    folder = tmp_path / "run"
    process = engine_program("fit", data.particles, "--output", folder, "--rank", RANK)
    assert wait_until(lambda: (folder / "metrics.csv").exists())
    outcome = engine("fit", data.particles, "--output", folder, "--rank", RANK, "--resume")
    assert process.poll() is None, "the first fit ended too soon for this test"
    assert outcome.code == 2
    assert f"in use by process {process.pid} on " in outcome.error
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert not (folder / "lock").exists()


@pytest.mark.parametrize(
    ("number", "code", "text"),
    [(signal.SIGTERM, 143, "terminated by a signal"), (signal.SIGINT, 130, "interrupted")],
    ids=["terminated", "interrupted"],
)
def test_stopped_run_says_so_and_can_go_on(number, code, text, data, undisturbed, engine_program, tmp_path):
    folder = tmp_path / "run"
    arguments = ("fit", data.particles, "--output", folder, "--rank", RANK)
    process = engine_program(*arguments)
    assert wait_until(lambda: (folder / "metrics.csv").exists())
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == code
    lines = error.splitlines()
    assert lines[-1].startswith("error: ") and text in lines[-1] and "Traceback" not in error
    status = status_of(folder)
    assert status["state"] == "failed" and text in str(status["message"])
    log = (folder / "log.txt").read_text()
    assert text in log.splitlines()[-1] and "Traceback" not in log
    assert not (folder / "lock").exists()
    process = engine_program(*arguments, "--resume")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    expected, found = (read_latents(path / "latents.npz").z for path in (undisturbed.path, folder))
    assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)


def test_internal_error_is_one_sentence_and_its_traceback_is_in_the_log(hinge, engine, monkeypatch, tmp_path):
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("solvar_engine.jobs.fit.halves.measure_components", fail)
    outcome = engine("fit", hinge.particles, "--output", tmp_path / "run", "--rank", 1)
    assert outcome.code == 1
    assert outcome.error.splitlines()[-1].startswith("error: internal error, ZeroDivisionError: a bug")
    assert "Traceback" not in outcome.error
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Traceback" in log and "ZeroDivisionError: a bug" in log
    status = status_of(tmp_path / "run")
    assert (status["state"], status["message"]) == ("failed", "internal error, ZeroDivisionError: a bug")


# ---------------------------------------------------------------- what is seen while it runs


def test_plan_comes_before_the_work_and_no_bar_goes_to_a_file(undisturbed, data, tmp_path):
    command = engine_command("fit", data.particles, "--output", tmp_path / "run", "--rank", 1, "--box", 16)
    result = subprocess.run(command, env=engine_environment(), capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and result.stdout == ""
    lines = result.stderr.splitlines()
    plan = next(number for number, line in enumerate(lines) if line.startswith("Expecting about"))
    assert "min, " in lines[plan] and "MB of memory" in lines[plan] and "MB of disk" in lines[plan]
    assert plan < next(number for number, line in enumerate(lines) if "The molecule is" in line)
    assert "\r" not in result.stderr and "%|" not in result.stderr


def test_bar_on_a_terminal_leaves_messages_whole(data, tmp_path):
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    command = engine_command("fit", data.particles, "--output", tmp_path / "run", "--rank", 1, "--box", 16)
    with subprocess.Popen(command, env=engine_environment(), stderr=terminal) as process:
        os.close(terminal)
        written = bytearray()
        while True:
            try:
                chunk = os.read(controller, 4096)
            except OSError:  # the other side is closed
                break
            if not chunk:
                break
            written += chunk
        os.close(controller)
    assert process.returncode == 0
    text = written.decode()
    assert "step" in text and "%|" in text
    # what a terminal shows of a line is what follows its last carriage return
    shown = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n")]
    assert any(line.startswith("The molecule is bright") for line in shown)
    assert [line for line in shown if "objective" in line and "%|" in line] == []
