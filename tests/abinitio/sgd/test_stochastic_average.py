from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.abinitio.sgd.priors import Autoregressive, Exponential, Prior, Uniform, make_prior
from solvar_engine.abinitio.sgd.stochastic_average import StochasticAverage, StoredGradients, learning_rate

SHAPE = (2, 2, 3)


class Quadratic:
    """One batch of a least-squares problem, |A v - b|^2 / 2."""

    def __init__(self, matrix: Tensor, target: Tensor) -> None:
        self.matrix, self.target = matrix, target

    def value(self, volume: Tensor) -> float:
        return 0.5 * float((self.matrix @ volume.flatten() - self.target).square().sum())

    def value_and_gradient(self, volume: Tensor) -> tuple[float, Tensor]:
        gradient = self.matrix.T @ (self.matrix @ volume.flatten() - self.target)
        return self.value(volume), gradient.reshape(SHAPE)


def problem(batches: int = 8) -> list[Quadratic]:
    generator = torch.Generator().manual_seed(3)
    truth = torch.rand(12, dtype=torch.float64, generator=generator) + 1
    parts = []
    for _ in range(batches):
        matrix = torch.randn(20, 12, dtype=torch.float64, generator=generator)
        noise = 0.3 * torch.randn(20, dtype=torch.float64, generator=generator)
        parts.append(Quadratic(matrix, matrix @ truth + noise))
    return parts


def descended(parts: list[Quadratic], prior: Prior, steps: int) -> StochasticAverage:
    average = StochasticAverage(torch.ones(SHAPE, dtype=torch.float64), len(parts), prior, torch.ones(SHAPE))
    generator = torch.Generator().manual_seed(4)
    for _ in range(steps // len(parts)):
        for number in torch.randperm(len(parts), generator=generator).tolist():
            average.step(number, parts[number])
    return average


def normal_equations(parts: list[Quadratic]) -> tuple[Tensor, Tensor]:
    left = sum((part.matrix.T @ part.matrix for part in parts), torch.zeros(12, 12, dtype=torch.float64))
    return left, sum((part.matrix.T @ part.target for part in parts), torch.zeros(12, dtype=torch.float64))


def test_the_sum_of_the_batches_is_minimised() -> None:
    parts = problem()
    found = descended(parts, Uniform(), 2400)
    left, right = normal_equations(parts)
    torch.testing.assert_close(found.volume.flatten(), torch.linalg.solve(left, right), rtol=1e-4, atol=1e-4)


def test_the_prior_counts_once_for_all_batches() -> None:
    parts = problem()
    found = descended(parts, Exponential(40.0), 2400)
    left, right = normal_equations(parts)
    torch.testing.assert_close(found.volume.flatten(), torch.linalg.solve(left, right - 40), rtol=1e-4, atol=1e-4)


def test_density_is_positive_and_inside_the_support() -> None:
    parts = problem()
    for part in parts:
        part.target -= part.matrix @ torch.tensor([3.0] + 11 * [0.0], dtype=torch.float64)  # the first would be -1.5
    support = torch.ones(SHAPE)
    support[1, 1, 2] = 0
    average = StochasticAverage(torch.ones(SHAPE, dtype=torch.float64), len(parts), Uniform(), support)
    for number in range(80):
        average.step(number % 8, parts[number % 8])
        assert float(average.volume.min()) == 0 == float(average.volume[1, 1, 2])
    assert float(average.volume.flatten()[0]) == 0


def test_the_lipschitz_constant_is_at_most_twice_the_curvature_along_the_gradient() -> None:
    start = torch.ones(SHAPE, dtype=torch.float64)
    for part in problem():
        average = StochasticAverage(start, 1, Uniform(), torch.ones(SHAPE))
        average.step(0, part)
        _, gradient = part.value_and_gradient(start)
        curvature = float((part.matrix @ gradient.flatten()).square().sum() / gradient.square().sum())
        # a step of 1/L gains |g|^2 / L - curvature |g|^2 / (2 L^2): enough if L is at least the curvature
        assert curvature <= average.lipschitz < 2 * curvature


def test_the_constant_decays_between_searches() -> None:
    parts = problem()
    average = StochasticAverage(torch.ones(SHAPE, dtype=torch.float64), 8, Uniform(), torch.ones(SHAPE))
    constants = []
    for number in range(21):
        average.step(number % 8, parts[number % 8])
        constants.append(average.lipschitz)
    for before, after in zip(constants[:19], constants[1:20], strict=True):
        assert after == pytest.approx(before * 2 ** (-1 / 150))
    assert constants[20] >= constants[19]


def test_the_learning_rate_halves_down_to_a_sixteenth() -> None:
    assert [learning_rate(i) for i in (0, 149, 150, 300, 750, 10_000)] == [2, 2, 1, 0.5, 1 / 16, 1 / 16]


@pytest.mark.parametrize("in_memory_bytes", [0, 10**6])
def test_stored_gradients_add_up_in_memory_and_in_a_file(in_memory_bytes: int) -> None:
    gradients = StoredGradients(3, torch.zeros(SHAPE), in_memory_bytes)
    first, second, third = torch.randn(3, *SHAPE)
    gradients.replace(1, first)
    gradients.replace(2, second)
    torch.testing.assert_close(gradients.sum, first + second)
    gradients.replace(1, third)
    torch.testing.assert_close(gradients.sum, second + third)
    assert gradients.seen == 2 and len(gradients) == 3


@pytest.mark.parametrize("prior", [Exponential(0.7), Autoregressive(1.3), Uniform()])
def test_gradients_of_priors(prior: Prior) -> None:
    generator = torch.Generator().manual_seed(5)
    volume, along = torch.rand(2, 4, 5, 6, dtype=torch.float64, generator=generator)
    slope = (prior.energy(volume + 1e-4 * along) - prior.energy(volume - 1e-4 * along)) / 2e-4
    assert float((prior.gradient(volume) * along).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_the_exponential_prior_costs_its_rate() -> None:
    assert Exponential(0.5).energy(torch.ones(2, 2, 2)) == 4


def test_neighbours_tell_the_conditional_mean() -> None:
    volume = torch.randn(3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    mean = (volume.sum() - volume[1, 1, 1]) / 26
    prior, deviation = Autoregressive(0.4), 0.4
    at_mean, beside = volume.clone(), volume.clone()
    at_mean[1, 1, 1], beside[1, 1, 1] = mean, mean + 0.3
    assert float(prior.gradient(at_mean)[1, 1, 1]) == pytest.approx(0, abs=1e-12)
    assert prior.energy(beside) - prior.energy(at_mean) == pytest.approx(0.3**2 / (2 * deviation**2))


def test_an_unknown_prior_is_named() -> None:
    with pytest.raises(ValueError, match="prior is 'flat', expected exponential, car or uniform"):
        make_prior("flat", 1.0)
    assert make_prior("exponential", 4.0) == Exponential(0.25)
