"""The whole covariance fit of either objective, by frequency marching, on a problem of two motions and two bands."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.judging.components import Components, measure_components
from solvar_engine.estimation.model.expectation import expectation_pass
from solvar_engine.estimation.model.objectives import OBJECTIVES
from solvar_engine.estimation.model.penalties import WeightedPrior
from solvar_engine.estimation.solver import half_sets as covariance
from solvar_engine.estimation.solver.epochs import Factors, run_epoch
from solvar_engine.estimation.solver.fixed_point import FactorField
from solvar_engine.estimation.solver.half_sets import (
    FullSetState,
    HalfSetState,
    fit_full_set,
    fit_half_sets,
    full_set_start,
)
from solvar_engine.estimation.solver.priors import starting_precision
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.estimation.solver.schedule import Epoch, Schedule
from solvar_engine.imaging.fourier import ft_to_volume, low_pass, volume_to_ft
from solvar_engine.imaging.linear_algebra import inner_products
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.imaging.shells import radial_average, shell_count, shells_to_volume
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations
from tests.estimation.problems import principal_cosines
from tests.reconstruction.simulated import LinearPhantom, relative_error, simulate

BOX, IMAGES, RANK = 24, 1200, 3
PHANTOM = LinearPhantom.create(2, sigma=0.05).scaled(4.0)
SCHEDULE = Schedule()
BAND_ENDS = SCHEDULE.band_ends(BOX)


@dataclass(frozen=True)
class Fit:
    """A problem with all states on the way to its solution, one factor more than there are motions."""

    problem: CovarianceProblem
    halves: list[HalfSetState]
    full: list[FullSetState]
    components: Components
    truth: Tensor


def make_problem(objective: str = "ml") -> CovarianceProblem:
    source = simulate(PHANTOM, IMAGES, BOX).source
    mask = sphere_mask(BOX, 8.0)
    density = accumulate_normal_equations(source, source.everyone).density()
    halves = (source.everyone[::2], source.everyone[1::2])
    mean = PHANTOM.mean(BOX) * mask
    return CovarianceProblem(
        source, halves, mean, mask, density, RANK, 0, SliceOptions(), OBJECTIVES[objective]
    )


@pytest.fixture(scope="module", params=list(OBJECTIVES))
def fit(request) -> Fit:
    problem = make_problem(request.param)
    halves = list(fit_half_sets(problem))
    full = list(fit_full_set(problem, halves[-1]))
    components = measure_components(problem, halves[-1], full[-1].factors)
    return Fit(problem, halves, full, components, PHANTOM.factors(BOX))


# --- problem


def test_random_numbers_are_independent_per_purpose_and_repeatable() -> None:
    problem = make_problem()

    def first(*purpose: int) -> float:
        return float(torch.rand(1, generator=problem.generator(*purpose)))

    assert first(1, 0, 3) == first(1, 0, 3)
    assert len({first(*purpose) for purpose in ((0, 0), (0, 1), (1, 0, 0), (1, 1, 0), (2, 0))}) == 5


def test_no_random_number_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every half, epoch and start has its own stream."""
    problem, asked = make_problem(), []
    monkeypatch.setattr(covariance, "run_epoch", lambda source, index, band, preconditioner, state, *_: (state, 0.0))
    generator = CovarianceProblem.generator

    def record(self: CovarianceProblem, *purpose: int) -> torch.Generator:
        asked.append(purpose)
        return generator(self, *purpose)

    monkeypatch.setattr(CovarianceProblem, "generator", record)
    *_, halves = fit_half_sets(problem)
    list(fit_full_set(problem, halves))
    assert len(asked) == len(set(asked)) == 2 * (1 + len(SCHEDULE.units(BOX))) + len(SCHEDULE.full_epochs()) + 1


