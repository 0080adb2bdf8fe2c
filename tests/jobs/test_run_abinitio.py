"""`abinitio` around the search: what goes in, what a run holds, and what goes on from it.

The search itself is stood in for by the truth of simulated data, turned, mirrored and disturbed.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import torch
from torch import Tensor

from solvar_engine.abinitio.moments.encoder import load_encoder
from solvar_engine.abinitio.semi_amortized.encoder import PoseEncoder
from solvar_engine.abinitio.structure import AbinitioOptions, Structure, Verdict
from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_csv
from solvar_engine.contract.params import AbinitioParams
from solvar_engine.contract.results import (
    CLASS_NUMBER,
    OUTLIER,
    RANDOM_SUBSET,
    ROTATION_STD,
    SHIFT_STD,
    read_fsc,
    read_latents,
    read_metrics,
    read_structure,
)
from solvar_engine.contract.run import RunDir, clear_run, read_record
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.contract.status import FINISHED, read_status
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.volumes import read_volume
from solvar_engine.evaluation.metrics import Truth
from solvar_engine.imaging.rotation import rotvec_to_rotation
from solvar_engine.imaging.shells import fsc
from solvar_engine.imaging.types import ParticleSource, Pose
from solvar_engine.jobs import run_abinitio
from solvar_engine.jobs.run_abinitio import fit_params, run
from solvar_engine.jobs.run_evaluate import class_accuracy
from solvar_engine.jobs.simulate.files import DataSetFiles
from tests.jobs.conftest import BOX, PARTICLES, PIXEL_SIZE

POSE_COLUMNS = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")


class TrueStructure:
    """A search that knows the poses; fields of what it returns may be replaced."""

    def __init__(self, data: DataSetFiles, **changes: Any) -> None:
        self.pose = ParticleStack.from_star(data.truth.particles, data.path).pose
        self.changes = changes
        self.options: AbinitioOptions | None = None
        self.given: Pose | None = None

    def __call__(
        self, source: ParticleSource, options: AbinitioOptions, report: Any, checkpoint: Any, *, slices: Any,
        is_usable: Tensor,
    ) -> Structure:  # fmt: skip
        self.options, self.given, self.is_usable = options, source.pose, is_usable
        report("coarse search", 0.2, "", 5)
        report("coarse search", 0.5, "half of it is done", shell=6)
        checkpoint.save("state", {"shift": self.pose.shift})
        count, box_size = len(source), source.box_size
        volumes = torch.zeros(1, box_size, box_size, box_size)
        found = Structure(
            pose=self.pose,
            rotation_std_deg=torch.full((count,), 2.0),
            class_of=torch.zeros(count, dtype=torch.int64),
            populations=torch.ones(1),
            volumes=volumes,
            half_volumes=[(volumes[0], volumes[0])],
            log_likelihood=torch.arange(count, dtype=torch.float64),
            contrast_sign=1,
            shift_std_px=0.5,
            is_junk=torch.zeros(count, dtype=torch.bool),
            verdict=verdict(),
        )
        return replace(found, **self.changes)


def verdict(found: bool = True, gain: float = 9.0, missing: Tensor | None = None) -> Verdict:
    per_image = gain + torch.linspace(-0.5, 0.5, 20, dtype=torch.float64)
    return Verdict(gain, 0.5, per_image, found, missing, 0.0 if missing is None else 70.0)


def junk(rows: slice) -> Tensor:
    flags = torch.zeros(PARTICLES, dtype=torch.bool)
    flags[rows] = True
    return flags


def without_poses(data: DataSetFiles, path: Path) -> Path:
    """The particles of a data set, without any column of the pose, with absolute names."""
    star = StarFile.read(data.particles)
    table = star.particles
    names = [name.replace("@", f"@{data.path}/") for name in table.text("rlnImageName")]
    kept = [label for label in table.columns if label not in POSE_COLUMNS]
    columns = {label: table.text(label) for label in kept}
    star.replace(table, StarTable.create("particles", {**columns, "rlnImageName": names})).write(path)
    return path


@pytest.fixture(scope="module")
def found(hinge: DataSetFiles, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A finished run from a list without poses."""
    folder = tmp_path_factory.mktemp("abinitio")
    star = without_poses(hinge, folder / "particles.star")
    params = AbinitioParams(particles=str(star), output=str(folder / "run"), threads=1)
    run(params, TrueStructure(hinge, is_junk=junk(slice(0, 9))))
    return RunDir(folder / "run")


