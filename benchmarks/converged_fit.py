"""The command `fit` with a slow schedule that runs until nothing changes: what the default one is measured by.

    python benchmarks/converged_fit.py PARTICLES.star --output RUN --rank 6 ...

Takes the options of `solvar-engine fit`. Same stages, bands and starting values, but several times as many epochs, most
of them at full band, with ever fewer mini-batches.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from solvar_engine import cli  # noqa: E402

FIRST_BAND = ("8x0.7 8x0.7 8x0.5", "4x0.7 4x0.5 2x0.7", "4x0.7 2x0.7 1x1", "4x0.7 2x0.7 1x1")
MIDDLE_BAND = ("4x0.7 2x0.7", "4x0.7 2x0.7 1x1")
LAST_BAND = ("4x0.6 4x0.6 2x0.7", "4x0.6 2x0.7 1x1", "4x0.5 2x0.7 1x1", "2x0.7 2x0.5 1x1 1x1")
FULL_SET = "4x0.5 4x0.5 4x0.5 2x0.7 2x0.7 2x0.7 1x1 1x1 1x1 1x1 1x1 1x1"


def main() -> int:
    cli._prepare_libraries(cli.allowed_cpus())  # before NumPy and Numba are imported
    from solvar_engine.estimation import covariance

    schedule = {
        "_FIRST_BAND": FIRST_BAND,
        "_MIDDLE_BAND": MIDDLE_BAND,
        "_LAST_BAND": LAST_BAND,
        "_FULL_SET": FULL_SET,
    }
    for name, value in schedule.items():
        if not hasattr(covariance, name):
            sys.exit(f"the schedule of the engine has no {name} any more: bring this script up to date")
        setattr(covariance, name, value)
    return cli.main(["fit", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