def test_prior_of_all_images_is_the_one_that_the_halves_agreed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 / tau = D (1 - F) / F with the density of one half-set, not of all images."""
    problem, used = make_problem(), []

    def record(source, index, band, preconditioner, state, precision, *_):
        used.append((index, preconditioner, precision))
        return state, 0.0

    monkeypatch.setattr(covariance, "run_epoch", record)
    factors = Factors(torch.zeros(RANK, BOX, BOX, BOX), torch.eye(RANK, dtype=torch.float64))
    correlation = torch.linspace(0.9, 0.1, 12, dtype=torch.float64) * torch.tensor([1.0, 1.0, 0.2])[:, None]
    list(fit_full_set(problem, HalfSetState(9, (factors, factors), correlation, (0.0, 0.0))))
    index, preconditioner, precision = used[0]
    assert torch.equal(index, problem.source.everyone)
    half_density = 0.5 * radial_average(preconditioner.density, BOX)
    correlation[2] *= 4  # hardly found: 1 - 0.2 of the best
    expected = half_density * (1 - correlation) / correlation
    torch.testing.assert_close(precision, expected, rtol=1e-4, atol=0)


def test_all_images_start_from_the_average_of_both_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of volumes and of the variance of contrasts."""
    problem, starts = make_problem(), []

    def record(source, index, band, preconditioner, state, *_):
        starts.append(state)
        return state, 0.0

    monkeypatch.setattr(covariance, "run_epoch", record)
    one, identity = torch.ones(RANK, BOX, BOX, BOX), torch.eye(RANK, dtype=torch.float64)
    factors = (Factors(one, identity, 0.01), Factors(3 * one, identity, 0.03))
    correlation = torch.full((RANK, 12), 0.5, dtype=torch.float64)
    list(fit_full_set(problem, HalfSetState(9, factors, correlation, (0.0, 0.0))))
    assert torch.equal(starts[0].volumes, 2 * one)
    assert starts[0].contrast_variance == pytest.approx(0.02)