# ---------------------------------------------------------------- the run directory


def test_a_run_holds_what_a_fit_without_components_holds(found):
    names = {path.relative_to(found.path).as_posix() for path in found.path.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("checkpoint/")} == {
        "params.json", "status.json", "log.txt", "mean.mrc", "mean_half1.mrc", "mean_half2.mrc", "mask.mrc",
        "eigenvalues.csv", "latents.npz", "particles.star", "noise.csv", "fsc.csv", "metrics.csv",
    }  # fmt: skip
    assert read_latents(found.latents).z.shape == (PARTICLES, 0)
    assert read_metrics(found.metrics)["shell_max"].tolist() == [5, 6]
    assert read_status(found.status).state == FINISHED


def test_the_mean_is_that_of_the_molecule_in_the_units_of_the_images(found, hinge):
    mean = read_volume(found.mean)
    assert (mean.box_size, mean.pixel_size) == (BOX, pytest.approx(PIXEL_SIZE))
    state = read_csv(hinge.truth.states)["state"].astype(int)
    volumes = {number: read_volume(hinge.truth.volume(number)).data for number in set(state.tolist())}
    truth = torch.stack([volumes[number] for number in state.tolist()]).mean(dim=0)
    mask = read_volume(found.mask).data
    scale = float((mean.data * truth * mask).sum() / (truth**2 * mask).sum())
    assert scale == pytest.approx(1, abs=0.1)
    assert float(fsc(mean.data, truth, mask)[1:6].min()) > 0.9
    assert float(np.nanmin(read_fsc(found.fsc)["fsc_mean"][1:5])) > 0.8


def test_particles_have_the_poses_found_and_how_certain_they_are(found, hinge):
    star = StarFile.read(found.particles)
    truth = StarFile.read(hinge.truth.particles).particles.numbers(*POSE_COLUMNS)
    table = star.particles
    for name, values in table.numbers(*POSE_COLUMNS).items():
        np.testing.assert_allclose(values, truth[name], atol=2e-3)
    assert set(table.integers(RANDOM_SUBSET)) == {1, 2}
    assert table.integers(OUTLIER).tolist() == [1] * 9 + [0] * (PARTICLES - 9)
    assert set(table.numbers(ROTATION_STD)[ROTATION_STD]) == {2.0}
    shift_std = table.numbers(SHIFT_STD)[SHIFT_STD]
    assert (shift_std[9:] > 0.05).all() and (shift_std < 3 * PIXEL_SIZE).all()
    np.testing.assert_allclose(table.numbers("solvarLogLikelihood")["solvarLogLikelihood"], np.arange(PARTICLES))
    contrast = read_latents(found.latents).contrast
    assert contrast[9:].mean() == pytest.approx(1, abs=1e-4) and contrast[9:].std() < 0.2


def test_the_record_says_what_was_found(found):
    structure = read_structure(found)
    assert structure.found and structure.populations == (1.0,)
    assert structure.shift_std == pytest.approx(0.5 * PIXEL_SIZE)
    assert 2 * PIXEL_SIZE <= structure.resolutions[0] < 4 * PIXEL_SIZE
    assert read_record(found)["decided"]["sign"] == 1.0
    assert read_status(found.status).message.startswith(f"{PARTICLES} particles, 9 of them outliers, mean at")


def test_poses_in_the_file_are_ignored(hinge, tmp_path):
    given, bare = TrueStructure(hinge), TrueStructure(hinge)
    star = without_poses(hinge, tmp_path / "bare.star")
    run(AbinitioParams(particles=str(hinge.particles), output=str(tmp_path / "given"), threads=1), given)
    run(AbinitioParams(particles=str(star), output=str(tmp_path / "bare"), threads=1), bare)
    torch.testing.assert_close(given.given.rotation, torch.eye(3).expand(PARTICLES, 3, 3))
    assert not given.given.shift.any()
    means = [read_volume(RunDir(tmp_path / name).mean).data for name in ("given", "bare")]
    torch.testing.assert_close(*means)


def test_dark_molecules_come_out_bright(found, hinge, tmp_path):
    star = without_poses(hinge, tmp_path / "particles.star")
    search = TrueStructure(hinge, contrast_sign=-1)
    run(AbinitioParams(particles=str(star), output=str(tmp_path / "run"), threads=1), search)
    first, second = (read_volume(one.mean_half1).data for one in (found, RunDir(tmp_path / "run")))
    assert float((first * second).sum() / first.norm() / second.norm()) < -0.95


