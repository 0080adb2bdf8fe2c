"""The alternation as an iterator of states: order of its steps, and states as all that the next needs."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from torch import Tensor

from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.alternation import iteration
from solvar_engine.estimation.alternation.iteration import alternate, half_set_fit
from solvar_engine.estimation.alternation.problem import AlternationProblem, Masks
from solvar_engine.estimation.alternation.state import AlternationState, PoseGain, Step
from solvar_engine.estimation.model.objectives import OBJECTIVES
from solvar_engine.estimation.poses.schedules import POSE_SCHEDULES
from solvar_engine.estimation.poses.uncertainty import LEAST_SPREAD, PoseErrors
from solvar_engine.estimation.solver.schedule import Schedule
from solvar_engine.imaging.fourier import HalfDisk, images_to_disk
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.imaging.rotation import angular_distance_deg, random_rotations, rotvec_to_rotation
from solvar_engine.imaging.types import Ctf, Pose
from solvar_engine.projectors.options import SliceOptions
from tests.reconstruction.simulated import LinearPhantom, noise

BOX, IMAGES, RANK, PIXEL_SIZE = 16, 200, 1, 3.0
PHANTOM = LinearPhantom.create(RANK, strength=0.5, sigma=0.05).scaled(12.0)
SCHEDULE = Schedule(first=("2x0.7", "1x1"), last=("1x1",), first_shell=4)
TRUE = random_rotations(IMAGES, torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def source() -> PreparedParticles:
    """Particles in white noise, at poses that are wrong by three degrees."""
    disk, nothing, one = HalfDisk.create(BOX), torch.zeros(IMAGES), torch.ones(IMAGES)
    images = PHANTOM.slices(noise(IMAGES, RANK), TRUE, disk) + images_to_disk(noise(IMAGES, BOX, BOX, seed=2), disk)
    given = TRUE @ rotvec_to_rotation(0.05 * noise(IMAGES, 3, seed=3))
    return PreparedParticles(
        coefficients=images,
        disk=disk,
        box_size=BOX,
        pixel_size=PIXEL_SIZE,
        pose=Pose(given, torch.zeros(IMAGES, 2)),
        # no more than a constant: all contrast is amplitude contrast
        ctf=Ctf(nothing, nothing, nothing, 300 * one, nothing, one, nothing, nothing, one, one < 0),
        group=torch.zeros(IMAGES, dtype=torch.int64),
        frequency_ratio=torch.ones(1),
        input_box=BOX,
        noise_variance=torch.full((1, disk.shell_max + 1), 1.3),
        image_scale=one,
        sign=1.0,
    )


def problem_of(source: PreparedParticles, **changes: object) -> AlternationProblem:
    mask = sphere_mask(BOX, 6.0)
    halves = (torch.arange(0, IMAGES, 2), torch.arange(1, IMAGES, 2))
    problem = AlternationProblem(
        source, halves, Masks(mask, mask), RANK, 0, SliceOptions(), OBJECTIVES["ml"], schedule=SCHEDULE
    )
    return replace(problem, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def refining(source) -> AlternationProblem:
    return problem_of(source, refines_contrast=True, pose_schedule=POSE_SCHEDULES["newton"])


@pytest.fixture(scope="module")
def states(refining) -> list[AlternationState]:
    return [AlternationState(), *alternate(refining)]


def numbers_of(value: object) -> list[Tensor]:
    """All numbers of a state."""
    if is_dataclass(value):
        return [number for field in fields(value) for number in numbers_of(getattr(value, field.name))]
    if isinstance(value, tuple):
        return [number for part in value for number in numbers_of(part)]
    return [] if value is None else [torch.as_tensor(value).double()]


def test_steps_with_poses_come_in_order(refining, states) -> None:
    find, measure, fit, refine, judge = Step
    steps = [refining.next_step(state) for state in states]
    assert steps == [find, measure, fit, measure, fit, refine, judge, fit, refine, judge, None]
    assert [state.done for state in states] == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [state.rounds for state in states] == [0] * 7 + [1] * 3 + [2]
    assert [state.pose_rounds for state in states] == [0] * 6 + [1] * 3 + [2] * 2


def test_only_the_last_refinement_takes_itself_for_the_last(refining, states, monkeypatch) -> None:
    """No volume is fitted to its poses any more."""
    asked = []

    def record(this, problem, means, state, watch):
        asked.append(this.is_last)
        return this.given, (PoseGain(0.0, 0.0),) * 2

    monkeypatch.setattr(iteration, "refine_round", record)
    for state in states:
        if refining.next_step(state) is Step.REFINE_POSES:
            next(alternate(refining, state))
    assert asked == [False, True]


def test_poses_that_stay_are_neither_measured_nor_refined(source) -> None:
    problem = problem_of(source)
    find, fit, judge = Step.FIND_JUNK, Step.FIT_FACTORS, Step.JUDGE_IMAGES
    steps, state = [problem.next_step(AlternationState())], AlternationState()
    for state in alternate(problem):
        steps.append(problem.next_step(state))
    assert steps == [find, fit, fit, judge, fit, judge, None]
    assert state.pose is None and state.spread is None and half_set_fit(problem, state).pose_spread is None


def test_every_state_is_all_that_the_next_one_needs(refining, states) -> None:
    for state, expected in zip(states[:-1], states[1:], strict=True):
        found = next(alternate(refining, state))
        for number, wanted in zip(numbers_of(found), numbers_of(expected), strict=True):
            torch.testing.assert_close(number, wanted, rtol=1e-4, atol=1e-4 * max(1.0, float(wanted.abs().max())))
    assert list(alternate(refining, states[-1])) == []


def test_noise_is_measured_poses_improve_and_their_errors_are_known(source, refining, states) -> None:
    last = states[-1]
    assert last.judged is not None and last.pose is not None and last.spread is not None
    assert float(last.judged.noise[:, 2:].mean()) == pytest.approx(1, abs=0.1)
    before, after = (angular_distance_deg(pose.rotation, TRUE).mean() for pose in (source.pose, last.pose))
    assert float(after) < 0.8 * float(before)
    assert last.rough_spread is not None
    assert 0.05 < last.spread.turn_rad < last.rough_spread.turn_rad < 0.15  # motion is counted in, less with factors


def test_the_end_is_at_the_last_noise_poses_and_contrasts(refining, states) -> None:
    last = states[-1]
    found = half_set_fit(refining, last)
    assert torch.equal(found.source.noise_variance, last.judged.noise)
    assert torch.equal(found.source.contrast, last.judged.contrast)
    assert torch.equal(found.source.pose.rotation, last.pose.rotation)
    assert found.problem.source is found.source and found.problem.pose_errors == PoseErrors()
    assert found.problem.contrast_variance == sum(of.contrast_variance for of in last.factors.factors) / 2
    spread = last.spread.at_least(LEAST_SPREAD)
    assert found.pose_spread == spread == found.pose_errors.spread
    expected = PoseErrors.about(refining.source.pose, last.pose, PIXEL_SIZE, spread).expected
    torch.testing.assert_close(found.pose_errors.expected, expected)
    assert len(found.judging_band().nuisance) == 6 and len(found.problem.full_band().nuisance) == 0
    with pytest.raises(ValueError, match="has not come to its end"):
        half_set_fit(refining, states[-2])


def test_factors_are_fitted_beside_the_errors_of_given_poses_only(refining, states) -> None:
    measured = [refining.errors_while_fitting(state).spread for state in states]
    assert measured[2] == states[2].rough_spread and measured[4] == states[4].spread
    assert measured[2] != measured[4]
    assert all(refining.errors_while_fitting(state) == PoseErrors() for state in (*states[:2], *states[6:]))
    published = replace(refining, pose_schedule=POSE_SCHEDULES["paper"])
    assert published.errors_of_refined(states[-1]) == PoseErrors() and published.prior_spread(states[-1]) is None
