"""Volumes of states are not made from images that are not those of the fit, and what is doubtful is recorded."""

from __future__ import annotations

import shutil

import mrcfile
import numpy as np
import pytest
import torch

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_json
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import read_status, status_path
from solvar_engine.data.mrc import StackWriter
from solvar_engine.jobs.decisions import ImageDecisions
from solvar_engine.jobs.states import images_of_fit
from tests.jobs.conftest import PARTICLES, PIXEL_SIZE
from tests.jobs.fit.test_first_mean import ListOf800, evidence_of
from tests.reconstruction.simulated import noise

ROWS = np.arange(PARTICLES)


@pytest.fixture
def with_images(hinge, tmp_path):
    """Function that writes the list of the hinge beside a stack that has its images in another order, or others."""

    def write(order, folder=tmp_path / "data", factor=1.0):
        folder.mkdir()
        images = mrcfile.read(hinge.path / "particles.mrcs")[order]
        with StackWriter(folder / "particles.mrcs", PIXEL_SIZE) as stack:
            stack.append(images * np.float32(factor))
        return shutil.copy(hinge.particles, folder / "particles.star")

    return write


def shuffled(rows):
    return np.random.default_rng(0).permutation(rows)


@pytest.mark.parametrize("factor", [1.0, -3.0])
def test_images_in_another_order_are_refused(factor, with_images, fitted, engine, tmp_path):
    """Whatever their sign; the list of the run names no other images than this one."""
    star = with_images(shuffled(ROWS), factor=factor)
    outcome = engine("reconstruct", fitted.path, "--output", tmp_path / "out", "--clusters", 1, "--particles", star)
    assert outcome.code == 2
    assert f"The images of {star} are not those of the fit in {fitted.path} (log-likelihood gain" in outcome.error
    assert not list((tmp_path / "out").glob("*.mrc"))


def test_a_stack_that_was_replaced_after_the_fit_is_refused(hinge, with_images, engine, tmp_path):
    star, run = with_images(ROWS), RunDir(tmp_path / "run")
    assert engine("fit", star, "--output", run.path, "--rank", 1).code == 0
    shutil.rmtree(tmp_path / "data")
    with_images(np.roll(ROWS, 1))
    outcome = engine("reconstruct", run.path, "--output", tmp_path / "out", "--clusters", 1)
    assert outcome.code == 2 and "are not those of the fit" in outcome.error and "other sign" not in outcome.error


def test_a_part_of_other_images_is_told_and_recorded(with_images, fitted, engine, capsys, tmp_path):
    half = PARTICLES // 2
    star = with_images(np.concatenate([ROWS[:half], shuffled(ROWS[half:])]))
    outcome = engine("reconstruct", fitted.path, "--output", tmp_path / "out", "--clusters", 1, "--particles", star)
    assert outcome.code == 0, outcome.error
    (caution,) = read_json(tmp_path / "out" / "call.json")["cautions"]
    assert caution.startswith(f"The images of about rows 151 to 300 in {star} do not seem to be those of the fit")
    message = read_status(status_path(tmp_path / "out")).message
    assert message.startswith(f"Mind: {caution}. 1 volume at")


def test_images_of_the_fit_raise_no_doubt(with_images, fitted, engine, tmp_path):
    star = with_images(ROWS, factor=8.0)
    outcome = engine("reconstruct", fitted.path, "--output", tmp_path / "out", "--clusters", 1, "--particles", star)
    assert outcome.code == 0 and read_json(tmp_path / "out" / "call.json")["cautions"] == []


def test_another_defocus_than_that_of_the_fit_is_told(with_images, fitted, engine, tmp_path):
    star = StarFile.read(with_images(ROWS))
    columns = {name: values + 900 for name, values in star.particles.numbers("rlnDefocusU", "rlnDefocusV").items()}
    star.replace(star.particles, star.particles.with_columns(columns)).write(star.source)
    call = ("reconstruct", fitted.path, "--output", tmp_path / "out", "--clusters", 1, "--particles", star.source)
    assert engine(*call).code == 0
    (caution,) = read_json(tmp_path / "out" / "call.json")["cautions"]
    assert caution.startswith(f"The defocus in {star.source}, which is used, differs from that in the run by 900 Angs")


@pytest.fixture
def judged(monkeypatch):
    """Function that judges 800 images by their gains, after a fit with some gain and error."""

    def judge(gain, of_fit, of_fit_error):
        rows = torch.arange(0, 800, 2)
        scatter = 3 * noise(len(rows), seed=1).double()
        gains = (gain if torch.is_tensor(gain) else torch.full((800,), gain).double())[rows] + scatter - scatter.mean()
        evidence = evidence_of(rows, gains, gains)
        monkeypatch.setattr(images_of_fit, "pose_evidence", lambda *_: evidence)
        known = ImageDecisions(1.0, 1.0, of_fit, of_fit_error)
        return images_of_fit.refuse_images_of_others(None, ListOf800(), None, None, RunDir("run"), known, None, 0)

    return judge


def test_how_sure_a_fit_was_decides(judged):
    """The standard error of these gains is 0.15."""
    assert judged(10.0, 10.0, 0.1) == judged(1.0, 1.1, 0.3) == judged(5.5, 10.0, 0.1) == []
    with pytest.raises(UserError, match="are not those of the fit"):
        judged(0.1, 10.0, 0.1)
    with pytest.raises(UserError, match="are not those of the fit"):
        judged(0.1, 3.0, 0.5)
    # as noisy a set as this may gain as little by chance
    (caution,) = judged(0.05, 1.6, 0.35)
    assert "do not tell whether they are those of the fit" in caution
    for of_fit, error in ((None, None), (0.1, 0.1)):
        (caution,) = judged(0.1, of_fit, error)
        assert "do not tell whether" in caution
    (caution,) = judged(2.0, 10.0, 0.1)
    assert "agree with the fit in run less than those that were fitted" in caution and "in the fit 10.00" in caution
    (caution,) = judged(torch.where(torch.arange(800) < 400, 10.0, 0.0).double(), 10.0, 0.1)
    assert "The images of about rows 401 to 799 in" in caution
