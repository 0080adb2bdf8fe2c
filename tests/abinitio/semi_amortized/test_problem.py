from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.abinitio.semi_amortized.problem import Problem, repeated
from solvar_engine.imaging.rotation import angular_distance_deg, random_rotations, rotvec_to_rotation
from solvar_engine.imaging.types import Pose
from tests.abinitio.semi_amortized.small import SHIFT_PX, shifts_px, small_problem

DEGREE = torch.pi / 180


def perturbed(truth: Pose, degrees: float, px: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    count = len(truth.rotation)
    turn = degrees * DEGREE * torch.randn(count, 3, generator=generator) / 3**0.5
    return truth.rotation @ rotvec_to_rotation(turn), shifts_px(truth) + px * torch.randn(count, 2, generator=generator)


def test_likelihoods_are_those_of_white_noise() -> None:
    problem, truth, volume = small_problem(20)
    grid, images = problem.projector.to_grid(volume[None]), problem.images
    slices = problem.projector.project(grid, truth.rotation, images.ctf)[:, :, 0]
    centred = problem.moved(images.images, shifts_px(truth))
    weight = images.disk.weight
    expected = 0.5 * ((centred.abs().square() - (centred - slices).abs().square()) @ weight)
    torch.testing.assert_close(problem.log_likelihood(slices, centred), expected, rtol=1e-4, atol=1e-3)
    joint = problem.log_joint(grid, images, truth.rotation, shifts_px(truth))
    prior = -0.5 * shifts_px(truth).square().sum(dim=1) / SHIFT_PX**2
    torch.testing.assert_close(joint, expected + prior, rtol=1e-4, atol=1e-3)
    other = random_rotations(20, torch.Generator().manual_seed(8))
    assert bool((joint > problem.log_joint(grid, images, other, shifts_px(truth))).float().mean() > 0.9)


def test_steps_find_poses_and_never_lower_the_probability() -> None:
    problem, truth, volume = small_problem(60)
    grid = problem.projector.to_grid(volume[None])
    start = perturbed(truth, 12.0, 0.5)
    before = problem.log_joint(grid, problem.images, *start)
    none = problem.refined(grid, problem.images, *start, 0)
    torch.testing.assert_close(none[2], before)
    rotation, shift_px, value = problem.refined(grid, problem.images, *start, 4)
    assert bool((value >= before).all())
    torch.testing.assert_close(value, problem.log_joint(grid, problem.images, rotation, shift_px))
    error = angular_distance_deg(rotation, truth.rotation)
    assert float(error.median()) < 0.4 * float(angular_distance_deg(start[0], truth.rotation).median())
    assert float((shift_px - shifts_px(truth)).std()) < 0.5 * float((start[1] - shifts_px(truth)).std())


def test_the_prior_holds_shifts_where_images_say_nothing() -> None:
    problem, truth, volume = small_problem(20)
    grid = problem.projector.to_grid(0 * volume[None])
    _, shift_px, _ = problem.refined(grid, problem.images, truth.rotation, torch.full((20, 2), 3.0), 8)
    assert float(shift_px.abs().max()) < 0.1


def test_each_image_is_repeated_in_place() -> None:
    problem, _, _ = small_problem(3)
    twice = repeated(problem.images, 2)
    assert torch.equal(twice.images.view(3, 2, -1)[:, 1], problem.images.images)
    assert torch.equal(twice.ctf.view(3, 2, -1)[:, 0], problem.images.ctf)


def test_interpolation_is_linear_whatever_is_asked_for() -> None:
    problem, _, volume = small_problem(3)
    assert isinstance(problem, Problem) and problem.geometry.interpolation == "trilinear"
    problem.geometry.check_grid("grid", problem.projector.to_grid(volume[None]))
