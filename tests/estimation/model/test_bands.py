"""Frequency marching: the same problem on smaller boxes."""

from __future__ import annotations

import pytest
import torch

from solvar_engine.estimation.model.bands import Band, band_box, change_box, make_band
from solvar_engine.imaging.fourier import HalfDisk, fourier_crop_volume, low_pass, volume_to_ft
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.projectors.torch_ref import TorchProjector
from tests.reconstruction.simulated import LinearPhantom, noise, relative_error

PHANTOM = LinearPhantom.create(2)


@pytest.mark.parametrize("full", [24, 33, 64, 129])
def test_box_of_a_band_holds_it(full: int) -> None:
    last = (full - 1) // 2
    for shell_max in range(4, last + 1):
        box_size = band_box(shell_max, full)
        assert (box_size - 1) // 2 >= shell_max
        assert box_size <= full
    assert band_box(last, full) == full


@pytest.mark.parametrize("old, new", [(24, 16), (24, 17), (25, 16), (16, 24)])
def test_change_of_box_keeps_fourier_coefficients(old: int, new: int) -> None:
    """Density values therefore change by (old / new)^2."""
    volume = PHANTOM.mean(old)
    changed = change_box(volume, new)
    assert relative_error(changed, fourier_crop_volume(volume, new) * (old / new) ** 2) < 1e-5
    before, after = volume_to_ft(volume), volume_to_ft(changed)
    limit = (min(old, new) - 1) // 2
    for kz, ky, kx in ((0, 0, 0), (1, -2, 3), (limit, 0, 0), (-limit, limit, 1)):
        assert complex(after[new // 2 + kz, new // 2 + ky, kx]) == pytest.approx(
            complex(before[old // 2 + kz, old // 2 + ky, kx]), abs=1e-6
        )
    assert torch.equal(change_box(volume, old), volume)


def test_change_of_box_can_low_pass() -> None:
    volumes = noise(2, 24, 24, 24)
    assert relative_error(change_box(volumes, 16, 5), low_pass(change_box(volumes, 16), 5)) < 1e-6


def band_of(shell_max: int, box_size: int = 24) -> Band:
    options = SliceOptions(backend="torch_ref", oversampling=3)
    return make_band(shell_max, HalfDisk.create(box_size), PHANTOM.mean(box_size), options)


@pytest.mark.parametrize("shell_max", [8, 11])
def test_slices_of_a_band_are_slices_of_the_whole(shell_max: int) -> None:
    """Slicing the cropped mean on its small box gives the same coefficients as the closed form on the working box."""
    band = band_of(shell_max)
    rotation = torch.eye(3)[None]
    slices = band.projector.project(band.projector.to_grid(band.mean[None]), rotation)[..., 0]
    exact = PHANTOM.slices(torch.zeros(1, 2), rotation, HalfDisk.create(24))[:, : len(band.disk)]
    assert band.shell_max == shell_max
    assert relative_error(slices, exact) < 0.02
    assert isinstance(band.projector, TorchProjector)


def test_band_is_on_the_smallest_box_that_holds_it() -> None:
    band = band_of(8)
    assert band.box_size == band_box(8, 24) < 24
    assert len(band.nuisance) == 0 and band.contrast_variance == 0
