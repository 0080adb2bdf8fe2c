"""Where the time of a fit goes, by stage and by kernel, and how far each kernel is from its floor of bytes.

    python -m benchmarks.profile_fit --work FOLDER [--particles 5000] [--box 64] [--rank 6]

The fit runs in this process, on one thread, with clocks around its kernels that count CPU time, which other programs
on the machine change little. The floor of a kernel is the time in which one core of this machine copies the bytes that
the kernel cannot avoid to read or write, counted from the sizes of each call:

- slices: eight corners of each sample, of all channels, and the slices written;
- inner products and combinations: slices and images read, combinations written;
- back-projection: slices read, eight corners read and written;
- volumes to grid and back: the volumes on one side, the padded grid on the other, once, and each thread's grid for
  their sum;
- batches: coefficients read, images and transfer functions written.

What the caches save of the corners is not counted, nor that they are read in whole cache lines.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import cpu_seconds, finish, provenance, script_parser, simulated, table, use_threads
from solvar_engine.contract.params import FitParams
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.alternation import means
from solvar_engine.estimation.solver import epochs
from solvar_engine.jobs import run_fit as fit
from solvar_engine.jobs.fit import start as fit_start
from solvar_engine.jobs.running.progress import Progress
from solvar_engine.projectors import numba_cpu
from solvar_engine.projectors.numba_cpu import NumbaProjector

COMPLEX, REAL = 8, 4  # bytes
CORNERS = 8
COPIED = 256_000_000  # bytes, to measure the speed of memory with


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, work=True, particles=5_000, box=64, rank=6)
    return parser.parse_args()


class Profile:
    """Clocks around methods of the engine, with the bytes of each call.

    Attributes
    ----------
    seconds, bytes, calls : dict
        By the name of the kernel.
    stages : list of (str, float)
        Names of the stages, and when they began.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.bytes: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.stages: list[tuple[str, float]] = []
        self._is_inside = False

    def add(self, name: str, seconds: float, count: float) -> None:
        """Add one call."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.bytes[name] = self.bytes.get(name, 0.0) + count
        self.calls[name] = self.calls.get(name, 0) + 1

    def clock(self, name: str, method: Callable[..., Any], count: Callable[..., float]) -> Callable[..., Any]:
        """Wrap a method; `count` takes its arguments and gives the bytes of the call.

        A method that another one calls counts there.
        """

        def wrapped(*arguments: Any, **options: Any) -> Any:
            if self._is_inside:
                return method(*arguments, **options)
            self._is_inside = True
            start = time.process_time()
            result = method(*arguments, **options)
            self.add(name, time.process_time() - start, count(*arguments, **options))
            self._is_inside = False
            return result

        return wrapped

    def clock_batches(self, method: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """Wrap the generator of batches: only the time inside it counts."""

        def wrapped(*arguments: Any, **options: Any) -> Iterator[Any]:
            batches = method(*arguments, **options)
            while True:
                start = time.process_time()
                batch = next(batches, None)
                if batch is None:
                    return
                count = batch.images.numel() * (2 * COMPLEX + REAL)
                self.add("batches", time.process_time() - start, count)
                yield batch

        return wrapped

    def stage_seconds(self, end: float) -> dict[str, float]:
        """Seconds by stage; stages of the same name together."""
        result: dict[str, float] = {}
        for (name, start), (_, stop) in zip(self.stages, [*self.stages[1:], ("", end)], strict=True):
            result[name] = result.get(name, 0.0) + stop - start
        return result


# ---------------------------------------------------------------- bytes of the kernels


def slice_bytes(projector: NumbaProjector, grid: Any, rotation: Any, *_: Any) -> float:
    """Corners read, slices written, transfer functions read."""
    return len(rotation) * len(projector.disk) * ((CORNERS + 1) * grid.shape[-1] * COMPLEX + REAL)


def product_bytes(slices: Any, images: Any, *_: Any) -> float:
    """Slices and images read; arrays of floats."""
    return (slices.size + images.size) * REAL


def combination_bytes(slices: Any, images: Any, coefficients: Any, weight: Any, out: Any) -> float:
    """Slices and images read, combinations written; arrays of floats."""
    return (slices.size + images.size + out.size) * REAL


def backprojection_bytes(projector: NumbaProjector, slices: Any, rotation: Any, *_: Any, **__: Any) -> float:
    """Slices and transfer functions read, corners read and written."""
    return len(rotation) * len(projector.disk) * (slices.shape[-1] * (2 * CORNERS + 1) * COMPLEX + REAL)


def to_grid_bytes(projector: NumbaProjector, volumes: Any) -> float:
    """Volumes read, spectrum written and read, grid written."""
    channels, box = volumes.shape[0], projector.box_size
    spectrum = (2 * box) ** 2 * (box + 1) * COMPLEX
    return channels * (box**3 * REAL + 2 * spectrum + _cells(projector) * COMPLEX)


def to_volumes_bytes(projector: NumbaProjector, accumulator: Any) -> float:
    """Grids of all threads read, their sum written and read, spectrum written and read, volumes written."""
    channels, box = accumulator.shape[-1], projector.box_size
    spectrum = (2 * box) ** 2 * (box + 1) * COMPLEX
    grids = (accumulator.shape[0] + 2) * _cells(projector) * COMPLEX
    return channels * (box**3 * REAL + 2 * spectrum + grids)


def _cells(projector: NumbaProjector) -> int:
    depth, height, width, _ = projector._geometry.shape(1)
    return depth * height * width


def copied_bytes_per_second() -> float:
    """Bytes that are read and written in a second by copying large arrays."""
    source = torch.ones(COPIED // REAL)
    target = torch.empty_like(source)
    return 2 * COPIED / min(cpu_seconds(lambda: target.copy_(source)) for _ in range(5))


# ---------------------------------------------------------------- one fit


def profiled(params: FitParams) -> tuple[Profile, float]:
    """Fit with clocks on; the profile and the seconds in all."""
    profile = Profile()
    originals = [(owner, name) for owner, name, _, _ in _KERNELS]
    originals += [(PreparedParticles, "batches"), (Progress, "stage")]
    kept = [(owner, name, getattr(owner, name)) for owner, name in originals]
    for owner, name, title, count in _KERNELS:
        setattr(owner, name, profile.clock(title, getattr(owner, name), count))
    PreparedParticles.batches = profile.clock_batches(PreparedParticles.batches)  # type: ignore[method-assign]
    stage = Progress.stage

    def noted(self: Progress, name: str) -> None:
        profile.stages.append((name.split(",")[0], time.process_time()))
        stage(self, name)

    Progress.stage = noted  # type: ignore[method-assign]
    start = time.process_time()
    profile.stages.append(("checking the input", start))
    try:
        fit.run(params)
    finally:
        for owner, name, method in kept:
            setattr(owner, name, method)
    return profile, time.process_time() - start


def uncounted(*_: Any, **__: Any) -> float:
    """Stand for the bytes of what has no simple floor."""
    return 0.0


_KERNELS: tuple[tuple[Any, str, str, Callable[..., float]], ...] = (
    (NumbaProjector, "project", "slices", slice_bytes),
    (numba_cpu, "_gram", "inner products of slices", product_bytes),
    (numba_cpu, "_combine", "combinations of slices", combination_bytes),
    (NumbaProjector, "backproject", "back-projection", backprojection_bytes),
    (NumbaProjector, "to_grid", "volumes to grid", to_grid_bytes),
    (NumbaProjector, "to_volumes", "grid to volumes", to_volumes_bytes),
    (epochs, "preconditioned_step", "preconditioned steps", uncounted),
    (fit_start, "estimate_mean", "solution for the mean", uncounted),
    (means, "estimate_mean", "solution for the mean", uncounted),
    (fit_start, "prepare_particles", "preparation of the images", uncounted),
)


def report(profile: Profile, total: float, speed: float) -> str:
    """Two tables: stages, and kernels with their floors."""
    stages = sorted(profile.stage_seconds(profile.stages[0][1] + total).items(), key=lambda item: -item[1])
    stage_rows = [[name, f"{seconds:.1f}", f"{100 * seconds / total:.0f}"] for name, seconds in stages]
    rows = []
    for name, seconds in sorted(profile.seconds.items(), key=lambda item: -item[1]):
        cells = [name, profile.calls[name], f"{seconds:.1f}", f"{100 * seconds / total:.0f}"]
        floor = profile.bytes[name] / speed
        counted = [f"{profile.bytes[name] / 1e9:.1f}", f"{floor:.1f}", f"{seconds / floor:.1f}"] if floor else [""] * 3
        rows.append(cells + counted)
    rest = total - sum(profile.seconds.values())
    rows.append(["all else", "", f"{rest:.1f}", f"{100 * rest / total:.0f}", "", "", ""])
    return (
        table(["stage", "CPU-seconds", "%"], stage_rows)
        + "\n\n"
        + table(["kernel", "calls", "CPU-seconds", "%", "GB", "floor, s", "time / floor"], rows)
    )


def main() -> None:
    arguments = parse_arguments()
    use_threads(1)
    options = {"particles": arguments.particles, "box": arguments.box, "snr": 0.1, "seed": 0}
    data = simulated(arguments.work / "data", "hinge", **options, pixel_size=3.0, threads=1)
    speed = copied_bytes_per_second()
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        run = Path(folder) / "run"
        particles = str(data / "particles.star")
        profile, total = profiled(FitParams(particles=particles, output=str(run), rank=arguments.rank))
    introduction = (
        f"Hinge, {arguments.particles} particles of {arguments.box} px, rank {arguments.rank}: {total:.1f} CPU-seconds "
        f"in all; memory is copied at {speed / 1e9:.1f} GB/s. {provenance(1)}"
    )
    text = f"{introduction}\n\n{report(profile, total, speed)}"
    finish("profile", text, arguments)


if __name__ == "__main__":
    main()