def test_symmetry_puts_every_image_at_all_equal_poses(hinge, tmp_path):
    star = without_poses(hinge, tmp_path / "particles.star")
    params = AbinitioParams(particles=str(star), output=str(tmp_path / "run"), symmetry="C2", threads=1)
    run(params, TrueStructure(hinge))
    half = read_volume(RunDir(tmp_path / "run").mean_half1).data
    inside = half[1:, 1:, 1:]  # the other half-turn of an even box has no partner
    turned = inside.flip(1, 2)
    assert float((inside * turned).sum() / inside.square().sum()) > 0.99


# ---------------------------------------------------------------- what goes on from it


def test_other_commands_go_on_from_the_run(found, engine, tmp_path):
    assert engine("analyze", found.path).code == 0
    page = found.report.read_text()
    assert "Viewing directions" in page and "Resolution of the search" in page and "flattered" in page
    assert "Structures" not in page and "variability" not in page.partition("<figure")[0]
    outcome = engine("reconstruct", found.path, "--output", tmp_path / "states", "--clusters", 2)
    assert outcome.code == 2 and "fit" in outcome.error and outcome.error.count("\n") == 1
    assert engine("explore", found.path, "--export", tmp_path / "page.html").code == 0


def test_then_fit_refines_the_poses_in_a_folder_of_the_run(hinge, tmp_path):
    output = tmp_path / "run"
    params = AbinitioParams(particles=str(hinge.particles), output=str(output), then_fit=1, threads=1)
    run(params, TrueStructure(hinge))
    fit = RunDir(RunDir(output).fit)
    assert read_status(fit.status).state == FINISHED and fit.eigenvolume(1).exists()
    assert read_record(fit)["options"]["refine_poses"] is True
    assert Path(fit_params(params, RunDir(output)).root) == hinge.path
    run(replace(params, resume=True), TrueStructure(hinge))
    clear_run(RunDir(output))
    assert not [path for path in output.rglob("*") if path.is_file() and path.name != "lock"]


def test_classes_have_volumes_and_particles_of_their_own(hinge, tmp_path):
    class_of = torch.arange(PARTICLES) % 3 // 2
    search = TrueStructure(hinge, class_of=class_of, populations=torch.tensor([0.6, 0.4]), is_junk=junk(slice(0, 9)))
    params = AbinitioParams(particles=str(hinge.particles), output=str(tmp_path / "run"), classes=2, threads=1)
    run(params, search)
    out = RunDir(tmp_path / "run")
    table = StarFile.read(out.particles).particles
    np.testing.assert_array_equal(table.integers(CLASS_NUMBER), class_of.numpy() + 1)
    for number in (1, 2):
        members = StarFile.read(out.class_particles(number)).particles
        assert set(members.integers(CLASS_NUMBER)) == {number}
        assert len(members) == int((class_of[9:] == number - 1).sum())
        assert all(float(read_volume(out.class_half(number, half)).data.std()) > 0 for half in (1, 2))
    torch.testing.assert_close(read_volume(out.mean).data, read_volume(out.class_volume(1)).data)
    assert "class 1 with 60 % of the particles" in read_status(out.status).message
    assert all(out.has_name_for(path) for path in out.path.rglob("*"))


def displaced(pose: Pose) -> Pose:
    """What sees the molecule turned, moved and in the other hand."""
    turn = rotvec_to_rotation(torch.tensor([[1.1, -0.6, 0.4]]))[0]
    shift = pose.shift + pose.rotation.mT[:, :2] @ torch.tensor([5.0, -9.0, 3.0])
    return Pose(turn @ pose.rotation @ torch.diag(torch.tensor([-1.0, -1.0, 1.0])), shift)


def test_evaluate_finds_the_frame_of_the_run(hinge, tmp_path, engine):
    true = TrueStructure(hinge).pose
    answers = []
    for name, pose in (("same", true), ("other", displaced(true))):
        output = tmp_path / name
        params = AbinitioParams(particles=str(hinge.particles), output=str(output), threads=1)
        run(params, TrueStructure(hinge, pose=pose))
        assert engine("evaluate", output, hinge.truth.path, "--json", tmp_path / f"{name}.json").code == 0
        answers.append(json.loads((tmp_path / f"{name}.json").read_text()))
    same, other = answers
    assert (same["hand_is_mirrored"], other["hand_is_mirrored"]) == (0, 1)
    for scores in answers:
        assert scores["poses_beyond_20_deg"] == 0
        assert max(scores[f"rotation_error{kind}_deg"] for kind in ("", "_median", "_comoving")) < 0.05
        assert max(scores["shift_error_px"], scores["shift_error_comoving_px"]) < 0.01
        assert scores["resolution_mean"] == pytest.approx(2 * PIXEL_SIZE, rel=0.15)
        assert scores["rotation_error_start_deg"] is None and scores["captured_variance"] is not None
    assert other["fsc_auc_mean_only"] == pytest.approx(same["fsc_auc_mean_only"], abs=0.05)


