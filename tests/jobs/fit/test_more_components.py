"""More components are fitted where those that were tried leave variability unexplained."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from solvar_engine.distributed.world import ALONE
from solvar_engine.estimation.judging.components import Components, LatentBatch
from solvar_engine.estimation.judging.rank import RankDecision
from solvar_engine.estimation.model.mixture import GaussianMixture
from solvar_engine.jobs import run_fit
from solvar_engine.jobs.fit import rank as rank_stage
from solvar_engine.jobs.fit.plan import FitDemand
from solvar_engine.jobs.fit.results import _leading
from tests.reconstruction.simulated import noise

IMAGES = SimpleNamespace(largest_batch=None)


@dataclass(frozen=True)
class Job:
    tried_rank: int
    asked_rank: int | None = None
    particles: int = 10_000
    world = ALONE

    @property
    def inputs(self):
        return SimpleNamespace(stack=range(self.particles))


def decided(real: int, tried: int = 10, decoys: float = 5.0, gain: float = 200.0) -> RankDecision:
    numbers = torch.zeros(tried, dtype=torch.float64)
    none = numbers.expand(2, -1)
    return RankDecision(numbers, numbers, none + gain, none + decoys, torch.arange(tried) < real, (numbers, numbers))


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What there is, MB, in a list of one number."""
    free = [1000.0]
    demand = lambda job: FitDemand(1000, 32, job.tried_rank, 2, 1, 100)  # noqa: E731
    monkeypatch.setattr(rank_stage, "demand_of", demand)
    monkeypatch.setattr(rank_stage, "available_bytes", lambda: 1e6 * free[0])
    return free


@pytest.mark.parametrize(
    ("job", "decision", "more"),
    [
        (Job(10), decided(10), 20),
        (Job(10), decided(9), None),
        (Job(10), decided(8, decoys=31), 20),
        (Job(10), decided(7, decoys=31), None),  # something else is wrong with the noise
        (Job(10), decided(8, decoys=31, gain=400), None),  # and little with the components
        (Job(10, particles=300), decided(10), 15),
        (Job(10, particles=219), decided(10), None),
        (Job(10, asked_rank=10), decided(10), None),
        (Job(10, asked_rank=10), decided(10, decoys=31), 20),
        (Job(20, asked_rank=10), decided(18, 20, decoys=31), 40),
        (Job(40, asked_rank=10), decided(40, 40, decoys=31), None),
        (Job(10, asked_rank=3), decided(10, 10, decoys=31), 12),
        (Job(40), decided(40, 40), 80),
    ],
)
def test_twice_the_components_if_there_is_more_to_explain(job, decision, more, memory) -> None:
    larger = rank_stage.with_more_components(job, IMAGES, decision)
    assert (None if larger is None else larger.tried_rank) == more


def test_memory_sets_a_limit(memory) -> None:
    memory[0] = 0.1
    assert rank_stage.with_more_components(Job(10), IMAGES, decided(10)) is None


@pytest.mark.parametrize(("are_foreign", "tried"), [(False, [10, 20, 40]), (True, [10])])
def test_half_sets_are_fitted_until_there_is_nothing_more_to_find(are_foreign, tried, memory, monkeypatch) -> None:
    fitted: list[int] = []

    def fit_halves(job, images, masks, equations):
        fitted.append(job.tried_rank)
        return f"halves of {job.tried_rank}"

    monkeypatch.setattr(run_fit, "fit_halves", fit_halves)
    monkeypatch.setattr(run_fit, "have_foreign_poses", lambda job, halves: are_foreign)
    monkeypatch.setattr(run_fit, "decide_rank", lambda job, halves: decided(25, job.tried_rank))
    job, halves, decision = run_fit._fit_enough_components(Job(10), IMAGES, None, None)
    assert fitted == tried and halves == f"halves of {tried[-1]}"
    assert job.tried_rank == tried[-1] == len(decision.kept)


def test_leading_components_are_known_as_well_as_beside_the_others() -> None:
    root = noise(5, 4, 4, seed=1, dtype=torch.float64)
    precision = root @ root.mT + torch.eye(4, dtype=torch.float64)
    precision[2] = 0  # an image that cannot be used
    numbers = torch.arange(4.0, 0.0, -1.0, dtype=torch.float64)
    components = Components(noise(4, 6, 6, 6), numbers, numbers, numbers, numbers)
    z, ones = noise(5, 4), torch.ones(5)
    latents = LatentBatch(torch.arange(5), z, precision.float(), ones.double(), ones, ones)
    density = GaussianMixture(torch.ones(1), noise(1, 4), torch.eye(4)[None])
    few, known, mixture = _leading(2, components, latents, density)
    assert len(few.eigenvalues) == len(few.eigenvolumes) == 2 and torch.equal(known.z, z[:, :2])
    assert torch.equal(mixture.means, density.means[:, :2]) and mixture.covariances.shape == (1, 2, 2)
    usable = torch.tensor([0, 1, 3, 4])
    expected = torch.linalg.inv(torch.linalg.inv(precision[usable])[:, :2, :2])
    torch.testing.assert_close(known.precision[usable].double(), expected, rtol=1e-4, atol=1e-4)
    assert not known.precision[2].any()
    assert _leading(4, components, latents, density)[0] is components
