"""A whole fit against 47 passes of `grid_sample`, and its accuracy against a slow fit that has converged.

    python -m benchmarks.whole_fit --work FOLDER [--baseline PATH] [--particles 5000] [--box 64] [--rank 6]

Fits the hinge twice in the same run: cold, with nothing compiled, and warm. The baseline is a separate script that
takes BOX RANK and prints its seconds per image and pass (see projector_speed.py); the implementation that the method
was published with makes 47 passes with its defaults. It is called before, between and after the fits, and the median
counts. The times are those of whole processes: start of the interpreter, reading, half-sets, writing.

The fit that has converged (scheduled_fit.py) is kept in FOLDER and not repeated.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import (
    Call,
    engine,
    evaluated,
    finish,
    fitted,
    provenance,
    script_parser,
    shown,
    simulated,
    table,
)
from benchmarks.projector_speed import DEFAULT_BASELINE, baseline_seconds
from benchmarks.scheduled_fit import scheduled

PASSES = 47
SCORES = ("captured_variance", "captured_variance_2", "covariance_error", "covariance_error_scaled", "latent_r2")
SCORES += ("latent_r2_poly", "fsc_auc_mean", "eigenvalues_estimated", "eigenvalues_true")


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, work=True, particles=5_000, box=64, snr=0.1, rank=6, threads=2)
    parser.add_argument("--baseline", type=Path, default=DEFAULT_BASELINE, help="script called with BOX RANK")
    return parser.parse_args()


def measure(data: Path, arguments: argparse.Namespace) -> tuple[Call, Call, float, dict[str, Any]]:
    """Costs of a cold and a warm fit, seconds per image of the baseline between them, and scores of the warm one."""
    baseline, calls = [], []
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        for name in ("cold", "warm"):
            baseline.append(baseline_seconds(arguments.baseline, arguments.box, arguments.rank))
            calls.append(
                engine(
                    *("fit", data / "particles.star", "--output", Path(folder) / name, "--rank", arguments.rank),
                    *("--threads", arguments.threads),
                    environment={"NUMBA_CACHE_DIR": f"{folder}/compiled", "OMP_WAIT_POLICY": "PASSIVE"},
                )
            )
        baseline.append(baseline_seconds(arguments.baseline, arguments.box, arguments.rank))
        scores = evaluated(Path(folder) / "warm", data, arguments.threads)
    return calls[0], calls[1], statistics.median(baseline), scores


def converged_scores(data: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Scores of the fit that has converged; fitted unless it is there."""
    run = fitted(
        arguments.work / "runs",
        data,
        program=scheduled("converged"),
        label="converged",
        rank=arguments.rank,
        threads=arguments.threads,
    )
    return evaluated(run, data, arguments.threads)


def report(
    cold: Call, warm: Call, baseline: float, scores: dict[str, Any], converged: dict[str, Any], rank: int, count: int
) -> str:
    """Two tables: times with their ratios to the baseline, and scores."""
    passes = PASSES * baseline * count
    times: list[list[object]] = [[f"{PASSES} passes of `grid_sample`, rank {rank}", f"{passes:.0f}", "", "", "1"]]
    for name, call in (("warm", warm), ("cold", cold)):
        cells = [f"{call.seconds:.1f}", f"{call.cpu_seconds:.0f}", f"{call.memory_mb:.0f}"]
        times.append([f"whole fit, {name}", *cells, f"{passes / call.seconds:.0f}"])
    rows = [[key, shown(scores[key]), shown(converged[key])] for key in SCORES]
    rows.append(["seconds of the fit", shown(scores["seconds"]), shown(converged["seconds"])])
    return (
        table(["", "seconds", "CPU-seconds", "peak memory, MB", "baseline / fit"], times)
        + "\n\n"
        + table(["", "fit", "slow fit, converged"], rows)
    )


def main() -> None:
    arguments = parse_arguments()
    if not arguments.baseline.is_file():
        sys.exit(f"{arguments.baseline} is not there: name the baseline script with --baseline")
    options = {"particles": arguments.particles, "box": arguments.box, "snr": arguments.snr, "seed": 0}
    data = simulated(arguments.work / "data", "hinge", **options, pixel_size=3.0, threads=arguments.threads)
    converged = converged_scores(data, arguments)
    cold, warm, baseline, scores = measure(data, arguments)
    introduction = (
        f"Hinge, {arguments.particles} particles of {arguments.box} px, SNR {arguments.snr:g}, rank {arguments.rank}; "
        f"baseline {1e3 * baseline:.1f} ms an image and pass. {provenance(arguments.threads)}"
    )
    tables = report(cold, warm, baseline, scores, converged, arguments.rank, arguments.particles)
    text = f"{introduction}\n\n{tables}"
    finish("whole-fit", text, arguments)


if __name__ == "__main__":
    main()
