"""What microscopes do to images, each effect alone and all together: how many components are kept, and how good.

    python -m benchmarks.realism --work FOLDER [--phantoms static hinge] [--effects none background all] [--snr 0.1]
        [--particles 6000] [--box 64] [--pixel-size 3] [--seeds 0 1 2] [--threads 2] [--print]

Simulates with the options in EFFECTS, fits with `--rank auto`, evaluates, and writes one table for each phantom. A
molecule that does not move has no component: whatever is kept of `static` is an artefact. Data sets and runs are kept
in FOLDER and taken as they are when the script is called again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from benchmarks.common import evaluated, finish, fitted, provenance, script_parser, shown, simulated, table
from solvar_engine.contract.params import PHANTOMS

ALONE: dict[str, dict[str, float]] = {
    "background": {"background": 1.5},
    "neighbours": {"neighbours": 0.3},
    "coloured noise": {"coloured_noise": 4.0},
    "uneven views": {"uneven_views": 0.7},
    "junk": {"junk": 0.1},
    "defocus error": {"defocus_error": 200.0},
}
"""Options of `simulate` that are usual for good data sets."""

EFFECTS: dict[str, dict[str, float]] = {
    "none": {},
    **ALONE,
    "all": {key: value for options in ALONE.values() for key, value in options.items()},
}
SCORES = ("captured_variance_2", "covariance_error", "latent_r2")


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, work=True, particles=6_000, box=64, pixel_size=3.0, snr=0.1, threads=2)
    parser.add_argument("--phantoms", nargs="+", choices=PHANTOMS, default=["static", "hinge"])
    parser.add_argument("--effects", nargs="+", choices=EFFECTS, default=list(EFFECTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of data sets and fits")
    return parser.parse_args()


def scores_of(phantom: str, effect: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Scores of one fit; what lies in the working folder is not made again."""
    data = simulated(
        arguments.work / "data",
        phantom,
        particles=arguments.particles,
        box=arguments.box,
        pixel_size=arguments.pixel_size,
        snr=arguments.snr,
        seed=seed,
        threads=arguments.threads,
        **EFFECTS[effect],
    )
    run = fitted(arguments.work / "runs", data, rank="auto", seed=seed, threads=arguments.threads)
    return evaluated(run, data, arguments.threads)


def row_of(effect: str, results: Sequence[dict[str, Any]]) -> list[str]:
    """Cells of one effect: components kept with each seed, the largest eigenvalue of all, means of the scores.

    A fit without a component has the eigenvalue 0, and no latent coordinates, which tell nothing: their score is 0.
    """
    eigenvalues = [scores["eigenvalues_estimated"] for scores in results]
    kept = " ".join(str(len(values)) for values in eigenvalues)
    largest = max((value for values in eigenvalues for value in values), default=0.0)
    return [effect, kept, shown(float(largest)), *(_mean_of(key, results) for key in SCORES)]


def _mean_of(key: str, results: Sequence[dict[str, Any]]) -> str:
    if not results[0]["eigenvalues_true"]:  # the molecule does not move
        return "-"
    return shown(fmean(0.0 if scores[key] is None else scores[key] for scores in results))


def report(phantom: str, results: dict[str, list[dict[str, Any]]], arguments: argparse.Namespace) -> str:
    """Lay out the table of one phantom."""
    header = ["effect", "components kept", "largest eigenvalue", *SCORES]
    rows = [row_of(effect, scores) for effect, scores in results.items()]
    true = next(iter(results.values()))[0]["eigenvalues_true"]
    return (
        f"`{phantom}`, {arguments.particles} particles of {arguments.box} px of {arguments.pixel_size:g} Angstrom, SNR"
        f" {arguments.snr:g}, seeds {' '.join(map(str, arguments.seeds))}; true eigenvalues {shown(true)}."
        f" {provenance(arguments.threads)}\n\n{table(header, rows)}"
    )


def settings() -> str:
    """Options of every effect as on the command line."""
    texts = [f"`--{key.replace('_', '-')} {value:g}`" for options in ALONE.values() for key, value in options.items()]
    return f"Effects: {', '.join(texts)}."


def main() -> None:
    arguments = parse_arguments()
    texts = [settings()]
    for phantom in arguments.phantoms:
        results = {
            effect: [scores_of(phantom, effect, seed, arguments) for seed in arguments.seeds]
            for effect in arguments.effects
        }
        texts.append(report(phantom, results, arguments))
    text = "\n\n".join(texts)
    finish("realism", text, arguments)


if __name__ == "__main__":
    main()
