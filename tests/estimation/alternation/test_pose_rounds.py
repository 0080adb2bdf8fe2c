"""A round of refinement: poses of each half-set are brought back to the frame of the given ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.distributed.world import ALONE, World
from solvar_engine.estimation.alternation.poses import PoseRound, refine_round
from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.objectives import OBJECTIVES
from solvar_engine.estimation.poses.refinement import RefinedPoses
from solvar_engine.estimation.poses.uncertainty import PosePrior
from solvar_engine.estimation.solver.epochs import Factors
from solvar_engine.estimation.solver.half_sets import HalfSetState
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.imaging.fourier import HalfDisk, low_pass
from solvar_engine.imaging.rotation import random_rotations, rotvec_to_rotation
from solvar_engine.imaging.types import BatchSource, Pose
from solvar_engine.projectors.options import SliceOptions
from tests.reconstruction.simulated import noise

BOX, COUNT, RANK, PIXEL_SIZE = 12, 40, 2, 2.0
HALVES = (torch.arange(0, COUNT, 2), torch.arange(1, COUNT, 2))
GIVEN = Pose(random_rotations(COUNT, torch.Generator().manual_seed(0)), 3 * noise(COUNT, 2))
Z, CONTRAST = noise(COUNT, RANK, seed=1).double(), noise(COUNT, 1, seed=2).double()
DRIFT = 0.02 * noise(RANK, 3, seed=3).double()  # radians per unit of each coordinate, frame of the volume


@dataclass(frozen=True)
class Posed:
    """All that a round asks of a source whose images are not looked at."""

    pose: Pose = GIVEN
    box_size: int = BOX
    pixel_size: float = PIXEL_SIZE
    disk: HalfDisk = HalfDisk.create(BOX)
    world: World = ALONE

    def __len__(self) -> int:
        return COUNT


@dataclass
class Drifting:
    """Finds poses that turn with the state, and remembers under which volumes it was asked to look."""

    has_prior: bool = True

    def __post_init__(self) -> None:
        self.asked: list[tuple[Tensor, Band, Tensor]] = []

    def refine(
        self, source: BatchSource, index: Tensor, band: Band, factors: Tensor, prior: PosePrior
    ) -> Iterator[RefinedPoses]:
        self.asked.append((index, band, factors))
        for rows in index.split(7):
            turned = rotvec_to_rotation(Z[rows] @ DRIFT) @ GIVEN.rotation[rows].double()
            size, width = len(rows), RANK + 1
            yield RefinedPoses(
                rows,
                turned.float(),
                torch.zeros(size, 2),
                torch.full((size,), 5.0, dtype=torch.float64),
                torch.full((size,), 3.0, dtype=torch.float64),
                torch.cat((Z[rows], CONTRAST[rows]), dim=1),
                torch.zeros(size, width, width, dtype=torch.float64),
                torch.zeros(size, 5, width, dtype=torch.float64),
            )


def run(schedule: Drifting):
    nothing = torch.zeros(BOX, BOX, BOX)
    problem = CovarianceProblem(
        Posed(), HALVES, nothing, nothing, torch.ones(BOX, BOX, BOX // 2 + 1), RANK, 0, SliceOptions(),
        OBJECTIVES["ml"],
    )  # fmt: skip
    first, second = (
        Factors(noise(RANK, BOX, BOX, BOX, seed=seed), torch.eye(RANK, dtype=torch.float64), 0.01 * seed)
        for seed in (4, 5)
    )
    state = HalfSetState(1, (first, second), torch.zeros(RANK, 0), (0.0, 0.0))
    shares: list[float] = []
    this = PoseRound(Posed(), HALVES, GIVEN, PosePrior.none(COUNT), schedule, is_last=False)
    means = (noise(BOX, BOX, BOX, seed=6), noise(BOX, BOX, BOX, seed=7))
    return *refine_round(this, problem, means, state, shares.append), shares, means, state


def test_what_turns_with_the_state_is_no_error_of_poses() -> None:
    """The frame follows z, not the contrast that stands beside it."""
    pose, gains, shares, _, _ = run(Drifting())
    assert float((pose.rotation - GIVEN.rotation).norm(dim=(1, 2)).max()) < 2e-3
    torch.testing.assert_close(pose.shift, GIVEN.shift, rtol=0, atol=1e-4)
    assert [(of.objective, of.gain) for of in gains] == [(3.0, 2.0)] * 2
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) == 6


def test_each_half_is_refined_under_its_own_volumes() -> None:
    schedule = Drifting()
    *_, means, state = run(schedule)
    for half, (index, band, factors) in enumerate(schedule.asked):
        assert torch.equal(index, HALVES[half])
        assert torch.equal(factors, state.factors[half].volumes)
        assert band.contrast_variance == state.factors[half].contrast_variance
        torch.testing.assert_close(band.mean, low_pass(means[half], band.shell_max))
