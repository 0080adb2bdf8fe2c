"""Joined sets whose signal has another scale or sign, from the list of particles to the volumes of states."""

from __future__ import annotations

import shutil

import mrcfile
import numpy as np
import pytest
import torch

from solvar_engine.contract.files import read_json
from solvar_engine.contract.results import GREY_SCALE, read_components, read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.volumes import read_volume
from solvar_engine.jobs.fit.grey_scales import parts_of, sentences_of_scales
from tests.jobs.conftest import PARTICLES, RANK, run_in_process

FACTOR, FIRST = -3.0, 170  # of the second group, which begins there
DARK = np.arange(4, PARTICLES, 6)


def merged(data, folder):
    """The set as two optics groups, the second on another scale and of the other sign."""
    shutil.copytree(data.path, folder)
    with mrcfile.open(folder / "particles.mrcs", mode="r+") as stack:
        stack.data[FIRST:] *= np.float32(FACTOR)
    star = StarFile.read(folder / "particles.star")
    group = np.where(np.arange(PARTICLES) < FIRST, 1, 2)
    optics = {name: [*star.optics.text(name)] * 2 for name in star.optics.columns}
    optics.update({"rlnOpticsGroup": ["1", "2"], "rlnOpticsGroupName": ["first", "second"]})
    star = star.replace(star.optics, StarTable.create("optics", optics))
    particles = star.particles.with_columns({"rlnOpticsGroup": group})
    star.replace(star.particles, particles).write(folder / "particles.star")
    return folder / "particles.star"


