"""What becomes of memory that a command has freed."""

from __future__ import annotations

import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.status import StatusTracker
from solvar_engine.jobs.fit import start as fit_start
from solvar_engine.jobs.running import allocator
from solvar_engine.jobs.running.allocator import FreedMemory
from solvar_engine.jobs.running.progress import Progress
from solvar_engine.jobs.states import kernel_problem

TRIM_THRESHOLD, OWN_BLOCK_THRESHOLD, BLOCKS_OF_THEIR_OWN = -1, -3, -4  # malloc.h


@pytest.fixture
def calls(monkeypatch):
    """Calls of the C library, which are not made."""
    made = []
    monkeypatch.setattr(allocator, "_call", lambda *call: made.append(call))
    return made


def test_blocks_are_kept_by_small_fits_and_large_ones_returned_by_large_fits():
    small, large = (FreedMemory.of_fit(size).settings() for size in (2.9e9, 3.1e9))
    assert small[BLOCKS_OF_THEIR_OWN] == 0  # none, so none is returned
    assert large[BLOCKS_OF_THEIR_OWN] > 1000 and large[OWN_BLOCK_THRESHOLD] == 32 * 2**20
    assert small[TRIM_THRESHOLD] == large[TRIM_THRESHOLD] > 2e9


def test_memory_is_given_back_between_stages_only(calls, tmp_path):
    progress = Progress(StatusTracker(tmp_path / "status.json", "fit"), 3)
    progress.stage("reading")
    assert not calls, "showing progress does nothing else"
    FreedMemory(largest_kept=None).govern(progress)
    told = len(calls)
    for name in ("reading", "mean", "mean", "factors"):
        progress.stage(name)
        progress.advance()
    progress.close()
    assert [call[0] for call in calls] == ["mallopt"] * told + ["malloc_trim"] * 2


@pytest.mark.parametrize(
    ("command", "large_bytes", "is_kept"), [("fit", 0, False), ("fit", 1e12, True), ("reconstruct", 0, True)]
)
def test_a_command_chooses_before_images_are_read(
    command, large_bytes, is_kept, hinge, fitted, engine, calls, tmp_path, monkeypatch
):
    def halt(*_, **__):
        raise UserError("Stop here.")

    monkeypatch.setattr(allocator, "_LARGE_BYTES", large_bytes)
    monkeypatch.setattr(fit_start, "prepare_particles", halt)
    monkeypatch.setattr(kernel_problem, "prepare", halt)
    call = (hinge.particles, "--rank", 1) if command == "fit" else (fitted.path, "--clusters", 2)
    assert "Stop here." in engine(command, *call, "--output", tmp_path / "out").error
    expected = FreedMemory(None if is_kept else 32 * 2**20).settings()
    assert calls == [*(("mallopt", *setting) for setting in expected.items()), ("malloc_trim", 0)]
