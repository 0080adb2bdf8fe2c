"""Solvers of finite sums on two models of orbit recovery: passes and seconds to the optimum (Paul 2024, section 4.5).

    python -m benchmarks.orbit_recovery [--figures FOLDER] [--models alignment cryo_em]

Windowed multireference alignment (N = 16, window 12, 3,000 observations, sigma 0.2) and cryo-EM of low dimension
(1,200 quadrature points, 3,600 images of 15 px, SNR 0.34), one pinned instance of each. These are tables 4.1 and 4.2
(alignment) and 4.3 (cryo-EM), and with --figures the convergence of figures 4.2, 4.3 and 4.6. Passes count every
evaluation of a term, over the number of terms; seconds are those that one thread computed. The values from which
convergence is told are computed aside and count for neither.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from benchmarks.common import finish, provenance, script_parser, table, use_threads

TOLERANCES = (1e-4, 1e-6)
_RECORDED = 1.03  # growth of passes from one value to the next, at least one pass
_RESTING = 4  # values that are the same where a solver has stopped to move


class AnySolver(Protocol):
    """What is measured."""

    point: Any

    @property
    def passes(self) -> float:
        """Over the terms, so far."""

    def step(self) -> None:
        """Go on."""


@dataclass(frozen=True)
class Model:
    """An instance, and how its solvers are set.

    Attributes
    ----------
    title : str
    problem, start
        Of the instance.
    reference : float
        Passes of the reference, L-BFGS on w - Psi(w).
    limit : float
        Passes after which a solver is given up.
    gradient, em : dict
        Solvers with their settings.
    figures : dict
        Names of figures, and what each shows.
    """

    title: str
    problem: Any
    start: Any
    reference: float
    limit: float
    gradient: dict[str, Callable[[], AnySolver]]
    em: dict[str, Callable[[], AnySolver]]
    figures: dict[str, str]


@dataclass(frozen=True)
class Curve:
    """Of one solver: passes, seconds and values F, from the start on, and the value of the optimum that it goes to."""

    passes: list[float]
    seconds: list[float]
    values: list[float]
    optimum: float = float("nan")

    def differences(self) -> list[float]:
        """Of the values to the optimum."""
        return [value - self.optimum for value in self.values]


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, seed=0)
    parser.add_argument("--models", nargs="+", choices=["alignment", "cryo_em"], default=["alignment", "cryo_em"])
    parser.add_argument("--figures", type=Path, help="folder for the figures (default: none are drawn)")
    return parser.parse_args()


def alignment(seed: int) -> Model:
    """Settings are the best of a few that were tried; rates along gradients are in units of 1 / bound of curvature."""
    from solvar_engine.orbit_recovery.alignment import alignment_instance
    from solvar_engine.solvers.fields import CurvedField, GradientField
    from solvar_engine.solvers.metrics import LimitedMemory, ThresholdedHessian
    from solvar_engine.solvers.variance_reduction import VarianceReduction

    instance = alignment_instance(seed=seed)
    problem, start = instance.problem, instance.start
    unit = 1 / problem.steepest(start)

    def hessians() -> AnySolver:
        field = CurvedField(problem)
        return VarianceReduction(field, start, 0.1, 10, 300, ThresholdedHessian(field, 28, 300))

    gradient = _first_order(problem, start, unit, batch=300) | {
        "SVRG": lambda: VarianceReduction(GradientField(problem), start, unit, 30, 100),
        "SVRG+I": hessians,
        "SVRG+II": lambda: VarianceReduction(
            GradientField(problem), start, 0.5, 30, 100, LimitedMemory(unit, 20, 1000)
        ),
    }
    figures = {"4.2": "gradient", "4.3": "em"}
    return Model("Windowed alignment", problem, start, 1000, 3000, gradient, _em(problem, start, 100, 300), figures)


def cryo_em(seed: int) -> Model:
    """As for the alignment, without Hessians: those of 64 parameters and 1,200 orientations cost too much."""
    from solvar_engine.orbit_recovery.cryo_em import cryo_instance
    from solvar_engine.solvers.fields import GradientField
    from solvar_engine.solvers.metrics import LimitedMemory
    from solvar_engine.solvers.variance_reduction import VarianceReduction

    instance = cryo_instance(seed=seed)
    problem, start = instance.problem, instance.start
    unit = 1 / problem.steepest(start)
    gradient = _first_order(problem, start, unit, batch=720) | {
        "SVRG": lambda: VarianceReduction(GradientField(problem), start, unit, 15, 240),
        "SVRG+II": lambda: VarianceReduction(
            GradientField(problem), start, 0.5, 15, 240, LimitedMemory(unit, 20, 1000)
        ),
    }
    return Model("Cryo-EM", problem, start, 120, 2000, gradient, _em(problem, start, 360, 720), {"4.6": "gradient"})


def _first_order(problem: Any, start: Any, unit: float, batch: int) -> dict[str, Callable[[], AnySolver]]:
    from solvar_engine.solvers.descent import Descent, StochasticDescent
    from solvar_engine.solvers.fields import GradientField

    return {
        "GD": lambda: Descent(GradientField(problem), start, 1.5 * unit),
        "SGD": lambda: StochasticDescent(GradientField(problem), start, unit, 1000, batch),
    }


def _em(problem: Any, start: Any, small: int, large: int) -> dict[str, Callable[[], AnySolver]]:
    from solvar_engine.solvers.descent import Descent
    from solvar_engine.solvers.extrapolation import Squarem
    from solvar_engine.solvers.fields import ResidualField
    from solvar_engine.solvers.limited_memory import QuasiNewtonEM
    from solvar_engine.solvers.metrics import LimitedMemory
    from solvar_engine.solvers.online import OnlineEM
    from solvar_engine.solvers.variance_reduction import VarianceReduction

    return {
        "EM": lambda: Descent(ResidualField(problem), start),
        "stochastic EM": lambda: OnlineEM(problem, start, large),
        "sEM-vr": lambda: VarianceReduction(ResidualField(problem), start, 1.0, 10, small),
        "sEM-vr+QN": lambda: VarianceReduction(ResidualField(problem), start, 1.0, 3, large, LimitedMemory()),
        "SQUAREM": lambda: Squarem(ResidualField(problem), start),
        "L-BFGS on w - Psi(w)": lambda: QuasiNewtonEM(ResidualField(problem), start),
    }


def optimum_near(model: Model, point: Any) -> float:
    """Value of the optimum that the reference, L-BFGS on w - Psi(w), goes to from a point: there is more than one."""
    from solvar_engine.solvers.fields import ResidualField
    from solvar_engine.solvers.limited_memory import QuasiNewtonEM

    solver = QuasiNewtonEM(ResidualField(model.problem), point)
    while solver.passes < model.reference:
        solver.step()
    return float(model.problem.expectation(solver.point)[0])


def run(model: Model, make: Callable[[], AnySolver]) -> Curve:
    """Follow a solver until its value rests, or the limit of passes."""
    solver = make()
    curve = Curve([], [], [])
    seconds = 0.0
    while True:
        curve.passes.append(solver.passes)
        curve.seconds.append(seconds)
        curve.values.append(float(model.problem.expectation(solver.point)[0]))
        if solver.passes >= model.limit or rests(curve.values):
            return replace(curve, optimum=optimum_near(model, solver.point))
        upto = min(model.limit, max(solver.passes + 1, _RECORDED * solver.passes))
        begin = time.process_time()
        while solver.passes < upto:
            solver.step()
        seconds += time.process_time() - begin


def rests(values: list[float]) -> bool:
    """Whether the last values differ by nothing that the tolerances see."""
    return len(values) > _RESTING and max(values[-_RESTING:]) - min(values[-_RESTING:]) < 1e-4 * TOLERANCES[-1]


def row(name: str, curve: Curve) -> list[str]:
    cells, differences = [name], curve.differences()
    for tolerance in TOLERANCES:
        reached = [number for number, difference in enumerate(differences) if difference <= tolerance]
        if reached:
            cells += [f"{curve.passes[reached[0]]:.0f}", f"{curve.seconds[reached[0]]:.2g}"]
        else:
            cells += [f"{curve.passes[-1]:.0f} +", f"{curve.seconds[-1]:.2g} +"]
    return [*cells, f"{differences[-1]:.1e}", f"{curve.optimum:.6f}"]


def measure(model: Model, folder: Path | None) -> str:
    """Table of one model; figures into a folder."""
    rows, curves = [], {}
    for name, make in (model.gradient | model.em).items():
        curves[name] = run(model, make)
        rows.append(row(name, curves[name]))
        print(*rows[-1], flush=True)
    for number, kind in model.figures.items() if folder else ():
        draw(folder / f"figure_{number}.png", {name: curves[name] for name in getattr(model, kind)})
    reached = (part for tol in TOLERANCES for part in (f"passes to {tol:g}", "seconds"))
    header = ["solver", *reached, "last difference", "optimum"]
    return f"{model.title}, differences to the optimum that each solver goes to:\n\n{table(header, rows)}"


def draw(path: Path, curves: dict[str, Curve]) -> None:
    """Difference to the optimum against passes and seconds."""
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for name, curve in curves.items():
        differences = [max(difference, 1e-9) for difference in curve.differences()]
        axes[0].plot(curve.passes, differences, label=name)
        axes[1].plot(curve.seconds, differences)
    axes[0].set(xlabel="passes", ylabel="F - optimum", xscale="symlog", yscale="log", ylim=(1e-8, None))
    axes[1].set(xlabel="seconds", xscale="log")
    axes[0].legend()
    figure.savefig(path, dpi=80)


def main() -> None:
    arguments = parse_arguments()
    use_threads(1)
    made = {"alignment": alignment, "cryo_em": cryo_em}
    for name in arguments.models:
        text = measure(made[name](arguments.seed), arguments.figures)
        finish(f"orbit_recovery_{name}", f"{text}\n\n{provenance(1)}", arguments)


if __name__ == "__main__":
    main()
