"""A round of refinement of simulated images: errors shrink, and uncertainty counts in the last one."""

from __future__ import annotations

import pytest
import torch

from solvar_engine.estimation.alternation import poses
from solvar_engine.estimation.alternation.poses import PoseRound, refine_round
from solvar_engine.estimation.model.objectives import OBJECTIVES
from solvar_engine.estimation.poses.schedules import POSE_SCHEDULES
from solvar_engine.estimation.poses.uncertainty import LEAST_SPREAD, PosePrior, PoseSpread
from solvar_engine.estimation.solver.epochs import Factors
from solvar_engine.estimation.solver.half_sets import HalfSetState
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.imaging.gauge import StatePosterior
from solvar_engine.imaging.rotation import angular_distance_deg, rotvec_to_rotation
from solvar_engine.imaging.types import Pose
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations
from tests.jobs.prepared import PIXEL_SIZE, particles_of
from tests.reconstruction.simulated import LinearPhantom, noise

BOX, IMAGES, RANK = 12, 80, 1
PHANTOM = LinearPhantom.create(RANK, strength=0.4, sigma=0.08).scaled(12.0)
HALVES = (torch.arange(0, IMAGES, 2), torch.arange(1, IMAGES, 2))
Z = noise(IMAGES, RANK)


class Round:
    """Poses after a round, and what the frame was found from, half by half."""

    def __init__(self, is_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.states: list[StatePosterior] = []
        find_frame = poses.in_frame_of

        def record(pose: Pose, given: Pose, states: StatePosterior) -> Pose:
            self.states.append(states)
            return find_frame(pose, given, states)

        monkeypatch.setattr(poses, "in_frame_of", record)
        centred = particles_of(PHANTOM, Z, BOX)
        self.truth = centred.pose.rotation
        turn = rotvec_to_rotation(0.08 * noise(IMAGES, 3, seed=4)).float()
        self.given = given = Pose(self.truth @ turn, 0.5 * PIXEL_SIZE * noise(IMAGES, 2, seed=5))
        source = centred.with_pose(given)
        mean, everyone = PHANTOM.mean(BOX), torch.arange(IMAGES)
        problem = CovarianceProblem(
            source,
            HALVES,
            mean,
            torch.ones(BOX, BOX, BOX),
            accumulate_normal_equations(source, everyone).density(),
            RANK,
            0,
            SliceOptions(),
            OBJECTIVES["ml"],
        )
        identity = torch.eye(RANK, dtype=torch.float64)
        factors = Factors(PHANTOM.factors(BOX), identity)
        state = HalfSetState(1, (factors, factors), torch.zeros(RANK, 0, dtype=torch.float64), (0.0, 0.0))
        prior = PosePrior.about(given, given, PIXEL_SIZE, LEAST_SPREAD.at_least(PoseSpread(0.08, 0.5)))
        this = PoseRound(source, HALVES, given, prior, POSE_SCHEDULES["newton"], is_last)
        self.pose, _ = refine_round(this, problem, (mean, mean), state, lambda share: None)


def test_only_the_last_round_counts_how_uncertain_states_are(monkeypatch) -> None:
    """Before, volumes are fitted anew, and the longer step of certain states brings them there faster."""
    with monkeypatch.context() as patch:
        early = Round(False, patch)
    last = Round(True, monkeypatch)
    for first, second in zip(early.states, last.states, strict=True):
        assert not first.covariance.any() and not first.with_turn.any() and not first.with_shift.any()
        assert float(second.covariance.mean()) > 1e-4 and second.with_turn.any() and second.with_shift.any()
        torch.testing.assert_close(first.mean, second.mean)


def test_errors_of_both_halves_shrink(monkeypatch) -> None:
    found = Round(False, monkeypatch)
    for index in HALVES:
        before, after = (
            float(angular_distance_deg(rotation[index], found.truth[index]).mean())
            for rotation in (found.given.rotation, found.pose.rotation)
        )
        assert after < 0.8 * before
        # images are centred as they are
        start, end = (float(pose.shift[index].norm(dim=1).mean()) for pose in (found.given, found.pose))
        assert end < 0.9 * start
