"""Accuracy against time for each choice of the schedule: epochs, mini-batches, marching, memory of the curvature.

    python -m benchmarks.schedules --work FOLDER [--phantoms hinge assembly] [--snr 0.1] [--particles 5000]

Whole fits that differ from the default in one thing (see scheduled_fit.py), with their scores and what they cost
compared with the default. CPU-seconds are what all threads computed, which other programs on the machine change less
than the time that passes. Fits are kept in FOLDER and not repeated.
"""

from __future__ import annotations

import argparse

from benchmarks.common import (
    FIT,
    cpu_seconds_of,
    evaluated,
    finish,
    fitted,
    provenance,
    script_parser,
    shown,
    simulated,
    table,
)
from benchmarks.scheduled_fit import SCHEDULES, scheduled

DEFAULT = "default"
SCORES = ("captured_variance", "captured_variance_2", "covariance_error", "latent_r2")


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, work=True, particles=5_000, box=64, snr=0.1, rank=6, threads=2)
    parser.add_argument("--phantoms", nargs="+", default=["hinge", "assembly"])
    return parser.parse_args()


def measure(phantom: str, arguments: argparse.Namespace) -> str:
    """Table of one data set."""
    options = {"particles": arguments.particles, "box": arguments.box, "snr": arguments.snr, "seed": 0}
    data = simulated(arguments.work / "data", phantom, **options, pixel_size=3.0, threads=arguments.threads)
    rows: list[list[str]] = []
    default = None
    for schedule in (DEFAULT, *SCHEDULES):
        run = fitted(
            arguments.work / "runs",
            data,
            program=FIT if schedule == DEFAULT else scheduled(schedule),
            label=schedule.replace(" ", "_"),
            rank=arguments.rank,
            threads=arguments.threads,
        )
        scores, seconds = evaluated(run, data, arguments.threads), cpu_seconds_of(run)
        default = seconds if schedule == DEFAULT else default
        ratio = seconds / default if seconds and default else None
        rows.append([schedule, *(shown(scores[key]) for key in SCORES), shown(seconds), shown(ratio)])
        print(phantom, *rows[-1], flush=True)
    return f"{phantom}:\n\n{table(['schedule', *SCORES, 'CPU-seconds', 'over default'], rows)}"


def main() -> None:
    arguments = parse_arguments()
    introduction = (
        f"{arguments.particles} particles of {arguments.box} px, SNR {arguments.snr:g}, rank {arguments.rank}. "
        f"{provenance(arguments.threads)}"
    )
    text = "\n\n".join([introduction, *(measure(phantom, arguments) for phantom in arguments.phantoms)])
    finish("schedules", text, arguments)


if __name__ == "__main__":
    main()
