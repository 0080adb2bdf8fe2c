"""`reconstruct --method kernel` from the files of a small fit."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from solvar_engine.contract.files import read_csv, read_json, write_json
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.data.mrc import HEADER_BYTES
from solvar_engine.data.volumes import read_volume
from solvar_engine.imaging.shells import fsc
from solvar_engine.jobs import run_reconstruct as reconstruct
from solvar_engine.jobs.states import kernel_problem
from solvar_engine.jobs.states.kernel_volumes import reconstruct_state


def test_states_have_half_maps_resolution_and_particles(fitted, hinge, engine, tmp_path, monkeypatch):
    plans = []
    monkeypatch.setattr(kernel_problem, "require_disk", lambda plan, *_: plans.append(plan))
    outcome = engine("reconstruct", fitted.path, "--output", tmp_path / "out", "--clusters", 2, "--b-factor", -20)
    assert outcome.code == 0, outcome.error
    table = read_csv(tmp_path / "out" / "states.csv")
    assert (table["resolution"] < 60).all() and (table["images_used"] > 50).all()
    rows = 0
    for state in (1, 2):
        volume, half1, half2, resolution = (
            read_volume(tmp_path / "out" / f"state_00{state}{kind}.mrc") for kind in ("", "_half1", "_half2", "_locres")
        )
        mask = read_volume(fitted.mask).data
        truth = read_volume(hinge.path / "truth" / "mean.mrc").data
        assert float(fsc(half1.data, half2.data, mask)[1:4].min()) > 0.8
        assert float((half1.data - half2.data).abs().max()) > 0
        assert float(fsc(volume.data, truth, mask)[1:4].min()) > 0.9
        assert volume.pixel_size == pytest.approx(read_volume(fitted.mean).pixel_size)
        assert float(resolution.data.min()) > 0
        rows += len(StarFile.read(tmp_path / "out" / f"state_00{state}_particles.star").particles)
    assert rows == 300
    # the plan counts every voxel that was written, and has room for the tables
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    volumes, everything = sum(size for name, size in sizes.items() if name.endswith(".mrc")), sum(sizes.values())
    tables = plans[0].disk_bytes - (volumes - 8 * HEADER_BYTES)
    assert everything < plans[0].disk_bytes and 1400 * rows < tables < 1700 * rows


def test_a_run_without_half_set_components_is_refused(fitted, engine, tmp_path):
    run = RunDir(shutil.copytree(fitted.path, tmp_path / "run"))
    run.half_eigenvolume(1, 2).unlink()
    outcome = engine("reconstruct", run.path, "--output", tmp_path / "out", "--clusters", 2)
    assert outcome.code == 2 and "eigenvolume_001_half2.mrc does not exist" in outcome.error


def test_states_that_an_interrupted_call_has_finished_are_kept(fitted, engine, tmp_path, monkeypatch):
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    call = ("reconstruct", fitted.path, "--clusters", 2, "--b-factor", -20)
    assert engine(*call, "--output", whole, "--resume").code == 0
    points = []

    def stops_at_the_second(problem, point):
        points.append(point)
        if len(points) == 2:
            raise RuntimeError("stopped")
        return reconstruct_state(problem, point)

    with monkeypatch.context() as patch:
        patch.setattr(reconstruct, "reconstruct_state", stops_at_the_second)
        assert engine(*call, "--output", halted).code == 1
    first = halted / "state_001_half1.mrc"
    written = first.stat().st_mtime_ns
    assert "holds unfinished states: give --resume" in engine(*call, "--output", halted).error
    assert "begun with other options (seed)" in engine(*call, "--output", halted, "--seed", 1, "--resume").error
    assert engine(*call, "--output", halted, "--resume").code == 0
    assert first.stat().st_mtime_ns == written
    assert {path.name for path in halted.iterdir()} == {path.name for path in whole.iterdir()}
    for path in whole.iterdir():
        if path.suffix in (".csv", ".star"):
            assert (halted / path.name).read_text() == path.read_text()
        elif path.suffix == ".mrc":
            assert torch.equal(read_volume(halted / path.name).data, read_volume(path).data)
    assert engine(*call, "--output", halted, "--resume").code == 0  # nothing to do


@pytest.mark.parametrize("place", ["set_up", "reconstruct_state"])
def test_a_call_that_was_killed_before_its_first_state_is_resumed(place, fitted, engine, tmp_path, monkeypatch):
    """Its status says that it runs; without --resume nothing is taken to be its own."""
    output = tmp_path / "out"
    call = ("reconstruct", fitted.path, "--output", output, "--clusters", 2, "--b-factor", -20)

    def killed(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(reconstruct, place, killed)
        assert engine(*call).code == 1
    status = json.loads((output / "status.json").read_text())
    (output / "status.json").write_text(json.dumps({**status, "state": "running"}))
    assert engine(*call).code == 2
    assert engine(*call, "--resume").code == 0
    assert (output / "state_002.mrc").exists() and not list(output.glob("*checkpoint*"))


def test_a_finished_folder_of_another_call_is_refused(fitted, engine, tmp_path):
    output = tmp_path / "out"
    call = ("reconstruct", fitted.path, "--output", output, "--resume")
    assert engine(*call, "--clusters", 2).code == 0
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    other = RunDir(shutil.copytree(fitted.path, tmp_path / "other"))
    record = read_json(other.params)
    write_json(other.params, {**record, "created": "another day"})
    shutil.copy(RunDir(fitted.path).particles, tmp_path / "full.star")
    cases = [
        (("--clusters", 3), "(clusters, points)"),
        (("--mixture", 2), "(clusters, mixture, points)"),
        (("--clusters", 2, "--b-factor", -100), "(b_factor)"),
        (("--clusters", 2, "--seed", 1), "(seed)"),
        (("--clusters", 2, "--box", 24), "(box)"),
        (("--clusters", 2, "--particles", tmp_path / "full.star"), "(particles)"),
    ]
    for options, names in cases:
        outcome = engine(*call, *options)
        assert outcome.code == 2 and f"begun with other options {names}" in outcome.error
    outcome = engine("reconstruct", other.path, *call[2:], "--clusters", 2)
    assert outcome.code == 2 and "other options (the run)" in outcome.error
    assert "does not exist" in engine(*call, "--clusters", 2, "--particles", tmp_path / "none.star").error
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    outcome = engine(*call, "--clusters", 2, "--cache-mb", 1)
    assert outcome.code == 0 and "nothing to do" in outcome.error
    (output / "call.json").unlink()
    assert "an earlier version" in engine(*call, "--clusters", 2).error


def test_a_list_of_images_that_has_changed_is_not_resumed(fitted, hinge, engine, tmp_path, monkeypatch):
    text = hinge.particles.read_text().replace("@particles.mrcs", f"@{hinge.path}/particles.mrcs")
    (tmp_path / "full.star").write_text(text)
    call = ("reconstruct", fitted.path, "--output", tmp_path / "out", "--clusters", 2, "--resume")
    call += ("--particles", tmp_path / "full.star")

    def stop(*_):
        raise RuntimeError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(reconstruct, "write_states", stop)
        patch.setattr(reconstruct.StateCheckpoint, "finish", stop)
        assert engine(*call).code == 1
    (tmp_path / "full.star").write_text(text + "\n")
    assert "begun with other options (particles)" in engine(*call).error


def test_components_that_are_not_reproducible_make_no_difference(fitted, engine, tmp_path):
    """Points far apart differ by what images near them show, and nothing else."""
    run = RunDir(shutil.copytree(fitted.path, tmp_path / "run"))
    table = run.eigenvalues.read_text()
    (tmp_path / "points.csv").write_text("1e4,0\n-1e4,0\n")  # all particles are equally far from both
    call = ("reconstruct", run.path, "--points", tmp_path / "points.csv", "--allow-extrapolation", "--output")

    def difference(output):
        assert engine(*call, output).code == 0
        first, second = (read_volume(output / f"state_00{state}_half1.mrc").data for state in (1, 2))
        return float((first - second).norm() / first.norm())

    assert difference(tmp_path / "trusted") > 1.0
    rows = [line if number == 0 else line.rpartition(",")[0] + ",not reproducible" for number, line in
            enumerate(table.splitlines())]
    run.eigenvalues.write_text("\n".join(rows) + "\n")
    assert difference(tmp_path / "not trusted") < 0.5


def test_volumes_from_images_far_from_the_compared_coordinates_are_refused(fitted, engine, tmp_path):
    """A coordinate that is not compared does not count: the volumes do not depend on it."""
    run = RunDir(shutil.copytree(fitted.path, tmp_path / "run"))
    head, first, second = run.eigenvalues.read_text().splitlines()
    second = second.rpartition(",")[0] + ",not reproducible"
    run.eigenvalues.write_text("\n".join((head, first, second)) + "\n")
    call = ("reconstruct", run.path, "--points", tmp_path / "points.csv", "--output", tmp_path / "out")
    (tmp_path / "points.csv").write_text("0,0\n1e4,0\n")
    outcome = engine(*call)
    assert outcome.code == 2 and "points.csv (z_1 = 1e+04) is far from all particles" in outcome.error
    (tmp_path / "points.csv").write_text("0,1e4\n")
    assert engine(*call).code == 0
    assert read_csv(tmp_path / "out" / "states.csv")["extrapolated"] == [0]


def test_options_of_the_kernel_are_refused_by_the_linear_method(fitted, engine, tmp_path):
    options = ("reconstruct", fitted.path, "--output", tmp_path / "out", "--clusters", 2)
    assert "--box belongs to --method kernel" in engine(*options, "--method", "linear", "--box", 24).error
    assert "--b-factor is 'much'" in engine(*options, "--b-factor", "much").error
    assert "--path belongs to --trajectory" in engine(*options, "--path", "straight").error
    assert "--box is 16, but must be from 24" in engine(*options, "--box", 16).error