def test_half_sets_are_weighted_by_the_density_of_their_own_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are divided by it, and priors are in its units: that of all images would be twice as much."""
    problem, used = make_problem(), []

    def record(source, index, band, preconditioner, state, precision, *_):
        used.append((index, preconditioner, precision))
        return state, 0.0

    monkeypatch.setattr(covariance, "run_epoch", record)
    list(fit_half_sets(problem))
    for half, index in enumerate(problem.halves):
        own = accumulate_normal_equations(problem.source, index).density()
        assert torch.equal(used[-2 + half][0], index)
        assert float(used[-2 + half][1].density.sum() / own.sum()) == pytest.approx(1.0, abs=0.05)
    factors = Factors(torch.randn(RANK, BOX, BOX, BOX, generator=torch.Generator().manual_seed(0)), torch.eye(RANK))
    correlation = torch.linspace(0.9, 0.1, 12, dtype=torch.float64).expand(RANK, -1)
    used.clear()
    last = len(problem.schedule.units(BOX)) - 1
    list(fit_half_sets(problem, HalfSetState(last, (factors, factors), correlation, (0.0, 0.0))))
    for half, (index, _, precision) in enumerate(used):
        assert torch.equal(index, problem.halves[half])
        own = radial_average(accumulate_normal_equations(problem.source, index).density(), BOX)
        expected = own * (1 - correlation) / correlation
        torch.testing.assert_close(precision[:, 1:], expected[:, 1:], rtol=0.1, atol=0)


def test_shells_that_are_not_measured_yet_have_the_prior_of_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, used = make_problem(), []

    def record(source, index, band, preconditioner, state, precision, *_):
        used.append((band, precision))
        return state, 0.0

    monkeypatch.setattr(covariance, "run_epoch", record)
    first = SCHEDULE.shells(BOX)[0]
    box = problem.band(first).box_size
    volumes = torch.randn(RANK, box, box, box, generator=torch.Generator().manual_seed(0))
    factors = Factors(volumes, torch.eye(RANK, dtype=torch.float64))
    correlation = torch.full((RANK, first + 1), 0.5, dtype=torch.float64)
    state = HalfSetState(BAND_ENDS[0], (factors, factors), correlation, (0.0, 0.0))
    list(fit_half_sets(problem, state, BAND_ENDS[0] + 1))
    band, precision = used[0]
    assert band.shell_max > first
    start = starting_precision(band)[first + 1 :].expand(RANK, -1)
    torch.testing.assert_close(precision[:, first + 1 : band.shell_max + 1], start)
    assert float((precision[:, first - 1 : first + 1] / start[:, :1]).max()) < 10


def test_start_has_a_share_of_the_spectrum_of_the_mean() -> None:
    problem = make_problem()
    band = problem.band(8)
    power = radial_average(volume_to_ft(band.mean).abs() ** 2, band.box_size)[:9] / band.box_size
    share = 1 / starting_precision(band) / power
    assert float(share[:6].max() - share[:6].min()) < 1e-3
    assert 0.01 < float(share[0]) < 0.5


def test_density_of_a_band_is_that_of_its_share_of_the_images() -> None:
    problem = make_problem()
    assert relative_error(2 * problem.preconditioner(8, 0.5).density, problem.preconditioner(8, 1.0).density) < 1e-6


# --- half-sets


def test_one_state_per_unit(fit) -> None:
    assert [state.done for state in fit.halves] == list(range(1, len(SCHEDULE.units(BOX)) + 1))
    assert [state.done for state in fit.full] == list(range(1, len(SCHEDULE.full_epochs()) + 1))


def test_objectives_fall_within_each_band(fit) -> None:
    units = SCHEDULE.units(BOX)
    for shell_max in SCHEDULE.shells(BOX):
        objectives = [
            state.objective for state, unit in zip(fit.halves, units, strict=True) if unit.shell_max == shell_max
        ]
        for half in range(2):
            assert objectives[-1][half] < objectives[0][half]


def test_halves_are_aligned_at_the_end(fit) -> None:
    first, second = (factors.volumes for factors in fit.halves[-1].factors)
    cross = inner_products(first, second)
    assert float((cross - torch.diag(cross.diagonal())).abs().max()) < 1e-3 * float(cross.max())
    assert fit.halves[-1].correlation.shape == (RANK, fit.problem.source.disk.shell_max + 1)


def test_motions_correlate_between_the_halves_and_noise_does_not(fit) -> None:
    correlation = fit.halves[-1].correlation
    assert float(correlation[:2, 1:4].min()) > 0.6
    assert float(correlation[2, 1:].mean()) < 0.4


def test_factors_stay_in_the_band_and_near_the_mask(fit) -> None:
    for factors in (*fit.halves[-1].factors, fit.full[-1].factors):
        volumes = factors.volumes
        assert relative_error(low_pass(volumes, fit.problem.source.disk.shell_max), volumes) < 1e-4
        outside = volumes[:, fit.problem.mask == 0].square().mean() / volumes.square().mean()
        assert float(outside) < 0.02


def test_interrupted_fit_goes_on_to_the_same_numbers(fit) -> None:
    """Within a band, across the change of bands, and in two parts with a stop."""
    for begin, end in ((2, 4), (BAND_ENDS[0] - 1, BAND_ENDS[0] + 1)):
        *_, state = fit_half_sets(fit.problem, fit.halves[begin - 1], stop=end)
        expected = fit.halves[end - 1]
        assert state.done == expected.done
        for factors, wanted in zip(state.factors, expected.factors, strict=True):
            assert relative_error(factors.volumes, wanted.volumes) < 1e-4
            torch.testing.assert_close(factors.second_moment, wanted.second_moment, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(state.correlation, expected.correlation, rtol=0, atol=1e-3)


def test_finished_fit_has_nothing_left_to_do(fit) -> None:
    assert list(fit_half_sets(fit.problem, fit.halves[-1])) == []
    assert list(fit_full_set(fit.problem, fit.halves[-1], fit.full[-1])) == []


def test_interrupted_full_set_goes_on_to_the_same_numbers(fit) -> None:
    *_, last = fit_full_set(fit.problem, fit.halves[-1], fit.full[0])
    assert relative_error(last.factors.volumes, fit.full[-1].factors.volumes) < 1e-4


# --- solvers of all images


def test_the_step_of_all_images_is_that_of_an_epoch_without_batches(fit) -> None:
    this, start = full_set_start(fit.problem, fit.halves[-1])
    field = FactorField(this)
    point = start.volumes.double().flatten()
    value, residual = field(point)
    epoch = (this.precision, Epoch(1, 1.0), torch.Generator(), this.objective)
    state, objective = run_epoch(this.source, this.index, this.band, this.preconditioner, start, *epoch)
    assert relative_error((point - residual).reshape(start.volumes.shape).float(), state.volumes) < 1e-5
    assert value > objective and field.passes == 1
    # of some rows: scaled to all images, so that those of all of them are the same again
    torch.testing.assert_close(field(point, torch.arange(IMAGES))[1], residual, atol=1e-6, rtol=1e-3)
    first, second = (field(point, torch.arange(half, IMAGES, 2))[1] for half in (0, 1))
    assert float(((first + second) / 2 - residual).norm() / (first - residual).norm()) < 0.2


def test_value_of_the_field_falls_along_its_gradient(fit) -> None:
    """Of least squares, where the prior's weight grows with the square of the factors: by finite differences."""
    this, start = full_set_start(fit.problem, fit.halves[-1])
    this = replace(this, objective=OBJECTIVES["ls"])
    field, point = FactorField(this), start.volumes.double().flatten()
    slope = (field(1.02 * point)[0] - field(0.98 * point)[0]) / 0.04
    found = expectation_pass(this.source, this.index, this.band, start.volumes, this.objective)
    prior = WeightedPrior(this.precision, BOX, found.information / IMAGES)
    pulled = ft_to_volume(prior.gradient(volume_to_ft(start.volumes)), BOX)
    of_prior = float((pulled * start.volumes).sum()) / IMAGES
    expected = float((found.gradient * start.volumes).sum()) / IMAGES + of_prior
    assert abs(slope - expected) < 0.1 * of_prior


