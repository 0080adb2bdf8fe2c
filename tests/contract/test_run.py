from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from solvar_engine import __version__
from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import FileIn
from solvar_engine.contract.params import AnalyzeParams, FitParams, Params
from solvar_engine.contract.run import (
    ALREADY_FINISHED,
    FIGURE_NAMES,
    NEW,
    RESUME,
    RunDir,
    changed_inputs,
    clear_run,
    differing_options,
    is_finished,
    prepared,
    read_params,
    read_record,
    require_finished,
    write_params,
)
from solvar_engine.contract.status import Status, StatusTracker, read_status, status_path, write_status


@pytest.fixture
def params(tmp_path) -> FitParams:
    particles = tmp_path / "particles.star"
    particles.write_text("data_particles\n")
    return FitParams(particles=str(particles), output=str(tmp_path / "run"), rank=3)


@pytest.fixture
def started(params) -> RunDir:
    """A run that was started and whose program has gone."""
    run = RunDir(params.output)
    with prepared(run, params, resume=False) as start:
        assert start == NEW
        write_params(run, params, inputs=[params.particles], resolved={"box": 64})
        StatusTracker(run.status, "fit").update(stage="mean", step=1, steps=9)
    return run


def way_to_start(run: RunDir, params: Params, resume: bool) -> str:
    """How a run starts that ends at once."""
    with prepared(run, params, resume) as start:
        return start


def content_of(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_names_are_those_of_the_contract(tmp_path):
    run = RunDir(tmp_path)
    names = {
        name: path.relative_to(tmp_path).as_posix()
        for name, member in vars(RunDir).items()
        if isinstance(member, FileIn)
        for path in [getattr(run, name)]
    }
    assert names == {
        "params": "params.json",
        "status": "status.json",
        "mean": "mean.mrc",
        "mean_half1": "mean_half1.mrc",
        "mean_half2": "mean_half2.mrc",
        "mask": "mask.mrc",
        "focus_mask": "focus_mask.mrc",
        "eigenvolumes": "eigenvolumes",
        "fit": "fit",
        "rank": "rank.csv",
        "eigenvalues": "eigenvalues.csv",
        "latents": "latents.npz",
        "density": "density.csv",
        "particles": "particles.star",
        "particles_cs": "particles.cs",
        "particles_csg": "particles.csg",
        "pose_encoder": "pose_encoder.safetensors",
        "noise": "noise.csv",
        "noise_ratio": "noise_of_micrographs.npz",
        "fsc": "fsc.csv",
        "bad_images": "bad_images.csv",
        "metrics": "metrics.csv",
        "log": "log.txt",
        "checkpoint": "checkpoint",
        "analysis": "analysis",
        "analysis_status": "analysis/status.json",
        "embedding": "analysis/embedding.csv",
        "clusters": "analysis/clusters.csv",
        "centres": "analysis/centres.csv",
        "selections": "analysis/selections",
        "figures": "analysis/figures",
        "report": "report.html",
        "lock": "lock",
    }
    assert run.eigenvolume(12) == tmp_path / "eigenvolumes" / "eigenvolume_012.mrc"
    assert run.half_eigenvolume(12, 2) == tmp_path / "eigenvolumes" / "eigenvolume_012_half2.mrc"
    with pytest.raises(ValueError, match="numbered from 1"):
        run.eigenvolume(0)
    assert run.figure("umap") == tmp_path / "analysis" / "figures" / "umap.png"
    with pytest.raises(ValueError, match="no figure 'umpa'"):
        run.figure("umpa")


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("exists", [False, True])
def test_absent_or_empty_folder_starts(params, resume, exists):
    run = RunDir(params.output)
    if exists:
        run.path.mkdir()
    with prepared(run, params, resume) as start:
        assert start == NEW
        owner = json.loads(run.lock.read_text())
        assert owner["pid"] == os.getpid() and owner["host"] == socket.gethostname()
    assert not run.lock.exists()


def test_folder_with_content_is_refused_and_not_touched(started, params):
    before = content_of(started.path)
    with pytest.raises(UserError, match="is not empty.*--resume"):
        way_to_start(RunDir(params.output), params, resume=False)
    assert content_of(started.path) == before


def test_foreign_folder_is_not_resumed(params, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="thesis.tex but no params.json"):
        way_to_start(RunDir(folder), params, resume=True)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="is a file"):
        way_to_start(RunDir(folder / "thesis.tex"), params, resume=True)