@pytest.fixture(scope="module")
def joined(hinge, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joined")
    star = merged(hinge, folder / "data")
    assert run_in_process("fit", star, "--output", folder / "run", "--rank", RANK) == 0
    return RunDir(folder / "run")


def test_joined_sets_give_what_one_set_gives(joined, fitted):
    assert "of the other sign: these images are turned" in joined.log.read_text()
    first, second = (read_components(run.eigenvalues).eigenvalue for run in (joined, fitted))
    np.testing.assert_allclose(first, second, rtol=0.05)
    mean, expected = (read_volume(run.mean).data for run in (joined, fitted))
    assert float((mean - expected).norm() / expected.norm()) < 0.02
    z, known = (read_latents(run.latents).z[:, 0] for run in (joined, fitted))
    assert abs(np.corrcoef(z, known)[0, 1]) > 0.99
    contrast = read_latents(joined.latents).contrast
    assert contrast[:FIRST].mean() == pytest.approx(1, abs=0.05) == contrast[FIRST:].mean()
    scale = StarFile.read(joined.particles).particles.numbers(GREY_SCALE)[GREY_SCALE]
    assert set(scale[:FIRST]) == {1.0} and scale[FIRST:] == pytest.approx(FACTOR, rel=0.05)
    assert GREY_SCALE not in StarFile.read(fitted.particles).particles
    (caution,) = read_json(joined.params)["cautions"]
    assert caution.startswith(f"The signal of {PARTICLES - FIRST} images (optics group second) is -")
    assert read_json(fitted.params)["cautions"] == []


@pytest.mark.parametrize("images", ["its own", "of one scale"])
def test_states_of_joined_sets_are_those_of_one_set(joined, fitted, hinge, images, engine, tmp_path):
    call = ["reconstruct", joined.path, "--output", tmp_path / "out", "--clusters", 1]
    outcome = engine(*call, *([] if images == "its own" else ["--particles", hinge.particles]))
    assert outcome.code == 0, outcome.error
    assert engine("reconstruct", fitted.path, "--output", tmp_path / "known", "--clusters", 1).code == 0
    for name in ("state_001.mrc", "state_001_half1.mrc"):
        volume, known = (read_volume(tmp_path / folder / name).data for folder in ("out", "known"))
        assert float((volume - known).norm() / known.norm()) < 0.1


def test_other_images_of_several_scales_are_brought_to_that_of_the_run(fitted, hinge, engine, tmp_path):
    star = merged(hinge, tmp_path / "data")
    call = ("reconstruct", fitted.path, "--output", tmp_path / "out", "--clusters", 1)
    outcome = engine(*call, "--particles", star)
    assert outcome.code == 0 and "these images are turned" in outcome.error
    volume, mean = read_volume(tmp_path / "out" / "state_001.mrc").data, read_volume(fitted.mean).data
    assert float((volume * mean).sum() / (volume.norm() * mean.norm())) > 0.9
    assert 0.8 < float(volume.norm() / mean.norm()) < 1.2


def test_dark_images_among_bright_ones_are_outliers_and_counted(hinge, engine, tmp_path):
    shutil.copytree(hinge.path, tmp_path / "data")
    with mrcfile.open(tmp_path / "data" / "particles.mrcs", mode="r+") as stack:
        stack.data[DARK] *= -1
    run = RunDir(tmp_path / "run")
    outcome = engine("fit", tmp_path / "data" / "particles.star", "--output", run.path, "--rank", 1)
    assert outcome.code == 0 and f"{len(DARK)} images show the molecule with the other sign" in outcome.error
    particles = StarFile.read(run.particles).particles
    assert np.flatnonzero(particles.integers("solvarHalfSet") == 0).tolist() == DARK.tolist()
    assert set(DARK) <= set(np.flatnonzero(particles.integers("solvarOutlier")))
    assert engine("reconstruct", run.path, "--output", tmp_path / "out", "--clusters", 1).code == 0


def test_images_of_either_sign_in_nearly_equal_numbers_are_taken_as_they_are(hinge, engine, tmp_path):
    """As where the mean was subtracted and two states are left, the one the opposite of the other."""
    shutil.copytree(hinge.path, tmp_path / "data")
    is_turned = np.arange(PARTICLES) % 9 < 4
    with mrcfile.open(tmp_path / "data" / "particles.mrcs", mode="r+") as stack:
        stack.data[is_turned] *= -1
    run = RunDir(tmp_path / "run")
    outcome = engine("fit", tmp_path / "data" / "particles.star", "--output", run.path, "--rank", 1)
    assert outcome.code == 0 and "% of the images show the molecule with the other sign than the" in outcome.error
    particles = StarFile.read(run.particles).particles
    assert GREY_SCALE not in particles and (particles.integers("solvarHalfSet") > 0).all()
    z = read_latents(run.latents).z[:, 0]
    assert abs(np.corrcoef(z, is_turned)[0, 1]) > 0.95


def test_parts_are_stacks_of_many_images_and_folders_of_few(write_particles, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    names = []
    for folder in folders:
        for number in range(3):
            write_particles(folder, np.random.default_rng(number).normal(size=(130, 4, 4)), stack_name=f"{number}.mrcs")
            count = 120 if (folder.name, number) == ("b", 2) else 30
            names += [f"{row + 1}@{folder.name}/{number}.mrcs" for row in range(count)]
    images = np.random.default_rng(0).normal(size=(len(names), 4, 4))
    path = write_particles(tmp_path, images, particles={"rlnImageName": names})
    part, found = parts_of(ParticleStack.from_star(path))
    sizes = dict(zip(found, torch.bincount(part).tolist(), strict=True))
    group = "optics group opticsGroup1 in"
    assert sizes == {f"{group} {tmp_path}/b/2.mrcs": 120, f"{group} {tmp_path}/a": 90, f"{group} {tmp_path}/b": 60}


def test_sentences_count_images_and_name_the_largest_parts():
    part = torch.repeat_interleave(torch.arange(6), torch.tensor([50, 10, 20, 5, 7, 8]))
    scale = torch.tensor([1.0, 2.0, 2.2, 2.4, 3.0, 0.05])
    first, second = sentences_of_scales(scale, part, [f"part {number}" for number in range(6)])
    assert first.startswith("The signal of 42 images (part 2, part 1, part 4 and 1 other parts) is 2.2 times that in")
    assert second.startswith("The signal of 8 images (part 5) is hardly there")
