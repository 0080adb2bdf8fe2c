"""From nothing to the motions of a molecule: simulate a data set, fit it, analyze it, compare with the truth.

    make demo                                   in the environment that it makes
    python docs/demo.py --output demo-output    in one where the engine is installed

Every step is a command that is shown as a user would type it.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

MARKER = ".made-by-solvar-demo"
PARTICLES = 5000


def main() -> None:
    """Run the four commands and sum up what they found."""
    parser = argparse.ArgumentParser(description="Simulate, fit, analyze and evaluate a small data set.")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder that is made anew")
    output = parser.parse_args().output
    start_afresh(output)
    data, run, scores = output / "hinge", output / "run", output / "evaluation.json"

    start = time.monotonic()
    engine(
        "simulate", "--output", data, "--phantom", "hinge", "--particles", PARTICLES,
        "--box", 64, "--pixel-size", 3, "--snr", 0.1,
    )  # fmt: skip
    engine("fit", data / "particles.star", "--output", run, "--rank", 6)
    engine("analyze", run)
    engine("evaluate", run, data / "truth", "--json", scores)
    show_summary(run, json.loads(scores.read_text(encoding="utf-8")), time.monotonic() - start)


def start_afresh(output: Path) -> None:
    """Empty the folder of an earlier demo; never touch a folder that something else has filled."""
    if output.exists() and any(output.iterdir()):
        if not (output / MARKER).is_file():
            sys.exit(f"{output} holds something that is not an earlier demo: choose another with --output.")
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    (output / MARKER).touch()


def engine(*arguments: object) -> None:
    """Show one command, run it, and stop if it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ solvar-engine {shlex.join(words)}", flush=True)
    program = Path(sys.executable).with_name("solvar-engine")
    result = subprocess.run([program, *words], stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        sys.exit(f"solvar-engine {words[0]} ended with exit code {result.returncode}.")


def show_summary(run: Path, scores: dict, seconds: float) -> None:
    """Say in plain words what was found and where to look at it."""
    with (run / "eigenvalues.csv").open(encoding="utf-8", newline="") as file:
        components = list(csv.DictReader(file))
    print(f"\nWhat was found in {PARTICLES} simulated particles of a molecule with one moving domain\n")
    print("  component  eigenvalue  share of the variance  reproducible between halves")
    for row in components:
        share, agreement = float(row["fraction"]), float(row["half_set_agreement"])
        print(
            f"  {row['component']:>9}  {float(row['eigenvalue']):10.3f}  {share:21.0%}  {agreement:27.2f}"
            f"  {row['label']}".rstrip()
        )
    print()
    print(f"  true eigenvalues                              {numbers(scores['eigenvalues_true'][:2])} ...")
    print(f"  position along the motion told from z         R2 = {scores['latent_r2']:.3f}")
    print(f"  true motion held by the two leading components     {scores['captured_variance_2']:.0%}")
    print(f"  relative error of the covariance                   {scores['covariance_error']:.2f}")
    print(f"\nReport:   {(run / 'report.html').resolve()}")
    print(f"Pictures: {(run / 'analysis' / 'figures').resolve()}")
    print(f"Volumes:  {run.resolve()}  (mean.mrc, eigenvolumes/)")
    print(f"The whole demo took {seconds / 60:.1f} minutes.")


def numbers(values: list[float]) -> str:
    """Write a few numbers for a person."""
    return ", ".join(f"{value:.2f}" for value in values)


if __name__ == "__main__":
    main()
