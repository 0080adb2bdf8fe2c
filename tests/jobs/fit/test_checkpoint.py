"""States come back from a checkpoint as they were."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.estimation.alternation.state import AlternationState, JudgedImages, PoseGain
from solvar_engine.estimation.judging.rank import RankDecision
from solvar_engine.estimation.poses.uncertainty import PoseSpread
from solvar_engine.estimation.solver.epochs import Factors
from solvar_engine.estimation.solver.half_sets import FullSetState, HalfSetState
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.fit.checkpoint import Checkpoint
from tests.reconstruction.simulated import noise


def factors(seed: int, rank: int = 2) -> Factors:
    return Factors(noise(rank, 4, 4, 4, seed=seed), noise(rank, rank, seed=seed, dtype=torch.float64), 0.1 / (1 + seed))


HALVES = HalfSetState(3, (factors(0), factors(1)), torch.zeros(2, 0, dtype=torch.float64), (1 / 3, -2e300))
STATES = {
    "nothing yet": AlternationState(),
    "some": AlternationState(factors=HALVES, rough_spread=PoseSpread(0.1, 1 / 3)),
    "all": AlternationState(
        rounds=1,
        pose_rounds=2,
        factors=HALVES,
        rough_spread=PoseSpread(0.1, 2.0),
        spread=PoseSpread(0.05, 1.0),
        pose=Pose(noise(5, 3, 3), noise(5, 2)),
        pose_gain=(PoseGain(1.5, 0.25), PoseGain(2.5, 0.0)),
        judged=JudgedImages(noise(1, 3), noise(5) > 0, noise(5), 0.0),
    ),
    "full": FullSetState(2, factors(2), 7.25),
    "no component": FullSetState(3, factors(2, rank=0), 0.0),
    "rank": RankDecision(
        noise(2), noise(2), noise(2, 2), noise(2, 2), noise(2) > 0, (noise(2, 2), noise(2, 2, seed=1))
    ),
}


def assert_same(found: object, expected: object) -> None:
    assert type(found) is type(expected)
    if is_dataclass(expected):
        for field in fields(expected):
            assert_same(getattr(found, field.name), getattr(expected, field.name))
    elif isinstance(expected, tuple):
        assert isinstance(found, tuple) and len(found) == len(expected)
        for parts in zip(found, expected, strict=True):
            assert_same(*parts)
    elif isinstance(expected, Tensor):
        assert isinstance(found, Tensor) and found.dtype == expected.dtype and torch.equal(found, expected)
    else:
        assert found == expected


@pytest.mark.parametrize("name", STATES)
def test_a_state_comes_back_to_the_bit(name: str, tmp_path) -> None:
    state = STATES[name]
    Checkpoint(tmp_path).save("state", state)
    assert_same(Checkpoint(tmp_path).load("state", type(state)), state)


def test_what_was_never_saved_is_none_and_what_was_is_replaced(tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path / "folder")
    assert checkpoint.load("state", AlternationState) is None
    checkpoint.save("state", STATES["all"])
    checkpoint.save("state", STATES["some"])
    assert_same(checkpoint.load("state", AlternationState), STATES["some"])
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["state.npz"]


def test_the_file_of_another_version_is_refused_in_one_sentence(tmp_path) -> None:
    np.savez(tmp_path / "full.npz", done=np.asarray(1), volumes=np.zeros((1, 2, 2, 2)))
    with pytest.raises(UserError, match=r"full\.npz was written by another version, it has no factors\.volumes"):
        Checkpoint(tmp_path).load("full", FullSetState)


def test_what_would_need_a_pickle_is_not_saved(tmp_path) -> None:
    @dataclass(frozen=True)
    class Named:
        name: object

    with pytest.raises(TypeError, match="name is a list"):
        Checkpoint(tmp_path).save("state", Named([1, 2]))
    assert list(tmp_path.iterdir()) == []
