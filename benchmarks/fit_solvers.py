"""The last stage of a fit, the factors of all images, by each solver: passes and seconds to the same objective.

    python -m benchmarks.fit_solvers --work FOLDER [--phantoms hinge assembly flexible] [--snrs 0.1 0.01]

All begin where the half-sets have ended. The schedule of `fit` (mini-batches) goes on with full steps after its three
epochs; "em" are full steps from the beginning. The objective is that of images and prior, with the contrast's variance
of the half-sets throughout; it is computed aside for the schedule, and counts for neither passes nor seconds. Seconds
are those of the CPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import finish, provenance, script_parser, simulated, table, use_threads

TOLERANCES = (1e-1, 1e-2)
Curve = list[tuple[float, float, float]]


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, work=True, particles=3_000, box=32, rank=3, seed=0, threads=1, passes=12)
    parser.add_argument("--phantoms", nargs="+", default=["hinge", "assembly", "flexible"])
    parser.add_argument("--snrs", nargs="+", type=float, default=[0.1, 0.01])
    return parser.parse_args()


def half_sets_of(data: Path, run: Path, arguments: argparse.Namespace) -> Any:
    """Fit the half-sets, or take those of an earlier call."""
    from solvar_engine.contract.params import FitParams
    from solvar_engine.contract.run import RunDir, write_params
    from solvar_engine.jobs.fit.grey_scales import settle_grey_scales
    from solvar_engine.jobs.fit.halves import fit_halves
    from solvar_engine.jobs.fit.inputs import read_inputs
    from solvar_engine.jobs.fit.job import FitJob
    from solvar_engine.jobs.fit.start import read_images, settle_sign_and_masks, with_independent_halves

    run.mkdir(parents=True, exist_ok=True)
    params = FitParams(
        particles=str(data / "particles.star"), output=str(run), rank=arguments.rank, seed=arguments.seed,
        threads=arguments.threads, device="cpu",
    )  # fmt: skip
    folder, inputs = RunDir(params.output), read_inputs(params)
    write_params(folder, params, inputs=inputs.files)
    job = FitJob.start(params, folder, inputs, None)
    job, images = settle_grey_scales(*with_independent_halves(job, read_images(job)))
    images, masks, equations = settle_sign_and_masks(job, images)
    return fit_halves(job, images, masks, equations)


def measure(halves: Any, passes: int) -> dict[str, Curve]:
    """Passes and seconds that led to points, with the objective there, by solver."""
    from solvar_engine.estimation.solver.fixed_point import FactorField
    from solvar_engine.estimation.solver.half_sets import full_set_start
    from solvar_engine.solvers.descent import Descent
    from solvar_engine.solvers.extrapolation import Squarem
    from solvar_engine.solvers.limited_memory import QuasiNewtonEM
    from solvar_engine.solvers.variance_reduction import VarianceReduction

    problem, start = full_set_start(halves.problem, halves.state)
    point = start.volumes.double().flatten()
    batch = len(problem.index) // 8

    class Recorded(FactorField):
        """Keeps what a solver has spent before each evaluation of all images, and the value that it found."""

        def __init__(self) -> None:
            super().__init__(problem)
            self.curve: Curve = []
            self.begin = time.process_time()

        def _evaluate(self, point: Any, rows: Any) -> tuple[float, Any]:
            seconds = time.process_time() - self.begin
            value, residual = super()._evaluate(point, rows)
            if rows is None:
                self.curve.append((self.passes - 1, seconds, value))
            return value, residual

    def solved(make: Callable[[FactorField], Any]) -> Curve:
        field = Recorded()
        solver = make(field)
        while solver.passes < passes + 1:
            solver.step()
        return field.curve

    return {
        "schedule": _schedule(halves.problem, problem, start, passes),
        "em": solved(lambda field: Descent(field, point)),
        "sEM-vr": solved(lambda field: VarianceReduction(field, point, 0.5, 4, batch)),
        "SQUAREM": solved(lambda field: Squarem(field, point)),
        "L-BFGS on w - Psi(w)": solved(lambda field: QuasiNewtonEM(field, point)),
    }


def _schedule(problem: Any, of_all: Any, start: Any, passes: int) -> Curve:
    """The epochs of `fit`, then full steps; values are computed aside."""
    from solvar_engine.estimation.solver.epochs import run_epoch
    from solvar_engine.estimation.solver.fixed_point import FactorField
    from solvar_engine.estimation.solver.schedule import Epoch

    aside, factors, seconds = FactorField(of_all), start, 0.0
    curve = [(0.0, 0.0, aside(start.volumes.double().flatten())[0])]
    epochs = problem.schedule.full_epochs()
    for number, epoch in enumerate([*epochs, *[Epoch(1, 1.0)] * (passes - len(epochs))]):
        begin = time.process_time()
        factors, _ = run_epoch(
            of_all.source, of_all.index, of_all.band, of_all.preconditioner, factors, of_all.precision, epoch,
            problem.generator(2, number), of_all.objective,
        )  # fmt: skip
        factors = replace(factors, contrast_variance=start.contrast_variance)
        seconds += time.process_time() - begin
        curve.append((number + 1.0, seconds, aside(factors.volumes.double().flatten())[0]))
    return curve


def report(curves: dict[str, Curve]) -> str:
    """Table of one data set."""
    optimum = min(value for curve in curves.values() for *_, value in curve)
    rows = []
    for name, curve in curves.items():
        cells = [name]
        for tolerance in TOLERANCES:
            reached = next((point for point in curve if point[2] - optimum <= tolerance), None)
            cells += [f"{reached[0]:.1f}", f"{reached[1]:.1f}"] if reached else [f"{curve[-1][0]:.0f} +", "-"]
        after_three = min((abs(passes - 3), value) for passes, _, value in curve)[1]
        rows.append([*cells, f"{after_three - optimum:.1e}", f"{curve[-1][2] - optimum:.1e}"])
        print(*rows[-1], flush=True)
    header = ["solver", *(part for tol in TOLERANCES for part in (f"passes to {tol:g}", "s"))]
    start = curves["em"][0][2] - optimum
    return f"from {start:.2g} above:\n\n{table([*header, 'after 3 passes', 'at the end'], rows)}"


def main() -> None:
    arguments = parse_arguments()
    use_threads(arguments.threads)
    parts = []
    for phantom in arguments.phantoms:
        for snr in arguments.snrs:
            options = {"particles": arguments.particles, "box": arguments.box, "snr": snr, "seed": arguments.seed}
            data = simulated(
                arguments.work / "data", phantom, **options, pixel_size=6.0, threads=arguments.threads
            )
            print(phantom, snr, flush=True)
            halves = half_sets_of(data, arguments.work / "halves" / data.name, arguments)
            parts.append(f"{phantom}, SNR {snr:g}, {report(measure(halves, arguments.passes))}")
    introduction = (
        f"{arguments.particles} particles of {arguments.box} px, rank {arguments.rank}, differences of the objective"
        f" per image to the least value that any solver found. {provenance(arguments.threads)}"
    )
    finish("fit_solvers", "\n\n".join([introduction, *parts]), arguments)


if __name__ == "__main__":
    main()
