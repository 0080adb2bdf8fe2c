"""Frequency marching: the same problem on smaller boxes."""

from __future__ import annotations

import pytest
import torch

from solvar_engine.estimation.model.bands import (
    band_box,
    change_box,
    make_band,
    marching_shells,
    split_batches,
)
from solvar_engine.imaging.fourier import HalfDisk, fourier_crop_volume, low_pass, volume_to_ft
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.projectors.torch_ref import TorchProjector
from tests.reconstruction.simulated import LinearPhantom, noise, relative_error

PHANTOM = LinearPhantom.create(2)


@pytest.mark.parametrize("box_size", [12, 16, 23, 24, 33, 64, 100, 128, 256])
def test_marching_ends_with_the_last_complete_shell(box_size: int) -> None:
    shells = marching_shells(box_size)
    assert shells[-1] == (box_size - 1) // 2
    assert shells == sorted(set(shells))
    assert all(later <= 2.7 * earlier for earlier, later in zip(shells, shells[1:], strict=False))


@pytest.mark.parametrize("full", [24, 33, 64, 129])
def test_box_of_a_band_holds_it(full: int) -> None:
    for shell_max in marching_shells(full):
        box_size = band_box(shell_max, full)
        assert (box_size - 1) // 2 >= shell_max
        assert box_size <= full
    assert band_box(marching_shells(full)[-1], full) == full


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


def band_of(shell_max: int, box_size: int = 24, density: torch.Tensor | None = None):
    mask = sphere_mask(box_size, box_size / 3)
    if density is None:
        density = torch.ones(box_size, box_size, box_size // 2 + 1)
    options = SliceOptions(backend="torch_ref", oversampling=3)
    return make_band(shell_max, HalfDisk.create(box_size), PHANTOM.mean(box_size), mask, density, options)


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


def test_band_carries_density_in_its_own_units() -> None:
    band = band_of(8)
    assert (band.box_size, band.full_box_size) == (band_box(8, 24), 24)
    assert float(band.density[band.box_size // 2, band.box_size // 2, 1]) == pytest.approx(band.box_size / 24)


def test_mask_root_squares_to_the_mask() -> None:
    band = band_of(11)
    assert relative_error(band.mask_root**2, sphere_mask(24, 8)) < 1e-5
    assert float(band.mask_overlap.max()) == pytest.approx(1.0)


def test_bound_raises_dips_to_what_the_mask_sees_and_keeps_flat_spectra() -> None:
    band = band_of(11)
    flat = torch.full((1, 24, 24, 13), 3.0)
    torch.testing.assert_close(band.bound(flat), flat, rtol=1e-4, atol=1e-4)
    dip = flat.clone()
    dip[:, 12, 12, 0] = 0.0
    raised = band.bound(dip)
    assert bool((raised >= dip).all())
    assert 1.5 < float(raised[0, 12, 12, 0]) <= 3.0


def test_bound_without_mask_changes_nothing() -> None:
    options = SliceOptions()
    ones = torch.ones(12, 12, 12)
    density = torch.ones(12, 12, 7)
    band = make_band(5, HalfDisk.create(12), PHANTOM.mean(12), ones, density, options)
    # Any spectrum of a real, even kernel.
    spectrum = volume_to_ft(noise(12, 12, 12)).abs()[None]
    symmetric = spectrum + spectrum.roll(1, 1)
    smooth = volume_to_ft(noise(12, 12, 12, seed=2)).abs().square()[None]
    assert float((band.bound(symmetric) - symmetric).min()) >= 0
    torch.testing.assert_close(band.bound(smooth), smooth, rtol=1e-3, atol=1e-3 * float(smooth.max()))


def test_batches_are_a_partition_of_nearly_equal_size_in_file_order() -> None:
    index = torch.arange(5, 52, 2)
    parts = split_batches(index, 5, torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat(parts).sort().values, index)
    sizes = [len(part) for part in parts]
    assert len(sizes) == 5 and max(sizes) - min(sizes) <= 1
    assert all(bool((part.diff() > 0).all()) for part in parts)
    assert not torch.equal(torch.cat(parts), index)


def test_batches_depend_on_the_seed_only() -> None:
    index = torch.arange(40)
    first, same, other = (split_batches(index, 4, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first[0], other[0])