def test_class_accuracy_counts_classes_however_they_are_named() -> None:
    state = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    number = np.array([3, 3, 1, 1, 1, 2, 2, 3])
    is_junk = np.arange(8) == 7
    star = StarFile((StarTable.create("particles", {"rlnImageName": ["1@a.mrcs"] * 8, CLASS_NUMBER: number}),))
    truth = Truth(*[np.zeros(1)] * 2, state, *[np.zeros(1)] * 2, Pose(torch.zeros(0), torch.zeros(0)), 1.0, is_junk)
    assert class_accuracy(star, truth) == pytest.approx(6 / 7)


# ---------------------------------------------------------------- no structure


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (verdict(False, 0.2), "that is too little"),
        (verdict(False, 0.2, torch.tensor([0.0, 0.0, 1.0])), "that is too little"),  # poses are chance
        (verdict(False, 9.0, torch.tensor([0.0, 0.0, 1.0])), "views within 70 degrees of rot 0, tilt 0"),
    ],
)
def test_without_structure_no_volume_and_no_pose_is_written(outcome, reason, hinge, tmp_path, engine):
    star = without_poses(hinge, tmp_path / "particles.star")
    params = AbinitioParams(particles=str(star), output=str(tmp_path / "run"), then_fit="auto", threads=1)
    run(params, TrueStructure(hinge, verdict=outcome))
    out = RunDir(tmp_path / "run")
    assert not list(out.path.rglob("*.mrc")) and not out.fit.exists()
    assert not any(name in StarFile.read(out.particles).particles for name in POSE_COLUMNS)
    status = read_status(out.status)
    assert status.state == FINISHED and "no structure was found" in status.message and reason in status.message
    assert reason in read_record(out)["cautions"][-1]
    assert not read_structure(out).found
    assert engine("analyze", out.path).code == 0 and "No structure" in out.report.read_text()
    for command in (("explore", out.path), ("evaluate", out.path, hinge.truth.path)):
        answer = engine(*command)
        assert answer.code == 2 and "found no structure" in answer.error and answer.error.count("\n") == 1


def test_the_network_of_a_search_is_kept(hinge, tmp_path, monkeypatch):
    known = TrueStructure(hinge)

    def search(*given: Any, keep_encoder: Any, **named: Any) -> Structure:
        keep_encoder(PoseEncoder(2, 4))
        return known(*given, **named)

    monkeypatch.setattr(run_abinitio, "find_structure_by_semi_amortized", search)
    out = RunDir(tmp_path / "run")
    run(AbinitioParams(particles=str(hinge.particles), output=str(out.path), method="semi-amortized", threads=1))
    encoder, about = load_encoder(out.pose_encoder, PoseEncoder)
    assert encoder.settings["heads"] == 2 and about == {"particles": str(hinge.particles), "seed": 0}


def test_missing_views_and_doubts_of_the_search_are_said_of_a_structure_too(hinge, tmp_path, caplog):
    known = TrueStructure(hinge, verdict=verdict(missing=torch.tensor([0.0, 1.0, 0.0])))

    def search(source: ParticleSource, options: AbinitioOptions, report: Any, *others: Any, **named: Any) -> Structure:
        report("coarse search", 0.1, "no map fits well", is_caution=True)
        return known(source, options, report, *others, **named)

    with caplog.at_level(logging.INFO, "solvar_engine"):
        run(AbinitioParams(particles=str(hinge.particles), output=str(tmp_path / "run"), threads=1), search)
    assert "coarse search: half of it is done" in RunDir(tmp_path / "run").log.read_text()
    cautions = read_record(RunDir(tmp_path / "run"))["cautions"]
    assert cautions[-2] == "no map fits well" and "views within 70 degrees of rot 90, tilt 90" in cautions[-1]


# ---------------------------------------------------------------- options


def options_for(data: DataSetFiles, folder: Path, **values: Any) -> AbinitioOptions:
    search = TrueStructure(data)
    run(AbinitioParams(particles=str(data.particles), output=str(folder), threads=1, **values), search)
    assert search.options is not None
    return search.options


