"""Speed of the projector pair against the usual way of slicing volumes with `grid_sample`, in the same run.

    python -m benchmarks.projector_speed [--baseline PATH] [--box 64] [--channels 10] [--repeats 5]

The baseline is a separate script, run unchanged as a process of its own: full plane, twofold oversampled
grid, trilinear `grid_sample`, forward and backward. It prints its seconds per image. Ours and the baseline
take turns, so that a machine that slows down slows both. Neither side counts the Fourier transforms of the
volumes, which all images of a batch share; ours are shown separately.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.common import ROOT, script_parser, use_threads
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import SliceOptions

DEFAULT_BASELINE = ROOT.parent / "shared" / "prototype" / "grid_sample_pass.py"


def parse_arguments() -> argparse.Namespace:
    numbers = {"box": 64, "channels": 10, "images": 64, "oversampling": 2, "threads": 2, "repeats": 5}
    parser = script_parser(__doc__, publishes=False, **numbers)
    parser.add_argument("--baseline", type=Path, default=DEFAULT_BASELINE, help="script called with BOX RANK")
    return parser.parse_args()


def baseline_seconds(script: Path, box_size: int, channels: int) -> float:
    """Seconds per image of the baseline, forward and backward."""
    command = [sys.executable, str(script), str(box_size), str(channels)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return float(output.stdout.split()[-1])


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


class OurPair:
    """The four steps of one pass over a batch, each timed by itself."""

    STEPS = ("transform to grid", "project", "backproject", "transform to volumes")

    def __init__(self, box_size: int, channels: int, images: int, oversampling: int) -> None:
        generator = torch.Generator().manual_seed(0)
        disk = HalfDisk.create(box_size)
        self.projector = create_projector(box_size, disk, SliceOptions(oversampling=oversampling, backend="numba_cpu"))
        self.volumes = torch.randn(channels, box_size, box_size, box_size, generator=generator)
        self.rotation = random_rotations(images, generator)
        self.grid = self.projector.to_grid(self.volumes)
        self.accumulator = self.projector.new_accumulator(channels)
        self.slices = torch.empty(0)

    def run(self) -> list[float]:
        """Seconds of each step for the whole batch."""

        def project() -> None:
            self.slices = self.projector.project(self.grid, self.rotation)

        return [
            seconds(lambda: self.projector.to_grid(self.volumes)),
            seconds(project),
            seconds(lambda: self.projector.backproject(self.slices, self.rotation, self.accumulator)),
            seconds(lambda: self.projector.to_volumes(self.accumulator)),
        ]


def main() -> None:
    arguments = parse_arguments()
    if not arguments.baseline.is_file():
        sys.exit(f"{arguments.baseline} is not there: name the baseline script with --baseline")
    use_threads(arguments.threads)
    print(
        f"box {arguments.box}, {arguments.channels} volumes, oversampling {arguments.oversampling}, "
        f"{arguments.images} images, {arguments.threads} threads, median of {arguments.repeats}"
    )
    pair = OurPair(arguments.box, arguments.channels, arguments.images, arguments.oversampling)
    print(f"first call, compilation or reading of its cache included: {sum(pair.run()):.2f} s")
    baseline, ours = [], []
    for _ in range(arguments.repeats):
        baseline.append(baseline_seconds(arguments.baseline, arguments.box, arguments.channels))
        ours.append(pair.run())
    medians = [statistics.median(column) for column in zip(*ours, strict=True)]
    for step, median in zip(OurPair.STEPS, medians, strict=True):
        per_image = 1e3 * median / arguments.images
        print(f"{step:>22}: {1e3 * median:8.2f} ms a batch, {per_image:8.4f} ms an image")
    pair_seconds = statistics.median(project + back for _, project, back, _ in ours) / arguments.images
    baseline_median = statistics.median(baseline)
    print(f"{'pair':>22}: {1e3 * pair_seconds:8.4f} ms an image")
    print(f"{'baseline':>22}: {1e3 * baseline_median:8.4f} ms an image")
    print(f"{'ratio':>22}: {baseline_median / pair_seconds:8.1f}")


if __name__ == "__main__":
    main()
