"""Pixels, rows and columns that are the same in all images are found, and nothing of a molecule is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.pixel_faults import (
    find_fixed_pixels,
    repeated_edges,
    replace_single_pixels,
    sentences_of,
    with_pixels_replaced,
)
from solvar_engine.data.preprocess import prepare_particles
from solvar_engine.distributed.world import ALONE, Share
from tests.imaging.closed_form import asymmetric_atoms, random_rotations

BOX, COUNT = 24, 300


def images_of_molecules(noise: float = 1.0, count: int = COUNT, one_view: bool = False) -> np.ndarray:
    rotation = random_rotations(count, seed=1)
    if one_view:
        rotation[:] = rotation[0]
    projections = asymmetric_atoms(BOX, sigma=1.2).projections(rotation, BOX, np.zeros((count, 2)))
    scatter = np.random.default_rng(0).normal(size=projections.shape)
    return (projections / projections.std() + noise * scatter).astype(np.float32)


def fixed_in(write: Callable[..., Path], folder: Path, images: np.ndarray) -> list[list[int]]:
    stack = ParticleStack.from_star(write(folder, images))
    found = find_fixed_pixels(stack, Share.of(ALONE, len(stack)))
    return [] if found is None else torch.nonzero(found).tolist()


ROW = [[7, x] for x in range(BOX)]


@pytest.mark.parametrize(
    ("places", "value"),
    [
        ([[14, 9]], 2.0),  # hot, inside the particle
        ([[0, 5]], 50.0),  # at the edge
        ([[14, 9]], -50.0),  # dead, of images with an offset
        ([[4, 9], [4, 10], [5, 9], [5, 10]], 30.0),  # and those around
        (ROW, 2.0),
        ([[y, x] for x, y in ROW], -2.0),
        (sorted([*ROW, [12, 12]]), 5.0),  # several faults
    ],
)
def test_what_is_added_at_one_place_of_all_images_is_found(places, value, write_particles, tmp_path):
    images = images_of_molecules()
    images[(slice(None), *np.transpose(places))] += np.float32(value)
    assert fixed_in(write_particles, tmp_path, images) == places


def test_a_pixel_is_found_by_its_variance_or_in_a_part_of_the_images(write_particles, tmp_path):
    images = images_of_molecules()
    images[:, 3, 5] += 8 * np.random.default_rng(3).normal(size=COUNT).astype(np.float32)
    images[::6, 17, 11] += 30
    assert fixed_in(write_particles, tmp_path, images) == [[3, 5], [17, 11]]


@pytest.mark.parametrize("noise", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("one_view", [False, True])
def test_nothing_of_a_molecule_is_taken_for_a_fault(noise, one_view, write_particles, tmp_path):
    """Not even if it is seen from one side only; nor a pixel of a single image."""
    images = images_of_molecules(noise, one_view=one_view)
    images[5, 12, 12] = 1e6
    assert fixed_in(write_particles, tmp_path, images) == []


def test_neither_few_images_nor_images_masked_alike_have_fixed_pixels(write_particles, tmp_path):
    images = images_of_molecules()
    images[:, 14, 9] += 5
    assert fixed_in(write_particles, tmp_path / "few", images[:90]) == []
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    masked = images_of_molecules() * (x**2 + y**2 < 100)
    assert fixed_in(write_particles, tmp_path / "masked", masked) == []


def test_fixed_pixels_become_the_average_of_those_beside():
    images = torch.arange(50.0).reshape(2, 5, 5)
    fixed = torch.zeros(5, 5, dtype=torch.bool)
    fixed[2, 2] = fixed[0] = True
    expected = images.clone()
    expected[:, 0] = images[:, 1]
    expected[:, 0, 0], expected[:, 0, 4] = images[:, 1, :2].mean(dim=1), images[:, 1, 3:].mean(dim=1)
    torch.testing.assert_close(with_pixels_replaced(images + 100 * fixed, fixed), expected)
    block = torch.zeros(5, 5, dtype=torch.bool)
    block[1:4, 1:4] = True  # the nearest sound pixels of the middle are two away
    torch.testing.assert_close(with_pixels_replaced(images, block)[:, 2, 2], images[:, 2, 2])


@pytest.mark.parametrize("strength", [-30.0, 20.0, 1e5])
@pytest.mark.parametrize("place", [(0, 0), (23, 4), (11, 23), (12, 13)])
def test_single_pixels_become_the_median_of_those_around(strength, place):
    """Two of them side by side, too; other images stay what they are."""
    known = torch.from_numpy(images_of_molecules(count=20))
    images, beside = known.clone(), (place[0], place[1] - 1 if place[1] else 1)
    for y, x in (place, beside):
        images[3, y, x] += strength
    faulty = images.clone()
    assert replace_single_pixels(images).tolist() == [0, 0, 0, 2, *[0] * 16]
    for y, x in (place, beside):
        padded = np.pad(faulty[3].numpy(), 2, mode="reflect")[y : y + 5, x : x + 5].ravel()
        assert float(images[3, y, x]) == np.sort(padded)[12]
        images[3, y, x] = known[3, y, x]
    assert torch.equal(images, known)


@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_peaks_of_molecules_and_larger_faults_are_no_single_pixels(noise):
    images = torch.from_numpy(images_of_molecules(noise))
    with_bead = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 64, 64)))
    with_bead[0, 3:6, 3:6] += 40
    for whole in (images, with_bead):
        known = whole.clone()
        assert int(replace_single_pixels(whole).sum()) == 0 and torch.equal(whole, known)


def test_what_was_replaced_is_told():
    fixed = torch.zeros(5, 5, dtype=torch.bool)
    fixed[2, 2] = fixed[0] = True
    single, depth = torch.tensor([0, 2, 1, 0]), torch.tensor([7, 0, 0, 9])
    images = MagicMock(
        fixed_pixels=fixed,
        single_pixels=single,
        repeated_edges=depth,
        near_zeros=None,
        inner_noise=None,
        __len__=lambda _: 4,
    )
    first, second, third = sentences_of(images, "a.star")
    assert first.startswith("6 pixels stand out at the same place of images of a.star")
    assert "(column, row: 1, 1; 2, 1; 3, 1; 4, 1; 5, 1; ...)" in first
    assert second.startswith("2 of 4 images of a.star have single pixels") and "(3 in all)" in second
    assert third.startswith("2 of 4 images of a.star repeat one row or column over 7 to 9 px at an edge")
    assert third.endswith("left out, as outliers")
    few = torch.zeros(400, dtype=torch.int64)
    few[7] = 1
    sound = MagicMock(
        fixed_pixels=None,
        single_pixels=few,
        repeated_edges=0 * few,
        near_zeros=0.001 * few,
        inner_noise=None,
        __len__=lambda _: 400,
    )
    assert list(sentences_of(sound, "a.star")) == []


def test_edges_that_repeat_are_as_deep_as_they_are():
    """Of one value, or of the last row or column of the micrograph; at each of the four edges."""
    images = torch.from_numpy(images_of_molecules(count=6))
    images[0, :5] = 3.0
    images[1, -4:] = images[1, -4].clone()
    images[2, :, :3] = images[2, :, 2:3].clone()
    images[3, :, -7:] = 0.0
    images[3, :2] = 1.0
    images[4, 8:12] = 1.0  # not at an edge
    assert repeated_edges(images).tolist() == [5, 4, 3, 7, 0, 0]


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_images_that_reach_beyond_the_micrograph_are_left_out_unless_most_do(share, write_particles, tmp_path):
    images, count = images_of_molecules(), int(share * COUNT)
    images[:count, -6:] = 0.0
    images[count, -1:] = 0.0
    source = prepare_particles(ParticleStack.from_star(write_particles(tmp_path, images)), BOX, scratch=None)
    assert source.repeated_edges.tolist() == [6] * count + [0] * (COUNT - count)
    if share < 0.5:
        assert torch.nonzero(source.is_bad).flatten().tolist() == list(range(count))
        whole = prepare_particles(
            ParticleStack.from_star(write_particles(tmp_path / "whole", images[count:])), BOX, scratch=None
        )
        typical = source.image_scale[count:] / whole.image_scale  # one factor, as the median is that of other images
        torch.testing.assert_close(source.noise_variance, whole.noise_variance * typical.mean() ** 2, rtol=0.05, atol=0)
    else:
        assert source.is_bad is None
        (sentence,) = sentences_of(source, "a.star")
        assert sentence.endswith("left out; extract them in a smaller box, or without particles near the edge")


def test_particles_are_prepared_without_their_fixed_pixels(write_particles, tmp_path):
    """As if the pixel had been what it is replaced by."""
    images = images_of_molecules()
    images[:, 14, 9] = (images[:, 13:16, 8:11].sum(axis=(1, 2)) - images[:, 14, 9]) / 8
    known = prepare_particles(ParticleStack.from_star(write_particles(tmp_path / "a", images)), BOX, scratch=None)
    images[:, 14, 9] += 20
    found = prepare_particles(ParticleStack.from_star(write_particles(tmp_path / "b", images)), BOX, scratch=None)
    assert known.fixed_pixels is None and torch.nonzero(found.fixed_pixels).tolist() == [[14, 9]]
    torch.testing.assert_close(found.coefficients, known.coefficients, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.image_scale, known.image_scale)
    torch.testing.assert_close(found.noise_variance, known.noise_variance)
