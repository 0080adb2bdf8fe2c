"""`evaluate` on a run that is put together from the truth of a small simulated data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_csv
from solvar_engine.contract.params import EvaluateParams, FitParams, SimulateParams
from solvar_engine.contract.results import Latents, read_latents, write_eigenvalues, write_latents, write_noise
from solvar_engine.contract.run import RunDir, write_params
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import FINISHED, Status, write_status
from solvar_engine.data.metadata import read_metadata
from solvar_engine.data.volumes import read_volume, write_volume
from solvar_engine.evaluation.covariance_scores import state_factor
from solvar_engine.evaluation.information_limit import information_limit, seen_power
from solvar_engine.imaging.fourier import HalfDisk, fourier_crop_volume
from solvar_engine.imaging.types import Volume
from solvar_engine.jobs import run_evaluate as evaluate
from solvar_engine.jobs import run_simulate as simulate

BOX, RUN_BOX, COUNT = 24, 20, 150
KEYS = (
    "captured_variance captured_variance_limit captured_variance_2 covariance_error covariance_error_scaled "
    "eigenvalues_true eigenvalues_estimated latent_r2 latent_r2_poly state_accuracy latent_calibration fsc_auc_mean "
    "fsc_auc_std fsc_auc_median fsc_auc_mean_only rotation_error_deg rotation_error_start_deg shift_error_px "
    "shift_error_start_px contrast_r2 seconds peak_memory_mb"
).split()


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate") / "data"
    params = SimulateParams(
        output=str(folder), phantom="assembly", particles=COUNT, box=BOX, snr=1.0, contrast_std=0.2,
        rotation_error=2.0, shift_error=0.5,
    )  # fmt: skip
    simulate.run(params)
    return folder


def make_run(folder: Path, data_set: Path, is_finished: bool = True) -> RunDir:
    """A run whose results are the truth, at a smaller box, in other units, with some of the rows."""
    run_dir = RunDir(folder)
    run_dir.eigenvolumes.mkdir(parents=True)
    order = np.random.default_rng(0).permutation(COUNT)[:120]
    state = read_csv(data_set / "truth/states.csv")["state"].astype(int)[order] - 1
    volumes = [read_volume(data_set / f"truth/volumes/state_{number:04d}.mrc").data for number in range(1, 9)]
    cropped = 5.0 * fourier_crop_volume(torch.stack(volumes), RUN_BOX).numpy()
    mean, factor = state_factor(cropped, np.bincount(state, minlength=8).astype(float))
    _, singular, vectors = np.linalg.svd(factor.reshape(8, -1), full_matrices=False)
    pixel_size = 3.0 * BOX / RUN_BOX
    write_volume(run_dir.mean, Volume(torch.from_numpy(mean), pixel_size))
    for component in range(4):
        data = torch.from_numpy(vectors[component].reshape(mean.shape))
        write_volume(run_dir.eigenvolume(component + 1), Volume(data, pixel_size))
    empty = np.full(4, np.nan)
    write_eigenvalues(
        run_dir.eigenvalues,
        {
            "component": np.arange(1, 5), "eigenvalue": singular[:4] ** 2, "eigenvalue_in_sample": empty,
            "fraction": empty, "half_set_agreement": empty, "nuisance_overlap": empty, "label": [""] * 4,
        },
    )  # fmt: skip
    z = (cropped - mean).reshape(8, -1)[state] @ vectors[:4].T
    write_latents(run_dir.latents, Latents(z, np.zeros((120, 4, 4)), np.ones(120)))
    star = StarFile.read(data_set / "truth/particles.star")
    table = star.particles
    shuffled = type(table)(table.name, table.columns, [table.rows[row] for row in order], table.header)
    star.replace(table, shuffled).write(run_dir.particles)
    given = data_set / "particles.star"
    write_params(run_dir, FitParams(particles=str(given), output=str(folder), rank=4), inputs=[given])
    state_word = FINISHED if is_finished else "running"
    write_status(run_dir.status, Status("fit", state=state_word, seconds=12.5, peak_memory_mb=345.0))
    return run_dir


def test_a_perfect_run_scores_perfectly(
    tmp_path: Path, data_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "run", data_set)
    out = tmp_path / "scores.json"
    evaluate.run(EvaluateParams(run=str(tmp_path / "run"), truth=str(data_set / "truth"), json=str(out)))
    scores = json.loads(out.read_text())
    assert list(scores) == KEYS
    assert scores["captured_variance"] == pytest.approx(1.0, abs=1e-4)
    assert scores["covariance_error"] < 2e-3
    assert scores["eigenvalues_estimated"] == pytest.approx(scores["eigenvalues_true"][:4], rel=1e-3)
    assert scores["state_accuracy"] > 0.5 and scores["latent_r2"] > 0.5
    assert scores["fsc_auc_mean"] == pytest.approx((RUN_BOX / 2 - 1) / RUN_BOX, abs=1e-3)
    assert scores["rotation_error_deg"] < 1e-3
    assert scores["rotation_error_start_deg"] == pytest.approx(2.0 * np.sqrt(8 / np.pi), rel=0.2)
    assert scores["shift_error_start_px"] == pytest.approx(0.5 * np.sqrt(np.pi / 2), rel=0.2)
    assert scores["contrast_r2"] is None  # the run did not estimate contrasts
    assert (scores["seconds"], scores["peak_memory_mb"]) == (12.5, 345.0)
    table = capsys.readouterr().out
    assert all(key in table for key in KEYS)
    assert "contrast_r2                                      -" in table


def test_rows_of_a_symmetry_count_at_their_own_orientations(tmp_path: Path, data_set: Path) -> None:
    run_dir, out = make_run(tmp_path / "run", data_set), tmp_path / "scores.json"
    z, star = read_latents(run_dir.latents).z.repeat(2, axis=0), StarFile.read(run_dir.particles)
    z[1::2] = 0  # of another subunit
    table = star.particles.only(np.repeat(np.arange(120), 2).tolist())
    rot = table.numbers("rlnAngleRot")["rlnAngleRot"] + np.tile([0, 180], 120)
    star.replace(star.particles, table.with_columns({"rlnAngleRot": rot})).write(run_dir.particles)
    write_latents(run_dir.latents, Latents(z, np.zeros((240, 4, 4)), np.ones(240)))
    given = data_set / "particles.star"
    params = FitParams(particles=str(given), output=str(run_dir.path), rank=4, symmetry="C2")
    write_params(run_dir, params, inputs=[given])
    evaluate.run(EvaluateParams(run=str(run_dir.path), truth=str(data_set / "truth"), json=str(out)))
    scores = json.loads(out.read_text())
    assert scores["rotation_error_deg"] < 1e-3
    assert scores["rotation_error_start_deg"] == pytest.approx(2.0 * np.sqrt(8 / np.pi), rel=0.2)
    assert scores["state_accuracy"] > 0.5


def test_the_information_limit_does_not_depend_on_box_and_units(tmp_path: Path, data_set: Path) -> None:
    """A run at a smaller box in other units against the same formula on the data set as it is."""
    run_dir, out, variance = make_run(tmp_path / "run", data_set), tmp_path / "scores.json", 0.1
    shells = RUN_BOX // 2
    table = {
        "shell": np.arange(shells), "frequency": np.zeros(shells), "group": ["opticsGroup1"] * shells,
        "noise_variance": np.full(shells, 25.0 * variance),
    }  # fmt: skip
    write_noise(run_dir.noise, table)
    evaluate.run(EvaluateParams(run=str(run_dir.path), truth=str(data_set / "truth"), json=str(out)))
    found = json.loads(out.read_text())["captured_variance_limit"]
    star = StarFile.read(run_dir.particles)
    metadata, names = read_metadata(star), star.particles.text("rlnImageName")
    truth = evaluate.read_truth(evaluate.TruthFiles.find(data_set), names, BOX)
    disk = HalfDisk.create(BOX)
    noise = torch.full((len(names), BOX // 2), variance)
    seen = seen_power(metadata.ctf, noise, disk, 3.0, torch.from_numpy(truth.contrast))
    _, factor = state_factor(truth.volumes, np.bincount(truth.state).astype(float))
    expected = information_limit(factor, truth.mask, seen, disk, 4)
    assert 0.2 < expected < 0.9, (expected, found)
    assert found == pytest.approx(expected, rel=0.1)


def test_the_data_set_itself_stands_for_its_truth(tmp_path: Path, data_set: Path) -> None:
    make_run(tmp_path / "run", data_set)
    evaluate.run(EvaluateParams(run=str(tmp_path / "run"), truth=str(data_set)))
    with pytest.raises(UserError, match=r"has no states.csv: give the folder truth/"):
        evaluate.run(EvaluateParams(run=str(tmp_path / "run"), truth=str(tmp_path)))


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path, data_set: Path) -> None:
    make_run(tmp_path / "run", data_set, is_finished=False)
    with pytest.raises(UserError, match="not finished"):
        evaluate.run(EvaluateParams(run=str(tmp_path / "run"), truth=str(data_set)))


def test_particles_of_another_data_set_are_refused(tmp_path: Path, data_set: Path) -> None:
    run_dir = make_run(tmp_path / "run", data_set)
    text = run_dir.particles.read_text().replace("particles.mrcs", "others.mrcs")
    run_dir.particles.write_text(text)
    with pytest.raises(UserError, match=r"@others.mrcs of the run is not in .*truth/particles.star"):
        evaluate.run(EvaluateParams(run=str(tmp_path / "run"), truth=str(data_set)))


def test_junk_is_read_from_the_truth_in_the_order_of_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    simulate.run(SimulateParams(output=str(folder), phantom="static", particles=40, box=16, junk=0.3))
    files = evaluate.TruthFiles.find(folder)
    names = StarFile.read(files.particles).particles.text("rlnImageName")
    is_junk = read_csv(files.states)["junk"] == 1
    assert int(is_junk.sum()) == 12
    assert evaluate.read_truth(files, names[::-1], 16).is_junk.tolist() == is_junk[::-1].tolist()


def test_names_are_matched_although_folders_changed() -> None:
    known = ["000001@particles.mrcs", "000010@particles.mrcs"]
    found = evaluate.match_particles(
        ["10@Extract/job003/particles.mrcs", "000001@particles.mrcs"], known, Path("t")
    )
    assert found.tolist() == [1, 0]


def test_names_that_stand_for_two_particles_are_refused() -> None:
    known = ["1@a/x.mrcs", "1@b/x.mrcs"]
    assert evaluate.match_particles(["1@b/x.mrcs"], known, Path("t")).tolist() == [1]
    assert evaluate.match_particles(["1@new/b/x.mrcs", "1@new/a/x.mrcs"], known, Path("t")).tolist() == [1, 0]
    with pytest.raises(UserError, match="Stack c/x.mrcs of the run may be a/x.mrcs or b/x.mrcs of t: give the truth"):
        evaluate.match_particles(["1@c/x.mrcs"], known, Path("t"))
    with pytest.raises(UserError, match="share an image name"):
        evaluate.match_particles(["1@c/x.mrcs"], ["1@a/x.mrcs", "1@a/x.mrcs"], Path("t"))


def test_images_of_several_stacks_are_not_taken_for_those_of_one() -> None:
    with pytest.raises(UserError, match="Image 1@a/x.mrcs of the run is not in t"):
        evaluate.match_particles(["1@a/x.mrcs", "1@b/x.mrcs"], ["000001@x.mrcs"], Path("t"))
