"""Images that were centred anew after the fit give the same volumes: the origins of the new list count."""

from __future__ import annotations

import shutil

import mrcfile
import numpy as np
import pytest

from solvar_engine.contract.files import read_json, write_json
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.data.mrc import StackWriter
from solvar_engine.data.volumes import read_volume
from tests.jobs.conftest import PARTICLES, PIXEL_SIZE, run_in_process

ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")


def recentred(data, folder):
    """Roll every image by some whole pixels, and let its origin follow; rows are in another order."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    step = random.integers(-3, 4, (PARTICLES, 2))
    images = mrcfile.read(data.path / "particles.mrcs")
    with StackWriter(folder / "moved.mrcs", PIXEL_SIZE) as stack:
        for image, (x, y) in zip(images, step, strict=True):
            stack.append(np.roll(image, (-y, -x), axis=(0, 1))[None])
    star = StarFile.read(data.particles)
    table = star.particles
    centre = random.integers(100, 900, (PARTICLES, 2))
    origin = np.stack(list(table.numbers(*ORIGINS).values()), axis=1) + PIXEL_SIZE * step
    old = table.with_columns({"rlnCoordinateX": centre[:, 0], "rlnCoordinateY": centre[:, 1]})
    names = [f"{row + 1}@moved.mrcs" for row in range(PARTICLES)]
    # a centre that moves by so many pixels makes the origin, which is centre less position, grow by as much
    new = table.with_columns({
        "rlnImageName": names, **dict(zip(ORIGINS, origin.T, strict=True)),
        "rlnCoordinateX": centre[:, 0] + step[:, 0], "rlnCoordinateY": centre[:, 1] + step[:, 1],
    })  # fmt: skip
    order = random.permutation(PARTICLES)
    shuffled = type(new)(new.name, new.columns, [new.rows[row] for row in order], new.header)
    star.replace(table, shuffled).write(folder / "moved.star")
    images_at = f"@{data.path}/particles.mrcs"
    names = [f"{row + 1}{images_at}" for row in range(PARTICLES)]
    star.replace(table, old.with_columns({"rlnImageName": names})).write(folder / "fitted.star")
    return folder


@pytest.fixture(scope="module")
def moved(hinge, tmp_path_factory):
    """A folder with a fit, and the list of its images centred anew."""
    folder = recentred(hinge, tmp_path_factory.mktemp("moved"))
    assert run_in_process("fit", folder / "fitted.star", "--output", folder / "run", "--rank", 1) == 0
    return folder


@pytest.fixture
def refined(moved, tmp_path):
    """The run, as if the fit had refined the origins."""
    run = RunDir(shutil.copytree(moved / "run", tmp_path / "refined"))
    record = read_json(run.params)
    record["options"]["refine_poses"] = True
    write_json(run.params, record)
    star = StarFile.read(run.particles)
    origins = star.particles.numbers(*ORIGINS)
    changes = np.random.default_rng(1).normal(size=(2, PARTICLES))
    changed = {name: origins[name] + change for name, change in zip(ORIGINS, changes, strict=True)}
    star.replace(star.particles, star.particles.with_columns(changed)).write(run.particles)
    return run


def check_origins(moved, run, output):
    """Compare written origins with those of the run, plus what changed between the two lists."""
    written = StarFile.read(output / "state_001_particles.star").particles
    poses = StarFile.read(run.particles).particles
    number = [int(name.partition("@")[0]) - 1 for name in written.text("rlnImageName")]
    fitted, given = (StarFile.read(moved / f"{name}.star").particles for name in ("fitted", "moved"))
    place = {int(name.partition("@")[0]) - 1: row for row, name in enumerate(given.text("rlnImageName"))}
    for column in ORIGINS:
        after, refined, before, there = (table.numbers(column)[column] for table in (written, poses, fitted, given))
        expected = refined + there[[place[row] for row in range(PARTICLES)]] - before
        np.testing.assert_allclose(after, expected[number], atol=1e-3)


def test_volumes_and_poses_are_those_of_the_fit(moved, engine, tmp_path):
    call = ("reconstruct", moved / "run", "--clusters", 1)
    assert engine(*call, "--output", tmp_path / "own").code == 0
    outcome = engine(*call, "--output", tmp_path / "new", "--particles", moved / "moved.star")
    assert outcome.code == 0 and "origins are corrected" in outcome.error
    own, new = (read_volume(tmp_path / name / "state_001_half1.mrc").data for name in ("own", "new"))
    # noise is measured anew from images whose edges differ
    assert float((own - new).norm() / own.norm()) < 0.1
    check_origins(moved, RunDir(moved / "run"), tmp_path / "new")


def test_refined_origins_are_kept_and_corrected(moved, refined, engine, tmp_path):
    call = ("reconstruct", refined.path, "--clusters", 1, "--particles", moved / "moved.star", "--output")
    assert engine(*call, tmp_path / "new").code == 0
    check_origins(moved, refined, tmp_path / "new")
    text = (moved / "fitted.star").read_text()
    (moved / "fitted.star").write_text(text + "\n")
    outcome = engine(*call, tmp_path / "late")
    (moved / "fitted.star").write_text(text)
    assert outcome.code == 2 and "has changed since it was fitted" in outcome.error
