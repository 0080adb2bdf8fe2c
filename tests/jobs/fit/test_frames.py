"""Two refinements in one list, the second of the other hand, turned and moved: the fit is that of one refinement."""

from __future__ import annotations

import shutil
from contextlib import closing

import numpy as np
import pytest
import torch

from solvar_engine.contract.params import FitParams, ReconstructParams
from solvar_engine.contract.results import OTHER_FRAME
from solvar_engine.contract.run import RunDir, prepared, write_params
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import StatusTracker
from solvar_engine.data.metadata import read_metadata
from solvar_engine.data.particles import ParticleStack
from solvar_engine.imaging.frames import Frame
from solvar_engine.imaging.rotation import angular_distance_deg, rotvec_to_rotation
from solvar_engine.jobs.decisions import read_cautions
from solvar_engine.jobs.fit.frames import settle_frames
from solvar_engine.jobs.fit.inputs import read_inputs
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.jobs.fit.start import read_images
from solvar_engine.jobs.states.particles import open_stack, read_run_particles
from tests.jobs.conftest import PARTICLES, PIXEL_SIZE, RANK, assert_fits_agree, run_in_process

FIRST = 190  # of the second refinement
FRAME = Frame(
    rotvec_to_rotation(torch.tensor([[1.2, 0.4, -0.8]], dtype=torch.float64))[0],
    torch.tensor([12.0, -9.0, 6.0], dtype=torch.float64),
    True,
)


@pytest.fixture(scope="module")
def joined(hinge, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joined")
    shutil.copytree(hinge.path, folder / "data")
    stack = ParticleStack.from_star(folder / "data" / "particles.star")
    moved = FRAME.posed(stack.pose)
    pose = stack.pose[torch.arange(PARTICLES)]
    pose.rotation[FIRST:], pose.shift[FIRST:] = moved.rotation[FIRST:], moved.shift[FIRST:]
    stack.write_star(folder / "data" / "particles.star", pose=pose)
    assert run_in_process("fit", folder / "data" / "particles.star", "--output", folder / "run", "--rank", RANK) == 0
    return RunDir(folder / "run")


def test_joined_refinements_give_what_one_gives(joined, fitted):
    assert_fits_agree(joined, fitted, eigenvalue=0.1, mean=0.15, latent=0.98)


def test_poses_and_frames_are_written_and_said(joined, hinge):
    table = StarFile.read(joined.particles)
    assert table.particles.integers(OTHER_FRAME).tolist() == [0] * FIRST + [1] * (PARTICLES - FIRST)
    found, true = read_metadata(table).pose, read_metadata(StarFile.read(hinge.particles)).pose
    angle = angular_distance_deg(found.rotation, true.rotation)
    assert float(angle[:FIRST].max()) < 0.1 and float(angle[FIRST:].max()) < 3.0
    assert float((found.shift - true.shift).norm(dim=1)[FIRST:].mean()) < 0.3 * PIXEL_SIZE
    (caution,) = (one for one in read_cautions(joined) if "another frame" in one)
    assert f"{PARTICLES - FIRST} images" in caution and f"rows {FIRST + 1} to {PARTICLES}" in caution
    assert "of the other hand" in caution and "degrees" in caution and "Angstrom" in caution


def test_the_list_that_was_fitted_still_belongs_to_its_images(joined):
    """Its origins are those of other frames, which do not tell how its images are centred."""
    particles, listed = read_run_particles(joined), joined.path.parent / "data" / "particles.star"
    params = ReconstructParams(run=str(joined.path), output="unused", particles=str(listed))
    stack, row, _ = open_stack(params, particles)
    np.testing.assert_array_equal(row, np.arange(PARTICLES))
    torch.testing.assert_close(stack.pose.shift, particles.metadata.pose.shift, atol=1e-3, rtol=0)
    torch.testing.assert_close(stack.pose.rotation, particles.metadata.pose.rotation)


def test_the_list_of_the_run_belongs_to_them_too(joined):
    """Its origins are those of one frame, of images that have not moved."""
    particles, root = read_run_particles(joined), str(joined.path.parent / "data")
    params = ReconstructParams(run=str(joined.path), output="unused", particles=str(joined.particles), root=root)
    stack, _, cautions = open_stack(params, particles)
    torch.testing.assert_close(stack.pose.shift, particles.metadata.pose.shift, atol=1e-3, rtol=0)
    assert cautions == []


def test_frames_are_left_if_that_is_asked_for(joined, tmp_path):
    listed = str(joined.path.parent / "data" / "particles.star")
    params = FitParams(particles=listed, output=str(tmp_path / "run"), rank=1, one_frame="no")
    run = RunDir(params.output)
    with prepared(run, params, resume=False):
        write_params(run, params)
        job = FitJob.start(params, run, read_inputs(params), StatusTracker(run.status, "fit"))
        with closing(job.progress):
            images = read_images(job)
            left, same = settle_frames(job, images)
    assert left.inputs.other_frame is None and same is images
    (caution,) = read_cautions(run)
    assert "another frame" in caution and "left there, as asked for" in caution


def test_one_refinement_is_left_alone(fitted):
    assert OTHER_FRAME not in StarFile.read(fitted.particles).particles
    assert not any("another frame" in one for one in read_cautions(fitted))
