"""What processes tell each other: sums, rows, and what the first one has."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from solvar_engine.data.stream import PreparedParticles
from solvar_engine.distributed.world import ALONE, Share, Team, World
from solvar_engine.estimation.alternation.images import find_junk, judge_images
from solvar_engine.estimation.judging.components import measure_components
from solvar_engine.estimation.judging.given_poses import pose_evidence
from solvar_engine.estimation.judging.grey_scales import find_grey_scales
from solvar_engine.estimation.judging.low_band import scale_evidence
from solvar_engine.estimation.judging.rank import judge_components
from solvar_engine.estimation.model.mixture_choice import choose_mixture
from solvar_engine.estimation.model.statistics import Statistics
from solvar_engine.estimation.solver.half_sets import fit_half_sets
from tests.test_devices import FIRST, IMAGES, SECOND, Place, numbers, particles_of

HERE = Place(torch.device("cpu"))
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class State:
    volume: Tensor
    number: float
    flags: tuple[bool, int, None]


def state_of(rank: int) -> State:
    return State(torch.full((2, 2), float(rank + 1)), 0.1 + rank, (rank == 0, 7 + rank, None))


def talk(world: World) -> None:
    """Say everything that can be said; run in each of three processes."""
    rank = world.rank
    total, count = world.total(torch.full((3,), rank + 1.0), torch.tensor(rank))
    assert total.tolist() == [6.0] * 3 and int(count) == 3
    rows = world.gathered(torch.full((rank, 2), float(rank)))
    assert rows.tolist() == [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]
    assert world.gathered(torch.zeros(0, 2)).shape == (0, 2)
    assert world.entries({rank: f'a "fault"\nof {rank}'} if rank else {}) == {r: f'a "fault"\nof {r}' for r in (1, 2)}
    agreed, expected = world.agreed(state_of(rank)), state_of(0)
    assert torch.equal(agreed.volume, expected.volume)
    assert (agreed.number, agreed.flags) == (expected.number, expected.flags)
    arrays = {"a": np.arange(6.0).reshape(2, 3), "none": np.zeros((3, 0), np.float32), "flag": np.array(True)}
    found = world.arrays_of_first(arrays if world.is_first else None)
    assert found is not None and found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert world.arrays_of_first(None) is None


def halve(world: World) -> None:
    """Work on each half-set with its team alone; run in each of four processes."""
    team = world.rank // 2

    def work(half: int) -> tuple[State, Tensor, Tensor]:
        assert half == team
        (total,) = world.total(torch.tensor([world.rank]))
        nested = world.of_halves(lambda inner: torch.tensor(10 * half + inner))
        rows = world.gathered(torch.full((world.rank, 1), float(world.rank)))
        return world.agreed(state_of(world.rank)), torch.cat((total, torch.stack(nested))), rows

    for half, (state, numbers_of_half, rows) in enumerate(world.of_halves(work)):
        expected = state_of(2 * half)
        assert torch.equal(state.volume, expected.volume)
        assert (state.number, state.flags) == (expected.number, expected.flags)
        assert numbers_of_half.tolist() == [(1, 5)[half], 10 * half, 10 * half + 1]
        assert rows.flatten().tolist() == ([1.0], [2.0] * 2 + [3.0] * 3)[half]
    assert int(world.total(torch.tensor(1))[0]) == 4


def judge(world: World) -> None:
    """Judge images together, and compare with what one process finds; run in each of several processes."""
    whole = particles_of(HERE, IMAGES).with_grey_scale(1 - 3.0 * (torch.arange(IMAGES) % 5 == 4))
    share = Share.of(world, IMAGES, (FIRST, SECOND))
    part = replace(whole, coefficients=whole.coefficients[share.rows], share=share)
    assert 0 < len(share.rows) < IMAGES
    found = dict(numbers(judgement(part)))
    values = [torch.as_tensor(value) for value in found.values() if value is not None]
    everything = torch.cat([value.double().flatten() for value in values])
    assert bool((world.gathered(everything[None]) == everything).all())  # the same in each of them
    if world.is_first:
        expected = dict(numbers(judgement(whole)))
        assert found.keys() == expected.keys()
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=name)


def two_states() -> Statistics:
    """Of images that know well where they are: at -1 or 1."""
    places = torch.linspace(-0.2, 0.2, 201, dtype=torch.float64) + torch.tensor([-1.0, -1.0, 1.0, 1.0]).repeat(51)[:201]
    return Statistics(torch.full((201, 1, 1), 100.0), 100 * places[:, None], torch.zeros(201))


def judgement(source: PreparedParticles) -> Any:
    """What is found of images before and after factors are fitted."""
    halves, problem = (FIRST, SECOND), replace(HERE.problem, source=source)
    return (
        find_grey_scales(source, halves, torch.arange(IMAGES) % 3 // 2, HERE.options),
        scale_evidence(source, FIRST, source.disk, HERE.mean, HERE.options),
        pose_evidence(source, halves, (HERE.mean, 1.1 * HERE.mean), HERE.options, 0),
        find_junk(source, halves, problem, torch.arange(IMAGES) < 3).long(),
        judge_images(source, halves, problem, HERE.state),
        judge_components(problem, HERE.state).gains,
        measure_components(problem, HERE.state, HERE.state.factors[0]).eigenvalues,
        next(iter(fit_half_sets(problem))).factors[0].volumes,
        choose_mixture(two_states(), torch.Generator().manual_seed(0), source.world),
    )


@pytest.mark.parametrize(("size", "say"), [(3, "talk"), (4, "halve")])
def test_processes_hear_the_same(size: int, say: str) -> None:
    program = f"from tests.test_distributed import judge, {say}\nfrom solvar_engine.distributed.join import joined\n"
    program += f"with joined() as world:\n    {say}(world)\n    judge(world)"
    with subprocess.Popen(["true"]) as process:
        port = 20_000 + process.pid % 20_000
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    shared |= {"OMP_NUM_THREADS": "1"}  # more would wait for each other, busily
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **shared, "RANK": str(rank), "PYTHONPATH": str(ROOT)},
        )
        for rank in range(size)
    ]  # fmt: skip
    for process in started:
        error = process.communicate(timeout=120)[1]
        assert process.returncode == 0, error


def test_every_image_of_every_half_has_one_owner() -> None:
    halves = torch.arange(0, 101, 2), torch.arange(1, 101, 2)
    shares = [Share.of(World(rank, 3), 101, halves) for rank in range(3)]
    assert torch.cat([share.rows for share in shares]).sort().values.tolist() == list(range(101))
    for half in halves:
        counts = [len(share.own(half)) for share in shares]
        assert sum(counts) == len(half) and max(counts) - min(counts) <= 1
    teams = [Share.of(World(rank, 4, team=Team(rank // 2, None)), 101, halves) for rank in range(4)]
    assert torch.cat([share.rows for share in teams]).sort().values.tolist() == list(range(101))
    for rank, share in enumerate(teams):
        assert abs(len(share.own(halves[rank // 2])) - 25) <= 1 and not len(share.own(halves[1 - rank // 2]))
    index = torch.tensor([100, 3, 57, 2])
    for share in shares:
        own = share.own(index)
        assert own.tolist() == [row for row in index.tolist() if row in share.rows.tolist()]
        assert torch.equal(share.rows[share.places(own)], own)


def test_alone_nothing_is_copied() -> None:
    table = torch.ones(3)
    assert ALONE.total(table)[0] is table and ALONE.gathered(table) is table and ALONE.agreed(table) is table
    assert Share.of(ALONE, 3).own(table) is table
