"""Shells of Fourier space, against full transforms by NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvar_engine.imaging.fourier import HalfDisk, volume_to_ft
from solvar_engine.imaging.shells import (
    coefficients_per_shell,
    fsc,
    radial_average,
    resolution_at,
    shell_count,
    shell_index_volume,
    shell_means,
    shell_sum,
    shells_to_volume,
    shrunk_spectra,
)

BOXES = [12, 13]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def full_radius(box_size: int) -> np.ndarray:
    axis = np.arange(box_size) - box_size // 2
    return np.sqrt(sum(grid**2 for grid in np.meshgrid(axis, axis, axis, indexing="ij")))


def full_transform(volume: torch.Tensor) -> np.ndarray:
    return np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(volume.numpy())))


@pytest.mark.parametrize("box_size", BOXES)
def test_shells_count_every_coefficient_of_the_full_grid(box_size: int) -> None:
    index = np.round(full_radius(box_size)).astype(int)
    expected = [np.sum(index == shell) for shell in range(shell_count(box_size))]
    np.testing.assert_allclose(coefficients_per_shell(box_size).numpy(), expected)


@pytest.mark.parametrize("box_size", BOXES)
def test_shell_sum_equals_that_of_the_full_grid(box_size: int) -> None:
    volume = noise(box_size, box_size, box_size)
    power = np.abs(full_transform(volume) / box_size) ** 2
    index = np.round(full_radius(box_size)).astype(int)
    expected = [power[index == shell].sum() for shell in range(shell_count(box_size))]
    np.testing.assert_allclose(shell_sum(volume_to_ft(volume).abs() ** 2, box_size).numpy(), expected)


def test_shells_beyond_the_last_complete_one_are_set_apart() -> None:
    index = shell_index_volume(12)
    assert index.max().item() == shell_count(12) == 6
    # centre of the half spectrum: frequency zero at z, y index 6 and x index 0
    assert index[6, 6, 0].item() == 0
    assert index[6, 7, 2].item() == 2
    assert index[0, 6, 0].item() == 6


def test_spreading_and_averaging_are_inverses() -> None:
    values = torch.arange(1.0, 7.0, dtype=torch.float64)
    field = shells_to_volume(values, 12, beyond=-1.0)
    torch.testing.assert_close(radial_average(field, 12), values)
    assert field[0, 0, 0].item() == -1.0


@pytest.mark.parametrize("box_size", BOXES)
def test_fsc_equals_that_of_the_full_grid(box_size: int) -> None:
    first, second = noise(box_size, box_size, box_size), noise(box_size, box_size, box_size, seed=1)
    second = second + first
    ft1, ft2 = full_transform(first), full_transform(second)
    index = np.round(full_radius(box_size)).astype(int)
    for shell, value in enumerate(fsc(first, second).tolist()):
        here = index == shell
        cross = np.vdot(ft2[here], ft1[here]).real
        expected = cross / np.linalg.norm(ft1[here]) / np.linalg.norm(ft2[here])
        assert value == pytest.approx(expected, abs=1e-12)


def test_fsc_of_simple_cases() -> None:
    volume = noise(16, 16, 16)
    ones = torch.ones(8, dtype=torch.float64)
    torch.testing.assert_close(fsc(volume, volume), ones)
    torch.testing.assert_close(fsc(volume, 3 * volume), ones)
    torch.testing.assert_close(fsc(volume, -volume), -ones)
    many = fsc(noise(20, 24, 24, 24), noise(20, 24, 24, 24, seed=1))[:, 3:]
    assert many.abs().mean().item() < 0.1


def test_fsc_sees_only_what_the_mask_shows() -> None:
    volume, mask = noise(16, 16, 16), torch.zeros(16, 16, 16, dtype=torch.float64)
    mask[4:12, 4:12, 4:12] = 1
    changed = volume + 5 * (1 - mask) * noise(16, 16, 16, seed=1)
    assert fsc(volume, changed).mean().item() < 0.5
    torch.testing.assert_close(fsc(volume, changed, mask), torch.ones(8, dtype=torch.float64))


def test_empty_volume_has_no_correlation() -> None:
    assert fsc(torch.zeros(8, 8, 8), torch.zeros(8, 8, 8)).tolist() == [0.0] * 4


def test_resolution_is_where_the_curve_crosses() -> None:
    # box of 80 Angstrom: between shells 2 and 3 the curve falls from 0.9 to 0.1 and crosses 0.5 half-way
    curve = torch.tensor([1.0, 1.0, 0.9, 0.1, 0.0, 0.0])
    assert resolution_at(curve, 0.5, 20, 4.0) == pytest.approx(80 / 2.5)


def test_resolution_at_both_ends() -> None:
    assert resolution_at(torch.ones(6), 0.143, 20, 4.0) == 8.0
    assert resolution_at(torch.zeros(6), 0.143, 20, 4.0) == 80.0


def test_shell_means_count_friedel_mates() -> None:
    """The average over the full plane, written out."""
    disk = HalfDisk.create(24)
    values = torch.rand(len(disk), generator=torch.Generator().manual_seed(0))
    plane: dict[int, list[float]] = {}
    for (kx, ky), value in zip(disk.pixels.tolist(), values.tolist(), strict=True):
        shell = round((kx**2 + ky**2) ** 0.5)
        plane.setdefault(shell, []).extend([value] * (1 if (kx, ky) == (0, 0) else 2))
    expected = torch.tensor([sum(plane[s]) / len(plane[s]) for s in sorted(plane)], dtype=torch.float64)
    torch.testing.assert_close(shell_means(values, disk), expected)
    torch.testing.assert_close(shell_means(torch.stack((values, 2 * values)), disk)[1], 2 * expected)


def measured(truth: torch.Tensor, count: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Average power of as many complex coefficients."""
    generator = torch.Generator().manual_seed(seed)
    powers = [torch.rand(int(n), generator=generator, dtype=torch.float64).log().neg().mean() for n in count.flatten()]
    return truth * torch.stack(powers).reshape(count.shape)


def test_spectra_of_few_coefficients_come_near_the_common_shape() -> None:
    """Their levels differ, by a factor of 100 in one of them; alone they are wrong by a tenth and more."""
    shape = torch.linspace(3.0, 0.5, 10, dtype=torch.float64)
    level = 1 + 0.3 * torch.arange(40, dtype=torch.float64)[:, None]
    level[7] = 100.0
    count = 3 * torch.arange(2, 22, 2).expand(40, -1)
    truth = level * shape
    found = measured(truth, count)
    error = (shrunk_spectra(found, count) / truth - 1).square().mean(dim=0).sqrt()
    assert float((found / truth - 1).square().mean(dim=0).sqrt()[0]) > 0.3
    assert float(error.max()) < 0.13  # that of the levels, 330 coefficients each, is 0.055


def test_spectra_of_different_shapes_that_are_well_measured_stay_as_they_are() -> None:
    truth = torch.stack((torch.linspace(3.0, 0.5, 10), torch.linspace(1.0, 2.0, 10))).double()
    count = torch.full((2, 10), 20_000.0)
    found = measured(truth, count)
    torch.testing.assert_close(shrunk_spectra(found, count), found, rtol=5e-3, atol=0)


def test_one_spectrum_is_its_own_shape_and_none_is_the_average() -> None:
    power = torch.stack((torch.linspace(3.0, 0.5, 10).double(), torch.zeros(10).double()))
    count = torch.tensor([[5.0], [0.0]]).expand(-1, 10)
    torch.testing.assert_close(shrunk_spectra(power, count), power[:1].expand(2, -1))
