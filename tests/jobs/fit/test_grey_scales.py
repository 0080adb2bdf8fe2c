"""Joined sets whose signal has another scale or sign, from the list of particles to the volumes of states."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace

import mrcfile
import numpy as np
import pytest
import torch

from solvar_engine.contract.files import read_json
from solvar_engine.contract.params import FitParams
from solvar_engine.contract.results import GREY_SCALE, read_latents
from solvar_engine.contract.run import RunDir, prepared, write_params
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.contract.status import StatusTracker
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.volumes import read_volume
from solvar_engine.estimation.judging.grey_scales import GreyScales
from solvar_engine.jobs.decisions import read_cautions
from solvar_engine.jobs.fit import grey_scales
from solvar_engine.jobs.fit.grey_scales import (
    block_of,
    names_of_pieces,
    parts_of,
    sentence_of_dark_images,
    sentences_of_scales,
    settle_grey_scales,
)
from solvar_engine.jobs.fit.inputs import read_inputs
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.jobs.fit.start import read_images
from tests.jobs.conftest import PARTICLES, RANK, assert_fits_agree, run_in_process

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
    assert "of the other sign: these images are inverted" in joined.log.read_text()
    assert_fits_agree(joined, fitted, eigenvalue=0.05, mean=0.02, latent=0.99)
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
    assert outcome.code == 0 and "these images are inverted" in outcome.error
    volume, mean = read_volume(tmp_path / "out" / "state_001.mrc").data, read_volume(fitted.mean).data
    assert float((volume * mean).sum() / (volume.norm() * mean.norm())) > 0.9
    assert 0.8 < float(volume.norm() / mean.norm()) < 1.2


def test_dark_images_among_bright_ones_are_outliers_and_counted(hinge, engine, tmp_path):
    shutil.copytree(hinge.path, tmp_path / "data")
    with mrcfile.open(tmp_path / "data" / "particles.mrcs", mode="r+") as stack:
        stack.data[DARK] *= -1
    run = RunDir(tmp_path / "run")
    outcome = engine("fit", tmp_path / "data" / "particles.star", "--output", run.path, "--rank", 1)
    assert outcome.code == 0 and f"{len(DARK)} images of " in outcome.error
    particles = StarFile.read(run.particles).particles
    assert np.flatnonzero(particles.integers("solvarHalfSet") == 0).tolist() == DARK.tolist()
    assert set(DARK) <= set(np.flatnonzero(particles.integers("solvarOutlier")))
    assert engine("reconstruct", run.path, "--output", tmp_path / "out", "--clusters", 1).code == 0


@pytest.mark.parametrize("choice", ["auto", "no"])
def test_images_of_either_sign_in_nearly_equal_numbers(choice, hinge, engine, tmp_path):
    """Those of one sign are left out; the user may want them as they are, as if the mean was subtracted."""
    shutil.copytree(hinge.path, tmp_path / "data")
    is_turned = np.arange(PARTICLES) % 9 < 4
    with mrcfile.open(tmp_path / "data" / "particles.mrcs", mode="r+") as stack:
        stack.data[is_turned] *= -1
    run, particles = RunDir(tmp_path / "run"), tmp_path / "data" / "particles.star"
    outcome = engine("fit", particles, "--output", run.path, "--rank", 1, "--invert-contrast", choice)
    (caution,) = (one for one in read_cautions(run) if "solvarOutlier" not in one)
    found = StarFile.read(run.particles).particles
    assert outcome.code == 0 and GREY_SCALE not in found
    is_left_out = found.integers("solvarHalfSet") == 0
    if choice == "auto":
        assert f"135 images of {particles} (rows 1 to 300, with gaps) show the molecule" in caution
        assert "with the other sign than those beside them: left out" in caution
        assert (is_left_out == is_turned).all() and "--invert-contrast no" in caution
    else:
        assert caution.startswith(f"About half of the images of {particles} (135 of 300 surely) show the opposite")
        assert not is_left_out.any()
        z = read_latents(run.latents).z[:, 0]
        assert abs(np.corrcoef(z, is_turned)[0, 1]) > 0.95


@pytest.mark.parametrize(("dark", "said"), [(135, "{} (135 of 300 surely)"), (20, "{} (20 of 300 surely; of faint")])
def test_opposites_are_those_of_no_density_however_few_are_sure(dark, said, hinge, tmp_path, monkeypatch):
    """In weak images only some tell surely which of two states they show, beside a mean that was subtracted."""
    run, is_dark = RunDir(tmp_path / "run"), torch.arange(PARTICLES) < dark
    params = FitParams(particles=str(hinge.particles), output=str(run.path), rank=1)
    with prepared(run, params, resume=False):
        write_params(run, params)
        job = FitJob.start(params, run, read_inputs(params), StatusTracker(run.status, "fit"))
        with closing(job.progress):
            images = read_images(job)

            def found(source, halves, part, options):
                of_one = torch.ones(1).double()
                return GreyScales(of_one, is_dark, part, is_weak=of_one < 1, one_sidedness=0.1)

            monkeypatch.setattr(grey_scales, "find_grey_scales", found)
            settled, _ = settle_grey_scales(job, images)
    assert settled.has_opposites and sum(map(len, settled.inputs.halves)) == PARTICLES
    (caution,) = read_cautions(run)
    assert said.format(hinge.particles) in caution and "the opposite of what the others show" in caution


def test_rows_that_are_a_block_are_named(write_particles, tmp_path):
    path = write_particles(tmp_path, np.random.default_rng(0).normal(size=(60, 4, 4)))
    stack, row = ParticleStack.from_star(path), torch.arange(60)
    assert block_of((row >= 20) & (row < 40), stack) == "rows 21 to 40"
    assert block_of((row >= 20) & (row < 40), replace(stack, list_row=row.numpy() // 2)) == "rows 11 to 20"
    assert block_of((row >= 20) & (row < 40) & (row != 30), stack) == block_of(row == 3, stack) == ""


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


def test_pieces_are_named_by_their_rows(write_particles, tmp_path):
    """Of the list, where symmetry has made several of each; parts that were not cut keep their names."""
    path = write_particles(tmp_path, np.random.default_rng(0).normal(size=(60, 4, 4)))
    stack, part = ParticleStack.from_star(path), torch.arange(60) % 3 // 2
    piece = torch.where(part == 1, 2, torch.arange(60) // 31)
    assert names_of_pieces(piece, part, ["a", "b"], stack) == ["rows 1 to 31 of a", "rows 32 to 59 of a", "b"]
    expanded = replace(stack, list_row=np.arange(60) // 2)
    assert names_of_pieces(piece, part, ["a", "b"], expanded) == ["rows 1 to 16 of a", "rows 16 to 30 of a", "b"]
    assert names_of_pieces(part, part, ["a", "b"], stack) == ["a", "b"]


def test_rows_of_weaker_signal_are_named_and_brought_to_one_scale(hinge, tmp_path):
    """The second half of a stack, with as much noise as the first."""
    shutil.copytree(hinge.path, tmp_path / "data")
    with mrcfile.open(tmp_path / "data" / "particles.mrcs", mode="r+") as stack:
        shape = stack.data[PARTICLES // 2 :].shape
        white = stack.data[:, :3].std() * np.random.default_rng(1).normal(size=shape)
        stack.data[PARTICLES // 2 :] = 0.4 * stack.data[PARTICLES // 2 :] + 0.92 * white
    params = FitParams(particles=str(tmp_path / "data" / "particles.star"), output=str(tmp_path / "run"), rank=1)
    run = RunDir(params.output)
    with prepared(run, params, resume=False):
        write_params(run, params)
        for _ in range(2):  # the second time from the checkpoint
            job = FitJob.start(params, run, read_inputs(params), StatusTracker(run.status, "fit"))
            with closing(job.progress):
                source = settle_grey_scales(job, read_images(job))[1]
            half = source.grey_scale.reshape(2, -1).mean(dim=1)
            assert float(half[1] / half[0]) == pytest.approx(0.4, abs=0.04)
    (caution,) = read_cautions(run)
    assert "rows 151 to 300 of optics group" in caution or "rows 1 to 150 of optics group" in caution


def test_an_image_counts_once_in_however_many_orientations(hinge, tmp_path, monkeypatch):
    """Its orientations say the same of its scale, so that errors would be too small, and counts of images too large."""
    seen = {}

    def found(source, halves, part, options):
        seen.update(halves=halves)
        is_dark = torch.zeros(len(part), dtype=torch.bool)
        is_dark[0] = True
        piece = (torch.arange(len(part)) >= len(part) // 2).long()
        return GreyScales(torch.tensor([1.0, 0.5]), is_dark, piece, is_weak=torch.zeros(2, dtype=torch.bool))

    monkeypatch.setattr(grey_scales, "find_grey_scales", found)
    particles = str(hinge.path / "particles.star")
    params = FitParams(particles=particles, output=str(tmp_path / "run"), rank=1, symmetry="C2")
    run = RunDir(params.output)
    with prepared(run, params, resume=False):
        write_params(run, params)
        job = FitJob.start(params, run, read_inputs(params), StatusTracker(run.status, "fit"))
        with closing(job.progress):
            settled = settle_grey_scales(job, read_images(job))[0]
    assert torch.equal(torch.cat(seen["halves"]).sort().values, 2 * torch.arange(PARTICLES))
    assert torch.equal(torch.cat(settled.inputs.halves).sort().values, torch.arange(2, 2 * PARTICLES))
    assert [sentence.partition(" (")[0] for sentence in read_cautions(run)] == [
        f"1 image of {particles}", f"The signal of {PARTICLES // 2} images",
    ]  # fmt: skip


def test_sentences_count_images_and_name_the_largest_parts():
    part = torch.repeat_interleave(torch.arange(6), torch.tensor([50, 10, 20, 5, 7, 8]))
    scale = torch.tensor([1.0, 2.0, 0.001, 2.4, 3.0, 50.0])
    first, second = sentences_of_scales(scale, scale == 50, part, [f"part {number}" for number in range(6)])
    assert first.startswith("The signal of 42 images (part 2, part 1, part 4 and 1 other part) is 0.001 to 3 times")
    assert second.startswith("The signal of 8 images (part 5) is hardly there")


def test_scales_are_told_beside_a_part_that_has_the_usual_one():
    """The largest of these, though not of all: that is of the other sign itself."""
    part = torch.repeat_interleave(torch.arange(4), torch.tensor([30, 10, 29, 20]))
    scale = torch.tensor([-1.0, 1.0, 1.0, 1.0])
    (sentence,) = sentences_of_scales(scale, scale == 0, part, list("abcd"))
    assert sentence == "The signal of 30 images (a) is -1 times that in c, of the other sign: these images are inverted"


def test_parts_of_either_sign_are_named():
    part = torch.repeat_interleave(torch.arange(4), torch.tensor([100, 20, 40, 6]))
    is_dark = torch.zeros(len(part), dtype=torch.bool)
    is_dark[:30] = is_dark[100:109] = is_dark[120:140] = is_dark[160:164] = True
    sentence = sentence_of_dark_images(is_dark, part, list("abcd"))
    assert sentence.startswith("63 images show the molecule with the other sign than those beside them (among them ")
    assert "(among them 20 of 40 of c, 9 of 20 of b, where images of both signs were mixed): left out" in sentence
    assert "among them" not in sentence_of_dark_images(is_dark & (part == 0), part, list("abcd"))
    sentence = sentence_of_dark_images(is_dark, part, list("abcd"), " of x.star", "rows 2 to 9", are_many=True)
    assert sentence.startswith("63 images of x.star show the molecule with the other sign than the others (rows 2 to ")
    assert sentence.endswith("(or, if the mean was subtracted from all, give --invert-contrast no)")
