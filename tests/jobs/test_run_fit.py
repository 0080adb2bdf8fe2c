"""`fit` from end to end on a small data set: every file of the run, and what stands in it."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from solvar_engine.contract.files import read_csv
from solvar_engine.contract.params import FitParams
from solvar_engine.contract.results import Latents, read_density, read_latents
from solvar_engine.contract.run import RunDir, prepared, write_params
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.contract.status import StatusTracker
from solvar_engine.data.mrc import StackWriter
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.volumes import read_volume, write_volume
from solvar_engine.estimation.alternation.means import estimate_problem
from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.imaging.fourier import (
    HalfDisk,
    disk_to_images,
    fourier_crop_volume,
    images_to_disk,
    nyquist_shell,
)
from solvar_engine.imaging.types import Volume
from solvar_engine.jobs.fit.halves import alternation_problem
from solvar_engine.jobs.fit.inputs import read_inputs
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.jobs.fit.start import read_images, settle_sign_and_masks
from solvar_engine.jobs.simulate.files import DataSetFiles
from tests.jobs.conftest import BOX, PARTICLES, PIXEL_SIZE, RANK


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def eigenvolumes_of(run: RunDir) -> np.ndarray:
    count = len(read_csv(run.eigenvalues)["component"])
    return np.stack([read_volume(run.eigenvolume(number)).data.numpy() for number in range(1, count + 1)])


def true_states(data: DataSetFiles, box_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Volumes of the states at a box, values preserved, and the state (from 0) of each particle."""
    state = read_csv(data.truth.states)["state"].astype(int) - 1
    paths = [data.truth.volume(number) for number in range(1, state.max() + 2)]
    volumes = [fourier_crop_volume(read_volume(path).data, box_size).numpy() for path in paths]
    return np.stack(volumes), state


