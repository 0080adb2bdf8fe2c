"""Images that cannot be used are named all at once, and left out on request."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import mrcfile
import numpy as np
import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_csv
from solvar_engine.contract.results import read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.data.faults import REFUSE_BAD_IMAGES
from solvar_engine.data.volumes import read_volume
from tests.jobs.conftest import PARTICLES

BLACK, NAN, MASKED, CUT = (3, 40, 41, 200), (7,), (90, 91), (298, 299)
BAD = sorted((*BLACK, *NAN, *MASKED, *CUT))


@pytest.fixture
def damaged(hinge, tmp_path):
    """The hinge with black, masked and cut-off images, and one with a NaN."""
    folder = tmp_path / "data"
    shutil.copytree(hinge.path, folder)
    with mrcfile.open(folder / "particles.mrcs", mode="r+") as stack:
        box = stack.data.shape[-1]
        y, x = np.mgrid[:box, :box] - box // 2
        stack.data[list(BLACK)] = 0
        stack.data[NAN[0], 3, 4] = np.nan
        stack.data[list(MASKED)] *= x**2 + y**2 < (0.4 * box) ** 2
    with open(folder / "particles.mrcs", "r+b") as stream:
        stream.truncate(1024 + (PARTICLES - 2) * box * box * 4)
    return folder


def test_leaving_out_is_not_advised_where_hardly_any_would_be_left():
    @dataclass(frozen=True)
    class FourImages:
        image_names = ("1@a.mrcs", "2@a.mrcs", "3@a.mrcs", "4@a.mrcs")
        rows_of_list = np.arange(4)

        def __len__(self) -> int:
            return 4

        def name_of_image(self, row: int) -> str:
            return f"Image {row + 1} of a.mrcs"

    for rows, is_advised in (((1, 2), True), ((0, 1, 2), False)):
        with pytest.raises(UserError, match="cannot be used") as raised:
            REFUSE_BAD_IMAGES.settle(FourImages(), dict.fromkeys(rows, "is constant (0)"))
        assert ("--skip-bad-images" in str(raised.value)) is is_advised


def test_all_are_named_and_left_out_on_request(damaged, engine, tmp_path):
    run = RunDir(tmp_path / "run")
    call = ("fit", damaged / "particles.star", "--output", run.path, "--rank", 1)
    assert "particles.mrcs is truncated" in engine(*call).error
    with open(damaged / "particles.mrcs", "r+b") as stream:  # holes that are read as zeros
        stream.truncate(1024 + PARTICLES * 24 * 24 * 4)
    outcome = engine(*call)
    assert outcome.code == 2 and outcome.error.count("error:") == 1
    assert "Image 4 of" in outcome.error and "is constant (0), and 9 of 300 images cannot be used" in outcome.error
    assert "(rows 4, 8, 41, 42, 91 ...;" in outcome.error and "--skip-bad-images" in outcome.error
    table = read_csv(run.bad_images)
    assert (table["row"] - 1).tolist() == BAD and set(table["fault"]) == {
        "is constant (0)", "has NaN or infinite values", "is constant outside the particle, as if it was masked",
    }  # fmt: skip
    with open(damaged / "particles.mrcs", "r+b") as stream:
        stream.truncate(1024 + (PARTICLES - 2) * 24 * 24 * 4 + 100)
    # with the advice followed, in the same folder
    outcome = engine(*call, "--skip-bad-images")
    assert outcome.code == 0 and "left out, as outliers" in outcome.error
    particles = StarFile.read(run.particles).particles
    assert set(BAD) <= set(np.flatnonzero(particles.integers("solvarOutlier")))
    assert np.flatnonzero(particles.integers("solvarHalfSet") == 0).tolist() == BAD
    latents = read_latents(run.latents)
    for values in (latents.z, latents.precision, latents.contrast):
        assert np.isfinite(values).all()
    assert not latents.z[BAD].any() and "is cut off" in set(read_csv(run.bad_images)["fault"])
    # volumes of states need no option for what the fit has left out
    outcome = engine("reconstruct", run.path, "--output", tmp_path / "states", "--clusters", 1)
    assert outcome.code == 0, outcome.error
    assert bool(read_volume(tmp_path / "states" / "state_001.mrc").data.isfinite().all())


def test_images_that_were_left_out_make_no_difference(damaged, hinge, engine, tmp_path):
    """The same as a list without them."""
    star = StarFile.read(damaged / "particles.star")
    table = star.particles
    kept = [row for number, row in enumerate(table.rows) if number not in BAD]
    split = table.with_columns({"rlnRandomSubset": np.arange(PARTICLES) % 2 + 1})
    star.replace(table, split).write(damaged / "all.star")
    kept = [row for number, row in enumerate(split.rows) if number not in BAD]
    short = type(split)(split.name, split.columns, kept, split.header)
    star.replace(table, short).write(damaged / "good.star")
    volumes = []
    for name in ("all", "good"):
        call = ("fit", damaged / f"{name}.star", "--output", tmp_path / name, "--rank", 1, "--skip-bad-images")
        assert engine(*call).code == 0
        volumes.append(read_volume(RunDir(tmp_path / name).mean).data)
    assert float((volumes[0] - volumes[1]).norm() / volumes[1].norm()) < 0.01


def test_a_half_set_without_images_is_refused(hinge, engine, tmp_path):
    shutil.copytree(hinge.particles.parent, tmp_path / "set")
    star = StarFile.read(tmp_path / "set" / "particles.star")
    subset = np.where(np.arange(PARTICLES) < 60, 1, 2)
    star.replace(star.particles, star.particles.with_columns({"rlnRandomSubset": subset})).write(star.source)
    with mrcfile.open(tmp_path / "set" / "particles.mrcs", mode="r+") as mrc:
        mrc.data[:59] = 0
    call = ("fit", star.source, "--output", tmp_path / "run", "--rank", 1, "--skip-bad-images")
    outcome = engine(*call)
    assert outcome.code == 2 and "have 1 and 240 images: extract them again" in outcome.error


def test_larger_images_may_lack_some(fitted, damaged, engine, tmp_path):
    call = ("reconstruct", fitted.path, "--clusters", 1, "--output", tmp_path / "states", "--particles")
    with open(damaged / "particles.mrcs", "r+b") as stream:
        stream.truncate(1024 + PARTICLES * 24 * 24 * 4)
    outcome = engine(*call, damaged / "particles.star")
    assert outcome.code == 2 and "9 of 300 images cannot be used" in outcome.error
    assert (tmp_path / "states" / "bad_images.csv").exists()
    assert engine(*call, damaged / "particles.star", "--skip-bad-images").code == 0
    assert len(StarFile.read(tmp_path / "states" / "state_001_particles.star").particles) == PARTICLES - len(BAD)
