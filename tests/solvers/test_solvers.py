"""Each solver against its algorithm written out, on a sum of squares and on a small alignment problem."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from solvar_engine.orbit_recovery.alignment import alignment_instance
from solvar_engine.solvers.base import Solver
from solvar_engine.solvers.descent import Descent, StochasticDescent
from solvar_engine.solvers.extrapolation import Squarem
from solvar_engine.solvers.fields import CurvedField, Field, GradientField, ResidualField
from solvar_engine.solvers.limited_memory import QuasiNewtonEM
from solvar_engine.solvers.metrics import LimitedMemory, ThresholdedHessian
from solvar_engine.solvers.online import OnlineEM
from solvar_engine.solvers.variance_reduction import VarianceReduction

COUNT = 40


class Squares:
    """f_i(w) = (a_i w - b_i)^2 / 2: a sum whose minimum is known."""

    count = COUNT

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.design = torch.randn(COUNT, 3, dtype=torch.float64, generator=generator)
        self.target = torch.randn(COUNT, dtype=torch.float64, generator=generator)

    @property
    def minimum(self) -> Tensor:
        return torch.linalg.lstsq(self.design, self.target[:, None]).solution[:, 0]

    def _of(self, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        return (self.design, self.target) if rows is None else (self.design[rows], self.target[rows])

    def value_and_gradient(self, point: Tensor, rows: Tensor | None = None) -> tuple[float, Tensor]:
        design, target = self._of(rows)
        residual = design @ point - target
        return 0.5 * float(residual.square().mean()), design.T @ residual / len(design)

    def hessian(self, point: Tensor, rows: Tensor | None = None) -> Tensor:
        design, _ = self._of(rows)
        return design.T @ design / len(design)

    def canonical(self, point: Tensor) -> Tensor:
        return point


class Linear(Field):
    """w - Psi(w) of a linear map Psi(w) = J w, whose fixed point is zero; the value is that of ``value``."""

    def __init__(self, jacobian: Tensor, value: Callable[[Tensor], float] = lambda point: float(point.norm())) -> None:
        super().__init__(1)
        self._jacobian, self._value = jacobian, value

    def _evaluate(self, point: Tensor, rows: Tensor | None) -> tuple[float, Tensor]:
        return self._value(point), point - self._jacobian @ point

    def canonical(self, point: Tensor) -> Tensor:
        return point


START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def test_passes_are_weighted_by_cost() -> None:
    field = CurvedField(Squares())
    field(START)
    field(START, torch.arange(10))
    assert field.passes == 1.25
    field.hessian(START, torch.arange(8))
    assert field.passes == pytest.approx(1.25 + 3 * 8 / 40)


def test_descent_goes_against_the_field() -> None:
    solver = Descent(GradientField(Squares()), START, rate=0.3)
    solver.step()
    torch.testing.assert_close(solver.point, START - 0.3 * Squares().value_and_gradient(START)[1])


def test_steps_of_stochastic_descent_decay() -> None:
    solver = StochasticDescent(GradientField(Squares()), START, rate=0.4, decay=2, batch=COUNT)
    expected = START
    for number in range(4):
        solver.step()
        expected = expected - 0.4 / (1 + number / 2) * Squares().value_and_gradient(expected)[1]
    torch.testing.assert_close(solver.point, expected)


def test_stochastic_gradients_do_not_settle_and_reduced_ones_do() -> None:
    plain = StochasticDescent(GradientField(Squares()), START, rate=0.1, decay=1e9, batch=5)
    reduced = VarianceReduction(GradientField(Squares()), START, rate=0.1, iterations=8, batch=5)
    while plain.passes < 150:
        plain.step()
    while reduced.passes < 150:
        reduced.step()
    assert float((plain.point - Squares().minimum).norm()) > 0.01
    assert float((reduced.point - Squares().minimum).norm()) < 1e-6
    # an epoch is the snapshot's pass and two evaluations of each batch
    assert (reduced.passes - 1) % 3 == 0


def test_with_all_terms_in_a_batch_an_epoch_is_gradient_descent_averaged() -> None:
    solver = VarianceReduction(GradientField(Squares()), START, rate=0.2, iterations=3, batch=COUNT)
    solver.step()
    points = [START]
    for _ in range(3):
        points.append(points[-1] - 0.2 * Squares().value_and_gradient(points[-1])[1])
    torch.testing.assert_close(solver.point, torch.stack(points[1:]).mean(dim=0))


def test_one_iteration_of_reduced_em_is_that_of_equation_4_16() -> None:
    instance = alignment_instance(6, 5, 80, 0.3)
    problem = instance.problem

    def update(point: Tensor, rows: Tensor | None = None) -> Tensor:
        return problem.maximise(problem.expectation(point, rows)[1])

    solver = VarianceReduction(ResidualField(problem), instance.start, rate=0.7, iterations=2, batch=20, seed=4)
    drawn = [
        rows.sort().values
        for generator in [torch.Generator().manual_seed(4)]
        for rows in (torch.randperm(80, generator=generator)[:20], torch.randperm(80, generator=generator)[:20])
    ]
    snapshot = point = problem.canonical(instance.start)
    points = []
    for rows in drawn:
        reduced = (point - update(point, rows)) + update(snapshot, rows) - update(snapshot)
        point = problem.canonical(point - 0.7 * reduced)
        points.append(point)
    solver.step()
    torch.testing.assert_close(solver.point, problem.canonical(torch.stack(points).mean(dim=0)))


def test_small_singular_values_of_a_hessian_are_raised() -> None:
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).Q
    values = torch.tensor([5.0, -3.0, 0.5, 0.1], dtype=torch.float64)

    class Fixed(Squares):
        def hessian(self, point: Tensor, rows: Tensor | None = None) -> Tensor:
            assert rows is not None and len(rows) == 6
            return basis * values @ basis.T

    metric = ThresholdedHessian(CurvedField(Fixed()), rank=2, batch=6)
    metric.renew(START, START)
    vector = torch.arange(4, dtype=torch.float64)
    expected = basis * torch.tensor([1 / 5, 1 / 3, 1 / 0.5, 1 / 0.5], dtype=torch.float64) @ basis.T @ vector
    torch.testing.assert_close(metric.direction(vector), expected)


def test_limited_memory_is_the_formula_of_bfgs() -> None:
    squares = Squares()
    metric = LimitedMemory(scale=0.2, longest=1e6)
    inverse, identity = 0.2 * torch.eye(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    points = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    last = None
    for point in points:
        gradient = squares.value_and_gradient(point)[1]
        metric.renew(point, gradient)
        if last is not None:
            moved, changed = point - last[0], gradient - last[1]
            left = identity - torch.outer(moved, changed) / (moved @ changed)
            inverse = left @ inverse @ left.T + torch.outer(moved, moved) / (moved @ changed)
        last = point, gradient
    torch.testing.assert_close(metric.direction(START), inverse @ START)
    # the secant equation of the last pair
    torch.testing.assert_close(metric.direction(changed), moved)


def test_limited_memory_leaves_out_negative_curvature_and_long_directions() -> None:
    metric = LimitedMemory(longest=3.0)
    metric.renew(START, START)
    metric.renew(2 * START, 0.5 * START)
    torch.testing.assert_close(metric.direction(START), START)
    metric.renew(3 * START, 0.501 * START + 0.01)
    assert float(metric.direction(START).norm()) <= 3.0 * float(START.norm()) * (1 + 1e-12)
    metric.forget()
    torch.testing.assert_close(metric.direction(START), START)


def test_squarem_ends_a_linear_iteration_of_one_rate_at_once() -> None:
    field = Linear(0.9 * torch.eye(3, dtype=torch.float64))
    solver = Squarem(field, START)
    solver.step()
    assert float(solver.point.norm()) < 1e-12
    assert solver.passes == 3
    solver.step()
    assert solver.passes == 5


def test_squarem_takes_two_plain_steps_where_the_extrapolation_is_worse() -> None:
    """Here the value says that the fixed point is bad."""
    field = Linear(0.9 * torch.eye(3, dtype=torch.float64), value=lambda point: -float(point.norm()))
    solver = Squarem(field, START)
    solver.step()
    torch.testing.assert_close(solver.point, 0.81 * START)
    assert solver.passes == 4


def test_quasi_newton_em_undoes_what_makes_the_value_larger() -> None:
    jacobian = torch.diag(torch.tensor([0.99, 0.9, 0.5], dtype=torch.float64))
    solver = QuasiNewtonEM(Linear(jacobian), START)
    while float(solver.point.norm()) > 1e-6:
        solver.step()
        assert solver.passes < 40
    bad = QuasiNewtonEM(Linear(jacobian, value=lambda point: -float(point.norm())), START)
    bad.step()
    torch.testing.assert_close(bad.point, jacobian @ START)
    assert bad.passes == 3


def test_a_metric_is_safeguarded() -> None:
    problem = alignment_instance(8, 6, 200, 0.3)
    solver = VarianceReduction(ResidualField(problem.problem), problem.start, 8.0, 10, 20, LimitedMemory())
    values = []
    for _ in range(12):
        solver.step()
        values.append(problem.problem.value_and_gradient(solver.point)[0])
    assert all(after <= before + 1e-9 for before, after in zip(values, values[1:], strict=False))
    assert values[-1] < values[0]


def test_online_em_averages_statistics() -> None:
    instance = alignment_instance(6, 5, 50, 0.3)
    problem = instance.problem
    solver = OnlineEM(problem, instance.start, batch=50, power=1.0)
    first = problem.expectation(problem.canonical(instance.start))[1]
    solver.step()
    torch.testing.assert_close(solver.point, problem.maximise(first))
    second = problem.expectation(solver.point)[1]
    solver.step()
    torch.testing.assert_close(solver.point, problem.maximise((first + second) / 2))
    assert solver.passes == 2


def accelerated(problem: object, start: Tensor, name: str) -> Solver:
    field = ResidualField(problem)  # type: ignore[arg-type]
    gradient = CurvedField(problem)  # type: ignore[arg-type]
    rate = 1 / problem.steepest(start)  # type: ignore[attr-defined]
    return {
        "EM": lambda: Descent(field, start),
        "sEM-vr": lambda: VarianceReduction(field, start, 1.0, 10, 30),
        "sEM-vr+QN": lambda: VarianceReduction(field, start, 1.0, 3, 30, LimitedMemory()),
        "SQUAREM": lambda: Squarem(field, start),
        "quasi-Newton EM": lambda: QuasiNewtonEM(field, start),
        "SVRG+I": lambda: VarianceReduction(
            gradient, start, 0.5, 3, 30, ThresholdedHessian(gradient, rank=len(start) - 3, batch=150)
        ),
        "SVRG+II": lambda: VarianceReduction(gradient, start, 1.0, 10, 30, LimitedMemory(rate, 20, 1000)),
    }[name]()


@pytest.mark.parametrize(
    ("name", "bound"),
    [("EM", 90), ("sEM-vr", 60), ("sEM-vr+QN", 60), ("SQUAREM", 40), ("quasi-Newton EM", 40), ("SVRG+I", 600),
     ("SVRG+II", 200)],
)  # fmt: skip
def test_all_find_the_same_optimum_of_an_alignment(name: str, bound: int) -> None:
    instance = alignment_instance(10, 8, 300, 0.2)
    problem = instance.problem
    reference = QuasiNewtonEM(ResidualField(problem), instance.start)
    while reference.passes < 100:
        reference.step()
    optimum = problem.value_and_gradient(reference.point)[0]
    solver = accelerated(problem, instance.start, name)
    while problem.value_and_gradient(solver.point)[0] > optimum + 1e-6:
        solver.step()
        assert solver.passes < bound, f"{problem.value_and_gradient(solver.point)[0] - optimum}"


def test_a_seed_means_the_same_batches() -> None:
    instance = alignment_instance(6, 5, 80, 0.3)
    points = []
    for seed in (1, 1, 2):
        solver = VarianceReduction(ResidualField(instance.problem), instance.start, 1.0, 3, 10, seed=seed)
        solver.step()
        points.append(solver.point)
    assert torch.equal(points[0], points[1]) and not torch.equal(points[0], points[2])
