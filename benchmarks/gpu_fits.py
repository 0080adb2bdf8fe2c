"""Whole fits on a GPU, for gpu.py; each part makes its text from a device and whether the scale is full.

Part c fits 100,000 simulated images of 128 px at rank 10, cold, warm and with --refine-poses, and tells the seconds of
every stage and the peak memory of the GPU; part d compares the scores of a fit of 10,000 images of 64 px on the device
with those on the CPU; part e is the fit of c within 4 GB of the GPU's memory.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest import mock

import torch

from benchmarks.common import engine, shown, table
from solvar_engine.contract.params import FitParams, SimulateParams
from solvar_engine.jobs import run_simulate
from solvar_engine.jobs.run_fit import run
from solvar_engine.jobs.running.progress import Progress

PIXEL_SIZE, SNR, SEED = 3.0, 0.1, 0
SCORES = ("captured_variance", "covariance_error", "latent_r2")
LARGEST_DIFFERENCE = 0.003


@dataclass(frozen=True)
class Timing:
    """What a fit took: seconds by stage, in order, and the most memory of the GPU, GB."""

    stages: dict[str, float]
    peak_gb: float

    @property
    def seconds(self) -> float:
        """In all."""
        return sum(self.stages.values())


def whole_fits(device: str, full: bool) -> str:
    """Part c."""
    (particles, simulated), rank = _data_set(device, full), 10 if full else 2
    timings = {
        "cold": _timed(particles, device, rank),
        "warm": _timed(particles, device, rank),
        "poses": _timed(particles, device, rank, refine_poses=True),
    }
    stages = list(dict.fromkeys(stage for timing in timings.values() for stage in timing.stages))
    rows: list[list[object]] = [
        [stage, *(shown(timing.stages.get(stage, 0.0)) for timing in timings.values())] for stage in stages
    ]
    rows.append(["all", *(shown(timing.seconds) for timing in timings.values())])
    rows.append(["peak memory, GB", *(shown(timing.peak_gb) for timing in timings.values())])
    return f"{_describe(full)}, simulated in {simulated:.0f} s; seconds.\n\n" + table(["", *timings], rows)


def accuracy(device: str, full: bool) -> str:
    """Part d."""
    count, box_size, rank = (10_000, 64, 6) if full else (300, 24, 2)
    scores = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ("--particles", count, "--box", box_size, "--snr", SNR if full else 1.0)
        engine("simulate", "--output", folder / "data", "--phantom", "hinge", *options)
        for number, place in enumerate((device, "cpu")):
            output = folder / f"run{number}"
            _fit(folder / "data" / "particles.star", output, place, rank)
            engine("evaluate", output, folder / "data", "--json", folder / "scores.json")
            scores.append(json.loads((folder / "scores.json").read_text(encoding="utf-8")))
    rows = []
    for key in SCORES:
        there, here = (_first(of_run[key]) for of_run in scores)
        verdict = "yes" if abs(there - here) <= LARGEST_DIFFERENCE else "NO"
        rows.append([key, f"{there:.4f}", f"{here:.4f}", verdict])
    text = f"{count} images of {box_size} px, rank {rank}.\n\n"
    return text + table(["", device, "cpu", f"within {LARGEST_DIFFERENCE}"], rows)


def small_budget(device: str, full: bool) -> str:
    """Part e."""
    timing = _timed(_data_set(device, full)[0], device, 10 if full else 2, gpu_memory_gb=4.0)
    rows = [[shown(timing.seconds), shown(timing.peak_gb)]]
    return f"{_describe(full)}, at most 4 GB.\n\n" + table(["seconds", "peak memory, GB"], rows)


def _describe(full: bool) -> str:
    count, box_size = _size(full)
    return f"Hinge, {count} images of {box_size} px, SNR {SNR:g}, rank {10 if full else 2}"


def _size(full: bool) -> tuple[int, int]:
    return (100_000, 128) if full else (200, 16)


def _timed(particles: Path, device: str, rank: int, **options: object) -> Timing:
    """Fit in this process and take the time of its stages."""
    moments: list[tuple[str, float]] = [("start", time.perf_counter())]
    enter = Progress.stage

    def noted(self: Progress, name: str) -> None:
        moments.append((name.split(",")[0], time.perf_counter()))
        enter(self, name)

    on_gpu = device != "cpu"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(Progress, "stage", noted):
        _fit(particles, Path(folder) / "run", device, rank, **options)
        moments.append(("end", time.perf_counter()))
    stages: dict[str, float] = {}
    for (name, begin), (_, end) in zip(moments, moments[1:], strict=False):
        stages[name] = stages.get(name, 0.0) + end - begin
    return Timing(stages, torch.cuda.max_memory_allocated() / 1e9 if on_gpu else 0.0)


def _fit(particles: Path, output: Path, device: str, rank: int, **options: object) -> None:
    params = FitParams(particles=str(particles), output=str(output), rank=rank, device=_place(device), **options)  # type: ignore[arg-type]
    run(params)


def _place(device: str) -> str:
    return f"{device}:0" if device == "cuda" else device


@cache
def _data_set(device: str, full: bool) -> tuple[Path, float]:
    """Particles of the hinge, made on the device and kept while this program lives: their list, and seconds."""
    folder = tempfile.mkdtemp(prefix="solvar-gpu-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (count, box_size), data = _size(full), Path(folder) / "data"
    start = time.perf_counter()
    params = SimulateParams(
        output=str(data), phantom=["hinge"], particles=count, box=box_size, pixel_size=PIXEL_SIZE, snr=SNR, seed=SEED,
        device=_place(device),
    )  # fmt: skip
    run_simulate.run(params)
    return data / "particles.star", time.perf_counter() - start


def _first(score: object) -> float:
    return float(score[0] if isinstance(score, list) else score)  # type: ignore[arg-type]
