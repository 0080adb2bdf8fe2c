"""Two refinements in one list, the second of the other hand, turned and moved: the fit is that of one refinement."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace

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
from solvar_engine.estimation.judging.other_frames import OtherFrames
from solvar_engine.imaging.frames import Frame, handed
from solvar_engine.imaging.rotation import angular_distance_deg, rotvec_to_rotation
from solvar_engine.jobs.decisions import read_cautions
from solvar_engine.jobs.fit.frames import is_mixed, may_be_scatter, sentences_of_frames, settle_frames
from solvar_engine.jobs.fit.inputs import read_inputs
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.jobs.fit.start import _beside_motions, read_images, settle_sign_and_masks
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


def settled(listed, run, **options):
    """Images of a list and the fit that is begun on them, both before and after frames were settled."""
    params = FitParams(particles=str(listed), output=str(run.path), rank=1, **options)
    with prepared(run, params, resume=False):
        write_params(run, params)
        job = FitJob.start(params, run, read_inputs(params), StatusTracker(run.status, "fit"))
        with closing(job.progress):
            images = read_images(job)
            return images, *settle_frames(job, images)


def test_frames_are_left_if_that_is_asked_for(joined, tmp_path):
    run = RunDir(tmp_path / "run")
    images, left, same = settled(joined.path.parent / "data" / "particles.star", run, one_frame="no")
    assert left.inputs.other_frame is None and same is images
    (caution,) = read_cautions(run)
    assert "another frame" in caution and "left there, as asked for" in caution


def test_a_list_that_was_joined_twice_is_brought_into_one_frame(hinge, tmp_path):
    """Two optics groups in turns, of either hand, and the last rows of both turned and moved before that."""
    folder, row = tmp_path / "data", torch.arange(PARTICLES)
    shutil.copytree(hinge.path, folder)
    of_first, is_late = row % 5 < 3, row >= 200
    _write_joined_twice(folder / "particles.star", of_first, is_late)
    _, job, images = settled(folder / "particles.star", RunDir(tmp_path / "run"))
    true = ParticleStack.from_star(hinge.particles).pose
    angle = angular_distance_deg(images.pose.rotation, true.rotation)
    assert float(angle.mean()) < 3.0
    frame = job.inputs.other_frame
    numbers = [frame[part & late].unique().tolist() for part in (of_first, ~of_first) for late in (is_late, ~is_late)]
    assert sorted(numbers) == [[0], [1], [2], [3]]


def _write_joined_twice(path, of_first, is_late):
    stack, mirrored = ParticleStack.from_star(path), replace(FRAME, rotation=torch.eye(3).double())
    turned = replace(FRAME, is_mirrored=False).posed(stack.pose)
    pose = stack.pose[torch.arange(PARTICLES)]
    pose.rotation[is_late], pose.shift[is_late] = turned.rotation[is_late], turned.shift[is_late]
    other = mirrored.posed(pose)
    pose.rotation[~of_first], pose.shift[~of_first] = other.rotation[~of_first], other.shift[~of_first]
    stack.write_star(path, pose=pose)
    table = StarFile.read(path)
    optics = table.optics.only([0, 0]).with_columns({"rlnOpticsGroup": [1, 2], "rlnOpticsGroupName": ["a", "b"]})
    particles = table.particles.with_columns({"rlnOpticsGroup": (2 - of_first.long()).tolist()})
    table.replace(table.optics, optics).replace(table.particles, particles).write(path)


def test_frames_in_turns_are_told_by_each_image(hinge, tmp_path):
    """Three frames, one image after the other: no part of the list is in one."""
    frame = torch.arange(PARTICLES) % 3
    assert_are_brought_into_one(frame, {}, hinge, tmp_path)


def test_frames_of_the_half_sets_are_told(hinge, tmp_path):
    """Each half-set of the list is a refinement of its own."""
    frame = (torch.arange(PARTICLES) * 7) % 2
    assert_are_brought_into_one(frame, {"rlnRandomSubset": (frame + 1).tolist()}, hinge, tmp_path)


def assert_are_brought_into_one(frame, columns, hinge, tmp_path):
    """Images of frames (n,) end in one, and are told by their frame."""
    path = tmp_path / "data" / "particles.star"
    shutil.copytree(hinge.path, path.parent)
    stack = ParticleStack.from_star(path)
    pose = stack.pose[torch.arange(PARTICLES)]
    for number, other in ((1, FRAME), (2, replace(FRAME, is_mirrored=False))):
        rows, moved = frame == number, other.posed(stack.pose)
        pose.rotation[rows], pose.shift[rows] = moved.rotation[rows], moved.shift[rows]
    stack.write_star(path, columns, pose=pose)
    _, job, images = settled(path, RunDir(tmp_path / "run"))
    true = ParticleStack.from_star(hinge.particles).pose.rotation.double()
    found = images.pose.rotation.double()
    turns = [found @ handed(true, is_mirrored).mT for is_mirrored in (False, True)]  # that of most may be either hand
    assert min(float(angular_distance_deg(turn, turn[:1].expand_as(turn)).max()) for turn in turns) < 5.0
    found = [job.inputs.other_frame[frame == number].unique().tolist() for number in frame.unique().tolist()]
    assert sorted(found) == [[number] for number in range(len(found))]


def in_a_near_frame(members):
    """What is found of images (n,), bool, that are turned by 25 degrees."""
    turn = rotvec_to_rotation(torch.tensor([[0.0, 0.0, np.deg2rad(25.0)]], dtype=torch.float64))[0]
    found = OtherFrames.none(len(members))
    return found.and_one_more(Frame(turn, torch.zeros(3).double(), False), (0.13, 1.0), members)


def test_what_may_be_a_motion_is_not_said_to_be_anything_else(hinge):
    stack, members = ParticleStack.from_star(hinge.particles), torch.arange(PARTICLES) % 2 == 0
    (said,) = sentences_of_frames(in_a_near_frame(members), stack, "auto", torch.tensor([False]))
    assert said == (
        f"{PARTICLES // 2} images of {hinge.particles} (rows 1 to {PARTICLES - 1}, with gaps) show the molecule turned"
        " by 25 degrees against the others (the means agree by 0.13, in one frame by 1.00): taken for a motion; if it"
        " is none and lists of two refinements were joined, give --one-frame yes"
    )


def test_a_block_of_the_list_is_said_to_be_as_after_joining(hinge):
    stack, members = ParticleStack.from_star(hinge.particles), torch.arange(PARTICLES) >= FIRST
    (said,) = sentences_of_frames(in_a_near_frame(members), stack, "auto", torch.tensor([False]))
    assert said.startswith(f"The poses of {PARTICLES - FIRST} images") and "as after joining refinements" in said
    assert "they are left there, as a molecule may move like that" in said


@pytest.mark.parametrize(("moved", "errors"), [("", True), ("mixed", False), ("late", True)])
def test_inaccurate_origins_are_no_frames(moved, errors, simulate, tmp_path):
    """Classes of images that are moved alike are told as places; images of two frames as what they may be.

    Places that the fit refines are only logged. A list that was joined is told whatever the errors of its origins.
    """
    given = ("--rotation-error", 2, "--shift-error", 1) if errors else ()
    data = simulate(
        *("--phantom", "static", "--particles", 1000, "--box", 24, "--pixel-size", 8, "--snr", 1, "--seed", 1, *given)
    )
    if moved:
        stack = ParticleStack.from_star(data.particles)
        row, pose = torch.arange(len(stack)), stack.pose[torch.arange(len(stack))]
        chosen = row >= FIRST if moved == "late" else row * 7 % 11 < 4
        frame = Frame(torch.eye(3).double(), torch.tensor([20.0, 9.0, -6.0]).double(), False)
        in_frame = frame.posed(stack.pose)
        pose.rotation[chosen], pose.shift[chosen] = in_frame.rotation[chosen], in_frame.shift[chosen]
        stack.write_star(data.particles, pose=pose)
    run = RunDir(tmp_path / "run")
    params = FitParams(particles=str(data.particles), output=str(run.path), rank=1, threads=1)
    with prepared(run, params, resume=False):
        write_params(run, params)
        job = FitJob.start(params, run, read_inputs(params), StatusTracker(run.status, "fit"))
        with closing(job.progress):
            job, source = settle_frames(job, read_images(job))
            settle_sign_and_masks(job, source)
    assert len(job.left_frames) == bool(moved) and job.has_scatter == errors
    said = read_cautions(run)
    assert any("taken for a motion" in one for one in said) == (moved == "mixed")
    late = [one for one in said if "are in another frame" in one]
    assert len(late) == (moved == "late") and all("moved by 2" in one and "give --one-frame yes" in one for one in late)
    places = [one for one in said if "agree better with other places" in one and "--refine-poses" in one]
    assert len(places) == (not moved)
    refining = replace(job, params=replace(params, refine_poses=True))
    centred = torch.ones(24, 24, 24)
    assert _beside_motions(refining, centred, places) == [one.sentence for one in job.left_frames]
    assert moved or _beside_motions(job, centred, places) == places


@pytest.mark.parametrize(("turn", "is_mirrored", "is_late", "expected"), [
    (0.03, False, False, True), (0.5, False, False, False), (0.03, True, False, False), (0.03, False, True, False),
])  # fmt: skip
def test_frames_that_are_turned_or_parts_of_the_list_are_no_scatter(turn, is_mirrored, is_late, expected, hinge):
    row, stack = torch.arange(PARTICLES), ParticleStack.from_star(hinge.particles)
    rotation = rotvec_to_rotation(torch.tensor([[0.0, turn, 0.0]]).double())[0]
    frame = Frame(rotation, torch.ones(3).double(), is_mirrored)
    mixed = OtherFrames.none(PARTICLES).and_one_more(frame, (0.4, 1.0), row >= FIRST if is_late else row % 2 == 0)
    assert may_be_scatter(mixed, stack) == expected
    assert not may_be_scatter(OtherFrames.none(PARTICLES), stack)


def test_images_all_over_a_list_are_told_from_parts_of_it(hinge):
    row, stack = torch.arange(PARTICLES), ParticleStack.from_star(hinge.particles)
    assert is_mixed(row % 2 == 0, stack) and is_mixed(row * 7 % 11 < 4, stack)
    assert not is_mixed(row >= FIRST, stack) and not is_mixed((row > 100) & (row < 220), stack)
    assert not is_mixed((row > 100) & (row < 220) & (row % 3 == 0), stack)  # few, but in one place
    drawn = torch.randperm(PARTICLES, generator=torch.Generator().manual_seed(1))
    assert is_mixed(torch.isin(row, drawn[:40]), stack)  # by chance none in some parts
    halves = replace(stack, metadata=replace(stack.metadata, random_subset=row % 2 + 1))
    assert not is_mixed(row % 2 == 0, halves)
    groups = replace(stack, metadata=replace(stack.metadata, group=row % 2, group_names=("a", "b")))
    assert not is_mixed(row % 2 == 0, groups)


def test_one_refinement_is_left_alone(fitted):
    assert OTHER_FRAME not in StarFile.read(fitted.particles).particles
    assert not any("another frame" in one for one in read_cautions(fitted))
