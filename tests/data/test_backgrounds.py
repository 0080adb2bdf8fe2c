"""Replaced backgrounds are told from molecules, neighbours and chance by the edge of the mask."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from solvar_engine.data.backgrounds import ReplacedBackgrounds, find_replaced_backgrounds, noise_profile
from solvar_engine.imaging.masks import real_radius

BOX = 48
RADIUS = real_radius(BOX, 2)
MOLECULE = 3.0 * torch.exp(-RADIUS.square() / 50)


def white(count: int, seed: int = 0, box_size: int = BOX) -> Tensor:
    return torch.randn(count, box_size, box_size, generator=torch.Generator().manual_seed(seed))


def filled(strength: float, is_replaced: Tensor, radius: float = 0.4) -> Tensor:
    """Images of a molecule, some of them with other noise beyond a radius."""
    images = white(len(is_replaced), 4) + MOLECULE
    other = strength * white(len(is_replaced), 5)
    return torch.where(is_replaced[:, None, None] & (RADIUS > radius * BOX), other, images)


def found_in(images: Tensor) -> ReplacedBackgrounds | None:
    return find_replaced_backgrounds(noise_profile(images), images.shape[-1])


@pytest.mark.parametrize("every", [1, 3, 10])
@pytest.mark.parametrize(("strength", "radius"), [(0.3, 0.4), (0.5, 0.3), (0.5, 0.45), (1.6, 0.4), (3.0, 0.35)])
def test_backgrounds_of_other_noise_are_found(strength: float, radius: float, every: int) -> None:
    """In all images as in a few, whatever the radius; the molecule is not taken for noise."""
    is_replaced = torch.arange(120) % every == 0
    images = filled(strength, is_replaced, radius)
    found = found_in(images)
    assert found is not None and found.radius == pytest.approx(radius * BOX, abs=0.7)
    ratio = found.inner_noise(noise_profile(images))
    assert torch.equal(ratio != 1, is_replaced)
    assert float(ratio[is_replaced].mean()) == pytest.approx(1 / strength, rel=0.03)


@pytest.mark.parametrize(("every", "ratio"), [(1, 1.1), (1, 0.9), (1, 1.25), (2, 1.25)])
def test_slight_differences_count_where_they_are_sure(every: int, ratio: float) -> None:
    """Each image by itself hardly tells: with a sampling error of 5 %, a few are on the wrong side."""
    is_replaced = torch.arange(600) % every == 0
    images = filled(1 / ratio, is_replaced)
    found = found_in(images)
    assert found is not None
    told = found.inner_noise(noise_profile(images))
    assert float(((told != 1) == is_replaced).double().mean()) > 0.95
    assert float(told[told != 1].mean()) == pytest.approx(ratio, rel=0.02)


def test_levelled_images_have_noise_of_one_level() -> None:
    is_replaced = torch.arange(90) % 3 == 0
    images = filled(2.0, is_replaced)
    found = found_in(images)
    assert found is not None
    ratio = found.inner_noise(noise_profile(images))
    levelled = found.levelled(images, ratio)
    assert torch.equal(levelled[~is_replaced], images[~is_replaced])
    assert torch.equal(levelled[:, RADIUS < 18], images[:, RADIUS < 18])
    outside = levelled[is_replaced][:, RADIUS > 20]
    assert float(outside.std()) == pytest.approx(1.0, rel=0.05)
    assert found_in(levelled) is None


@pytest.mark.parametrize("noise", [1.0, 0.1, 0.001])
@pytest.mark.parametrize("width", [20.0, 50.0, 300.0])
def test_molecules_of_any_strength_are_no_noise(noise: float, width: float) -> None:
    """They fade out, also those with fine detail."""
    envelope = torch.exp(-RADIUS.square() / width)
    detail = 2.0 * white(1, 8) * envelope
    assert found_in(detail + noise * white(200, 6)) is None


def test_what_comes_in_gradually_is_no_replaced_background() -> None:
    """Such as neighbours with their own noise, and a level that changes across the image."""
    place = torch.arange(BOX) - BOX // 2
    images = white(300, 2)
    corner = ((place[:, None] - 19).square() + (place - 19).square()).sqrt() < 19
    assert found_in(torch.where(corner, images + 0.7 * white(300, 3), images)) is None
    assert found_in(images * (1 + 0.3 * RADIUS / BOX)) is None
    assert found_in(images) is None


def test_images_without_sharp_noise_tell_nothing_of_their_background() -> None:
    smooth = torch.stack((torch.zeros(BOX, BOX), torch.linspace(-1, 1, BOX).expand(BOX, BOX)))
    profile = noise_profile(smooth)
    assert bool(profile.isnan().all()) and find_replaced_backgrounds(profile, BOX) is None
    images = filled(0.5, torch.ones(60, dtype=torch.bool))
    images[7] = 0.0
    found = found_in(images)
    assert found is not None
    assert torch.nonzero(found.inner_noise(noise_profile(images)) == 1).flatten().tolist() == [7]


@pytest.mark.parametrize("box_size", [10, 16, 24])
def test_few_pixels_do_not_tell_enough(box_size: int) -> None:
    assert found_in(white(500, 7, box_size)) is None


def test_noise_is_that_of_all_pixels_of_a_ring() -> None:
    """Four squares of the deviation, as four pixels make a difference."""
    profile = noise_profile(1.5 * white(400, 9))
    torch.testing.assert_close(profile.mean(dim=0), torch.full((profile.shape[1],), 9.0).double(), rtol=0.08, atol=0)
    assert not math.isnan(float(profile.sum()))
