"""The density of the particles guides the last epochs where it is more than one Gaussian."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.model.objectives import OBJECTIVES, MixtureLikelihood, Objective
from solvar_engine.estimation.solver.density import under_density
from solvar_engine.estimation.solver.epochs import Factors
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.projectors.options import SliceOptions
from tests.reconstruction.simulated import LinearPhantom, simulate

BOX, COUNT = 12, 600
PHANTOM = LinearPhantom.create(2, sigma=0.08).scaled(4.0)
STATES = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


def chosen(objective: str, states: Tensor | None = None) -> tuple[Objective, CovarianceProblem]:
    """The objective for true factors, with one more that is dead before them."""
    source = simulate(PHANTOM, COUNT, BOX, states=states).source
    halves = (source.everyone[::2], source.everyone[1::2])
    ones = torch.ones(BOX, BOX, BOX)
    problem = CovarianceProblem(
        source, halves, PHANTOM.mean(BOX), ones, ones[..., :7], 3, 0, SliceOptions(), OBJECTIVES[objective]
    )
    volumes = torch.cat((torch.zeros(1, BOX, BOX, BOX), PHANTOM.factors(BOX)))
    factors = Factors(volumes, torch.eye(3, dtype=torch.float64))
    return under_density(problem, problem.full_band(), source.everyone, factors), problem


def test_states_make_a_mixture_in_which_dead_factors_are_as_before() -> None:
    found, _ = chosen("ml", STATES)
    assert isinstance(found, MixtureLikelihood)
    mixture = found.mixture
    assert len(mixture) >= 4
    centres = mixture.means[mixture.weights > 0.05, 1:]
    assert float(torch.cdist(STATES.double(), centres).min(dim=1).values.max()) < 0.3
    assert not mixture.means[:, 0].any()
    expected = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(len(mixture.covariances), -1)
    assert torch.equal(mixture.covariances[:, 0], expected)


@pytest.mark.parametrize(("objective", "states"), [("ml", None), ("ls", STATES)])
def test_one_gaussian_and_least_squares_stay_as_they_are(objective: str, states: Tensor | None) -> None:
    found, problem = chosen(objective, states)
    assert found is problem.objective


def test_factors_that_hold_nothing_have_no_density() -> None:
    _, problem = chosen("ls")
    problem = replace(problem, objective=OBJECTIVES["ml"])
    nothing = Factors(torch.zeros(2, BOX, BOX, BOX), torch.eye(2, dtype=torch.float64))
    assert under_density(problem, problem.full_band(), problem.source.everyone, nothing) is problem.objective