def test_run_killed_before_its_options_were_stored_starts_again(params):
    run = RunDir(params.output)
    run.path.mkdir()
    run.log.write_text("starting")
    run.lock.write_text("")
    assert way_to_start(run, params, resume=True) == NEW


@pytest.mark.parametrize("resume", [False, True])
def test_start_that_failed_before_its_options_were_stored_counts_as_empty(params, resume):
    run = RunDir(params.output)
    run.path.mkdir()
    run.log.write_text("a damaged STAR file")
    write_status(run.status, Status("fit", state="failed", message="a damaged STAR file"))
    assert way_to_start(run, params, resume) == NEW
    # but not if there is more, or the status is of something else
    for status in (Status("reconstruct", state="failed"), Status("fit", state="running")):
        write_status(run.status, status)
        with pytest.raises(UserError, match="not empty"):
            way_to_start(run, params, resume=False)
    write_status(run.status, Status("fit", state="failed"))
    (run.path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="not empty"):
        way_to_start(run, params, resume=False)
    run.status.write_text("{")
    (run.path / "thesis.tex").unlink()
    with pytest.raises(UserError, match="not empty"):
        way_to_start(run, params, resume=False)


def test_resume_continues_and_removes_what_a_killed_write_left(started, params):
    (started.path / "checkpoint").mkdir()
    leftover = started.path / "checkpoint" / ".state.npz.123.tmp"
    leftover.write_text("half")
    run = RunDir(params.output)
    assert way_to_start(run, params, resume=True) == RESUME
    assert not leftover.exists()


def test_finished_run_is_left_alone(started, params):
    write_status(started.status, Status("fit", state="finished"))
    before = content_of(started.path)
    assert way_to_start(RunDir(params.output), params, resume=True) == ALREADY_FINISHED
    assert content_of(started.path) == before
    require_finished(started)


def test_finished_run_of_other_files_is_told(started, params):
    write_status(started.status, Status("fit", state="finished"))
    before = content_of(started.path)
    Path(params.particles).write_text("data_particlez\n")
    with pytest.raises(UserError, match="has changed since the run"):
        way_to_start(RunDir(params.output), params, resume=True)
    assert content_of(started.path) == before


def test_differing_options_are_named(started, params):
    write_status(started.status, Status("fit", state="finished"))
    changed = dataclasses.replace(params, rank=5, projector="nearest")
    with pytest.raises(UserError) as error:
        way_to_start(RunDir(params.output), changed, resume=True)
    assert "--rank (was 3, now 5), --projector (was trilinear, now nearest)" in str(error.value)


def test_differing_options_are_listed_before_anything_is_refused(started, params, tmp_path):
    run = RunDir(params.output)
    assert differing_options(run, params) == []
    assert differing_options(run, dataclasses.replace(params, threads=3, resume=True, output="elsewhere")) == []
    changed = dataclasses.replace(params, rank=5, box=32)
    assert differing_options(run, changed) == ["--rank (was 3, now 5)", "--box (was None, now 32)"]
    assert differing_options(run, AnalyzeParams(run="r")) == ["the command (was fit, now analyze)"]
    assert differing_options(RunDir(tmp_path / "absent"), changed) == []
    run.params.unlink()
    assert differing_options(run, changed) == []


def test_changed_inputs_are_listed(started, params, tmp_path):
    assert changed_inputs(started) == []
    with open(params.particles, "a") as stream:
        stream.write("more")
    assert [str(path) for path in changed_inputs(started)] == [params.particles]
    Path(params.particles).write_text("data_particlez\n")
    assert [str(path) for path in changed_inputs(started)] == [params.particles], "of the same size"
    Path(params.particles).write_text("data_particles\n")
    assert changed_inputs(started) == []
    os.unlink(params.particles)
    assert changed_inputs(started) == []
    assert changed_inputs(RunDir(tmp_path / "absent")) == []


def fill(run: RunDir) -> None:
    """Write a file under every name that a run has, and what a killed write leaves."""
    for folder in (run.eigenvolumes, run.checkpoint, run.figures):
        folder.mkdir(parents=True)
    names = [name for name, member in vars(RunDir).items() if isinstance(member, FileIn)]
    files = [getattr(run, name) for name in names]
    files += [run.eigenvolume(1), run.checkpoint / "start.npz", run.checkpoint / ".full.npz.12.tmp"]
    for path in [*files, *map(run.figure, FIGURE_NAMES)]:
        if not path.exists():
            path.write_text("x")


