"""The command `fit` with another schedule than its own: what that one is measured by.

    python benchmarks/scheduled_fit.py NAME PARTICLES.star --output RUN --rank 6 ...

NAME is one of `SCHEDULES`; what follows are the options of `solvar-engine fit`.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from solvar_engine import cli  # noqa: E402

SCHEDULES: dict[str, dict[str, object]] = {
    # as many epochs of mini-batches, most of them at full band, until nothing changes
    "converged": {
        "_FIRST_BAND": ("8x0.7 8x0.7 8x0.5", "4x0.7 4x0.5 2x0.7", "4x0.7 2x0.7 1x1", "4x0.7 2x0.7 1x1"),
        "_MIDDLE_BAND": ("4x0.7 2x0.7", "4x0.7 2x0.7 1x1"),
        "_LAST_BAND": ("4x0.6 4x0.6 2x0.7", "4x0.6 2x0.7 1x1", "4x0.5 2x0.7 1x1", "2x0.7 2x0.5 1x1 1x1"),
        "_FULL_SET": "4x0.5 4x0.5 4x0.5 2x0.7 2x0.7 2x0.7 1x1 1x1 1x1 1x1 1x1 1x1",
    },
    "fewer epochs": {
        "_FIRST_BAND": ("8x0.7 8x0.5", "4x0.7 2x0.7"),
        "_MIDDLE_BAND": ("4x0.7",),
        "_LAST_BAND": ("4x0.6", "1x1"),
        "_FULL_SET": "4x0.5 1x1",
    },
    "more epochs": {"_LAST_BAND": ("4x0.6 2x0.7", "4x0.6 2x0.7", "1x1"), "_FULL_SET": "4x0.5 2x0.7 1x1 1x1"},
    "one batch": {
        "_FIRST_BAND": ("1x1 1x1 1x1", "1x1 1x1 1x1"),
        "_MIDDLE_BAND": ("1x1 1x1",),
        "_LAST_BAND": ("1x1 1x1", "1x1"),
        "_FULL_SET": "1x1 1x1 1x1",
    },
    "no marching": {"_FIRST_SHELL": 10_000},  # beyond every band: the last one is the first
    "no memory": {"_MEMORY": 0.0},  # of curvature from one mini-batch to the next
}


def scheduled(name: str) -> tuple[str, ...]:
    """What Python runs for a fit with a schedule, in place of the command `fit`."""
    return (__file__, name)


def apply_schedule(name: str) -> None:
    """Replace constants of the engine.

    Raises
    ------
    SystemExit
        If the engine has no such constant any more.
    """
    from solvar_engine.estimation import bands, covariance, solvers

    for constant, value in SCHEDULES[name].items():
        owners = [module for module in (bands, covariance, solvers) if hasattr(module, constant)]
        if not owners:
            sys.exit(f"the engine has no {constant} any more: bring this script up to date")
        setattr(owners[0], constant, value)


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in SCHEDULES:
        sys.exit(f"name a schedule first: {', '.join(SCHEDULES)}")
    cli._prepare_libraries(cli.allowed_cpus())  # before NumPy and Numba are imported
    apply_schedule(sys.argv[1])
    return cli.main(["fit", *sys.argv[2:]])


if __name__ == "__main__":
    sys.exit(main())
