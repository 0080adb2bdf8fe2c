"""The covariance by frequency marching: two independent half-sets first, then all images with the prior they agree on.

Both fits are iterators of small states: a caller can write each to disk and later go on from it, with the same result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band, change_box
from solvar_engine.estimation.model.expectation import contrast_variance_without_factors
from solvar_engine.estimation.solver.agreement import factor_fsc
from solvar_engine.estimation.solver.density import under_density
from solvar_engine.estimation.solver.epochs import Factors, random_factors, run_epoch
from solvar_engine.estimation.solver.fixed_point import FactorField, FactorSum
from solvar_engine.estimation.solver.gauge import align_halves, fix_gauge
from solvar_engine.estimation.solver.preconditioner import Preconditioner
from solvar_engine.estimation.solver.priors import (
    extend_shells,
    factor_precision,
    starting_precision,
    trusted_agreement,
)
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.estimation.solver.schedule import Unit
from solvar_engine.imaging.shells import coefficients_per_shell, radial_average
from solvar_engine.solvers.extrapolation import Squarem


@dataclass(frozen=True)
class HalfSetState:
    """Where the fit of the half-sets stands.

    Attributes
    ----------
    done : int
        Units of work finished.
    factors : tuple of two Factors
    correlation : Tensor, shape (r, shells)
        FSC of the aligned factors; empty before the first alignment.
    objective : tuple of two floats
        Mean of the objective per image in the last epoch.
    """

    done: int
    factors: tuple[Factors, Factors]
    correlation: Tensor
    objective: tuple[float, float]

    @property
    def contrast_variance(self) -> float:
        """That the half-sets found on average."""
        return sum(factors.contrast_variance for factors in self.factors) / 2


def fit_half_sets(
    problem: CovarianceProblem, state: HalfSetState | None = None, stop: int | None = None
) -> Iterator[HalfSetState]:
    """Fit the factors of both half-sets, yielding the state after every epoch.

    Parameters
    ----------
    problem : CovarianceProblem
    state : HalfSetState, optional
        Where to go on.
    stop : int, optional
        Unit of the schedule to stop before (default: go on to the end).

    Yields
    ------
    HalfSetState
        In the last one the halves are aligned and ``correlation`` covers all shells.
    """
    units = problem.schedule.units(problem.source.box_size)
    if state is None:
        state = _start(problem, *_half_set_band(problem, units[0].shell_max))
    shell_max = None
    for unit in units[state.done : stop]:
        if unit.shell_max != shell_max:
            shell_max = unit.shell_max
            band, preconditioner = _half_set_band(problem, shell_max)
        state = _advance(problem, band, preconditioner, unit, state)
        yield state


def _half_set_band(problem: CovarianceProblem, shell_max: int) -> tuple[Band, Preconditioner]:
    """A band, and what bounds the steps there of factors that half of the images are fitted with."""
    return problem.band(shell_max), problem.preconditioner(shell_max, 0.5)


def _start(problem: CovarianceProblem, band: Band, preconditioner: Preconditioner) -> HalfSetState:
    prior = starting_precision(band)
    first, second = problem.source.world.of_halves(
        lambda half: replace(
            random_factors(preconditioner, problem.rank, prior, problem.generator(0, half)),
            contrast_variance=contrast_variance_without_factors(problem.source, problem.halves[half], band),
        )
    )
    nothing = torch.zeros(problem.rank, 0, dtype=torch.float64, device=band.mean.device)
    return HalfSetState(0, (first, second), nothing, (0.0, 0.0))


def _advance(
    problem: CovarianceProblem, band: Band, preconditioner: Preconditioner, unit: Unit, state: HalfSetState
) -> HalfSetState:
    precision = _precision(band, preconditioner, state.correlation, problem.rank)
    results = problem.source.world.of_halves(
        lambda half: run_epoch(
            problem.source,
            problem.halves[half],
            band,
            preconditioner,
            replace(state.factors[half], volumes=change_box(state.factors[half].volumes, band.box_size)),
            precision,
            unit.epoch,
            problem.generator(1, half, state.done),
            problem.objective,
        )
    )
    state = HalfSetState(
        state.done + 1,
        (results[0][0], results[1][0]),
        state.correlation,
        (results[0][1], results[1][1]),
    )
    return _compare(state, band) if unit.ends_round else state


def _precision(band: Band, preconditioner: Preconditioner, correlation: Tensor, rank: int) -> Tensor:
    """Prior per factor and shell of a band: what the half-sets agreed on, and that of the start beyond it."""
    shells = (band.box_size - 1) // 2 + 1
    known = min(correlation.shape[1], shells)
    density = radial_average(preconditioner.density, band.box_size)[:known]
    unknown = extend_shells(starting_precision(band), shells)[known:]
    trusted = trusted_agreement(correlation[:, :known], coefficients_per_shell(band.box_size)[:known])
    return torch.cat((factor_precision(trusted, density), unknown.expand(rank, -1)), dim=1)


def _compare(state: HalfSetState, band: Band) -> HalfSetState:
    gauged = [fix_gauge(factors.volumes, factors.second_moment) for factors in state.factors]
    first, second = align_halves(*gauged)
    correlation = factor_fsc(first, second)[:, : band.shell_max + 1]
    identity = torch.eye(first.shape[0], dtype=torch.float64, device=first.device)
    factors = tuple(
        replace(old, volumes=volumes, second_moment=identity)
        for old, volumes in zip(state.factors, (first, second), strict=True)
    )
    return replace(state, factors=(factors[0], factors[1]), correlation=correlation)


@dataclass(frozen=True)
class FullSetState:
    """Where the fit of all images stands.

    Attributes
    ----------
    done : int
        Epochs finished, or iterations of SQUAREM.
    factors : Factors
    objective : float
        Mean per image in the last epoch; of SQUAREM at the factors, with the prior.
    """

    done: int
    factors: Factors
    objective: float


def fit_full_set(
    problem: CovarianceProblem, halves: HalfSetState, state: FullSetState | None = None
) -> Iterator[FullSetState]:
    """Fit all images, from the average of the aligned half-sets and with the prior that they agree on.

    Parameters
    ----------
    problem : CovarianceProblem
    halves : HalfSetState
        Finished.
    state : FullSetState, optional
        Where to go on.

    Yields
    ------
    FullSetState
        A finished one at once if the half-sets kept no component.
    """
    if not problem.rank:
        yield FullSetState(problem.schedule.full_steps, halves.factors[0], 0.0)
        return
    this, start = full_set_start(problem, halves)
    state = state or FullSetState(0, start, 0.0)
    if problem.schedule.accelerated:
        yield from _accelerate(this, state, problem.schedule.accelerated)
        return
    epochs = problem.schedule.full_epochs()
    for number in range(state.done, len(epochs)):
        factors, objective = run_epoch(
            this.source,
            this.index,
            this.band,
            this.preconditioner,
            state.factors,
            this.precision,
            epochs[number],
            problem.generator(2, number),
            this.objective,
        )
        state = FullSetState(number + 1, factors, objective)
        yield state


def _accelerate(this: FactorSum, state: FullSetState, iterations: int) -> Iterator[FullSetState]:
    """SQUAREM from where a state stands, which holds all that it needs to go on."""
    field = FactorField(this)
    solver = Squarem(field, state.factors.volumes.double().flatten())
    for number in range(state.done, iterations):
        solver.step()
        yield FullSetState(number + 1, field.factors, solver.value)


def full_set_start(problem: CovarianceProblem, halves: HalfSetState) -> tuple[FactorSum, Factors]:
    """What the fit of all images is about, and where it starts: the average of the aligned half-sets."""
    shell_max = problem.source.disk.shell_max
    band, preconditioner = problem.band(shell_max), problem.preconditioner(shell_max, 1.0)
    # The correlation is that of half-sets, so the signal is measured against the noise of one of them.
    of_half = problem.preconditioner(shell_max, 0.5)
    precision = _precision(band, of_half, halves.correlation, problem.rank)
    first, second = halves.factors
    average = 0.5 * (first.volumes + second.volumes)
    start = Factors(average, first.second_moment, halves.contrast_variance)
    index = torch.cat(problem.halves).sort().values
    objective = under_density(problem, band, index, start)
    band = replace(band, contrast_variance=halves.contrast_variance)
    return FactorSum(problem.source, index, band, preconditioner, precision, objective), start
