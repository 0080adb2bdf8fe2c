"""The command `fit` with another schedule than its own: what that one is measured by.

    python -m benchmarks.scheduled_fit NAME PARTICLES.star --output RUN --rank 6 ...

NAME is one of `SCHEDULES`; what follows are the options of `solvar-engine fit`.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from typing import Any

from solvar_engine import cli

SCHEDULES: dict[str, dict[str, Any]] = {
    # as many epochs of mini-batches, most of them at full band, until nothing changes
    "converged": {
        "first": ("8x0.7 8x0.7 8x0.5", "4x0.7 4x0.5 2x0.7", "4x0.7 2x0.7 1x1", "4x0.7 2x0.7 1x1"),
        "middle": ("4x0.7 2x0.7", "4x0.7 2x0.7 1x1"),
        "last": ("4x0.6 4x0.6 2x0.7", "4x0.6 2x0.7 1x1", "4x0.5 2x0.7 1x1", "2x0.7 2x0.5 1x1 1x1"),
        "full": "4x0.5 4x0.5 4x0.5 2x0.7 2x0.7 2x0.7 1x1 1x1 1x1 1x1 1x1 1x1",
    },
    "fewer epochs": {
        "first": ("8x0.7 8x0.5", "4x0.7 2x0.7"),
        "middle": ("4x0.7",),
        "last": ("4x0.6", "1x1"),
        "full": "4x0.5 1x1",
    },
    "more epochs": {"last": ("4x0.6 2x0.7", "4x0.6 2x0.7", "1x1"), "full": "4x0.5 2x0.7 1x1 1x1"},
    "one batch": {
        "first": ("1x1 1x1 1x1", "1x1 1x1 1x1"),
        "middle": ("1x1 1x1",),
        "last": ("1x1 1x1", "1x1"),
        "full": "1x1 1x1 1x1",
    },
    "no marching": {"first_shell": 10_000},  # beyond every band: the last one is the first
    "no memory": {"memory": 0.0},  # of curvature from one mini-batch to the next
}
"""Fields of `Schedule` that differ from the default.

`Schedule` itself brings NumPy, which must not be imported before the number of threads is set.
"""


def scheduled(name: str) -> tuple[str, ...]:
    """What Python runs for a fit with a schedule, in place of the command `fit`."""
    return ("-m", "benchmarks.scheduled_fit", name)


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in SCHEDULES:
        sys.exit(f"name a schedule first: {', '.join(SCHEDULES)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    params = cli.parse_arguments(["fit", *sys.argv[2:]])
    params = replace(params, threads=params.threads or cli.allowed_cpus(), device=cli.resolve_device(params.device))
    cli._prepare_libraries(params.threads)  # before NumPy and Numba are imported
    from solvar_engine.estimation.solver.schedule import Schedule
    from solvar_engine.jobs import run_fit

    cli._set_threads(params.threads)
    run_fit.run(params, Schedule(**SCHEDULES[sys.argv[1]]))


if __name__ == "__main__":
    main()