def test_run_is_cleared_so_that_another_can_start(started, params):
    fill(started)
    clear_run(started)
    assert started.path.is_dir() and not list(started.path.iterdir())
    assert way_to_start(RunDir(params.output), dataclasses.replace(params, rank=7), resume=True) == NEW


def test_failed_or_killed_start_is_cleared(params):
    run = RunDir(params.output)
    clear_run(run)
    assert not run.path.exists()
    run.path.mkdir()
    write_status(run.status, Status("fit", state="failed"))
    run.log.write_text("x")
    run.lock.write_text("")
    clear_run(run)
    assert not list(run.path.iterdir())


@pytest.mark.parametrize(
    "foreign", ["thesis.tex", "analysis/mine.csv", "analysis/figures/mine.png", "eigenvolumes/raw/a.mrc", "mean.mrc/a"]
)
def test_folder_with_anything_else_is_not_cleared(started, foreign):
    path = started.path / foreign
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("precious")
    before = content_of(started.path)
    with pytest.raises(UserError, match="which is not of a run: nothing was removed"):
        clear_run(started)
    assert content_of(started.path) == before


@pytest.mark.parametrize("name", ["mean.mrc", "analysis/status.json", "params.json"])
def test_folder_that_is_no_run_is_not_cleared(tmp_path, name):
    path = tmp_path / "folder" / name
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with pytest.raises(UserError, match="not of a run|not written by this program"):
        clear_run(RunDir(tmp_path / "folder"))
    with pytest.raises(UserError, match="is a file"):
        clear_run(RunDir(path))
    assert path.read_text() == "{}"


def test_run_of_a_newer_version_is_not_cleared(started):
    started.params.write_text(json.dumps({**read_record(started), "format_version": 99}))
    before = content_of(started.path)
    with pytest.raises(UserError, match="format 99"):
        clear_run(started)
    assert content_of(started.path) == before


def test_run_in_use_is_not_cleared(started, params):
    with prepared(RunDir(params.output), params, resume=True):
        before = content_of(started.path)
        with pytest.raises(UserError, match="in use by process"):
            clear_run(started)
        assert content_of(started.path) == before
    started.lock.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    with pytest.raises(UserError, match="process 1 on elsewhere"):
        clear_run(started)


def test_clearing_follows_no_link(started, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "data.mrc").write_text("precious")
    started.eigenvolumes.symlink_to(tmp_path / "elsewhere")
    started.mean.symlink_to(tmp_path / "elsewhere" / "data.mrc")
    clear_run(started)
    assert not list(started.path.iterdir())
    assert (tmp_path / "elsewhere" / "data.mrc").read_text() == "precious"


def test_what_a_kill_leaves_of_a_clearing_is_an_unfinished_run(started, params, monkeypatch):
    fill(started)
    started.status.unlink()
    write_status(started.status, Status("fit", state="finished"))
    unlink = type(started.path).unlink

    def fail_at_the_mean(path, *arguments, **options) -> None:
        if path == started.mean:
            raise KeyboardInterrupt
        unlink(path, *arguments, **options)

    monkeypatch.setattr(type(started.path), "unlink", fail_at_the_mean)
    with pytest.raises(KeyboardInterrupt):
        clear_run(started)
    assert started.mean.exists() and started.params.exists() and not is_finished(started)
    monkeypatch.undo()
    clear_run(started)
    assert not list(started.path.iterdir())


def test_options_that_only_change_how_may_differ(started, params, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    changed = dataclasses.replace(
        params, threads=7, device="cpu", debug=True, cache_mb=1, scratch="s", resume=True,
        particles="particles.star",
    )  # fmt: skip
    run = RunDir(params.output)
    assert way_to_start(run, changed, resume=True) == RESUME


def test_another_command_is_refused(started, params):
    with pytest.raises(UserError, match="holds a run of fit, not of analyze"):
        way_to_start(RunDir(params.output), AnalyzeParams(run=params.output), resume=True)


def test_changed_input_is_refused_and_the_lock_given_back(started, params):
    with open(params.particles, "a") as stream:
        stream.write("more")
    with pytest.raises(UserError, match="particles.star has changed"):
        way_to_start(RunDir(params.output), params, resume=True)
    assert not started.lock.exists()


def _hold(path: str, params: FitParams, ready) -> None:
    with prepared(RunDir(path), params, resume=True):
        ready.set()
        time.sleep(60)


def test_lock_of_a_living_process_is_respected_and_of_a_dead_one_taken_over(started, params):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(params.output, params, ready))
    holder.start()
    try:
        assert ready.wait(30)
        with pytest.raises(UserError, match=f"in use by process {holder.pid} on {socket.gethostname()}"):
            way_to_start(RunDir(params.output), params, resume=True)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
    assert started.lock.exists()
    run = RunDir(params.output)
    with prepared(run, params, resume=True) as start:
        assert start == RESUME
        assert json.loads(run.lock.read_text())["pid"] == os.getpid()


