"""Masks in real space."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvar_engine.imaging.masks import (
    automatic_mask,
    distance_of_centres,
    grown,
    is_off_centre,
    real_radius,
    share_of_density,
    soft_edge,
    sphere_mask,
)
from tests.imaging.closed_form import asymmetric_atoms


@pytest.mark.parametrize("box_size", [20, 21])
def test_sphere_is_centred_and_falls_off_smoothly(box_size: int) -> None:
    mask = sphere_mask(box_size, radius_px=5, edge_px=3)
    centre = box_size // 2
    line = mask[centre, centre, centre:]
    assert line[:6].tolist() == [1.0] * 6
    assert bool((line.diff() <= 0).all())
    assert line[6].item() == pytest.approx(0.75)
    assert line[8:].tolist() == [0.0] * len(line[8:])
    # an even box has one plane more before its centre than after it
    first = 1 - box_size % 2
    paired = mask[first:, first:, first:]
    for axis in range(3):
        torch.testing.assert_close(paired.flip(axis), paired)


def test_radius_in_two_and_three_dimensions() -> None:
    assert real_radius(8, 2)[4, 7].item() == 3.0
    assert real_radius(9, 3)[4, 7, 8].item() == 5.0


def test_soft_edge_lies_outside_the_binary_mask() -> None:
    binary = torch.zeros(16, 16, 16, dtype=torch.bool)
    binary[6:10, 6:10, 6:10] = True
    mask = soft_edge(binary, 4.0)
    assert bool((mask[binary] == 1).all())
    assert 0 < mask[8, 8, 11].item() < mask[8, 8, 10].item() < 1
    assert mask[8, 8, 14].item() == 0.0
    assert int(binary.sum()) == 64


@pytest.mark.parametrize("box_size", [48, 49])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_automatic_mask_holds_the_molecule_and_little_else(box_size: int, noise: float) -> None:
    density = asymmetric_atoms(box_size, sigma=2.0).volume(box_size)
    generator = np.random.default_rng(0)
    noisy = density + noise * density.max() * generator.normal(size=density.shape)
    mask = automatic_mask(torch.from_numpy(noisy).float(), pixel_size=3.0).numpy()
    assert mask.min() >= 0
    assert mask.max() == 1
    assert (density * mask).sum() > 0.97 * density.sum()
    strong = density > 0.2 * density.max()
    assert mask[strong].min() > 0.9
    assert mask.mean() < 0.5
    assert mask[0].max() == 0


def test_automatic_mask_needs_a_molecule() -> None:
    with pytest.raises(ValueError, match="pass --mask"):
        automatic_mask(torch.zeros(32, 32, 32), pixel_size=3.0)


def test_automatic_mask_drops_specks() -> None:
    density = asymmetric_atoms(48, sigma=2.0).volume(48)
    density[40, 40, 40] += density.max()
    mask = automatic_mask(torch.from_numpy(density).float(), pixel_size=3.0)
    assert mask[40, 40, 40].item() == 0.0


def test_share_of_density_is_that_of_the_atoms_inside() -> None:
    """Two balls of density, one three times as heavy; noise and a mask's empty parts do not count."""
    box_size = 32
    heavy, light = (sphere_mask(box_size, 4.0).roll(move, 2) for move in (-7, 7))
    noise = 0.02 * torch.randn(box_size, box_size, box_size, generator=torch.Generator().manual_seed(0))
    volume = 3 * heavy + light + noise
    right = torch.zeros(box_size, box_size, box_size)
    right[:, :, box_size // 2 :] = 1
    assert share_of_density(volume, right, 4.0) == pytest.approx(0.25, abs=0.03)
    assert share_of_density(volume, 1 - right, 4.0) == pytest.approx(0.75, abs=0.03)
    assert share_of_density(volume, 0.5 * torch.ones_like(volume), 4.0) == pytest.approx(0.5, abs=0.01)
    assert share_of_density(volume, sphere_mask(box_size, 3.0).roll(11, 0), 4.0) == pytest.approx(0, abs=0.01)
    assert share_of_density(volume, automatic_mask(volume, 4.0), 4.0) == pytest.approx(1, abs=0.01)


def test_grown_mask_holds_what_is_within_the_margin() -> None:
    mask = torch.zeros(9, 9, 9)
    mask[4, 4, 4], mask[4, 4, 5] = 1.0, 0.4
    near = grown(mask, 2.0)
    squared = (torch.stack(torch.meshgrid(*[torch.arange(9) - 4] * 3, indexing="ij")) ** 2).sum(dim=0)
    torch.testing.assert_close(near, (squared <= 4).float())


def test_a_part_that_is_left_of_a_molecule_is_off_the_centre() -> None:
    assert is_off_centre(sphere_mask(32, 4).roll((5, -4), (0, 2)), 3.0)
    assert not is_off_centre(sphere_mask(32, 8).roll((3, -2), (0, 2)), 3.0)


def test_distance_of_centres_is_that_of_density_and_mask() -> None:
    volume = sphere_mask(32, 5).roll((3, -4), (0, 2))
    assert distance_of_centres(volume, sphere_mask(32, 8), 3.0) == pytest.approx(15.0, rel=0.05)
