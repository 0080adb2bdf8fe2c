"""What is special to the compiled kernels: their cache, their threads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numba
import pytest
import torch

from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.projectors.numba_cpu import NumbaProjector
from tests.imaging.closed_form import relative_error

ROOT = Path(__file__).resolve().parents[2]
BOX_SIZE = 12

PROJECT_ONCE = """
import torch
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors.numba_cpu import NumbaProjector
projector = NumbaProjector(8, HalfDisk.create(8), interpolation="nearest")
slices = projector.project(projector.to_grid(torch.ones(1, 8, 8, 8)), torch.eye(3)[None])
assert slices.shape == (1, len(projector.disk), 1)
assert abs(slices[0, 0, 0].item()) > 64, slices[0, 0, 0]
"""


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = numba.get_num_threads()
    yield
    numba.set_num_threads(before)


@pytest.mark.parametrize("interpolation", ["trilinear", "nearest"])
def test_results_do_not_depend_on_the_number_of_threads(interpolation: str, restored_threads: None) -> None:
    disk = HalfDisk.create(BOX_SIZE)
    generator = torch.Generator().manual_seed(0)
    rotation = random_rotations(9, generator)
    slices = torch.complex(*torch.randn(2, 9, len(disk), 2, generator=generator))
    results = []
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(threads)
        projector = NumbaProjector(BOX_SIZE, disk, interpolation=interpolation)
        accumulator = projector.new_accumulator(2)
        assert accumulator.shape[0] == threads
        projector.backproject(slices, rotation, accumulator)
        results.append(projector.to_volumes(accumulator).numpy())
    assert relative_error(*results) < 1e-5


def read_only_copy(folder: Path) -> Path:
    """Copy the package where no compiled file can be put beside a source, not even by root.

    A plain file stands where each cache folder would be made.
    """
    shutil.copytree(
        ROOT / "solvar_engine", folder / "solvar_engine", ignore=shutil.ignore_patterns("__pycache__")
    )
    for package in [folder / "solvar_engine", *(folder / "solvar_engine").rglob("*/")]:
        if package.is_dir():
            (package / "__pycache__").write_text("in the way", encoding="ascii")
    return folder


def project_in_new_process(folder: Path, **environment: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XDG_"))}
    result = subprocess.run(
        [sys.executable, "-c", PROJECT_ONCE],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(folder), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.slow
def test_cache_goes_to_the_user_when_the_environment_is_read_only(tmp_path: Path) -> None:
    package, cache = read_only_copy(tmp_path / "site"), tmp_path / "cache"
    project_in_new_process(package, XDG_CACHE_HOME=str(cache), HOME=str(tmp_path))
    assert list(cache.rglob("*project_nearest*.nbc")), "the compiled kernel was not kept for the next run"


@pytest.mark.slow
def test_kernels_work_where_nothing_can_be_written(tmp_path: Path) -> None:
    package = read_only_copy(tmp_path / "site")
    project_in_new_process(package, XDG_CACHE_HOME="/dev/null/cache", HOME="/dev/null")
    assert list(tmp_path.rglob("*.nbc")) == []
