"""Memory of a fit that keeps its images in a scratch file does not grow with their number."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from solvar_engine.contract.star import StarFile, StarTable
from tests.jobs.programs import engine_command, engine_environment

# so many that batches are full in every pass
_FEW, _MANY = 6_000, 18_000
# for the list, and for what the allocator keeps; images in memory would add more than this
_BYTES_PER_PARTICLE = 100e6 / 30_000


def peak_anonymous_bytes(command: list[str]) -> int:
    """Run a command and look all the time at the memory that is its own (RssAnon)."""
    peak = 0
    process = subprocess.Popen(command, env=engine_environment(), stderr=subprocess.PIPE, text=True)
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        _, _, after = status.read_text().partition("RssAnon:")
        if after:  # absent at the very end
            peak = max(peak, 1024 * int(after.split()[0]))
        time.sleep(0.01)
    _, error = process.communicate()
    assert process.returncode == 0, error
    assert "in a scratch file" in error
    return peak


@pytest.mark.slow
def test_anonymous_memory_does_not_grow_with_the_number_of_particles(larger_hinge, tmp_path):
    star = StarFile.read(larger_hinge.particles)
    table = star.particles
    peaks = []
    for count in (_FEW, _MANY):
        rows = [table.rows[row % len(table)] for row in range(count)]
        path = tmp_path / f"{count}.star"
        star.replace(table, StarTable(table.name, table.columns, rows, table.header)).write(path)
        arguments = ("fit", path, "--root", larger_hinge.path, "--output", tmp_path / f"run_{count}", "--rank", 1)
        fast = ("--cache-mb", 1, "--projector", "nearest", "--oversampling", 1)
        peaks.append(peak_anonymous_bytes(engine_command(*arguments, *fast)))
        assert not list((tmp_path / f"run_{count}" / "checkpoint").glob("*.c64"))
    growth = peaks[1] - peaks[0]
    assert growth < _BYTES_PER_PARTICLE * (_MANY - _FEW), peaks


def test_scratch_file_lies_where_it_is_asked_for_and_is_gone_after_a_kill(larger_hinge, engine_program, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    options = ("--cache-mb", 0, "--scratch", scratch, "--rank", 1)
    process = engine_program("fit", larger_hinge.particles, "--output", tmp_path / "run", *options)
    mapped: set[str] = set()
    while process.poll() is None and not mapped:
        maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
        mapped = {line.split(None, 5)[5] for line in maps if str(scratch) in line}
    assert mapped and all(name.endswith("(deleted)") for name in mapped)
    process.kill()
    process.wait()
    assert not list(scratch.iterdir())
