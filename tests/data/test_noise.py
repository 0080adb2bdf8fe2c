"""Background statistics and noise spectra, on images whose noise is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.data.noise import (
    background_mask,
    background_power,
    flattened,
    normalisation,
    repair_low_shells,
)
from solvar_engine.imaging.fourier import HalfDisk, disk_to_images, images_to_disk

BOX = 24
DISK = HalfDisk.create(BOX)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def white(count: int, seed: int = 0, box_size: int = BOX) -> Tensor:
    return torch.randn(count, box_size, box_size, generator=random(seed))


def particle(box_size: int = BOX) -> Tensor:
    """A bright disc well inside the background."""
    axis = torch.arange(box_size) - box_size // 2
    return 50.0 * (axis[:, None] ** 2 + axis**2 < (0.4 * box_size) ** 2)


def spectrum(steepness: float) -> Tensor:
    """A noise variance per shell that falls smoothly."""
    shell = torch.arange(DISK.shell_max + 1, dtype=torch.float64)
    return 0.5 + 2.0 * torch.exp(-steepness * shell)


def coloured_coefficients(variance: Tensor, count: int, seed: int = 0) -> Tensor:
    return images_to_disk(white(count, seed), DISK) * variance.sqrt().float()[DISK.shell]


# --- background


@pytest.mark.parametrize("box_size", [BOX, BOX + 1])
def test_background_does_not_see_the_particle(box_size: int) -> None:
    images = 3.0 * white(50, box_size=box_size) + 7.0
    flat, deviation = flattened(images)
    with_particle = flattened(images + particle(box_size))
    torch.testing.assert_close(with_particle[0] - particle(box_size), flat, rtol=0, atol=1e-4)
    torch.testing.assert_close(with_particle[1], deviation)
    assert float(flat.mean()) == pytest.approx(0.0, abs=0.1)
    assert float(deviation.mean()) == pytest.approx(3.0, rel=0.02)


@pytest.mark.parametrize("box_size", [BOX, BOX + 1])
def test_slopes_and_curvature_are_no_noise(box_size: int) -> None:
    axis = torch.linspace(-1, 1, box_size)
    slow = 20.0 * axis + 30.0 * axis[:, None] - 40.0 * axis * axis[:, None] + 25.0 * axis[:, None] ** 2 + 9.0
    images = white(20, box_size=box_size)
    flat, deviation = flattened(images + slow)
    expected = flattened(images)
    torch.testing.assert_close(flat, expected[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(deviation, expected[1], rtol=1e-4, atol=0)


def test_a_constant_background_has_no_deviation() -> None:
    """As that of an image that was masked, by whatever constant."""
    images = torch.where(particle() > 0, white(3), torch.tensor([0.0, 1e4, -0.1])[:, None, None])
    assert flattened(images)[1].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("box_size", [16, 24, 25, 64])
def test_background_is_a_fair_part_of_the_image(box_size: int) -> None:
    mask = background_mask(box_size)
    centre = box_size // 2
    assert 0.2 < float(mask.float().mean()) < 0.4
    assert not mask[centre, centre] and bool(mask[0, 0])


def test_background_power_of_white_noise_is_its_variance() -> None:
    power = background_power(2.0 * white(400) + particle(), DISK).mean(dim=0)
    assert power.shape == (DISK.shell_max + 1,)
    torch.testing.assert_close(power[1:], torch.full_like(power[1:], 4.0), rtol=0.1, atol=0)


def test_background_power_follows_coloured_noise() -> None:
    variance = spectrum(0.15)
    images = disk_to_images(coloured_coefficients(variance, 500), DISK, BOX)
    power = background_power(images, DISK).mean(dim=0)
    # The transform of the background's shape smooths; beyond the disk there is no noise to mix in.
    torch.testing.assert_close(power[2:-2], variance[2:-2], rtol=0.15, atol=0)


def test_background_power_belongs_to_each_image() -> None:
    images = white(20)
    whole = background_power(images, DISK)
    assert whole.shape == (20, DISK.shell_max + 1)
    torch.testing.assert_close(background_power(2 * images[3:4], DISK)[0], 4 * whole[3])


@pytest.mark.parametrize("box_size", [BOX, 25, 40])
def test_low_shells_have_the_noise_that_flattening_takes(box_size: int) -> None:
    disk = HalfDisk.create(box_size)
    measured = background_power(flattened(1.5 * white(4000, box_size=box_size))[0], disk).mean(dim=0)
    assert float(measured[0]) < 0.2 and float(measured[1]) < 1.6
    torch.testing.assert_close(repair_low_shells(measured), torch.full_like(measured, 2.25), rtol=0.1, atol=0)


def test_repair_leaves_other_shells_and_its_argument_alone() -> None:
    variance = torch.tensor([[0.0, 0.1, 5.0, 3.9, 3.0, 5.0, 4.0, 4.0, 4.0, 1.0]] * 2, dtype=torch.float64)
    before = variance.clone()
    repaired = repair_low_shells(variance)
    assert torch.equal(variance, before)
    assert torch.equal(repaired[:, 6:], before[:, 6:])
    assert repaired[0, :6].tolist() == [4.0, 4.0, 5.0, 4.0, 4.0, 5.0]


# --- normalisation


PIXELS = int(background_mask(BOX).sum())


def test_images_of_equal_noise_are_left_alone() -> None:
    _, deviation = flattened(3.0 * white(300))
    assert float(deviation.std()) > 0.05
    assert torch.equal(normalisation(deviation, PIXELS), torch.ones(300))


def test_images_of_different_gain_are_brought_to_the_median() -> None:
    gain = torch.linspace(0.5, 2.0, 301)
    _, deviation = flattened(white(301) * gain[:, None, None])
    scale = normalisation(deviation, PIXELS)
    torch.testing.assert_close(scale * deviation, deviation.median().expand(301))
    torch.testing.assert_close(scale * gain / 1.25, torch.ones(301), rtol=0.2, atol=0)
    assert float((scale * gain).std()) < 0.2 * float(gain.std())


def test_single_strange_image_is_brought_to_the_others() -> None:
    _, deviation = flattened(white(300))
    deviation[7] *= 20
    scale = normalisation(deviation, PIXELS)
    assert float(scale[7] * deviation[7]) == pytest.approx(float(deviation.median()))
    scale[7] = 1.0
    assert torch.equal(scale, torch.ones(300))


def test_single_image_is_left_alone() -> None:
    assert normalisation(torch.tensor([2.5]), PIXELS).tolist() == [1.0]
