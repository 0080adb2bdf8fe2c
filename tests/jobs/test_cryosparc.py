"""From cryoSPARC's particles to its particles: a fit, what goes on from it, and what it writes for cryoSPARC."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from solvar_engine.contract.files import file_digest
from solvar_engine.contract.params import AbinitioParams
from solvar_engine.contract.results import read_components, read_latents
from solvar_engine.contract.run import RunDir, read_record
from solvar_engine.contract.selections import PARTICLES, Selection, write_selection
from solvar_engine.contract.star import StarFile
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.volumes import read_volume
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.fit.outputs import write_cryosparc
from solvar_engine.jobs.run_abinitio import fit_params
from solvar_engine.jobs.run_abinitio import run as run_abinitio
from tests.cryosparc_files import Project, make_project, save, table, without
from tests.jobs.conftest import RANK, run_in_process
from tests.jobs.test_run_abinitio import TrueStructure


@pytest.fixture(scope="module")
def project(hinge, tmp_path_factory) -> Project:
    """Of the hinge; without half-sets, as its STAR file."""
    made = make_project(tmp_path_factory.mktemp("CS") / "project", hinge.particles)
    particles = np.load(made.particles)
    particles["alignments3D/split"] = 0
    made.fields["alignments3D/split"] = 0
    save(made.particles, particles)
    return made


@pytest.fixture(scope="module")
def cs_run(project, tmp_path_factory) -> RunDir:
    """A finished fit of the project, not to be changed."""
    folder = tmp_path_factory.mktemp("fit") / "run"
    assert run_in_process("fit", project.particles, "--output", folder, "--rank", RANK) == 0
    return RunDir(folder)


def test_a_fit_finds_what_it_finds_from_the_star_file(cs_run, fitted, project):
    """Rotation vectors of float32 differ from angles in the last digit of float32, and nothing else does."""
    found, known = read_latents(cs_run.latents), read_latents(fitted.latents)
    spread = known.z.std(axis=0)
    assert (np.abs(found.z - known.z).max(axis=0) < 2e-3 * spread).all()
    np.testing.assert_allclose(found.contrast, known.contrast, atol=1e-4)
    values = [read_components(run.eigenvalues).eigenvalue for run in (cs_run, fitted)]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-3)
    inputs = [entry["path"] for entry in read_record(cs_run)["inputs"]]
    assert inputs == [str(project.particles), str(project.passthrough)]


def test_the_run_has_particles_for_cryosparc(cs_run, project):
    written, latents = np.load(cs_run.particles_cs, allow_pickle=False), read_latents(cs_run.latents)
    for name in project.fields.dtype.names:
        if name != "alignments3D/alpha":
            assert written[name].tobytes() == project.fields[name].tobytes(), name
    np.testing.assert_allclose(written["alignments3D/alpha"], 1.25 * latents.contrast, rtol=1e-6)
    for mode in range(RANK):
        assert (written[f"components_mode_{mode}/value"] == latents.z[:, mode]).all()
    assert "metafile: '>particles.cs'" in cs_run.particles_csg.read_text()
    assert StarFile.read(cs_run.particles).particles.text("ucsfUid") == [str(uid) for uid in written["uid"]]


@pytest.mark.slow
def test_beam_tilt_and_magnification_are_corrected_for_as_from_the_star_file(hinge, fitted, tmp_path):
    """Both by the fit, whose results they change, and in the images of states."""
    star = StarFile.read(hinge.particles)
    optics = {"rlnBeamTiltX": [9.0], "rlnBeamTiltY": [-30.0], "rlnMagMat00": [1.05], "rlnMagMat01": [0.02],
              "rlnMagMat10": [-0.01], "rlnMagMat11": [0.96]}  # fmt: skip
    halves = {"rlnRandomSubset": StarFile.read(fitted.particles).particles.integers("solvarHalfSet")}
    tables = (star.optics.with_columns(optics), star.particles.with_columns(halves))
    (tmp_path / "particles.mrcs").symlink_to(hinge.particles.parent / "particles.mrcs")
    path = tmp_path / "particles.star"
    StarFile(tables).write(path)
    project = make_project(tmp_path / "project", path)
    z, volumes = [], []
    for name, particles in (("star", path), ("cs", project.particles)):
        run, states = RunDir(tmp_path / name), tmp_path / f"states_{name}"
        assert run_in_process("fit", particles, "--output", run.path, "--rank", RANK) == 0
        assert run_in_process("reconstruct", run.path, "--output", states, "--clusters", 1) == 0
        z.append(read_latents(run.latents).z)
        volumes.append(read_volume(states / "state_001.mrc").data)
    spread = z[0].std(axis=0)
    assert (np.abs(z[1] - z[0]).max(axis=0) < 5e-3 * spread).all()
    # windows are chosen place by place: one may fall the other way
    assert float((volumes[1] - volumes[0]).norm()) < 1e-2 * float(volumes[0].norm())
    ignored = read_latents(fitted.latents).z
    assert (np.abs(np.abs(ignored) - np.abs(z[0])).max(axis=0) > 0.1 * spread).all()
    written = np.load(RunDir(tmp_path / "cs").particles_cs)
    assert all(written[name].tobytes() == project.fields[name].tobytes() for name in ("ctf/tilt_A", "ctf/anisomag"))


def test_a_run_of_a_star_file_has_none(fitted):
    assert not fitted.particles_cs.exists() and not fitted.particles_csg.exists()


def test_selected_particles_are_written_for_cryosparc(cs_run, engine, tmp_path):
    run = RunDir(shutil.copytree(cs_run.path, tmp_path / "run"))
    run.selections.mkdir(parents=True)
    write_selection(run, Selection("some", PARTICLES, np.array([7, 2, 299]), file_digest(run.latents)))
    outcome = engine("select", run.path, "--output", tmp_path / "some.star", "--name", "some")
    assert outcome.code == 0, outcome.error
    whole, part = np.load(run.particles_cs), np.load(tmp_path / "some.cs")
    assert part.tobytes() == whole[[2, 7, 299]].tobytes()
    assert "num_items: 3" in (tmp_path / "some.csg").read_text()
    # a name that would overwrite the run's own file
    outcome = engine("select", run.path, "--output", run.path / "particles.text", "--name", "some")
    assert outcome.code == 2 and "particles.cs is a file of the run itself" in outcome.error


def test_states_are_written_for_cryosparc(cs_run, project, engine, tmp_path):
    """From the images of the run, and from a list in another order, matched by uid: one that cryoSPARC has renamed."""
    renamed = project.fields.copy()
    columns = {name: renamed[name] for name in renamed.dtype.names}
    other = project.particles.parents[1] / "J40"
    other.mkdir(exist_ok=True)
    shutil.copy(project.particles.parents[1] / "J3" / "imported" / "particles.mrcs", other / "downsampled.mrc")
    columns["blob/path"] = np.full(len(renamed), b"J40/downsampled.mrc")
    order = np.random.default_rng(0).permutation(len(renamed))
    path = save(other / "J40_particles.cs", table(columns)[order])
    whole = np.load(cs_run.particles_cs)
    for number, more in enumerate(((), ("--particles", path))):
        output = tmp_path / f"states{number}"
        outcome = engine("reconstruct", cs_run.path, "--output", output, "--clusters", 2, *more)
        assert outcome.code == 0, outcome.error
        for state in (1, 2):
            star = StarFile.read(output / f"state_00{state}_particles.star").particles
            part = np.load(output / f"state_00{state}_particles.cs")
            assert {int(uid) for uid in star.text("ucsfUid")} == set(part["uid"].tolist())
            assert part.tobytes() == whole[np.isin(whole["uid"], part["uid"])].tobytes()
            assert f"num_items: {len(part)}" in (output / f"state_00{state}_particles.csg").read_text()


def test_evaluate_reads_the_given_poses(cs_run, hinge, engine, tmp_path):
    outcome = engine("evaluate", cs_run.path, hinge.path / "truth", "--json", tmp_path / "scores.json")
    assert outcome.code == 0, outcome.error
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["rotation_error_start_deg"] < 1e-3 and scores["captured_variance"] > 0.7


def test_poses_that_were_refined_are_written(project, cs_run, hinge, tmp_path):
    run = RunDir(shutil.copytree(cs_run.path, tmp_path / "run"))
    truth = ParticleStack.from_star(hinge.truth.particles, hinge.path).pose
    stack = ParticleStack.from_star(project.particles)
    write_cryosparc(run, stack, Pose(truth.rotation.roll(1, 0), truth.shift.roll(1, 0)), True, torch.full((300,), 2))
    again = ParticleStack.from_star(run.particles_cs, project.particles.parents[1]).pose
    np.testing.assert_allclose(again.rotation, truth.rotation.roll(1, 0), atol=1e-6)
    np.testing.assert_allclose(again.shift, truth.shift.roll(1, 0), atol=1e-4)
    assert (np.load(run.particles_cs)["alignments3D/split"] == 1).all()


def test_a_finished_run_is_kept_and_one_with_another_passthrough_refused(project, cs_run, engine):
    arguments = ("fit", project.particles, "--output", cs_run.path, "--rank", RANK, "--resume")
    assert engine(*arguments).code == 0
    outcome = engine(*arguments, "--passthrough", project.passthrough)
    assert outcome.code == 2 and "--passthrough (was None" in outcome.error


def test_abinitio_needs_no_alignments_and_writes_them(project, hinge, tmp_path):
    path = save(project.particles.parent / "particles_extracted.cs", without(project.fields, "alignments3D/"))
    params = AbinitioParams(particles=str(path), output=str(tmp_path / "run"), threads=1, then_fit=2)
    class_of = torch.arange(300) % 2
    changes = {"class_of": class_of, "populations": torch.tensor([0.5, 0.5])}
    alone = AbinitioParams(**{**params.to_dict(), "then_fit": None, "classes": 2})
    run_abinitio(alone, TrueStructure(hinge, **changes))
    run = RunDir(tmp_path / "run")
    written = np.load(run.particles_cs)
    for name in ("uid", "blob/path", "ctf/df1_A", "some_day/unknown"):
        assert written[name].tobytes() == project.fields[name].tobytes()
    truth = ParticleStack.from_star(hinge.truth.particles, hinge.path).pose
    found = ParticleStack.from_star(run.particles_cs, project.particles.parents[1]).pose
    np.testing.assert_allclose(found.rotation, truth.rotation, atol=1e-6)
    np.testing.assert_allclose(found.shift, truth.shift, atol=1e-4)
    parts = [np.load(run.path / f"class_{number}.cs")["uid"] for number in (1, 2)]
    assert all((part == written["uid"][number::2]).all() for number, part in enumerate(parts))
    # a fit that goes on knows where the images are, and writes for cryoSPARC, too
    following = fit_params(params, run)
    assert following.particles == str(run.particles_cs)
    assert len(ParticleStack.from_star(following.particles, following.root)) == 300


def test_what_a_fit_says_without_alignments(project, engine, tmp_path):
    path = save(project.particles.parent / "particles_alone.cs", without(project.fields, "alignments3D/"))
    outcome = engine("fit", path, "--output", tmp_path / "run", "--rank", 1)
    assert outcome.code == 2
    assert "no orientations: field alignments3D/pose is missing" in outcome.error
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed" and "alignments3D/pose" in status["message"]