def test_options_reach_the_search_in_the_units_of_the_working_box(hinge, tmp_path):
    options = options_for(
        hinge, tmp_path / "run", box=20, max_resolution=24.0, shift_std=8.0, symmetry="c2", seed=7, flip_hand=True
    )
    # 24 px of 8 Angstrom: the 8th shell is 24 Angstrom, and a pixel of the working box 9.6
    assert options == AbinitioOptions(8, pytest.approx(8 / 9.6), "c2", 1, 7, True)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"max_resolution": 10.0}, "--max-resolution is 10 Angstrom, but images of 24 px of 8 Angstrom show"),
        ({"max_resolution": 60.0}, "structures at 16 to 32 Angstrom"),
        ({"max_resolution": 17.0, "box": 20}, "--box 20 holds nothing finer than 19.2 Angstrom"),
        ({"box": 26}, "--box is 26, but the images have 24 px"),
        ({"shift_std": 40.0}, "--shift-std is 40 Angstrom, but the images"),
        ({"symmetry": "X4"}, "--symmetry is 'X4'"),
        ({"symmetry": "D50"}, "--symmetry: "),
        ({"classes": 4}, "has 300 particles, but 4 structures cannot be found from fewer than 400"),
        ({"classes": 2, "then_fit": 2}, "--then-fit needs one structure"),
        ({"classes": 2, "symmetry": "C3"}, "--classes 2 needs --symmetry C1"),
        ({"method": "guess"}, "--method is 'guess'"),
        ({"method": "sgd", "classes": 2}, "--classes 2 needs --method em: sgd finds one structure only"),
        ({"method": "moments", "classes": 2}, "--classes 2 needs --method em: moments finds one structure only"),
        ({"method": "semi-amortized", "classes": 2}, "--classes 2 needs --method em: semi-amortized finds one"),
    ],
)
def test_what_cannot_be_is_said_before_the_work(values, text, hinge, tmp_path):
    with pytest.raises(UserError, match=text.replace("(", r"\(")):
        options_for(hinge, tmp_path / "run", **values)
    assert not list((tmp_path).rglob("*.mrc"))


def test_the_search_is_told_which_images_cannot_be_used(hinge, tmp_path):
    shutil.copytree(hinge.path, tmp_path / "data")
    (stacks,) = (tmp_path / "data").glob("*.mrcs")
    with mrcfile.open(stacks, "r+") as images:
        images.data[[4, 7]] = 0
    search = TrueStructure(hinge)
    particles = str(tmp_path / "data" / hinge.particles.name)
    run(AbinitioParams(particles=particles, output=str(tmp_path / "run"), threads=1, skip_bad_images=True), search)
    assert torch.nonzero(~search.is_usable).flatten().tolist() == [4, 7]


def test_a_search_that_refuses_is_an_error_of_the_user(hinge, tmp_path):
    def refuse(*arguments: Any, **options: Any) -> Structure:
        raise ValueError("there is nothing to find")

    with pytest.raises(UserError, match="particles.star: there is nothing to find"):
        run(AbinitioParams(particles=str(hinge.particles), output=str(tmp_path / "run"), threads=1), refuse)
    assert read_status(RunDir(tmp_path / "run").status).state == "failed"


def test_a_killed_search_goes_on_from_its_checkpoint(hinge, tmp_path):
    class Killed(Exception):
        pass

    def killed(source: Any, options: Any, report: Any, checkpoint: Any, *, slices: Any, is_usable: Any) -> Structure:
        assert checkpoint.load("state") is None
        checkpoint.save("state", {"shift": torch.arange(3.0), "step": torch.tensor(4)})
        raise Killed

    def resumed(source: Any, options: Any, report: Any, checkpoint: Any, *, slices: Any, is_usable: Any) -> Structure:
        kept = checkpoint.load("state")
        torch.testing.assert_close(kept["shift"], torch.arange(3.0))
        assert int(kept["step"]) == 4
        return TrueStructure(hinge)(source, options, report, checkpoint, slices=slices, is_usable=is_usable)

    params = AbinitioParams(particles=str(hinge.particles), output=str(tmp_path / "run"), threads=1)
    with pytest.raises(Killed):
        run(params, killed)
    with pytest.raises(UserError, match="not empty"):
        run(params, resumed)
    run(replace(params, resume=True), resumed)
    assert RunDir(tmp_path / "run").mean.exists()
