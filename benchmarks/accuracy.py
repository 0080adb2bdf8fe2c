"""Accuracy on the phantoms: simulate, fit, evaluate, and one table of all scores in RESULTS.md.

    python benchmarks/accuracy.py --work FOLDER [--phantoms hinge assembly] [--snr 0.1] [--particles 10000]
        [--rank 6] [--objective ls] [--threads 2] [--print]

Without options: the five heterogeneous phantoms, 10,000 particles of 64 px each, at SNR 0.1 and 0.05. Beside the
scores of the fit stand those of an oracle (see oracle.py), which knows the true mean, eigenvolumes, eigenvalues and
poses, and estimates the latent coordinates only: nothing linear of this rank can tell the particles apart better.

Data sets and runs are kept in FOLDER and taken as they are when the script is called again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import (  # noqa: E402
    engine_commit,
    evaluated,
    fitted,
    provenance,
    publish,
    shown,
    simulated,
    table,
)
from benchmarks.oracle import SCORES, oracle_scores  # noqa: E402
from solvar_engine.contract.params import PHANTOMS  # noqa: E402

RANKS = {"hinge": 6, "linker": 6, "assembly": 6, "mixture": 10, "flexible": 10, "static": 6}  # static on request
PIXEL_SIZE = 3.0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for data sets and runs; made if need be")
    parser.add_argument("--phantoms", nargs="+", choices=PHANTOMS, default=list(RANKS)[:5])
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1, 0.05])
    parser.add_argument("--particles", type=int, default=10_000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of data set and fit")
    parser.add_argument("--rank", help="a number, or auto if fit knows it; without it, one for each phantom")
    parser.add_argument("--objective", choices=("ml", "ls"), default="ml")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="accuracy", help="part of RESULTS.md that is written anew")
    parser.add_argument("--print", action="store_true", help="print the table and leave RESULTS.md alone")
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
