"""Accuracy on the phantoms: simulate, fit, evaluate, and one table of all scores in RESULTS.md.

    python -m benchmarks.accuracy --work FOLDER [--phantoms hinge assembly] [--snr 0.1] [--particles 10000]
        [--rank 6] [--objective ls] [--threads 2] [--print]

Without options: the five heterogeneous phantoms, 10,000 particles of 64 px each, at SNR 0.1 and 0.05. Beside the
scores of the fit stand those of an oracle (see oracle.py), which knows the true mean, eigenvolumes, eigenvalues and
poses, and estimates the latent coordinates only: nothing linear of this rank can tell the particles apart better.

Data sets and runs are kept in FOLDER and taken as they are when the script is called again.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchmarks.common import (
    engine_commit,
    evaluated,
    fitted,
    provenance,
    publish,
    script_parser,
    shown,
    simulated,
    table,
)
from benchmarks.oracle import SCORES, oracle_scores
from solvar_engine.contract.params import PHANTOMS

RANKS = {"hinge": 6, "linker": 6, "assembly": 6, "mixture": 10, "flexible": 10, "static": 6}  # static on request
PIXEL_SIZE = 3.0


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, work=True, particles=10_000, box=64, seed=0, threads=2)
    parser.add_argument("--phantoms", nargs="+", choices=PHANTOMS, default=list(RANKS)[:5])
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1, 0.05])
    parser.add_argument("--rank", help="a number, or auto if fit knows it; without it, one for each phantom")
    parser.add_argument("--objective", choices=("ml", "ls"), default="ml")
    parser.add_argument("--name", default="accuracy", help="part of RESULTS.md that is written anew")
    return parser.parse_args()


def scores_of(phantom: str, snr: float, arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of the fit and of the oracle of one data set; what lies in the working folder is not made again."""
    rank = arguments.rank or RANKS[phantom]
    options = {"particles": arguments.particles, "box": arguments.box, "snr": snr, "seed": arguments.seed}
    data = simulated(
        arguments.work / "data", phantom, **options, pixel_size=PIXEL_SIZE, threads=arguments.threads
    )
    run = fitted(
        arguments.work / "runs",
        data,
        rank=rank,
        objective=arguments.objective,
        seed=arguments.seed,
        threads=arguments.threads,
    )
    scores = {"rank": rank, **evaluated(run, data, arguments.threads)}
    oracle_rank = len(scores["eigenvalues_estimated"])
    path = arguments.work / "runs" / f"{data.name}-oracle{oracle_rank}-{engine_commit()}.json"
    if not path.is_file():
        path.write_text(json.dumps(oracle_scores(data, oracle_rank, arguments.threads)), encoding="utf-8")
    return scores, json.loads(path.read_text(encoding="utf-8"))


def report(results: dict[str, tuple[dict[str, Any], dict[str, Any]]], arguments: argparse.Namespace) -> str:
    """Lay out all scores: one column for each data set, one row for each score."""
    columns = list(results.values())
    rows = [[key, *(shown(fit[key]) for fit, _ in columns)] for key in columns[0][0]]
    rows += [[f"oracle: {key}", *(shown(oracle[key]) for _, oracle in columns)] for key in SCORES]
    kind = "maximum likelihood" if arguments.objective == "ml" else "least squares"
    introduction = (
        f"{arguments.particles} particles of {arguments.box} px, seed {arguments.seed}, {kind}. "
        f"{provenance(arguments.threads)}"
    )
    return f"{introduction}\n\n{table(['', *results], rows)}"


def main() -> None:
    arguments = parse_arguments()
    results = {}
    for snr in arguments.snr:
        for phantom in arguments.phantoms:
            results[f"{phantom} {snr:g}"] = scores_of(phantom, snr, arguments)
            text = report(results, arguments)
            if not arguments.print:
                publish(arguments.name, text)
    print(text)


if __name__ == "__main__":
    main()
