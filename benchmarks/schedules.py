"""Accuracy against time for each choice of the schedule: epochs, mini-batches, marching, memory of the curvature.

    python benchmarks/schedules.py --work FOLDER [--phantoms hinge assembly] [--snr 0.1] [--particles 5000]

Whole fits that differ from the default in one thing (see scheduled_fit.py), with their scores and what they cost
compared with the default. CPU-seconds are what all threads computed, which other programs on the machine change less
than the time that passes. Fits are kept in FOLDER and not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import (  # noqa: E402
    engine,
    engine_commit,
    evaluated,
    provenance,
    publish,
    shown,
    simulated,
    state_of,
    table,
)
from benchmarks.scheduled_fit import SCHEDULES  # noqa: E402

SCHEDULED_FIT = Path(__file__).with_name("scheduled_fit.py")
DEFAULT = "default"
SCORES = ("captured_variance", "captured_variance_2", "covariance_error", "latent_r2")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for data sets and runs; made if need be")
    parser.add_argument("--phantoms", nargs="+", default=["hinge", "assembly"])
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--particles", type=int, default=5_000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--rank", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--print", action="store_true", help="print the tables and leave RESULTS.md alone")
    return parser.parse_args()


def cpu_seconds(schedule: str, data: Path, run: Path, arguments: argparse.Namespace) -> float:
    """CPU-seconds of a fit; fitted unless it is there."""
    cost = run.parent / f"{run.name}.cost.json"
    if state_of(run) != "finished" or not cost.is_file():
        program = ("-m", "solvar_engine", "fit") if schedule == DEFAULT else (str(SCHEDULED_FIT), schedule)
        call = engine(
            *(data / "particles.star", "--output", run, "--rank", arguments.rank, "--threads", arguments.threads),
            program=program,
            log=run.parent / f"{run.name}.log",
        )
        cost.write_text(json.dumps(call.cpu_seconds), encoding="ascii")
    return float(json.loads(cost.read_text(encoding="ascii")))


def measure(phantom: str, arguments: argparse.Namespace) -> str:
    """Table of one data set."""
    options = {"particles": arguments.particles, "box": arguments.box, "snr": arguments.snr, "seed": 0}
    data = simulated(arguments.work / "data", phantom, **options, pixel_size=3.0, threads=arguments.threads)
    folder = arguments.work / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    rows, default = [], 0.0
    for schedule in (DEFAULT, *SCHEDULES):
        run = folder / f"{data.name}-rank{arguments.rank}-{schedule.replace(' ', '_')}-{engine_commit()}"
        seconds = cpu_seconds(schedule, data, run, arguments)
        default = default or seconds
        scores = evaluated(run, data, arguments.threads)
        rows.append([schedule, *(shown(scores[key]) for key in SCORES), f"{seconds:.0f}", f"{seconds / default:.2f}"])
        print(phantom, *rows[-1], flush=True)
    return f"{phantom}:\n\n{table(['schedule', *SCORES, 'CPU-seconds', 'over default'], rows)}"


def main() -> None:
    arguments = parse_arguments()
    introduction = (
        f"{arguments.particles} particles of {arguments.box} px, SNR {arguments.snr:g}, rank {arguments.rank}. "
        f"{provenance(arguments.threads)}"
    )
    text = "\n\n".join([introduction, *(measure(phantom, arguments) for phantom in arguments.phantoms)])
    if not arguments.print:
        publish("schedules", text)
    print(text)


if __name__ == "__main__":
    main()
