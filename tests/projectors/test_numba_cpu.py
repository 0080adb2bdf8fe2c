"""What is special to the compiled kernels: their cache, their threads."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.projectors.numba_cpu import NumbaProjector, slabs_per_grid
from solvar_engine.projectors.numba_cpu import _backproject_nearest as NEAREST
from solvar_engine.projectors.numba_cpu import _backproject_trilinear as TRILINEAR
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
    slices = torch.complex(*torch.randn(2, 9, len(disk), 1, generator=generator))
    results = []
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(threads)
        projector = NumbaProjector(BOX_SIZE, disk, interpolation=interpolation)
        accumulator = projector.new_accumulator(1)
        assert accumulator.shape[0] == threads // slabs_per_grid(threads, 1)
        projector.backproject(slices, rotation, accumulator)
        results.append(projector.to_volumes(accumulator).numpy())
    assert relative_error(*results) < 1e-5


def test_threads_that_share_a_grid_give_the_same_bits_as_one(restored_threads: None) -> None:
    """Every voxel belongs to one thread, which meets the images in their order."""
    disk = HalfDisk.create(BOX_SIZE)
    generator = torch.Generator().manual_seed(0)
    rotation = random_rotations(9, generator)
    slices = torch.complex(*torch.randn(2, 9, len(disk), 6, generator=generator))
    results = []
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(threads)
        projector = NumbaProjector(BOX_SIZE, disk)
        accumulator = projector.new_accumulator(6)
        assert accumulator.shape[0] == 1, "six channels are enough for two threads to share a grid"
        projector.backproject(slices, rotation, accumulator)
        results.append(accumulator)
    assert torch.equal(*results)


@pytest.mark.parametrize(("interpolation", "kernel"), [("trilinear", TRILINEAR), ("nearest", NEAREST)])
@pytest.mark.parametrize("slabs", [1, 3, 4])
def test_slabs_add_up_to_the_whole_and_are_equally_full(interpolation: str, kernel, slabs: int) -> None:
    disk = HalfDisk.create(32)
    rotation = random_rotations(200, torch.Generator().manual_seed(1))
    projector = NumbaProjector(32, disk, interpolation=interpolation)
    slices = torch.ones(200, len(disk), 1, dtype=torch.complex64)
    expected = torch.zeros(1, *projector._geometry.shape(1), dtype=torch.complex64)
    projector.backproject(slices, rotation, expected)
    edges = projector._slab_edges(slabs)
    assert edges[0] == 0 and edges[-1] == expected.shape[1] and (np.diff(edges) > 0).all()
    out = torch.zeros_like(expected)
    pixels, no_ctf = projector._pixels, np.ones((1, 0), dtype=np.float32)
    arrays = slices.numpy().view(np.float32), rotation.numpy()
    kernel(*arrays, pixels, no_ctf, projector._geometry.centre, edges, out.numpy().view(np.float32))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-4)
    shares = [float(expected[0, first:end].real.sum()) for first, end in itertools.pairwise(edges)]
    assert max(shares) < 1.25 * min(shares)


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


KERNEL = """
import sys
from solvar_engine.projectors.numba_cells import compiled
from tiny.helper import twice

@compiled
def total(values):
    result = 0.0
    for value in values:
        result += twice(value)
    return result
"""
HELPER = """
from solvar_engine.projectors.numba_cells import inlined
from tiny.deep import weighted

@inlined
def twice(value):
    return 2.0 * weighted(value)
"""
DEEP = """
from solvar_engine.projectors.numba_cells import inlined

@inlined
def weighted(value):
    return WEIGHT * value
"""
CALL = """
import numpy as np
from tiny.kernel import total
print(total(np.ones(5)), sum(total.stats.cache_hits.values()))
"""


def test_kernel_is_compiled_anew_after_an_edit_of_a_module_that_it_reaches(tmp_path: Path) -> None:
    """Not only of its own file; otherwise it comes from the cache, in which nothing old is left."""
    package, cache = tmp_path / "tiny", tmp_path / "cache"
    package.mkdir()
    environment = {
        **os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": f"{tmp_path}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"
    }  # fmt: skip
    for name, source in (("__init__", ""), ("kernel", KERNEL), ("helper", HELPER), ("deep", DEEP)):
        (package / f"{name}.py").write_text(source, encoding="ascii")
    outputs, files = [], []
    for weight in ("3.0", "3.0", "4.0"):
        (package / "deep.py").write_text(DEEP.replace("WEIGHT", weight), encoding="ascii")
        call = [sys.executable, "-c", CALL]
        outputs.append(subprocess.run(call, env=environment, capture_output=True, text=True, timeout=300, check=True))
        files.append({path.name for path in cache.rglob("*total*.nb[ci]")})
    assert [output.stdout.split() for output in outputs] == [["30.0", "0"], ["30.0", "1"], ["40.0", "0"]]
    assert files[0] == files[1] and [len(names) for names in files] == [2, 2, 2]
    assert not files[1] & files[2]
