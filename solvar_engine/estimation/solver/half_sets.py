"""The covariance by frequency marching: two independent half-sets first, then all images with the prior they agree on.

Both fits are iterators of small states: a caller can write each to disk and later go on from it, with the same result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band, change_box, make_band, marching_shells
from solvar_engine.estimation.model.expectation import contrast_variance_without_factors
from solvar_engine.estimation.model.objectives import Objective
from solvar_engine.estimation.poses.errors import PoseErrors
from solvar_engine.estimation.solver.epochs import Epoch, Factors, epochs_of, random_factors, run_epoch
from solvar_engine.estimation.solver.regularization import (
    align_halves,
    component_fsc,
    component_precision,
    extend_shells,
    fix_gauge,
)
from solvar_engine.imaging.fourier import volume_to_ft
from solvar_engine.imaging.shells import radial_average
from solvar_engine.imaging.types import BatchSource
from solvar_engine.projectors.options import SliceOptions

# Rounds of epochs (mini-batches x step); after each round the half-sets are aligned and the prior is renewed.
_FIRST_BAND = ("8x0.7 8x0.7 8x0.5", "4x0.7 4x0.5 2x0.7")
_MIDDLE_BAND = ("4x0.7 2x0.7",)
_LAST_BAND = ("4x0.6 2x0.7", "1x1")
_FULL_SET = "4x0.5 2x0.7 1x1"

_GUESS_DECAY = 2.0  # of the half-set correlation beyond the band where it was measured
_START_SHARE = 0.05  # variance of random starting factors, as a share of the mean's spectrum


@dataclass(frozen=True)
class CovarianceProblem:
    """Everything that stays fixed while the factors are fitted.

    Attributes
    ----------
    source : BatchSource
    halves : tuple of two Tensors, int64
        Particles of each half-set.
    mean : Tensor, shape (z, y, x)
        Masked, by a mask of its own if the factors live in a part of it only.
    mask : Tensor, shape (z, y, x)
        Of the factors.
    density : Tensor, shape (z, y, x // 2 + 1)
        D(k) of all images.
    rank : int
    seed : int
    options : SliceOptions
    objective : Objective
    contrast_variance : float
        Of the relative error of the images' contrasts, where no fit has its own.
    pose_errors : PoseErrors
        Of the source's poses, marginalised in passes over images.
    """

    source: BatchSource
    halves: tuple[Tensor, Tensor]
    mean: Tensor
    mask: Tensor
    density: Tensor
    rank: int
    seed: int
    options: SliceOptions
    objective: Objective
    contrast_variance: float = 0.0
    pose_errors: PoseErrors = PoseErrors()

    def band(self, shell_max: int, share: float) -> Band:
        """Cut to a band; ``share`` of all images count for its density."""
        band = make_band(
            shell_max, self.source.disk, self.mean, self.mask, self.density * share, self.options
        )
        return replace(
            band,
            contrast_variance=self.contrast_variance,
            nuisance=self.pose_errors.spread.factors(band.mean, self.source.box_size),
            nuisance_mean=self.pose_errors.expected,
        )

    def first_band(self, share: float) -> Band:
        """The band that marching begins with."""
        return self.band(half_set_units(self.source.box_size)[0].shell_max, share)

    def generator(self, *purpose: int) -> torch.Generator:
        """Independent random numbers per purpose, the same again after a restart."""
        seed = np.random.SeedSequence([self.seed, *purpose]).generate_state(1)[0]
        return torch.Generator().manual_seed(int(seed))


@dataclass(frozen=True)
class HalfSetState:
    """Where the fit of the half-sets stands.

    Attributes
    ----------
    done : int
        Units of work finished.
    factors : tuple of two Factors
    correlation : Tensor, shape (r, shells)
        FSC of the aligned components; empty before the first alignment.
    objective : tuple of two floats
        Mean of the objective per image in the last epoch.
    """

    done: int
    factors: tuple[Factors, Factors]
    correlation: Tensor
    objective: tuple[float, float]


@dataclass(frozen=True)
class Unit:
    """One epoch of both half-sets, and whether the halves are compared after it."""

    shell_max: int
    epoch: Epoch
    ends_round: bool


def half_set_units(box_size: int) -> list[Unit]:
    """All epochs of the half-set fit, band by band."""
    shells = marching_shells(box_size)
    units = []
    for number, shell_max in enumerate(shells):
        rounds: tuple[str, ...] = _MIDDLE_BAND
        if number == len(shells) - 1:
            rounds = _LAST_BAND
        if number == 0:
            rounds = _FIRST_BAND if len(shells) > 1 else _FIRST_BAND + _LAST_BAND
        for schedule in rounds:
            epochs = list(epochs_of(schedule))
            units += [Unit(shell_max, epoch, epoch is epochs[-1]) for epoch in epochs]
    return units


def first_round_units(box_size: int) -> int:
    """Number of units until the halves are compared for the first time."""
    return next(number for number, unit in enumerate(half_set_units(box_size), start=1) if unit.ends_round)


def band_ends(box_size: int) -> list[int]:
    """Number of units after which each band is done.

    After the first, the noise can be measured again.
    """
    shells = [unit.shell_max for unit in half_set_units(box_size)]
    return [number for number in range(1, len(shells) + 1) if shells[number : number + 1] != [shells[number - 1]]]


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
        Unit to stop before (default: go on to the end).

    Yields
    ------
    HalfSetState
        In the last one the halves are aligned and ``correlation`` covers all shells.
    """
    units = half_set_units(problem.source.box_size)
    band: Band | None = None
    if state is None:
        state = _start(problem, problem.band(units[0].shell_max, 0.5))
    for number in range(state.done, len(units) if stop is None else stop):
        unit = units[number]
        if band is None or band.shell_max != unit.shell_max:
            band = problem.band(unit.shell_max, 0.5)
        state = _advance(problem, band, unit, state)
        yield state


def _start(problem: CovarianceProblem, band: Band) -> HalfSetState:
    prior = starting_precision(band)
    first, second = (
        replace(
            random_factors(band, problem.rank, prior, problem.generator(0, half)),
            contrast_variance=contrast_variance_without_factors(problem.source, index, band),
        )
        for half, index in enumerate(problem.halves)
    )
    nothing = torch.zeros(problem.rank, 0, dtype=torch.float64, device=band.mean.device)
    return HalfSetState(0, (first, second), nothing, (0.0, 0.0))


def starting_precision(band: Band) -> Tensor:
    """Prior of factors that nothing is known of: a share of the mean's spectrum, shape (shells,)."""
    power = radial_average(volume_to_ft(band.mean).abs() ** 2, band.box_size) / band.box_size
    power = power[: band.shell_max + 1]
    return 1.0 / (_START_SHARE * power).clamp_min(1e-6 * float(power.max()))


def _advance(problem: CovarianceProblem, band: Band, unit: Unit, state: HalfSetState) -> HalfSetState:
    precision = _precision(band, state.correlation, problem.rank)
    results = [
        run_epoch(
            problem.source,
            index,
            band,
            replace(factors, volumes=change_box(factors.volumes, band.box_size)),
            precision,
            unit.epoch,
            problem.generator(1, half, state.done),
            problem.objective,
        )
        for half, (index, factors) in enumerate(zip(problem.halves, state.factors, strict=True))
    ]
    state = HalfSetState(
        state.done + 1,
        (results[0][0], results[1][0]),
        state.correlation,
        (results[0][1], results[1][1]),
    )
    return _compare(state, band) if unit.ends_round else state


def _precision(band: Band, correlation: Tensor, rank: int) -> Tensor:
    """Prior per component and shell of a band, from what the half-sets agreed on so far."""
    shells = (band.box_size - 1) // 2 + 1
    if correlation.shape[1] == 0:
        return extend_shells(starting_precision(band), shells).expand(rank, -1)
    density = radial_average(band.density, band.box_size)
    density = extend_shells(density[: band.shell_max + 1], shells)
    return component_precision(extend_shells(correlation, shells, decay=_GUESS_DECAY), density)


def _compare(state: HalfSetState, band: Band) -> HalfSetState:
    gauged = [fix_gauge(factors.volumes, factors.second_moment) for factors in state.factors]
    first, second = align_halves(*gauged)
    correlation = component_fsc(first, second)[:, : band.shell_max + 1]
    identity = torch.eye(first.shape[0], dtype=torch.float64, device=first.device)
    factors = tuple(
        replace(old, volumes=volumes, second_moment=identity)
        for old, volumes in zip(state.factors, (first, second), strict=True)
    )
    return replace(state, factors=(factors[0], factors[1]), correlation=correlation)


@dataclass(frozen=True)
class FullSetState:
    """Where the fit of all images stands."""

    done: int
    factors: Factors
    objective: float


def full_set_epochs() -> list[Epoch]:
    """All epochs of the fit of all images."""
    return list(epochs_of(_FULL_SET))


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
        yield FullSetState(len(full_set_epochs()), halves.factors[0], 0.0)
        return
    shell_max = problem.source.disk.shell_max
    band = problem.band(shell_max, 1.0)
    precision = _precision(problem.band(shell_max, 0.5), halves.correlation, problem.rank)
    if state is None:
        first, second = halves.factors
        average = 0.5 * (first.volumes + second.volumes)
        variance = 0.5 * (first.contrast_variance + second.contrast_variance)
        state = FullSetState(0, Factors(average, first.second_moment, variance), 0.0)
    index = torch.cat(problem.halves).sort().values
    epochs = full_set_epochs()
    for number in range(state.done, len(epochs)):
        factors, objective = run_epoch(
            problem.source,
            index,
            band,
            state.factors,
            precision,
            epochs[number],
            problem.generator(2, number),
            problem.objective,
        )
        state = FullSetState(number + 1, factors, objective)
        yield state
