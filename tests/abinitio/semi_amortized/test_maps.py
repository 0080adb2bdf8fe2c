from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.abinitio.semi_amortized.maps import HartleyMap, ImprovableMap, RunningMap
from solvar_engine.abinitio.semi_amortized.problem import Problem
from solvar_engine.imaging.types import Pose
from tests.abinitio.semi_amortized.small import shifts_px, small_problem


def correlation(first: Tensor, second: Tensor) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float((first * second).sum() / (first.norm() * second.norm()))


def improved(model: ImprovableMap, problem: Problem, truth: Pose, times: int) -> ImprovableMap:
    """By the true poses of all images, beside a wrong one of no weight."""
    rotation = torch.stack((truth.rotation, truth.rotation.flip(0)), dim=1)
    shift_px = torch.stack((shifts_px(truth), shifts_px(truth).flip(0)), dim=1)
    for _ in range(times):
        model.improve(problem.images, rotation, shift_px, torch.tensor([1.0, 0.0]).expand(len(rotation), 2))
    return model


def test_equations_give_the_map_of_the_poses() -> None:
    problem, truth, volume = small_problem(300)
    model = improved(RunningMap(problem, torch.zeros_like(volume), 0.3), problem, truth, 1)
    found = model.volume()
    assert correlation(found, volume) > 0.95 and float(found.min()) == 0
    assert float(found.norm() / volume.norm()) == pytest.approx(1, abs=0.2)
    again = improved(model, problem, truth, 1).volume()
    torch.testing.assert_close(again, found, rtol=1e-3, atol=1e-3 * float(found.max()))
    torch.testing.assert_close(model.grid(), problem.projector.to_grid(again[None]))


def test_weights_of_poses_count() -> None:
    problem, truth, volume = small_problem(100)
    alone = improved(RunningMap(problem, volume, 0.3), problem, truth, 1).volume()
    halved = RunningMap(problem, volume, 0.3)
    twice = truth.rotation[:, None].expand(-1, 2, -1, -1), shifts_px(truth)[:, None].expand(-1, 2, -1)
    halved.improve(problem.images, *twice, torch.full((100, 2), 0.5))
    torch.testing.assert_close(halved.volume(), alone, rtol=1e-3, atol=1e-3 * float(alone.max()))


def test_descent_on_hartley_numbers_raises_the_likelihood_to_that_of_the_map() -> None:
    problem, truth, volume = small_problem(200)
    model = HartleyMap(problem, 0.3 * volume, 0.05)
    place = truth.rotation, shifts_px(truth)

    def likelihood(grid: Tensor) -> float:
        return float(problem.log_joint(grid, problem.images, *place).mean())

    before, best = likelihood(model.grid()), likelihood(problem.projector.to_grid(volume[None]))
    assert correlation(model.volume(), volume) > 0.9
    improved(model, problem, truth, 30)
    assert likelihood(model.grid()) > before + 0.8 * (best - before)
