"""Ratios in the tables are those of the numbers beside them, and clocks count each call once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks import profile_fit, realism, scaling, whole_fit
from benchmarks.common import Call
from benchmarks.projector_accuracy import RandomImages
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors.numba_cpu import NumbaProjector


def cells(text: str, first: str) -> list[str]:
    """Cells of the row that begins with a word."""
    return next(line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| {first} "))


def test_a_series_is_compared_with_its_first_fit_and_with_its_law() -> None:
    series = scaling.series_of(2)["box"]
    costs = [(case, Call(10.0 * number, 20.0 * number, 500.0)) for number, case in enumerate(series.cases, start=1)]
    row = cells(scaling.report(series, costs), "128")
    assert row[1:] == ["30.0", "3.00", "60.0", "3.00", "4.67", "500"]  # (128^2 log 128) / (64^2 log 64)


def test_a_whole_fit_is_compared_with_all_passes_of_the_baseline() -> None:
    scores = {key: None for key in (*whole_fit.SCORES, "seconds")}
    text = whole_fit.report(Call(50.0, 90.0, 800.0), Call(40.0, 80.0, 800.0), 0.02, scores, scores, 6, 5000)
    assert cells(text, "47 passes")[1] == "4700"
    assert cells(text, "whole fit, warm")[-1] == "118" and cells(text, "whole fit, cold")[-1] == "94"


def test_a_kernel_called_by_another_counts_once() -> None:
    profile = profile_fit.Profile()
    inner = profile.clock("inner", lambda: None, lambda: 1.0)
    outer = profile.clock("outer", inner, lambda: 2.0)
    outer()
    inner()
    assert profile.calls == {"outer": 1, "inner": 1} and profile.bytes == {"outer": 2.0, "inner": 1.0}


def test_bytes_of_slices_and_their_adjoint_grow_with_samples_and_channels() -> None:
    disk = HalfDisk.create(8)
    projector = NumbaProjector(8, disk)
    rotation = torch.eye(3).expand(5, 3, 3)
    samples = 5 * len(disk)
    grid = projector.to_grid(torch.zeros(3, 8, 8, 8))
    # per sample: 3 channels x (8 corners, written) x 8 bytes, and the factor's 4
    assert profile_fit.slice_bytes(projector, grid, rotation) == samples * (3 * 9 * 8 + 4)
    slices = SimpleNamespace(shape=(5, len(disk), 2))
    # per sample: 2 channels x (read, 8 corners read and written) x 8 bytes, and the factor's 4
    assert profile_fit.backprojection_bytes(projector, slices, rotation) == samples * (2 * 17 * 8 + 4)


@pytest.mark.parametrize("batch_size", [3, 10])
def test_random_images_come_in_batches(batch_size) -> None:
    source = RandomImages(8, 7)
    batches = list(source.batches(torch.arange(7), source.disk, batch_size))
    assert torch.equal(torch.cat([batch.index for batch in batches]), torch.arange(7))
    assert all(len(batch.images) <= batch_size for batch in batches)


def test_effects_of_microscopes_are_averaged_over_seeds_and_no_component_tells_nothing() -> None:
    moving = {"eigenvalues_true": [9.0], "captured_variance_2": 0.6, "covariance_error": 0.4}
    some = {**moving, "latent_r2": 0.8, "eigenvalues_estimated": [8.0, 2.5]}
    none = {**moving, "captured_variance_2": 0.0, "latent_r2": None, "eigenvalues_estimated": []}
    assert realism.row_of("junk", [some, none]) == ["junk", "2 0", "8", "0.3", "0.4", "0.4"]
    static = {**none, "eigenvalues_true": []}
    assert realism.row_of("junk", [static, static])[1:] == ["0 0", "0", "-", "-", "-"]
    together = realism.EFFECTS["all"]
    assert len(together) == 6 and all(options.items() <= together.items() for options in realism.ALONE.values())