def test_lock_of_another_host_is_respected(started, params):
    started.lock.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    with pytest.raises(UserError, match=r"process 1 on elsewhere.*delete .*lock"):
        way_to_start(RunDir(params.output), params, resume=True)


def test_two_in_one_process_exclude_each_other(started, params):
    first, second = RunDir(params.output), RunDir(params.output)
    with prepared(first, params, resume=True):
        with pytest.raises(UserError, match="in use"):
            way_to_start(second, params, resume=True)
        assert first.lock.exists()
    assert way_to_start(second, params, resume=True) == RESUME


def test_params_json_says_what_is_needed_to_repeat_the_run(started, params):
    record = read_record(started)
    assert read_params(started, FitParams) == params
    assert record["format_version"] == 1
    assert record["options"]["seed"] == 0 and record["resolved"] == {"box": 64}
    (entry,) = record["inputs"]
    assert (entry["path"], entry["bytes"]) == (params.particles, os.path.getsize(params.particles))
    assert entry["sha256"] == hashlib.sha256(Path(params.particles).read_bytes()).hexdigest()
    assert record["versions"]["solvar_engine"] == __version__
    assert {"python", "numpy", "torch"} <= set(record["versions"])
    assert record["command_line"]


def test_foreign_and_newer_params_are_refused(started):
    record = read_record(started)
    started.params.write_text(json.dumps({**record, "format_version": 99}))
    with pytest.raises(UserError, match="format 99"):
        read_record(started)
    started.params.write_text("{}")
    with pytest.raises(UserError, match="not written by this program"):
        read_record(started)


def test_unfinished_run_is_no_start_for_other_commands(started, tmp_path):
    with pytest.raises(UserError, match="not finished"):
        require_finished(started)
    with pytest.raises(UserError, match="is not a run folder"):
        require_finished(RunDir(tmp_path / "nothing"))


def test_status_goes_on_over_resumes(started, monkeypatch):
    write_status(started.status, Status("fit", seconds=100.0, peak_memory_mb=1e6))
    tracker = StatusTracker(started.status, "fit")
    status = tracker.update(stage="covariance", step=2, steps=5, message="")
    assert status == read_status(started.status)
    assert 100 <= status.seconds < 130 and status.peak_memory_mb == 1e6
    assert (status.pid, status.host, status.state) == (os.getpid(), socket.gethostname(), "running")
    finished = tracker.update(state="finished", step=5)
    assert (finished.stage, finished.step, finished.steps) == ("covariance", 5, 5)
    assert finished.version == __version__


def test_peak_memory_is_that_of_this_process():
    code = (
        "from solvar_engine.contract.status import peak_memory_mb as p;"
        "a = p(); b = bytearray(200 << 20); b[::4096] = bytes(len(b[::4096])); print(a, p())"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, after = map(float, output.split())
    assert 5 < before < 100 and 190 < after - before < 260


def test_no_status_yet(tmp_path):
    assert read_status(RunDir(tmp_path).status) is None
    assert not is_finished(RunDir(tmp_path))


def test_file_system_without_locks_falls_back_to_process_numbers(started, params, monkeypatch):
    def no_locks(descriptor, operation) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    first, second = RunDir(params.output), RunDir(params.output)
    with prepared(first, params, resume=True):
        with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
            way_to_start(second, params, resume=True)
    # a process with our number that started at another time is not us
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": "1"}
    started.lock.write_text(json.dumps(owner))
    assert way_to_start(second, params, resume=True) == RESUME


def test_command_that_replaces_an_earlier_call_counts_anew(tmp_path):
    path = status_path(tmp_path)
    assert path == tmp_path / "status.json"
    write_status(path, Status("reconstruct", state="failed", message="old", seconds=100.0, peak_memory_mb=1e6))
    status = StatusTracker(path, "reconstruct", goes_on=False).update(stage="volumes")
    assert status == read_status(path)
    assert status.seconds < 30 and status.peak_memory_mb < 1e6 and (status.state, status.message) == ("running", "")
