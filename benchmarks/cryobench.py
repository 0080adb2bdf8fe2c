"""Fit a data set of CryoBench that you have downloaded, and compare the result with its truth.

    python -m benchmarks.cryobench FOLDER --dataset IgG-1D --work FOLDER2 [--snr 0.01] [--rank 10] [--labels FILE]

FOLDER is where the archive was unpacked. The data set is laid out anew in FOLDER2, without copying images; the run is
kept there too and taken as it is when the script is called again. All data sets that were done so far make one table
in RESULTS.md. docs/cryobench.md says where to get the data, and what each needs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.common import evaluated, finish, fitted, provenance, script_parser, shown, table
from benchmarks.cryobench_folder import DATA_SETS, CryoBenchFolder, write_data_set
from solvar_engine.contract.errors import UserError


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, work=True, threads=2)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with the unpacked data set")
    parser.add_argument("--dataset", choices=list(DATA_SETS), required=True)
    parser.add_argument("--snr", help="as in the names of the folders; without it, the one that publications show")
    parser.add_argument("--labels", type=Path, help="text file: state of each particle from 0, or -1 to leave it out")
    parser.add_argument("--volumes", type=Path, help="folder of true volumes, if they are not in vols/")
    parser.add_argument("--rank", default="10")
    parser.add_argument("--box", type=int, help="working box of the fit, px")
    parser.add_argument("--objective", choices=("ml", "ls"), default="ml")
    return parser.parse_args()


def prepared(arguments: argparse.Namespace) -> Path:
    """Folder of the data set as `simulate` lays one out; made unless it is there."""
    snr = arguments.snr or DATA_SETS[arguments.dataset].snr
    data: Path = arguments.work / "data" / f"{arguments.dataset}-snr{snr}"
    if not (data / "particles.star").is_file():
        folder = CryoBenchFolder.find(arguments.folder, arguments.dataset, snr, arguments.volumes)
        write_data_set(folder, data, arguments.labels)
    return data


def all_results(runs: Path) -> str:
    """Table of all runs that were evaluated: one column each, one row for each score."""
    scores = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(runs.glob("*.json"))}
    keys = list(next(iter(scores.values())))
    rows = [[key, *(shown(values.get(key)) for values in scores.values())] for key in keys]
    return table(["", *scores], rows)


def main() -> None:
    arguments = parse_arguments()
    try:
        data = prepared(arguments)
    except UserError as error:
        sys.exit(f"error: {error}")
    runs = arguments.work / "runs"
    run = fitted(
        runs,
        data,
        rank=arguments.rank,
        box=arguments.box,
        objective=arguments.objective,
        threads=arguments.threads,
    )
    evaluated(run, data, arguments.threads)
    text = f"{provenance(arguments.threads)}\n\n{all_results(runs)}"
    finish("cryobench", text, arguments)


if __name__ == "__main__":
    main()
