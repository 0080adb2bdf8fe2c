"""Real STAR files, and real images with their CTFs, as they come from RELION."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import read_status
from solvar_engine.data.mrc import StackWriter, read_header
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.preprocess import prepare_particles
from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.imaging.fourier import HalfDisk


@pytest.fixture(scope="module")
def metadata(shared_data):
    return shared_data / "metadata"


@pytest.fixture
def linked(metadata, tmp_path):
    """The list of RELION 3.1 alone in a folder, with its images linked at the path that it names."""
    shutil.copy(metadata / "relion31.star", tmp_path)
    cells = StarFile.read(metadata / "relion31.star").particles.text("rlnImageName")
    (name,) = {cell.partition("@")[2] for cell in cells}
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).symlink_to(metadata / "relion31.mrcs")
    return tmp_path / "relion31.star"


def test_real_images_are_preprocessed(linked):
    stack = ParticleStack.from_star(linked)
    source = prepare_particles(stack, 64, scratch=None)
    assert len(source) == 5 and source.input_box == 256
    assert source.pixel_size == pytest.approx(stack.pixel_size * 4)
    (batch,) = source.batches(torch.arange(5), source.disk, 16)
    assert bool(torch.isfinite(batch.images.abs()).all())
    # whitened by the spectrum of their own background, images have unit variance where noise dominates
    outer = source.disk.shell > 20
    assert float((batch.images[:, outer].abs() ** 2).mean()) == pytest.approx(1, abs=0.35)


def test_real_ctf_agrees_with_the_images(linked):
    """Power of the images follows the square of the CTF that their micrograph was fitted with."""
    stack = ParticleStack.from_star(linked)
    disk = HalfDisk.create(256)
    source = prepare_particles(stack, 256, scratch=None)
    squared = ctf_values(stack.ctf, disk, stack.pixel_size) ** 2
    power = source.coefficients.abs() ** 2
    matching, shuffled = [], []
    band = (disk.shell > 30) & (disk.shell < 90)
    for image in range(5):
        shells = disk.shell[band].double()
        flat = torch.log(power[image][band].double() + 1e-12)
        flat = flat - torch.from_numpy(np.polyval(np.polyfit(shells, flat, 3), shells))
        matching.append(float(np.corrcoef(flat, squared[image][band])[0, 1]))
        wrong = 1 - squared[image][band]
        shuffled.append(float(np.corrcoef(flat, wrong)[0, 1]))
    assert np.mean(matching) > 0.01 > np.mean(shuffled)


def has_only_the_sentence(run: Path, line: str) -> bool:
    """Whether a run folder holds no more than what went wrong."""
    status = read_status(run / "status.json")
    assert status is not None and status.state == "failed"
    return f"error: {status.message}" == line and {path.name for path in run.iterdir()} <= {"status.json", "log.txt"}


def test_below_the_minimum_a_fit_refuses(linked, engine, tmp_path):
    outcome = engine("fit", linked, "--output", tmp_path / "run", "--rank", 1)
    assert outcome.code == 2
    notice, sentence = outcome.error.splitlines()
    assert "rlnRandomSubset" in notice and "split anew" in notice
    assert "relion31.star has 5 particles, but a fit needs at least 100" in sentence
    assert has_only_the_sentence(tmp_path / "run", outcome.error.splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("relion31.6opticsgroups.star", ["_shiny.mrcs (and ", "does not exist", "--root"]),
        ("relion5.star", ["toy_images_a.mrcs (and 1 more)", "does not exist"]),
        ("FinalRefinement-OriginalParticles-PfCRT.star", ["amplitude contrast", "rlnAmplitudeContrast"]),
        ("empiar_10076_7.star", ["orientations", "rlnAngleRot"]),
        ("empiar_10076_7.cs", ["orientations", "alignments3D/pose"]),
        ("cryosparc_P12_J24_001_particles.cs", ["Stack J19/extract/", "does not exist", "--root"]),
        ("relion31.mrcs", ["binary file"]),
    ],
)
def test_what_a_fit_says_of_each_real_file(name, texts, metadata, engine, tmp_path):
    outcome = engine("fit", metadata / name, "--output", tmp_path / "run", "--rank", 1)
    assert outcome.code == 2, outcome.error
    *notices, sentence = outcome.error.splitlines()
    for text in (name, *texts):
        assert text in sentence
    assert all(line.startswith(("warning: ", "Corrected for: ")) for line in notices)
    assert has_only_the_sentence(tmp_path / "run", sentence)


def test_real_list_with_six_optics_groups_is_fitted(metadata, engine, tmp_path):
    """All its columns, optics groups, half-sets and stacks; the images are noise with a bright blob."""
    source = metadata / "relion31.6opticsgroups.star"
    star = StarFile.read(source)
    assert star.optics is not None
    box_size = 32
    optics = star.optics.with_columns({"rlnImageSize": [box_size] * len(star.optics)})
    path = tmp_path / "particles.star"
    star.replace(star.optics, optics).write(path)
    radius = np.hypot(*(np.indices((box_size, box_size)) - box_size // 2))
    blob = 3 * np.exp(-((radius / 6) ** 2))
    random = np.random.default_rng(0)
    last: dict[str, int] = {}
    for cell in star.particles.text("rlnImageName"):
        number, _, name = cell.partition("@")
        last[name] = max(last.get(name, 0), int(number))
    for name, count in last.items():
        stack = tmp_path / name
        stack.parent.mkdir(parents=True, exist_ok=True)
        with StackWriter(stack, 1.25) as writer:
            writer.append(blob + random.normal(size=(count, box_size, box_size)))
    assert read_header(tmp_path / name).shape[1:] == (box_size, box_size)
    outcome = engine("fit", path, "--output", tmp_path / "run", "--rank", 1)
    assert outcome.code == 0, outcome.error
    written = StarFile.read(tmp_path / "run" / "particles.star")
    for old, new in zip(star.particles.rows, written.particles.rows, strict=True):
        assert new.startswith(old.rstrip() + " ")
    assert written.optics is not None and written.optics.rows == optics.rows
    assert len(set((tmp_path / "run" / "noise.csv").read_text().split("\n")[1:])) > 6
