"""A program that behaves like the engine where it matters to the plugin, and fails in the ways that the tests ask for.

    python stand_in_engine.py --version
    SOLVAR_STAND_IN=fail python stand_in_engine.py fit particles.star --output run --rank 2 --resume

It computes nothing: it writes the files of a run with made-up numbers, by the engine's own contract. What it does is
said by SOLVAR_STAND_IN: `succeed`; `fail` (exit code 2 with a sentence); `fail-silently` (the same, but with exit
code 0, as a job in a queue ends for who waits for it); `hang` (until it is killed); `vanish` (exit code 127).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np

from solvar_engine import __version__
from solvar_engine.contract import results
from solvar_engine.contract.files import read_csv, write_csv
from solvar_engine.contract.params import (
    AUTO_RANK,
    AbinitioParams,
    AnalyzeParams,
    FitParams,
    ReconstructParams,
    options_of,
)
from solvar_engine.contract.run import ALREADY_FINISHED, NEW, RunDir, prepared, write_params
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import FAILED, FINISHED, StatusTracker, status_path

SENTENCE = "Row 7, column rlnDefocusU, of data_particles in particles.star is 'nan': correct the cell."
BOX, PIXEL_SIZE = 8, 3.0


def main() -> int:
    """Do one command."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"solvar-engine {os.environ.get('SOLVAR_STAND_IN_VERSION', __version__)}\n")
        return 0
    commands = {kind.command: (kind, work) for kind, work in _COMMANDS}
    kind, work = commands[sys.argv[1]]
    params = _parse(kind, sys.argv[2:])
    behaviour = os.environ.get("SOLVAR_STAND_IN", "succeed")
    record = os.environ.get("SOLVAR_STAND_IN_RECORD")
    if record:
        call = {"arguments": sys.argv[1:], "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "folder": os.getcwd()}
        with open(record, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(call) + "\n")
    if behaviour == "vanish":
        return 127
    return work(params, behaviour)


def _parse(kind, words):
    parser = argparse.ArgumentParser()
    for option in options_of(kind):
        if option.kind is bool:
            parser.add_argument(option.label, action="store_true", dest=option.name)
        elif option.positional:
            parser.add_argument(option.name, type=option.kind)
        else:
            more = {"nargs": "+"} if option.is_list else {}
            parser.add_argument(option.label, type=_reader(option), default=option.default, dest=option.name, **more)
    return kind(**vars(parser.parse_args(words)))


def _reader(option):
    return lambda word: word if word in option.words else option.kind(word)


def _misbehave(tracker: StatusTracker, behaviour: str) -> int | None:
    """Do what was asked for; None if that is to succeed."""
    tracker.update(stage="half-sets", step=12, steps=40)
    if behaviour == "hang":
        time.sleep(600)
    if behaviour.startswith("fail"):
        tracker.update(state=FAILED, message=SENTENCE)
        sys.stderr.write(f"error: {SENTENCE}\n")
        return 0 if behaviour == "fail-silently" else 2
    return None


def _fit(params: FitParams, behaviour: str) -> int:
    run = RunDir(params.output)
    with prepared(run, params, params.resume) as start:
        return 0 if start == ALREADY_FINISHED else _fit_from(start, run, params, behaviour)


def _fit_from(start: str, run: RunDir, params: FitParams, behaviour: str) -> int:
    if start == NEW:
        inputs = [path for path in (params.particles, params.mask) if path]
        write_params(run, params, inputs=inputs, resolved={"box": BOX})
    run.checkpoint.mkdir(exist_ok=True)
    tracker = StatusTracker(run.status, "fit")
    code = _misbehave(tracker, behaviour)
    if code is None:
        _write_fit(run, params)
        tracker.update(state=FINISHED, step=40, message=f"resumed: {start != NEW}, rank {params.rank}")
        code = 0
    return code


def _abinitio(params: AbinitioParams, behaviour: str) -> int:
    """Find as many structures as there shall be classes; with SOLVAR_STAND_IN_STRUCTURE=none, none."""
    run = RunDir(params.output)
    with prepared(run, params, params.resume) as start:
        if start == ALREADY_FINISHED:
            return 0
        if start == NEW:
            resolved = {"box": BOX, "pixel_size": PIXEL_SIZE}
            write_params(run, params, inputs=[params.particles], resolved=resolved)
        tracker = StatusTracker(run.status, params.command)
        code = _misbehave(tracker, behaviour)
        if code is not None:
            return code
        is_found = os.environ.get("SOLVAR_STAND_IN_STRUCTURE") != "none"
        _write_structure(run, params, is_found)
        tracker.update(state=FINISHED, message="all is found" if is_found else "Mind: no structure was found. Alas")
    return 0


def _write_structure(run: RunDir, params: AbinitioParams, is_found: bool) -> None:
    star, random = StarFile.read(params.particles), np.random.default_rng(params.seed)
    count, classes = len(star.particles), params.classes
    results.write_eigenvalues(run.eigenvalues, {name: [] for name in results.EIGENVALUE_COLUMNS})
    nothing = np.zeros((count, 0), dtype=np.float32)
    results.write_latents(run.latents, results.Latents(nothing, nothing[:, :, None][:, :, :0], np.ones(count)))
    populations, resolutions = (1 / classes,) * classes, (12.0,) * classes
    results.write_structure(
        run, results.FoundStructure(is_found, 5.0, 0.5, 0.0, None, None, 6.0, populations, resolutions)
    )
    if not is_found:
        star.write(run.particles)
        return
    poses = _refined(star, random)
    columns = {name: values for name, values in poses.items() if not name.endswith("Change")}
    columns["solvarOutlier"] = (np.arange(count) < 3).astype(int)
    columns["solvarLogLikelihood"] = random.normal(size=count)
    columns[results.CLASS_NUMBER] = 1 + np.arange(count) % classes
    _with_columns(star, columns).write(run.particles)
    shell, unknown = np.arange(5), [None] * 5
    frequency = shell / (BOX * PIXEL_SIZE)
    fsc = {"shell": shell, "frequency": frequency, "fsc_mean": 1 - shell / 5, "fsc_covariance": unknown}
    results.write_fsc(run.fsc, fsc)
    for seconds, reached in ((1.0, 2), (2.0, 3)):
        results.append_metrics(run.metrics, {"stage": "search", "shell_max": reached, "seconds": seconds})
    paths = [run.mean, run.mean_half1, run.mean_half2, run.mask]
    if classes > 1:
        for number in range(1, classes + 1):
            paths += [run.class_volume(number), *(run.class_half(number, half) for half in (1, 2))]
    for path in paths:
        _write_volume(path, random)


def _write_fit(run: RunDir, params: FitParams) -> None:
    star = _in_equal_orientations(StarFile.read(params.particles), params.symmetry)
    count = len(star.particles)
    rank = int(os.environ.get("SOLVAR_STAND_IN_RANK", 0)) if params.rank == AUTO_RANK else params.rank
    random = np.random.default_rng(params.seed)
    _write_particles(run, star, random, params.refine_poses)
    latents = results.Latents(
        random.normal(size=(count, rank)).astype(np.float32),
        np.tile(np.eye(rank, dtype=np.float32), (count, 1, 1)),
        np.ones(count, dtype=np.float32),
    )
    results.write_latents(run.latents, latents)
    eigenvalues = [4.0 / number**2 for number in range(1, rank + 1)]
    columns = {name: [0.5] * rank for name in results.EIGENVALUE_COLUMNS}
    columns.update(component=list(range(1, rank + 1)), eigenvalue=eigenvalues, label=[""] * rank)
    results.write_eigenvalues(run.eigenvalues, columns)
    write_rank_table(run, rank)
    run.eigenvolumes.mkdir(exist_ok=True)
    paths = [run.mean, run.mean_half1, run.mean_half2, run.mask, *map(run.eigenvolume, range(1, rank + 1))]
    for path in paths:
        _write_volume(path, random)


def _write_particles(run: RunDir, star: StarFile, random: np.random.Generator, refines: bool) -> None:
    count, outliers = len(star.particles), int(os.environ.get("SOLVAR_STAND_IN_OUTLIERS", 0))
    if refines:
        star = _with_columns(star, _refined(star, random))
    if not outliers:
        star.write(run.particles)  # as a run of an earlier version
        return
    flags = (np.arange(count) < outliers).astype(int)
    columns = {"solvarLogLikelihood": random.normal(size=count) - 50 * flags, "solvarOutlier": flags}
    _with_columns(star, columns).write(run.particles)


def _in_equal_orientations(star: StarFile, symmetry: str) -> StarFile:
    """Each row followed by those that a group C n makes equal."""
    order = int(symmetry[1:])
    table = star.particles.only([row for row in range(len(star.particles)) for _ in range(order)])
    turn = np.tile(360.0 / order * np.arange(order), len(star.particles))
    rot = table.numbers("rlnAngleRot")["rlnAngleRot"] + turn
    return star.replace(star.particles, table.with_columns({"rlnAngleRot": rot}))


def _refined(star: StarFile, random: np.random.Generator) -> dict:
    """Poses that are anywhere, and how far they have moved."""
    count = len(star.particles)
    names = ("solvarRotationChange", "solvarShiftChange", "solvarRotationStd", "solvarShiftStd")
    return {
        **{f"rlnAngle{name}": random.uniform(0, 180, count) for name in ("Rot", "Tilt", "Psi")},
        **{f"rlnOrigin{axis}Angst": random.normal(size=count) for axis in "XY"},
        **{name: random.uniform(1, 2, count) for name in names},
    }


def _with_columns(star: StarFile, columns: dict) -> StarFile:
    return star.replace(star.particles, star.particles.with_columns(columns))


def write_rank_table(run: RunDir, rank: int, tried: int = 10) -> None:
    """Write what components gain: the first ones orders of magnitude more than decoys, as real ones do."""
    number = np.arange(1, tried + 1)
    is_kept = number <= rank
    gain = np.where(is_kept, 4000.0 / number**2, 8.0 / number - 6.0)
    results.write_rank(
        run.rank,
        {
            "candidate": number,
            "eigenvalue": 9.0 / 4.0**number,
            "half_set_agreement": np.where(is_kept, 0.9, 0.1),
            "gain_half1": gain,
            "gain_half2": 0.9 * gain,
            "decoy_max_half1": np.full(tried, 12.0),
            "decoy_max_half2": np.full(tried, 15.0),
            "kept": is_kept.astype(int),
        },
    )


def _write_volume(path: Path, random: np.random.Generator) -> None:
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(random.normal(size=(BOX,) * 3).astype(np.float32))
        file.voxel_size = PIXEL_SIZE


def _analyze(params: AnalyzeParams, behaviour: str) -> int:
    run = RunDir(params.run)
    run.figures.mkdir(parents=True, exist_ok=True)
    tracker = StatusTracker(run.analysis_status, "analyze")
    code = _misbehave(tracker, behaviour)
    if code is not None:
        return code
    z = results.read_latents(run.latents).z
    clusters = params.clusters if z.shape[1] else 0
    results.write_centres(run.centres, np.full(clusters, 1), z[:clusters])
    rows = np.arange(len(z) if clusters else 0)
    write_csv(run.clusters, {"row": rows, "cluster": 1 + rows % max(clusters, 1)})
    run.report.write_text("<html></html>", encoding="utf-8")
    tracker.update(state=FINISHED)
    return 0


def _reconstruct(params: ReconstructParams, behaviour: str) -> int:
    folder = Path(params.output)
    folder.mkdir(exist_ok=params.resume)
    tracker = StatusTracker(status_path(folder), "reconstruct")
    code = _misbehave(tracker, behaviour)
    if code is not None:
        return code
    _write_states(params, folder)
    tracker.update(state=FINISHED)
    return 0


def _write_states(params: ReconstructParams, folder: Path) -> None:
    """Write volumes that are noise; each particle belongs to the next state."""
    if params.points or params.trajectory:
        table = read_csv(params.points or params.trajectory)
        points = np.stack([values for name, values in table.items() if name.startswith("z_")], axis=1)
    else:
        rank = results.read_latents(RunDir(params.run).latents).z.shape[1]
        points = np.ones((params.clusters or params.mixture or params.frames, rank))
    by_kernel, count = params.method == "kernel", len(points)
    random = np.random.default_rng(0)
    ends = ("", "_half1", "_half2", "_locres") if by_kernel else ("",)
    for number in range(1, count + 1):
        for end in ends:
            _write_volume(folder / f"state_{number:03d}{end}.mrc", random)
    rows = np.arange(len(StarFile.read(RunDir(params.run).particles).particles))
    write_csv(folder / "particles.csv", {"row": rows, "state": 1 + rows % count})
    columns = {f"z_{axis}": values for axis, values in enumerate(points.T, start=1)}
    used = {"images_used": [5] * count, "resolution": [12.0 if by_kernel else None] * count}
    used["extrapolated"] = (np.abs(points).max(axis=1) > FAR).astype(int)
    write_csv(folder / "states.csv", {"state": list(range(1, count + 1)), **columns, **used})


FAR = 100.0
"""Beyond this there are no particles."""

_COMMANDS = (
    (AbinitioParams, _abinitio),
    (FitParams, _fit),
    (AnalyzeParams, _analyze),
    (ReconstructParams, _reconstruct),
)

if __name__ == "__main__":
    raise SystemExit(main())
