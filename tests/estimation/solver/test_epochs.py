"""The preconditioned stochastic solver."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.expectation import expectation_pass
from solvar_engine.estimation.model.objectives import OBJECTIVES, Objective
from solvar_engine.estimation.model.penalties import WeightedPrior
from solvar_engine.estimation.solver.epochs import Factors, random_factors, run_epoch
from solvar_engine.estimation.solver.gauge import fix_gauge
from solvar_engine.estimation.solver.preconditioner import Preconditioner, preconditioned_step
from solvar_engine.estimation.solver.schedule import Epoch, epochs_of
from solvar_engine.imaging.fourier import ft_to_volume, low_pass, volume_to_ft
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.imaging.shells import radial_average
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations
from tests.estimation.problems import covariance_error, full_band, full_preconditioner, principal_cosines
from tests.reconstruction.simulated import LinearPhantom, Simulation, noise, relative_error, simulate

BOX, IMAGES, RANK = 16, 600, 2
SHELLS = 8
MASK = sphere_mask(BOX, 5.0)


@pytest.fixture(scope="module", params=list(OBJECTIVES))
def objective(request) -> Objective:
    return OBJECTIVES[request.param]


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(LinearPhantom.create(RANK, sigma=0.06).scaled(4.0), IMAGES, BOX)


@pytest.fixture(scope="module")
def band(simulation) -> Band:
    return full_band(simulation)


@pytest.fixture(scope="module")
def preconditioner(simulation) -> Preconditioner:
    return full_preconditioner(simulation, MASK)


@pytest.fixture(scope="module")
def precision(simulation) -> Tensor:
    """Prior with the true power of the factors, the same for each."""
    power = radial_average(volume_to_ft(simulation.phantom.factors(BOX)).abs() ** 2, BOX).mean(dim=0) / BOX
    return (1 / power.clamp_min(1e-5 * float(power.max()))).expand(RANK, -1)


def start(preconditioner: Preconditioner, precision: Tensor, seed: int = 0) -> Factors:
    return random_factors(preconditioner, RANK, precision[0], torch.Generator().manual_seed(seed))


def fit(
    simulation, band, preconditioner, precision, objective: Objective, schedule: str, seed: int = 0
) -> tuple[Factors, list[float]]:
    state, values = start(preconditioner, precision), []
    generator = torch.Generator().manual_seed(seed)
    for epoch in epochs_of(schedule):
        source = simulation.source
        state, value = run_epoch(
            source, source.everyone, band, preconditioner, state, precision, epoch, generator, objective
        )
        values.append(value)
    return state, values


def value_of(simulation, band, volumes: Tensor, objective: Objective) -> float:
    source = simulation.source
    return expectation_pass(source, source.everyone, band, volumes, objective).objective / len(source)


def plain_prior(precision: Tensor) -> WeightedPrior:
    """Of images that know the latents."""
    return WeightedPrior(precision, BOX, torch.eye(len(precision), dtype=torch.float64))


def gauged(state: Factors) -> Tensor:
    return fix_gauge(state.volumes, state.second_moment)


# --- a whole epoch


def test_every_epoch_lowers_the_objective(simulation, band, preconditioner, precision, objective) -> None:
    state, values = fit(simulation, band, preconditioner, precision, objective, "4x0.7 4x0.7 4x0.5 2x0.5 1x1")
    assert all(later < earlier for earlier, later in zip(values, values[1:], strict=False))
    begin = value_of(simulation, band, start(preconditioner, precision).volumes, objective)
    end = value_of(simulation, band, state.volumes, objective)
    truth = value_of(simulation, band, simulation.phantom.factors(BOX), objective)
    assert end < begin - 0.9 * (begin - truth)


LONG = "8x0.7 8x0.7 8x0.5 4x0.7 4x0.5 2x0.7 1x1"


def test_factors_of_a_simulated_problem_are_recovered(simulation, band, preconditioner, precision, objective) -> None:
    state, _ = fit(simulation, band, preconditioner, precision, objective, LONG)
    found, truth = gauged(state), simulation.phantom.factors(BOX)
    # Least squares trust strong images too much: from few images they find a little less.
    smallest_cosine, largest_error = (0.94, 0.42) if objective is OBJECTIVES["ml"] else (0.92, 0.5)
    assert float(principal_cosines(found, truth).min()) > smallest_cosine
    assert covariance_error(found, truth) < largest_error


def test_both_objectives_find_nearly_the_same(simulation, band, preconditioner, precision) -> None:
    likely, near = (
        gauged(fit(simulation, band, preconditioner, precision, OBJECTIVES[name], LONG)[0]) for name in ("ml", "ls")
    )
    assert float(principal_cosines(likely, near).min()) > 0.97


def test_same_seed_gives_the_same_numbers(simulation, band, preconditioner, precision, objective) -> None:
    first, second = (
        fit(simulation, band, preconditioner, precision, objective, "4x0.7 2x0.7", seed=3)[0] for _ in range(2)
    )
    assert relative_error(first.volumes, second.volumes) < 1e-6
    other = fit(simulation, band, preconditioner, precision, objective, "4x0.7 2x0.7", seed=4)[0]
    assert relative_error(other.volumes, first.volumes) > 1e-4


def test_number_of_batches_does_not_decide_the_end(simulation, band, preconditioner, precision, objective) -> None:
    few, _ = fit(simulation, band, preconditioner, precision, objective, "1x1 " * 12)
    many, _ = fit(simulation, band, preconditioner, precision, objective, "8x0.7 8x0.7 8x0.5 4x0.5 2x0.5 1x1 1x1")
    assert covariance_error(gauged(many), gauged(few)) < 0.08
    begin = value_of(simulation, band, start(preconditioner, precision).volumes, objective)
    ends = [value_of(simulation, band, state.volumes, objective) for state in (few, many)]
    assert ends[0] == pytest.approx(ends[1], abs=0.01 * (begin - ends[0]))


def test_objective_is_the_average_over_the_images_that_were_asked_for(
    simulation, band, preconditioner, precision, objective
) -> None:
    state = start(preconditioner, precision)
    index = simulation.source.everyone[100:350]
    same, value = run_epoch(
        simulation.source, index, band, preconditioner, state, precision, Epoch(1, 0.0), torch.Generator(), objective
    )
    expected = expectation_pass(simulation.source, index, band, state.volumes, objective)
    assert value == pytest.approx(expected.objective / 250, rel=1e-9)
    assert torch.equal(same.volumes, state.volumes)
    torch.testing.assert_close(same.second_moment, expected.second_moment / 250)


def test_mini_batches_estimate_the_gradient_of_all(simulation, band, preconditioner, precision, objective) -> None:
    """With tiny steps the steps of all mini-batches add up to as many full-batch steps."""
    state, tiny, batches = start(preconditioner, precision), 1e-4, 6
    source = simulation.source
    moment = expectation_pass(source, source.everyone, band, state.volumes, objective).second_moment / len(source)
    state = Factors(state.volumes, moment)
    moved = []
    for epoch in (Epoch(batches, tiny), Epoch(1, batches * tiny)):
        generator = torch.Generator().manual_seed(0)
        new, _ = run_epoch(source, source.everyone, band, preconditioner, state, precision, epoch, generator, objective)
        moved.append(new.volumes - state.volumes)
    assert relative_error(moved[0], moved[1]) < 0.15


# --- one step


@pytest.fixture(scope="module")
def situation(simulation, band, preconditioner, precision, objective) -> tuple[Tensor, Tensor, Tensor, WeightedPrior]:
    """Factors with the gradient, curvature and penalty that a full batch gives them."""
    volumes = start(preconditioner, precision).volumes
    result = expectation_pass(simulation.source, simulation.source.everyone, band, volumes, objective)
    information = result.information / result.count
    curvature = objective.curvature(information, result.second_moment / result.count)
    return volumes, result.gradient, curvature, WeightedPrior(precision, BOX, information)


def test_step_goes_down_the_regularised_objective(band, preconditioner, situation) -> None:
    volumes, gradient, curvature, penalty = situation
    for seed in range(4):
        slope = gradient if seed == 0 else float(gradient.norm()) * noise(*gradient.shape, seed=seed) / BOX
        step = preconditioned_step(preconditioner, volumes, slope, curvature, penalty)
        pulled = ft_to_volume(penalty.gradient(volume_to_ft(volumes)), BOX)
        whole = low_pass(slope + pulled, band.shell_max)
        cosine = float((step * whole).sum() / (step.norm() * whole.norm()))
        assert cosine > 0.2


def test_step_stays_in_the_band_and_in_the_mask(band, preconditioner, situation) -> None:
    step = preconditioned_step(preconditioner, *situation)
    assert relative_error(low_pass(step, band.shell_max), step) < 1e-5
    outside = MASK == 0
    leak = step[:, outside].square().mean() / step.square().mean()
    assert float(leak) < 0.005


def test_step_is_zero_at_a_stationary_point(band, preconditioner, situation) -> None:
    volumes, _, curvature, penalty = situation
    balance = -ft_to_volume(penalty.gradient(volume_to_ft(volumes)), BOX)
    step = preconditioned_step(preconditioner, volumes, balance, curvature, penalty)
    assert float(step.norm()) < 1e-4 * float(volumes.norm())


def test_a_factor_that_is_held_down_is_not_pulled_beyond_zero(band, preconditioner, situation) -> None:
    """Whatever the eigenvectors of a curvature that is nearly the identity: they must not mix it with the others."""
    volumes, gradient, _, _ = situation
    strength = torch.full((RANK, band.shell_max + 1), 1e-3, dtype=torch.float64)
    strength[-1] = 300.0
    penalty = plain_prior(strength * float(preconditioner.density.max()))
    for seed in range(5):
        ripple = noise(RANK, RANK, seed=seed, dtype=torch.float64)
        curvature = torch.eye(RANK, dtype=torch.float64) + 0.01 * (ripple + ripple.T)
        step = preconditioned_step(preconditioner, volumes, 0 * gradient, curvature, penalty)
        assert float(step[-1].norm()) < 1.1 * float(volumes[-1].norm())
        assert float((step[-1] * volumes[-1]).sum()) > 0.2 * float(volumes[-1].square().sum())
        assert float(step[:-1].norm()) < 0.2 * float(volumes[:-1].norm())


def test_step_does_not_depend_on_the_basis_of_the_factors(band, preconditioner, precision, situation) -> None:
    """Rotated factors with a common prior take the rotated step."""
    volumes, gradient, curvature, _ = situation
    rotation = torch.linalg.qr(noise(RANK, RANK, seed=5, dtype=torch.float64)).Q
    turned_curvature = rotation.T @ curvature @ rotation
    turned = [torch.einsum("izyx,ij->jzyx", field, rotation.float()) for field in (volumes, gradient)]
    pairs = [
        (plain_prior(precision), plain_prior(precision)),
        (WeightedPrior(precision, BOX, curvature), WeightedPrior(precision, BOX, turned_curvature)),
    ]
    for penalty, turned_penalty in pairs:
        step = preconditioned_step(preconditioner, volumes, gradient, curvature, penalty)
        turned_step = preconditioned_step(preconditioner, *turned, turned_curvature, turned_penalty)
        assert relative_error(turned_step, torch.einsum("izyx,ij->jzyx", step, rotation.float())) < 1e-3


def test_full_step_never_overshoots(simulation, band, preconditioner, precision) -> None:
    """The largest eigenvalue of preconditioner times normal operator: 2 would make a step of 1 oscillate for ever."""
    source = simulation.source
    normal = accumulate_normal_equations(source, source.everyone)
    no_prior = plain_prior(torch.zeros(1, SHELLS))
    moment = torch.eye(1, dtype=torch.float64)
    vector = noise(1, BOX, BOX, BOX)
    for _ in range(25):
        vector = vector / vector.norm()
        image = preconditioned_step(preconditioner, vector, normal.apply(vector[0])[None], moment, no_prior)
        largest, vector = float((image * vector).sum()), image
    assert 0.5 < largest < 1.5


def test_step_divides_by_the_whole_matrix_of_the_curvature(simulation) -> None:
    """Where the density D is the same everywhere and there is no prior, it is C^-1 times the gradient over D."""
    everywhere = full_preconditioner(simulation, torch.ones(BOX, BOX, BOX))
    flat = replace(everywhere, density=torch.full_like(everywhere.density, 5.0))
    root = noise(3, 3, seed=3, dtype=torch.float64)
    curvature = root @ root.T + 0.5 * torch.eye(3, dtype=torch.float64)
    gradient = low_pass(noise(3, BOX, BOX, BOX, seed=4), SHELLS - 1)
    no_prior = plain_prior(torch.zeros(3, SHELLS))
    step = preconditioned_step(flat, torch.zeros_like(gradient), gradient, curvature, no_prior)
    expected = torch.einsum("ij,j...->i...", torch.linalg.inv(curvature), gradient.double()) / 5
    assert relative_error(step.double(), expected) < 1e-3


def test_curvature_scales_the_step(band, preconditioner, situation) -> None:
    volumes, gradient, _, _ = situation
    one, no_prior = torch.eye(RANK, dtype=torch.float64), plain_prior(torch.zeros(RANK, SHELLS))
    step, quarter = (preconditioned_step(preconditioner, volumes, gradient, m * one, no_prior) for m in (1.0, 4.0))
    assert relative_error(4 * quarter, step) < 1e-4


# --- beginning


def test_random_factors_have_the_spectrum_of_the_prior(band, preconditioner) -> None:
    """Power = box / precision: the prior counts energy as the sum over coefficients divided by the box size."""
    everywhere = replace(preconditioner, mask_root=torch.ones(BOX, BOX, BOX))
    prior = torch.linspace(0.5, 30.0, SHELLS)
    drawn = random_factors(everywhere, 300, prior, torch.Generator().manual_seed(0))
    power = radial_average(volume_to_ft(drawn.volumes).abs() ** 2, BOX).mean(dim=0)
    torch.testing.assert_close(power[1:-1], (BOX / prior.double())[1:-1], rtol=0.06, atol=0)
    assert relative_error(low_pass(drawn.volumes, band.shell_max), drawn.volumes) < 1e-5
    assert torch.equal(drawn.second_moment, torch.eye(300, dtype=torch.float64))


def test_random_factors_lie_in_the_mask_and_follow_the_seed(band, preconditioner) -> None:
    prior = torch.ones(SHELLS)
    first, same, other = (
        random_factors(preconditioner, RANK, prior, torch.Generator().manual_seed(seed)).volumes for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert relative_error(other, first) > 0.5
    outside = first[:, MASK == 0].square().mean() / first.square().mean()
    assert float(outside) < 0.1  # the ripple of the band limit
