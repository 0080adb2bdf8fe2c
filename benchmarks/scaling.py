"""How time and memory of a whole fit grow with particles, box, rank and threads.

    python -m benchmarks.scaling --work FOLDER [--axes particles box rank threads] [--threads 2]

Each axis is a series of whole fits of the hinge that differ in one number; the first of a series is the baseline to
which the others are compared, beside what the law says that they should be: linear in particles, N^2 log N per image in
the box. Per image means the difference between two fits of the same box, one with twice the particles, so that what all
images share (transforms of the volumes) does not count. Times are those of whole processes; CPU-seconds are what all
threads computed, which other programs on the machine change less than the time that passes. Memory is anonymous memory,
with no cache of images (--cache-mb 0). Each series makes a figure in benchmarks/figures.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import ROOT, Call, engine, provenance, publish, script_parser, simulated, table

FIGURES = ROOT / "benchmarks" / "figures"


@dataclass(frozen=True)
class Case:
    """One fit."""

    particles: int
    box: int
    rank: int
    threads: int


@dataclass(frozen=True)
class Series:
    """Fits that differ in one number.

    Attributes
    ----------
    title, unit : str
    cases : tuple of Case
        The first is the baseline.
    value : callable
        Case -> the number that differs.
    law : callable
        Case -> time up to a constant, as it should be.
    law_name : str
    """

    title: str
    unit: str
    cases: tuple[Case, ...]
    value: Callable[[Case], int]
    law: Callable[[Case], float]
    law_name: str


def series_of(threads: int) -> dict[str, Series]:
    """All series, by the name of their axis."""
    return {
        "particles": Series(
            "particles, box 32, rank 6",
            "particles",
            tuple(Case(count, 32, 6, threads) for count in (10_000, 20_000, 40_000)),
            lambda case: case.particles,
            lambda case: float(case.particles),
            "linear",
        ),
        "box": Series(
            "box, 2,000 particles, rank 4",
            "px",
            tuple(Case(2_000, box, 4, threads) for box in (64, 96, 128)),
            lambda case: case.box,
            lambda case: case.box**2 * math.log(case.box),
            "N^2 log N",
        ),
        "rank": Series(
            "rank, 5,000 particles, box 32",
            "components",
            tuple(Case(5_000, 32, rank, threads) for rank in (2, 4, 8, 16)),
            lambda case: case.rank,
            lambda case: case.rank + 2.0,
            "rank + 2",
        ),
        "threads": Series(
            "threads, 10,000 particles, box 32, rank 6",
            "threads",
            tuple(Case(10_000, 32, 6, count) for count in range(1, threads + 1)),
            lambda case: case.threads,
            lambda case: 1.0 / case.threads,
            "1 / threads",
        ),
    }


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, work=True, threads=2)
    parser.add_argument("--axes", nargs="+", choices=list(series_of(1)), default=list(series_of(1)))
    return parser.parse_args()


def cost_of(case: Case, work: Path) -> Call:
    """Fit once, into a folder that is removed afterwards."""
    options = {"particles": case.particles, "box": case.box, "snr": 0.1, "seed": 0}
    data = simulated(work / "data", "hinge", **options, pixel_size=192 / case.box, threads=case.threads)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        return engine(
            *("fit", data / "particles.star", "--output", Path(folder) / "run", "--rank", case.rank),
            *("--threads", case.threads, "--cache-mb", 0),
            log=Path(folder) / "messages",
        )


def measure(series: Series, work: Path) -> list[tuple[Case, Call]]:
    """Costs of all fits of a series."""
    costs = []
    for case in series.cases:
        costs.append((case, cost_of(case, work)))
        print(f"{series.title}: {series.value(case)} {series.unit}: {costs[-1][1]}", flush=True)
    return costs


def report(series: Series, costs: list[tuple[Case, Call]]) -> str:
    """Table of a series, with ratios to its first fit."""
    first_case, first = costs[0]
    rows = []
    for case, call in costs:
        expected = series.law(case) / series.law(first_case)
        rows.append(
            [
                series.value(case),
                f"{call.seconds:.1f}",
                f"{call.seconds / first.seconds:.2f}",
                f"{call.cpu_seconds:.1f}",
                f"{call.cpu_seconds / first.cpu_seconds:.2f}",
                f"{expected:.2f}",
                f"{call.memory_mb:.0f}",
            ]
        )
    header = [series.unit, "seconds", "over first", "CPU-seconds", "over first", series.law_name, "memory, MB"]
    return f"{series.title}:\n\n{table(header, rows)}"


def per_image(work: Path, threads: int, doubled: list[tuple[Case, Call]]) -> str:
    """Time of one more image against the box: the difference that twice the particles make."""
    rows, baseline = [], 0.0
    for case, call in doubled:
        more = cost_of(Case(2 * case.particles, case.box, case.rank, threads), work)
        milliseconds = 1e3 * (more.cpu_seconds - call.cpu_seconds) / case.particles
        law = case.box**2 * math.log(case.box)
        baseline = baseline or milliseconds / law
        rows.append([case.box, f"{milliseconds:.2f}", f"{milliseconds / baseline / law:.2f}"])
    return f"One more image:\n\n{table(['box', 'CPU-ms of all passes', 'over N^2 log N, first = 1'], rows)}"


def draw(name: str, series: Series, costs: list[tuple[Case, Call]]) -> Path:
    """Figure of a series: time and memory against the number, with the law through the first point."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    values = [series.value(case) for case, _ in costs]
    law = [series.law(case) / series.law(costs[0][0]) for case, _ in costs]
    figure, (time_axis, memory_axis) = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    time_axis.plot(values, [call.seconds for _, call in costs], "o-", label="seconds")
    time_axis.plot(values, [call.cpu_seconds for _, call in costs], "s-", label="CPU-seconds")
    time_axis.plot(values, [costs[0][1].seconds * factor for factor in law], "k:", label=series.law_name)
    time_axis.set(xlabel=series.unit, xscale="log", yscale="log", title=series.title)
    time_axis.legend()
    memory_axis.plot(values, [call.memory_mb for _, call in costs], "o-")
    memory_axis.set(xlabel=series.unit, ylabel="anonymous memory, MB", ylim=(0, None))
    FIGURES.mkdir(exist_ok=True)
    path = FIGURES / f"scaling_{name}.png"
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
    return path


def main() -> None:
    arguments = parse_arguments()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name in arguments.axes:
        series = series_of(arguments.threads)[name]
        costs = measure(series, arguments.work)
        parts = [report(series, costs)]
        if name == "box":
            parts.append(per_image(arguments.work, arguments.threads, costs))
        parts.insert(0, provenance(arguments.threads))
        if not arguments.print:
            path = draw(name, series, costs)
            parts.append(f"![{series.title}](figures/{path.name})")
            publish(f"scaling-{name}", "\n\n".join(parts))
        print("\n\n".join(parts))


if __name__ == "__main__":
    main()