def true_components(data: DataSetFiles, box_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, leading eigenvalues and eigenvolumes (r, voxels) of the particles' volumes at a box."""
    volumes, state = true_states(data, box_size)
    weight = np.bincount(state, minlength=len(volumes)) / len(state)
    flat = volumes.reshape(len(volumes), -1).astype(np.float64)
    mean = weight @ flat
    _, singular, directions = np.linalg.svd(np.sqrt(weight)[:, None] * (flat - mean), full_matrices=False)
    return mean.reshape(volumes.shape[1:]), singular[:RANK] ** 2, directions[:RANK]


def slope(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Factor by which the truth is to be multiplied to fit the estimate best."""
    return float((estimate * truth).sum() / (truth**2).sum())


def motion_correlation(run: RunDir, data: DataSetFiles) -> float:
    """Correlation of the first latent coordinate with the angle of the hinge, without its sign."""
    angle = read_csv(data.truth.states)["coordinate_1"]
    return abs(float(np.corrcoef(read_latents(run.latents).z[:, 0], angle)[0, 1]))


# ---------------------------------------------------------------- the run directory


def test_every_file_of_the_run_directory_is_there_and_nothing_else(fitted):
    names = {path.relative_to(fitted.path).as_posix() for path in fitted.path.rglob("*") if path.is_file()}
    results = {name for name in names if not name.startswith("checkpoint/")}
    assert results == {
        "params.json", "status.json", "log.txt", "mean.mrc", "mean_half1.mrc", "mean_half2.mrc", "mask.mrc",
        "eigenvolumes/eigenvolume_001.mrc", "eigenvolumes/eigenvolume_002.mrc", "eigenvalues.csv", "rank.csv",
        "eigenvolumes/eigenvolume_001_half1.mrc", "eigenvolumes/eigenvolume_001_half2.mrc",
        "eigenvolumes/eigenvolume_002_half1.mrc", "eigenvolumes/eigenvolume_002_half2.mrc",
        "latents.npz", "density.csv", "particles.star", "noise.csv", "noise_of_micrographs.npz", "fsc.csv",
        "metrics.csv",
    }  # fmt: skip
    assert fitted.checkpoint.is_dir()


def test_volumes_have_the_working_box_and_its_pixel_size(fitted):
    for path in (fitted.mean, fitted.mean_half1, fitted.mean_half2, fitted.mask, fitted.eigenvolume(1)):
        volume = read_volume(path)
        assert volume.box_size == BOX
        assert volume.pixel_size == pytest.approx(PIXEL_SIZE)
        assert float(volume.data.std()) > 0
    mask = read_volume(fitted.mask).data
    assert 0 <= float(mask.min()) and float(mask.max()) <= 1


def test_eigenvolumes_are_orthonormal_and_signed(fitted):
    flat = eigenvolumes_of(fitted).reshape(RANK, -1).astype(np.float64)
    np.testing.assert_allclose(flat @ flat.T, np.eye(RANK), atol=1e-4)
    assert ((flat**3).sum(axis=1) > 0).all()


def test_table_of_eigenvalues(fitted):
    table = read_csv(fitted.eigenvalues)
    assert list(table) == [
        "component", "eigenvalue", "eigenvalue_in_sample", "fraction", "half_set_agreement",
        "nuisance_overlap", "label",
    ]  # fmt: skip
    np.testing.assert_array_equal(table["component"], np.arange(1, RANK + 1))
    assert (np.diff(table["eigenvalue"]) <= 0).all() and (table["eigenvalue"] > 0).all()
    np.testing.assert_allclose(table["fraction"], table["eigenvalue"] / table["eigenvalue"].sum())
    for column in ("half_set_agreement", "nuisance_overlap"):
        assert ((0 <= table[column]) & (table[column] <= 1)).all()
    assert table["half_set_agreement"][0] > 0.8


def test_latents_and_their_precision(fitted):
    latents = read_latents(fitted.latents)
    assert latents.z.shape == (PARTICLES, RANK) and latents.z.dtype == np.float32
    assert latents.precision.shape == (PARTICLES, RANK, RANK) and latents.precision.dtype == np.float32
    assert latents.contrast.shape == (PARTICLES,) and latents.contrast.dtype == np.float32
    assert latents.contrast.mean() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(latents.precision, latents.precision.transpose(0, 2, 1))
    # by the law of total variance, the density is that of the posterior means with the posteriors' spread
    density = read_density(fitted.density)
    covariance = np.linalg.inv(latents.precision.astype(np.float64))
    assert np.linalg.eigvalsh(covariance).min() > 0
    total = covariance.mean(axis=0) + np.atleast_2d(np.cov(latents.z.T, bias=True))
    offset = density.means - density.weights @ density.means
    expected = np.einsum("k,kij->ij", density.weights, density.covariances + offset[:, :, None] * offset[:, None, :])
    assert total[0, 0] == pytest.approx(expected[0, 0], rel=0.1)
    # images tell more of the leading coordinate than the density alone
    assert np.median(covariance[:, 0, 0]) < 0.5 * expected[0, 0]


def test_particles_keep_rows_and_cells_and_gain_what_was_found(hinge, fitted):
    before, after = StarFile.read(hinge.particles), StarFile.read(fitted.particles)
    added = ("solvarContrast", "solvarLogLikelihood", "solvarOutlier", "solvarContrastStd", "solvarHalfSet")
    assert after.particles.columns == (*before.particles.columns, *added)
    for old, new in zip(before.particles.rows, after.particles.rows, strict=True):
        assert new.startswith(old.rstrip() + " ")
    assert after.optics is not None and before.optics is not None
    assert after.optics.rows == before.optics.rows
    columns = after.particles.numbers(*added)
    assert np.ptp(columns["solvarLogLikelihood"]) > 0 and set(columns["solvarOutlier"]) == {0}
    np.testing.assert_allclose(columns["solvarContrast"], read_latents(fitted.latents).contrast, rtol=1e-5)
    # all images were simulated with the same contrast
    assert columns["solvarContrast"].std() <= columns["solvarContrastStd"].mean() < 0.2


def test_tables_of_shells(fitted):
    shells = nyquist_shell(BOX) + 1
    noise, fsc = read_csv(fitted.noise), read_csv(fitted.fsc)
    assert list(noise) == ["shell", "frequency", "noise_variance", "group"]
    assert list(fsc) == ["shell", "frequency", "fsc_mean", "fsc_covariance"]
    for table in (noise, fsc):
        np.testing.assert_array_equal(table["shell"], np.arange(shells))
        np.testing.assert_allclose(table["frequency"], np.arange(shells) / (BOX * PIXEL_SIZE))
    assert set(noise["group"]) == {"opticsGroup1"}
    assert (noise["noise_variance"] > 0).all()
    # white noise was simulated
    assert noise["noise_variance"][3:].std() < 0.1 * noise["noise_variance"][3:].mean()
    assert (fsc["fsc_mean"][1:6] > 0.95).all() and np.abs(fsc["fsc_covariance"]).max() < 1 + 1e-6


def test_metrics(fitted):
    table = read_csv(fitted.metrics)
    assert list(table) == ["iteration", "stage", "half", "shell_max", "objective", "seconds"]
    halves = table["stage"] == "half-sets"
    assert set(table["half"][halves]) == {1, 2} and np.isnan(table["half"][~halves]).all()
    for half in (1, 2):
        iterations = table["iteration"][table["half"] == half]
        np.testing.assert_array_equal(iterations, np.arange(1, len(iterations) + 1))
    assert table["shell_max"][-1] == nyquist_shell(BOX)
    assert np.isfinite(table["objective"]).all() and (np.diff(table["seconds"]) >= 0).all()


def test_params_and_status(fitted, hinge):
    record = json.loads(fitted.params.read_text())
    assert record["command"] == "fit" and record["resolved"] == {"box": BOX, "device": "the CPU"}
    assert record["options"]["rank"] == RANK and record["options"]["seed"] == 0
    (entry,) = record["inputs"]
    assert (entry["path"], entry["bytes"]) == (str(hinge.particles), os.path.getsize(hinge.particles))
    status = json.loads(fitted.status.read_text())
    assert status["state"] == "finished" and status["step"] == status["steps"] > 0
    assert status["seconds"] > 0 and status["peak_memory_mb"] > 50
    assert "300 particles" in status["message"]


def test_log_tells_the_plan_and_the_result(fitted):
    log = fitted.log.read_text()
    for text in ("Expecting about", "MB of memory", "MB of disk", "working box 24 px", "bright in the images"):
        assert text in log
    assert "component 2: eigenvalue" in log and "Traceback" not in log


# ---------------------------------------------------------------- numbers


def test_the_motion_is_found(fitted, hinge):
    assert motion_correlation(fitted, hinge) > 0.9


def test_densities_are_those_of_the_input(fitted, hinge):
    mean, eigenvalues, _ = true_components(hinge, BOX)
    mask = read_volume(fitted.mask).data.numpy()
    assert slope(read_volume(fitted.mean).data.numpy(), mean * mask) == pytest.approx(1, abs=0.1)
    assert read_csv(fitted.eigenvalues)["eigenvalue"][0] == pytest.approx(eigenvalues[0], rel=0.25)


def test_mean_and_latents_make_the_volume_of_a_particle(fitted, hinge):
    volumes, state = true_states(hinge, BOX)
    latents, eigenvolumes = read_latents(fitted.latents), eigenvolumes_of(fitted)
    difference, truth = [], []
    for end in (0, len(volumes) - 1):
        chosen = np.abs(state - end) <= 4
        difference.append(np.tensordot(latents.z[chosen].mean(axis=0), eigenvolumes, axes=1))
        truth.append(volumes[state[chosen]].mean(axis=0))
    estimate, expected = difference[1] - difference[0], truth[1] - truth[0]
    assert np.corrcoef(estimate.ravel(), expected.ravel())[0, 1] > 0.8
    assert slope(estimate, expected) == pytest.approx(1, abs=0.25)


def test_working_box_is_a_crop_that_preserves_values(hinge, engine, tmp_path):
    box_size = 18
    outcome = engine("fit", hinge.particles, "--output", tmp_path / "run", "--rank", RANK, "--box", box_size)
    assert outcome.code == 0, outcome.error
    run = RunDir(tmp_path / "run")
    volume, mask = read_volume(run.mean), read_volume(run.mask)
    assert volume.box_size == mask.box_size == box_size
    assert volume.pixel_size == pytest.approx(PIXEL_SIZE * BOX / box_size)
    mean, eigenvalues, directions = true_components(hinge, box_size)
    assert slope(volume.data.numpy(), mean * mask.data.numpy()) == pytest.approx(1, abs=0.1)
    assert read_csv(run.eigenvalues)["eigenvalue"][0] == pytest.approx(eigenvalues[0], rel=0.25)
    # z along the true direction, to which the eigenvolumes' sign does not matter
    overlap = directions[0] @ eigenvolumes_of(run).reshape(RANK, -1).T
    volumes, state = true_states(hinge, box_size)
    coordinate = ((volumes - mean).reshape(len(volumes), -1) @ directions[0])[state]
    # posterior means are drawn to the middle
    assert 0.6 < slope(read_latents(run.latents).z @ overlap, coordinate) < 1.05
    np.testing.assert_allclose(
        read_csv(run.noise)["frequency"], np.arange(nyquist_shell(box_size) + 1) / (BOX * PIXEL_SIZE)
    )
    assert json.loads(run.params.read_text())["resolved"] == {"box": box_size, "device": "the CPU"}


def test_same_seed_same_numbers_and_another_seed_others(fitted, hinge, engine, tmp_path):
    for seed in (0, 1):
        folder = tmp_path / f"seed_{seed}"
        assert engine("fit", hinge.particles, "--output", folder, "--rank", RANK, "--seed", seed).code == 0
    again, other = content_of(tmp_path / "seed_0"), content_of(tmp_path / "seed_1")
    first = content_of(fitted.path)
    vary = {"params.json", "status.json", "log.txt", "metrics.csv"}
    assert set(first) == set(again)
    assert [name for name in first if first[name] != again[name] and name not in vary] == []
    objective = [read_csv(path / "metrics.csv")["objective"] for path in (fitted.path, tmp_path / "seed_0")]
    np.testing.assert_array_equal(*objective)
    assert other["latents.npz"] != first["latents.npz"]


@pytest.mark.slow
def test_freshly_compiled_code_gives_the_same_numbers_as_the_cached_one(hinge, engine_program, tmp_path):
    """The first run of a new installation compiles its kernels, later ones load them."""
    results = []
    for name in ("compiled", "loaded"):
        arguments = ("fit", hinge.particles, "--output", tmp_path / name, "--rank", 1, "--box", 16)
        process = engine_program(*arguments, env={**os.environ, **_cache_in(tmp_path)})
        _, error = process.communicate(timeout=300)  # so long only where everything is compiled on a busy machine
        assert process.returncode == 0, error
        results.append((tmp_path / name / "latents.npz").read_bytes())
    assert results[0] == results[1]


def _cache_in(folder: Path) -> dict[str, str]:
    repository = Path(__file__).resolve().parents[2]
    return {"NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(repository)}


@pytest.mark.parametrize(
    "options", [("--objective", "ls"), ("--projector", "nearest"), ("--oversampling", 1), ("--cache-mb", 0)]
)
def test_other_ways_to_compute_find_the_same_motion(options, hinge, fitted, engine, tmp_path):
    outcome = engine("fit", hinge.particles, "--output", tmp_path / "run", "--rank", RANK, *options)
    assert outcome.code == 0, outcome.error
    assert motion_correlation(RunDir(tmp_path / "run"), hinge) > 0.85
    is_scratch = options[0] == "--cache-mb"
    assert ("scratch file" in outcome.error) is is_scratch
    same = (tmp_path / "run" / "latents.npz").read_bytes() == fitted.latents.read_bytes()
    assert same is is_scratch


# ---------------------------------------------------------------- rows, cells, halves


@pytest.fixture
def relabelled(hinge, tmp_path):
    """Function that copies the data set with its columns changed; returns the STAR file."""

    def change(columns=None, optics=None, order=None, stack=None) -> Path:
        star = StarFile.read(hinge.particles)
        table = star.particles
        if order is not None:
            rows = [table.rows[row] for row in order]
            table = StarTable(table.name, table.columns, rows, table.header, True, table.source)
        if columns:
            table = table.with_columns(columns)
        star = star.replace(star.particles, table)
        if optics is not None:
            star = star.replace(star.optics, StarTable.create("optics", optics))
        folder = tmp_path / "changed"
        folder.mkdir()
        star.write(folder / "particles.star")
        if stack is None:
            (folder / "particles.mrcs").symlink_to(hinge.stack)
        else:
            with StackWriter(folder / "particles.mrcs", PIXEL_SIZE) as writer:
                writer.append(stack)
        return folder / "particles.star"

    return change


def test_row_of_the_latents_is_row_of_the_list(hinge, relabelled, engine, tmp_path):
    order = np.random.default_rng(3).permutation(PARTICLES)
    star = relabelled(order=order)
    assert engine("fit", star, "--output", tmp_path / "run", "--rank", RANK).code == 0
    run = RunDir(tmp_path / "run")
    names = StarFile.read(run.particles).particles.text("rlnImageName")
    assert names == StarFile.read(star).particles.text("rlnImageName")
    angle = read_csv(hinge.truth.states)["coordinate_1"][order]
    assert abs(np.corrcoef(read_latents(run.latents).z[:, 0], angle)[0, 1]) > 0.9


def test_cells_survive_to_the_letter(relabelled, engine, tmp_path):
    star = relabelled()
    text = star.read_text()
    head, first_row = text.split("_rlnDefocusAngle #11", 1)
    rows = first_row.strip().splitlines()
    odd = ["'a name with  blanks'", '"5\' end"', "0001", "3.1e-09", "-0.0", "None"]
    lines = [f"  {row}\t{odd[number % len(odd)]}   " for number, row in enumerate(rows)]
    star.write_text(
        "# made by hand\n" + head + "_rlnDefocusAngle #11\n_mineRemark #12 \n" + "\n".join(lines) + "\n\n"
    )
    assert engine("fit", star, "--output", tmp_path / "run", "--rank", 1).code == 0
    written = (tmp_path / "run" / "particles.star").read_text().splitlines()
    assert written[0] == "# made by hand"
    assert any(line.startswith("_solvarContrast #13") for line in written)
    kept = [line for line in written if "@particles.mrcs" in line]
    for line, new in zip(lines, kept, strict=True):
        assert new.startswith(line.rstrip() + " ")
        assert len([float(cell) for cell in new[len(line.rstrip()) :].split()]) == 5


def test_half_sets_of_the_refinement_are_used(relabelled, engine, tmp_path):
    subset = np.random.default_rng(0).integers(1, 3, PARTICLES)
    outcome = engine("fit", relabelled({"rlnRandomSubset": subset}), "--output", tmp_path / "run", "--rank", 1)
    assert outcome.code == 0
    sizes = f"{(subset == 1).sum()} and {(subset == 2).sum()} particles"
    assert f"Half-sets as in rlnRandomSubset: {sizes}" in outcome.error


def test_lopsided_half_sets_are_refused(relabelled, engine, tmp_path):
    subset = np.where(np.arange(PARTICLES) < 5, 1, 2)
    outcome = engine("fit", relabelled({"rlnRandomSubset": subset}), "--output", tmp_path / "run", "--rank", 1)
    assert outcome.code == 2
    assert "5 particles in subset 1 and 295 in subset 2" in outcome.error and outcome.error.count("\n") == 1
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


# ---------------------------------------------------------------- masks, contrast, optics groups, odd boxes


def test_mask_of_the_user(fitted, hinge, engine, tmp_path):
    outcome = engine("fit", hinge.particles, "--output", tmp_path / "run", "--rank", RANK, "--mask", hinge.mask)
    assert outcome.code == 0
    run = RunDir(tmp_path / "run")
    used, given = read_volume(run.mask).data, read_volume(hinge.mask).data
    torch.testing.assert_close(used, given, atol=1e-4, rtol=0)
    assert "mask" not in outcome.error.lower()
    outside = given.numpy() == 0
    assert np.abs(eigenvolumes_of(run)[:, outside]).max() < 1e-3 * np.abs(eigenvolumes_of(run)).max()
    assert motion_correlation(run, hinge) > 0.9
    inputs = json.loads(run.params.read_text())["inputs"]
    assert [entry["path"] for entry in inputs] == [str(hinge.particles), str(hinge.mask)]


@pytest.fixture(scope="module")
def assembly(simulate) -> DataSetFiles:
    """Clear images of a molecule with four pieces that are there or not, each independent of its place."""
    return simulate("--phantom", "assembly", "--particles", 600, "--box", BOX, "--pixel-size", PIXEL_SIZE, "--snr", 1)


def pieces_of(data: DataSetFiles) -> np.ndarray:
    """What each coordinate of the assembly adds to the volume, shape (4, z, y, x)."""
    volumes, state = true_states(data, BOX)
    table = read_csv(data.truth.states)
    _, first = np.unique(state, return_index=True)
    present = np.stack([table[f"coordinate_{number}"][first] for number in range(1, 5)], axis=1)
    design = np.column_stack((np.ones(len(volumes)), present))
    return np.linalg.lstsq(design, volumes.reshape(len(volumes), -1), rcond=None)[0][1:].reshape(-1, *(BOX,) * 3)


def write_focus_mask(path: Path, piece: np.ndarray) -> np.ndarray:
    """Write a soft ball of 56 Angstrom about a piece."""
    centre = np.argwhere(piece > 0.5 * piece.max()).mean(axis=0)
    radius = np.sqrt(((np.indices(piece.shape) - centre[:, None, None, None]) ** 2).sum(axis=0))
    soft = np.clip((7 - radius) / 2, 0, 1).astype(np.float32)
    write_volume(path, Volume(torch.from_numpy(soft), PIXEL_SIZE))
    return soft


def test_focus_mask_confines_the_components_and_not_the_mean(assembly, engine, tmp_path):
    pieces = pieces_of(assembly)
    soft = write_focus_mask(tmp_path / "focus.mrc", pieces[3])
    inside = [np.linalg.norm(piece * soft) / np.linalg.norm(piece) for piece in pieces]
    assert inside[3] > 0.99 and max(inside[:3]) < 0.05
    command = ("fit", assembly.particles, "--rank", 1, "--mask", assembly.mask)
    runs = [RunDir(tmp_path / name) for name in ("focused", "whole")]
    outcome = engine(*command, "--output", runs[0].path, "--focus-mask", tmp_path / "focus.mrc")
    assert outcome.code == 0, outcome.error
    assert engine(*command, "--output", runs[1].path).code == 0
    focused, whole = runs

    given = read_volume(assembly.mask).data.numpy()
    product = read_volume(focused.focus_mask).data.numpy()
    np.testing.assert_allclose(product, given * soft, atol=1e-4)
    np.testing.assert_array_equal(read_volume(focused.mask).data, read_volume(whole.mask).data)
    assert not whole.focus_mask.exists()
    assert f"focus mask {tmp_path / 'focus.mrc'} only: {100 * product.sum() / given.sum():.1f} %" in outcome.error
    inputs = json.loads(focused.params.read_text())["inputs"]
    assert [entry["path"] for entry in inputs][1:] == [str(assembly.mask), str(tmp_path / "focus.mrc")]

    (found,), (leading,) = eigenvolumes_of(focused), eigenvolumes_of(whole)
    assert (found[product == 0] == 0).all() and (found[product > 0] != 0).all()
    assert abs(correlation(found, pieces[3] * product)) > 0.95
    assert abs(correlation(leading, pieces[3])) < 0.8
    there = read_csv(assembly.truth.states)["coordinate_4"]
    assert abs(np.corrcoef(read_latents(focused.latents).z[:, 0], there)[0, 1]) > 0.85
    # a piece that comes and goes is no error of contrast
    assert read_csv(focused.eigenvalues)["nuisance_overlap"][0] < 0.5

    # what varies outside counts as noise, and the noise weights the images: the means are alike, not the same bits
    means = [read_volume(run.mean).data.numpy() for run in runs]
    assert np.linalg.norm(means[0] - means[1]) < 0.01 * np.linalg.norm(means[1])
    assert np.linalg.norm(means[0] * (product == 0)) > 0.5 * np.linalg.norm(means[0])


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine of the angle between two volumes."""
    return float((first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second))


def test_mean_of_a_focused_fit_is_that_of_the_whole_to_the_bit(assembly, tmp_path):
    """Under the same noise; the problem of the factors gets it whole."""
    write_focus_mask(tmp_path / "focus.mrc", pieces_of(assembly)[3])
    problems = []
    for name, focus_mask in (("whole", None), ("focused", str(tmp_path / "focus.mrc"))):
        params = FitParams(
            particles=str(assembly.particles), output=str(tmp_path / name), rank=1, mask=str(assembly.mask),
            focus_mask=focus_mask,
        )  # fmt: skip
        run = RunDir(params.output)
        with prepared(run, params, resume=False):
            write_params(run, params)
            job = FitJob.start(params, run, read_inputs(params), StatusTracker(run.status, "fit"))
            with closing(job.progress):
                source, masks, _ = settle_sign_and_masks(job, read_images(job))
                nobody = torch.zeros(len(source), dtype=torch.bool)
                problems.append(estimate_problem(alternation_problem(job, source, masks), source, nobody))
    (mean, problem), (focused_mean, focused_problem) = problems
    for name in ("mean", "half1", "half2", "fsc"):
        torch.testing.assert_close(getattr(focused_mean, name), getattr(mean, name), rtol=0, atol=0)
    torch.testing.assert_close(focused_problem.mean, problem.mean, rtol=0, atol=0)
    assert float(focused_problem.mask.sum()) < 0.5 * float(problem.mask.sum())


@pytest.mark.parametrize(
    ("box_size", "pixel_size", "text"),
    [
        (32, PIXEL_SIZE, "padded or cropped"),
        (20, PIXEL_SIZE, "padded or cropped"),
        (36, PIXEL_SIZE * 2 / 3, "resampled"),
    ],
)
def test_mask_of_another_box_is_brought_to_the_working_box(box_size, pixel_size, text, hinge, engine, tmp_path):
    centred = (np.indices((box_size,) * 3) - box_size // 2) * pixel_size
    radius = np.sqrt((centred**2).sum(axis=0))
    soft = np.clip((72.0 - radius) / 16.0, 0, 1).astype(np.float32)
    write_volume(tmp_path / "mask.mrc", Volume(torch.from_numpy(soft), pixel_size))
    run = RunDir(tmp_path / "run")
    outcome = engine("fit", hinge.particles, "--output", run.path, "--rank", 1, "--mask", tmp_path / "mask.mrc")
    assert outcome.code == 0, outcome.error
    assert f"has {box_size} px, the images {BOX} px: it is {text}" in outcome.error
    assert f"it is {text}" in run.log.read_text()
    grid = np.sqrt((((np.indices((BOX,) * 3) - BOX // 2) * PIXEL_SIZE) ** 2).sum(axis=0))
    expected = np.clip((72.0 - grid) / 16.0, 0, 1)
    # that of the mean is larger where the mask leaves density out
    path = run.focus_mask if run.focus_mask.exists() else run.mask
    assert np.abs(read_volume(path).data.numpy() - expected).mean() < 0.02


def test_dark_particles_are_inverted_and_it_is_said(fitted, hinge, relabelled, engine, tmp_path):
    star = relabelled(stack=-ParticleStack.from_star(hinge.particles).images(slice(None)).numpy())
    outcome = engine("fit", star, "--output", tmp_path / "auto", "--rank", RANK)
    assert outcome.code == 0
    assert "dark in the images" in outcome.error and "inverted" in outcome.error
    # the very numbers of the bright images
    assert (tmp_path / "auto" / "latents.npz").read_bytes() == fitted.latents.read_bytes()
    assert (tmp_path / "auto" / "mean.mrc").read_bytes() == fitted.mean.read_bytes()
    said = engine("fit", star, "--output", tmp_path / "yes", "--rank", RANK, "--invert-contrast", "yes")
    assert said.code == 0 and "inverted, as asked for" in said.error
    assert (tmp_path / "yes" / "latents.npz").read_bytes() == fitted.latents.read_bytes()


def test_contrast_that_is_not_to_be_touched(fitted, hinge, relabelled, engine, tmp_path):
    star = relabelled(stack=-ParticleStack.from_star(hinge.particles).images(slice(None)).numpy())
    options = ("--invert-contrast", "no", "--mask", fitted.mask)
    outcome = engine("fit", star, "--output", tmp_path / "run", "--rank", RANK, *options)
    assert outcome.code == 0 and "taken as they are" in outcome.error
    mean, bright = read_volume(tmp_path / "run" / "mean.mrc").data, read_volume(fitted.mean).data
    assert slope(mean.numpy(), bright.numpy()) == pytest.approx(-1, abs=0.02)


@pytest.mark.parametrize("damage", ["scaled", "hot-pixel"])
def test_one_damaged_image_does_not_spoil_the_others(damage, hinge, relabelled, engine, tmp_path):
    images = ParticleStack.from_star(hinge.particles).images(slice(None)).numpy()
    if damage == "scaled":
        images[10] *= 1e5
    else:
        images[10, 2, 3] = 1e9
    outcome = engine("fit", relabelled(stack=images), "--output", tmp_path / "run", "--rank", RANK)
    assert outcome.code == 0
    is_scaled = "1 image of optics group opticsGroup1 differs in background deviation" in outcome.error
    is_replaced = "1 image has single pixels far beyond those around" in outcome.error
    assert (is_scaled, is_replaced) == (damage == "scaled", damage == "hot-pixel")
    assert motion_correlation(RunDir(tmp_path / "run"), hinge) > 0.85
    mean, eigenvalues, _ = true_components(hinge, BOX)
    assert read_csv(tmp_path / "run" / "eigenvalues.csv")["eigenvalue"][0] == pytest.approx(eigenvalues[0], rel=0.25)


def test_images_of_different_grey_scale_are_normalised(hinge, relabelled, engine, tmp_path):
    factor = np.random.default_rng(0).uniform(0.5, 5, PARTICLES)
    images = ParticleStack.from_star(hinge.particles).images(slice(None)).numpy() * factor[:, None, None]
    run = RunDir(tmp_path / "run")
    assert engine("fit", relabelled(stack=images), "--output", run.path, "--rank", RANK).code == 0
    contrast = read_latents(run.latents).contrast
    assert contrast.mean() == pytest.approx(1, abs=1e-5)
    assert np.corrcoef(contrast, factor)[0, 1] > 0.99
    assert motion_correlation(run, hinge) > 0.85


@pytest.mark.parametrize("factor", [2.0**40, 2.0**-40], ids=["large", "small"])
def test_grey_values_of_any_size_give_the_same_results_in_their_units(
    factor, fitted, hinge, relabelled, engine, tmp_path
):
    images = ParticleStack.from_star(hinge.particles).images(slice(None)).numpy() * np.float32(factor)
    run = RunDir(tmp_path / "run")
    assert engine("fit", relabelled(stack=images), "--output", run.path, "--rank", RANK).code == 0
    for name, column, power in (
        ("eigenvalues.csv", "eigenvalue", 2), ("eigenvalues.csv", "eigenvalue_in_sample", 2),
        ("eigenvalues.csv", "half_set_agreement", 0), ("noise.csv", "noise_variance", 2), ("fsc.csv", "fsc_mean", 0),
    ):  # fmt: skip
        found, expected = (read_csv(folder / name)[column] for folder in (run.path, fitted.path))
        np.testing.assert_allclose(found / factor**power, expected, rtol=1e-6)
    # powers of two: to the last bit
    latents, expected = read_latents(run.latents), read_latents(fitted.latents)
    np.testing.assert_array_equal(latents.z / np.float32(factor), expected.z)
    np.testing.assert_array_equal(latents.precision * np.float32(factor) ** 2, expected.precision)
    mean, expected_mean = (read_volume(folder / "mean.mrc").data.numpy() for folder in (run.path, fitted.path))
    np.testing.assert_array_equal(mean / np.float32(factor), expected_mean)
    np.testing.assert_array_equal(eigenvolumes_of(run), eigenvolumes_of(fitted))
    assert run.particles.read_bytes() == fitted.particles.read_bytes(), "likelihoods have no unit"
    assert engine("analyze", run.path, "--clusters", 3).code == 0
    states = ("--output", tmp_path / "states", "--clusters", 3, "--method", "linear")
    assert engine("reconstruct", run.path, *states).code == 0


OPTICS = {
    "rlnOpticsGroup": [1, 2],
    "rlnOpticsGroupName": ["Krios", "Talos"],
    "rlnVoltage": [300.0, 300.0],
    "rlnSphericalAberration": [2.7, 2.7],
    "rlnAmplitudeContrast": [0.1, 0.1],
    "rlnImagePixelSize": [PIXEL_SIZE, PIXEL_SIZE],
    "rlnImageSize": [BOX, BOX],
    "rlnImageDimensionality": [2, 2],
}


def test_noise_is_measured_for_each_optics_group(hinge, relabelled, engine, tmp_path):
    images = ParticleStack.from_star(hinge.particles).images(slice(None)).numpy()
    second = np.arange(PARTICLES) % 2 == 1
    extra = images[:, :5, :].std() * np.random.default_rng(0).normal(size=images.shape)
    images[second] += extra[second].astype(np.float32)
    star = relabelled({"rlnOpticsGroup": 1 + second.astype(int)}, OPTICS, stack=images)
    assert engine("fit", star, "--output", tmp_path / "run", "--rank", RANK).code == 0
    noise = read_csv(tmp_path / "run" / "noise.csv")
    shells = nyquist_shell(BOX) + 1
    assert list(noise["group"]) == ["Krios"] * shells + ["Talos"] * shells
    krios, talos = (noise["noise_variance"][noise["group"] == name] for name in ("Krios", "Talos"))
    assert (talos[3:] / krios[3:]).mean() == pytest.approx(2, abs=0.3)
    assert motion_correlation(RunDir(tmp_path / "run"), hinge) > 0.85


@pytest.mark.parametrize("contrast", [1, -1], ids=["bright", "dark"])
def test_phase_flipped_images_give_what_plain_ones_give(contrast, fitted, hinge, relabelled, engine, tmp_path):
    """One of two optics groups was flipped, as other programs do it, before the particles came here."""
    stack = ParticleStack.from_star(hinge.particles)
    images = stack.images(slice(None))
    disk = HalfDisk.create(BOX)
    coefficients = images_to_disk(images, disk)
    flipped = disk_to_images(coefficients * ctf_values(stack.ctf, disk, PIXEL_SIZE).sign(), disk, BOX)
    second = torch.arange(PARTICLES) % 2 == 1
    images = contrast * torch.where(second[:, None, None], flipped, images).numpy()
    optics = {**OPTICS, "rlnCtfDataArePhaseFlipped": [0, 1]}
    star = relabelled({"rlnOpticsGroup": 1 + second.int().numpy()}, optics, stack=images)
    run = RunDir(tmp_path / "run")
    outcome = engine("fit", star, "--output", run.path, "--rank", RANK)
    assert outcome.code == 0 and f"{PARTICLES // 2} of {PARTICLES} images are phase-flipped" in outcome.error
    assert ("dark in the images" in outcome.error) == (contrast < 0)
    mean, expected = read_volume(run.mean).data.numpy(), read_volume(fitted.mean).data.numpy()
    assert slope(mean, expected) == pytest.approx(1, abs=0.02)
    assert np.corrcoef(mean.ravel(), expected.ravel())[0, 1] > 0.99
    assert motion_correlation(run, hinge) == pytest.approx(motion_correlation(fitted, hinge), abs=0.02)


def test_groups_of_two_pixel_sizes_give_one_scale(simulate, engine, tmp_path):
    """One molecule seen at two magnifications: of images of 32 px, the middle, and all of them made coarser."""
    large, small = 32, 24
    data = simulate("--phantom", "hinge", "--particles", 300, "--box", large, "--pixel-size", 6, "--snr", 2)
    images = ParticleStack.from_star(data.particles).images(slice(None))
    edge = (large - small) // 2
    middle = images[:, edge : edge + small, edge : edge + small]
    spectrum = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(images, dim=(1, 2))), dim=(1, 2))
    spectrum = spectrum[:, edge : edge + small, edge : edge + small].clone()
    spectrum[:, 0] = 0
    spectrum[:, :, 0] = 0
    coarse = torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(1, 2))).real, dim=(1, 2))
    coarse *= (small / large) ** 2
    second = np.arange(300) % 2 == 1
    mixed = torch.where(torch.from_numpy(second)[:, None, None], coarse, middle)
    folder = tmp_path / "mixed"
    folder.mkdir()
    with StackWriter(folder / "particles.mrcs", 6.0) as writer:
        writer.append(mixed.numpy())
    star = StarFile.read(data.particles)
    optics = {**OPTICS, "rlnImagePixelSize": [6.0, 8.0], "rlnImageSize": [small, small]}
    star = star.replace(star.particles, star.particles.with_columns({"rlnOpticsGroup": 1 + second.astype(int)}))
    star.replace(star.optics, StarTable.create("optics", optics)).write(folder / "particles.star")
    outcome = engine("fit", folder / "particles.star", "--output", tmp_path / "run", "--rank", 1)
    assert outcome.code == 0, outcome.error
    run = RunDir(tmp_path / "run")
    assert read_volume(run.mean).pixel_size == pytest.approx(6)
    angle = read_csv(data.truth.states)["coordinate_1"]
    z = read_latents(run.latents).z[:, 0]
    slopes = []
    for chosen in (~second, second):
        assert abs(np.corrcoef(z[chosen], angle[chosen])[0, 1]) > 0.85
        slopes.append(np.polyfit(angle[chosen], z[chosen], 1)[0])
    assert slopes[1] / slopes[0] == pytest.approx(1, abs=0.15)


def test_odd_box(simulate, engine, tmp_path):
    data = simulate("--phantom", "hinge", "--particles", 300, "--box", 25, "--pixel-size", 8, "--snr", 1)
    for box_size in (25, 19):
        run = RunDir(tmp_path / f"run_{box_size}")
        outcome = engine("fit", data.particles, "--output", run.path, "--rank", RANK, "--box", box_size)
        assert outcome.code == 0, outcome.error
        mean, eigenvalues, _ = true_components(data, box_size)
        mask = read_volume(run.mask).data.numpy()
        assert slope(read_volume(run.mean).data.numpy(), mean * mask) == pytest.approx(1, abs=0.1)
        assert read_csv(run.eigenvalues)["eigenvalue"][0] == pytest.approx(eigenvalues[0], rel=0.25)
        assert len(read_csv(run.fsc)["shell"]) == len(set(HalfDisk.create(box_size).shell.tolist()))
        assert motion_correlation(run, data) > 0.9


# ---------------------------------------------------------------- starting and starting again


def test_finished_run_is_left_alone(fitted, hinge, engine, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(fitted.path, folder)
    before = content_of(folder)
    arguments = ("fit", hinge.particles, "--output", folder, "--rank", RANK)
    refused = engine(*arguments)
    assert refused.code == 2 and "is not empty" in refused.error and "--resume" in refused.error
    record = json.loads((folder / "params.json").read_text())
    record["options"]["output"] = str(folder)
    done = engine(*arguments, "--resume")
    assert done.code == 0 and "is finished: nothing to do" in done.error
    assert content_of(folder) == before


@pytest.mark.parametrize("exists", [False, True])
def test_resume_of_nothing_starts(exists, hinge, fitted, engine, tmp_path):
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    outcome = engine("fit", hinge.particles, "--output", folder, "--rank", RANK, "--resume")
    assert outcome.code == 0
    assert RunDir(folder).latents.read_bytes() == fitted.latents.read_bytes()


def test_results_can_be_read_by_all(fitted):
    with np.load(fitted.latents, allow_pickle=False) as archive:
        assert sorted(archive.files) == ["contrast", "precision", "z"]
        assert isinstance(read_latents(fitted.latents), Latents)