def test_squarem_comes_nearer_to_the_optimum_and_goes_on_from_any_state(fit) -> None:
    problem = replace(fit.problem, schedule=SCHEDULE.with_solver("squarem"))
    states = list(fit_full_set(problem, fit.halves[-1]))
    assert [state.done for state in states] == [1, 2, 3, 4, 5, 6]
    values = [state.objective for state in states]
    assert all(after <= before + 1e-6 for before, after in zip(values, values[1:], strict=False))
    field = FactorField(full_set_start(problem, fit.halves[-1])[0])
    assert values[-1] < field(fit.full[-1].factors.volumes.double().flatten())[0]
    *_, last = fit_full_set(problem, fit.halves[-1], states[4])
    assert relative_error(last.factors.volumes, states[-1].factors.volumes) < 1e-4
    assert list(fit_full_set(problem, fit.halves[-1], states[-1])) == []


def test_em_is_a_dozen_full_steps() -> None:
    assert SCHEDULE.with_solver("em").full_epochs() == [Epoch(1, 1.0)] * 12
    assert SCHEDULE.with_solver("batches") == SCHEDULE


# --- result


def test_motions_are_found(fit) -> None:
    assert not fit.components.eigenvolumes[:, fit.problem.mask == 0].any()
    cosines = principal_cosines(fit.components.eigenvolumes[:2], fit.truth)
    assert float(cosines.min()) > 0.9


def test_all_images_find_better_directions_than_half_of_them(fit) -> None:
    def captured(volumes: Tensor) -> float:
        basis = torch.linalg.qr(volumes.flatten(1).double().T).Q
        truth = fit.truth.flatten(1).double().T
        return float((basis.T @ truth).square().sum() / truth.square().sum())

    halves = [captured(factors.volumes) for factors in fit.halves[-1].factors]
    assert captured(fit.components.eigenvolumes) > max(halves) > 0.8


def test_eigenvalues_are_those_of_the_truth(fit) -> None:
    """No shrinkage, no inflation: within a quarter, the error that held-out images allow."""
    truth = torch.linalg.eigvalsh(inner_products(fit.truth, fit.truth)).flip(0)
    ratio = fit.components.eigenvalues[:2] / truth
    assert 0.75 < float(ratio.min()) and float(ratio.max()) < 1.25


def test_superfluous_component_is_seen_through(fit) -> None:
    assert float(fit.components.eigenvalues[2]) < 0.1 * float(fit.components.eigenvalues[1])
    assert float(fit.components.likelihood_gain[2]) < 15
    assert float(fit.components.likelihood_gain[:2].min()) > 50
    assert float(fit.components.agreement[:2].min()) > 0.7


def test_detail_that_half_sets_lack_does_not_count_as_variance(fit) -> None:
    state = fit.halves[-1]
    fades = shells_to_volume(torch.linspace(1.5, 0.3, shell_count(BOX)), BOX)
    first, second = (
        replace(factors, volumes=ft_to_volume(volume_to_ft(factors.volumes * fit.problem.mask) * fades, BOX))
        for factors in state.factors
    )
    found = measure_components(fit.problem, replace(state, factors=(first, second)), fit.full[-1].factors)
    torch.testing.assert_close(found.eigenvalues[:2], fit.components.eigenvalues[:2], rtol=0.03, atol=0)
