"""Images that hold the same noise are found; those that show a molecule alike are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from solvar_engine.data.copies import SIGNATURE_LENGTH, find_copies, signatures
from solvar_engine.imaging.fourier import HalfDisk, images_to_disk, shift_phases

BOX, COUNT = 32, 300
DISK = HalfDisk.create(BOX)


def noise(count: int = COUNT, seed: int = 0) -> Tensor:
    return torch.randn(count, BOX, BOX, generator=torch.Generator().manual_seed(seed))


def label_of(images: Tensor, moved: Tensor | None = None, rows: Tensor | None = None) -> np.ndarray | None:
    coefficients = images_to_disk(images, DISK)
    if moved is not None:
        coefficients = coefficients * shift_phases(DISK, moved, BOX)
    return find_copies(signatures(coefficients, DISK), torch.arange(len(images)) if rows is None else rows)


@pytest.mark.parametrize(
    ("change", "rows", "found"),
    [
        (lambda image: -4 * image + 100, 0, 1.0),
        (lambda image: image.half().float(), 0, 1.0),
        (lambda image: torch.fft.irfft2(torch.fft.rfft2(image) * torch.linspace(1, 0.3, BOX // 2 + 1)), 0, 1.0),
        (lambda image: image + 0.4 * noise(len(image), seed=5), 0, 0.6),
        (lambda image: torch.cat((noise(len(image), seed=6)[:, :2], image[:, :-2]), dim=1), 2, 0.6),
    ],
    ids=["scaled and inverted", "rounded", "filtered", "noisier", "extracted two rows lower"],
)
def test_copies_are_found_whatever_was_done_to_them(change, rows: int, found: float) -> None:
    images = noise()
    moved = torch.zeros(COUNT + 20, 2)
    moved[COUNT:, 1] = -float(rows)
    label = label_of(torch.cat((images, change(images[:20]))), moved)
    assert label is not None and (label[:20] == label[COUNT:]).mean() >= found
    assert len(np.unique(label[:COUNT])) == COUNT


def test_independent_images_have_no_copies() -> None:
    assert label_of(noise(3000, seed=1)) is None


def test_signal_alone_makes_no_copies() -> None:
    """Views of a molecule that differ by little, without noise, are more or less alike."""
    axis = torch.arange(BOX) - BOX // 2
    place = torch.linspace(0, 12, 400)[:, None, None]
    turned = torch.stack([torch.exp(-((axis[:, None] - 0.4 * place) ** 2 + (axis - k) ** 2) / 4) for k in (-6, 0, 5)])
    assert label_of(turned.sum(dim=0) + torch.exp(-((axis[:, None] + 5) ** 2 + (axis + place) ** 2) / 4)) is None


def test_rows_of_one_image_are_not_compared() -> None:
    images = torch.cat((noise(), noise()))
    assert label_of(images, rows=torch.arange(COUNT)) is None
    assert label_of(images) is not None


def test_small_boxes_and_empty_images_tell_nothing() -> None:
    small = HalfDisk.create(8)
    assert not signatures(images_to_disk(noise(4)[:, :8, :8], small), small).any()
    found = signatures(images_to_disk(torch.zeros(2, BOX, BOX), DISK), DISK)
    assert found.shape == (2, SIGNATURE_LENGTH) and not found.any()
    assert find_copies(found, torch.arange(2)) is None and find_copies(found[:1], torch.arange(1)) is None
