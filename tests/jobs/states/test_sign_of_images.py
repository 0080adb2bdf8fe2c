"""Density is bright in every volume of a state, whatever the sign and scale of the images that it is made from."""

from __future__ import annotations

import json
import shutil

import mrcfile
import numpy as np
import pytest
import torch

from solvar_engine.contract.files import read_json, write_json
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.data.mrc import StackWriter
from solvar_engine.data.volumes import read_volume
from tests.jobs.conftest import PARTICLES, PIXEL_SIZE, run_in_process

FACTOR = -8.0


def changed(data, folder, factor, name="particles"):
    """Write the images times a factor, or one for each, and the list of them."""
    folder.mkdir(exist_ok=True)
    images = mrcfile.read(data.path / "particles.mrcs")
    with StackWriter(folder / f"{name}.mrcs", PIXEL_SIZE) as stack:
        stack.append(images * np.asarray(factor, dtype=np.float32).reshape(-1, 1, 1))
    text = data.particles.read_text()
    (folder / f"{name}.star").write_text(text.replace("particles.mrcs", f"{name}.mrcs"))
    return folder / f"{name}.star"


@pytest.fixture(scope="module")
def dark(hinge, tmp_path_factory):
    """Dark images of the hinge on another grey scale, and a fit of them."""
    folder = tmp_path_factory.mktemp("dark")
    star = changed(hinge, folder / "data", FACTOR)
    assert run_in_process("fit", star, "--output", folder / "run", "--rank", 1) == 0
    return RunDir(folder / "run")


def correlations(folder, run):
    """Correlation with the mean, and power relative to it, of every volume and half-map of a state."""
    mean = read_volume(run.mean).data.double()
    for name in ("state_001.mrc", "state_001_half1.mrc", "state_001_half2.mrc"):
        volume = read_volume(folder / name).data.double()
        yield float((volume * mean).sum() / (volume.norm() * mean.norm())), float(volume.norm() / mean.norm())


def test_the_fit_hands_on_what_it_decided(dark, fitted):
    assert read_json(fitted.params)["decided"]["sign"] == 1
    assert read_json(dark.params)["decided"]["sign"] == -1
    # powers of two, in the ratio of the grey scales
    units = [read_json(run.params)["decided"]["grey_unit"] for run in (dark, fitted)]
    assert units[0] / units[1] == pytest.approx(abs(FACTOR))


def test_volumes_of_dark_particles_are_bright(dark, engine, tmp_path):
    outcome = engine("reconstruct", dark.path, "--output", tmp_path / "out", "--clusters", 1)
    assert outcome.code == 0, outcome.error
    for correlation, power in correlations(tmp_path / "out", dark):
        assert correlation > 0.8 and 0.7 < power < 1.5


@pytest.mark.parametrize("factor", [1.0, -0.25])
def test_other_images_may_have_either_sign(hinge, dark, engine, tmp_path, factor):
    star = changed(hinge, tmp_path / "data", factor)
    outcome = engine("reconstruct", dark.path, "--output", tmp_path / "out", "--clusters", 1, "--particles", star)
    assert outcome.code == 0, outcome.error
    assert ("other sign" in outcome.error) == (factor > 0)
    for correlation, power in correlations(tmp_path / "out", dark):
        assert correlation > 0.8 and 0.7 < power * abs(FACTOR / factor) < 1.5


BLOCK = np.where(np.arange(PARTICLES) < 180, 1, -1)
TURNS = np.where(np.random.default_rng(4).random(PARTICLES) < 0.3, -1, 1)


@pytest.mark.parametrize(
    ("factor", "where"), [(BLOCK, "rows 181 to 300"), (TURNS, "other places"), (4 * BLOCK, "rows 181 to 300")]
)
def test_images_of_both_signs_in_one_stack_are_given_one(hinge, fitted, engine, tmp_path, factor, where):
    call = ("reconstruct", fitted.path, "--clusters", 1, "--particles")
    assert engine(*call, hinge.particles, "--output", tmp_path / "plain").code == 0
    star = changed(hinge, tmp_path / "data", factor)
    outcome = engine(*call, star, "--output", tmp_path / "out")
    assert outcome.code == 0, outcome.error
    (caution,) = read_json(tmp_path / "out" / "call.json")["cautions"]
    assert caution.startswith(f"{int((factor < 0).sum())} of {PARTICLES} images of {star} (rows ") and where in caution
    assert "have the other sign than those of the fit: they are inverted" in caution
    found, known = (read_volume(tmp_path / name / "state_001.mrc").data for name in ("out", "plain"))
    torch.testing.assert_close(found / np.abs(factor).max(), known, atol=0.01 * float(known.max()), rtol=0)


def test_images_of_both_signs_that_are_not_those_of_the_fit_are_refused(hinge, fitted, engine, tmp_path):
    star = changed(hinge, tmp_path, BLOCK)
    images = mrcfile.read(tmp_path / "particles.mrcs")[np.random.default_rng(5).permutation(PARTICLES)]
    with StackWriter(tmp_path / "particles.mrcs", PIXEL_SIZE) as stack:
        stack.append(images)
    outcome = engine("reconstruct", fitted.path, "--output", tmp_path / "out", "--clusters", 1, "--particles", star)
    assert outcome.code == 2 and "are not those of the fit" in outcome.error


def test_a_run_that_does_not_say_is_read_as_before(dark, engine, tmp_path):
    run = RunDir(shutil.copytree(dark.path, tmp_path / "run"))
    record = json.loads(run.params.read_text())
    del record["decided"]
    write_json(run.params, record)
    assert engine("reconstruct", run.path, "--output", tmp_path / "out", "--clusters", 1).code == 0
    assert min(correlation for correlation, _ in correlations(tmp_path / "out", run)) > 0.8


def test_images_that_were_inverted_after_the_fit_are_refused(hinge, engine, tmp_path):
    star = changed(hinge, tmp_path / "data", 1.0)
    run = RunDir(tmp_path / "run")
    assert engine("fit", star, "--output", run.path, "--rank", 1).code == 0
    changed(hinge, tmp_path / "data", -1.0)
    outcome = engine("reconstruct", run.path, "--output", tmp_path / "out", "--clusters", 1)
    assert outcome.code == 2 and "other sign" in outcome.error
    assert len(StarFile.read(run.particles).particles) == 300
