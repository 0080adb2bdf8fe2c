"""Aberrations and distortion against written-out polynomials and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvar_engine.imaging.aberrations import (
    Aberrations,
    beam_tilt_zernike,
    distorted_shift,
    even_zernike,
    odd_zernike,
    undistorted_shift,
)
from solvar_engine.imaging.fourier import HalfDisk, images_to_distorted_disk, shift_phases
from tests.imaging import microscope
from tests.imaging.closed_form import asymmetric_atoms, random_rotations, relative_error

BOX, PIXEL_SIZE = 48, 2.5
DISK = HalfDisk.create(BOX)
MATRIX = np.array([[1.05, 0.03], [-0.02, 0.94]])
FREQUENCY = np.random.default_rng(0).normal(size=(50, 2)) * 0.2


@pytest.mark.parametrize(
    ("ours", "written_out"), [(odd_zernike, microscope._ODD), (even_zernike, microscope._EVEN)]
)
def test_polynomials_are_in_the_order_of_relion(ours, written_out) -> None:
    for terms in (0, 1, 3, len(written_out)):
        found = ours(torch.from_numpy(FREQUENCY), terms)
        assert found.shape == (terms, 50)
        for row, polynomial in zip(found.numpy(), written_out, strict=False):
            np.testing.assert_allclose(row, polynomial(*FREQUENCY.T), atol=1e-12)


def test_beam_tilt_is_a_cubic_phase() -> None:
    tilted = microscope.Microscope(tilt=(1.5, -0.7))
    wavelength = torch.tensor([12.2643247 / (3e5 * (1 + 0.978466e-6 * 3e5)) ** 0.5], dtype=torch.float64)
    terms = beam_tilt_zernike(torch.tensor([tilted.tilt], dtype=torch.float64), torch.tensor([2.7]), wavelength)
    phase = terms @ odd_zernike(torch.from_numpy(FREQUENCY), 6)
    np.testing.assert_allclose(phase[0], tilted.phase(*FREQUENCY.T), rtol=1e-6)


def test_sampling_at_distorted_frequencies_is_a_plain_sum() -> None:
    disk, image = HalfDisk.create(15), np.random.default_rng(1).normal(size=(15, 15))
    place = np.arange(15) - 7
    k = disk.pixels.numpy() @ MATRIX.T
    waves_x, waves_y = (np.exp(-2j * np.pi * np.outer(column, place) / 15) for column in k.T)
    expected = np.einsum("py,yx,px->p", waves_y, image, waves_x) / 15 * (np.hypot(*k.T) <= 7)
    found = images_to_distorted_disk(torch.from_numpy(image)[None], disk, torch.from_numpy(MATRIX))[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert 0 < np.count_nonzero(expected == 0) < len(expected) / 2


def distorted_images(origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images of atoms in real space whose transform at k is that of the projection at M k, and that at the disk."""
    atoms, rotation = asymmetric_atoms(BOX, sigma=1.8), random_rotations(3, 4)
    covariance = atoms.sigma**2 * MATRIX.T @ MATRIX
    inverse, place = np.linalg.inv(covariance), np.arange(BOX) - BOX // 2
    images = np.zeros((3, BOX, BOX))
    for image, turn, moved in zip(images, rotation, origin, strict=True):
        centres = (atoms.position @ turn)[:, :2] @ MATRIX - moved
        for centre, amplitude in zip(centres, atoms.amplitude, strict=True):
            dx, dy = place[None, :] - centre[0], place[:, None] - centre[1]
            form = inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2
            image += amplitude * np.exp(-form / 2) / (2 * np.pi * np.linalg.det(covariance) ** 0.5)
    frequency = DISK.pixels.numpy() / BOX
    slices = np.stack([atoms.transform(frequency @ turn[:, :2].T) for turn in rotation]) / BOX
    return images, slices


def test_magnification_is_undone_exactly() -> None:
    """To 1e-5 of closed form, origins of distorted images included."""
    origin = np.array([[0.0, 0.0], [2.5, -1.0], [-0.5, 3.0]])
    images, slices = distorted_images(origin)
    shift = undistorted_shift(torch.from_numpy(origin), torch.from_numpy(MATRIX).expand(3, 2, 2))
    inner = DISK.pixels.double().norm(dim=1) < 20  # what the distorted images do not see lies beyond

    def error(matrix: np.ndarray, shift: torch.Tensor = shift) -> float:
        aberrations = Aberrations(torch.from_numpy(matrix)[None], torch.zeros(1, 0, dtype=torch.float64))
        found = aberrations.corrected(torch.from_numpy(images), DISK, 0, 1.0, 1.0) * shift_phases(DISK, shift, BOX)
        return relative_error(found[:, inner].numpy(), slices[:, inner])

    assert error(MATRIX) < 1e-5
    for wrong in (MATRIX.T.copy(), np.linalg.inv(MATRIX), np.eye(2)):
        assert error(wrong) > 0.02
    assert error(MATRIX, torch.from_numpy(origin)) > 0.02
    back = distorted_shift(shift, torch.from_numpy(MATRIX).expand(3, 2, 2))
    np.testing.assert_allclose(back, origin, atol=1e-12)


def test_odd_aberrations_are_taken_back_and_noise_is_kept() -> None:
    odd = torch.tensor([[3.0, -2.0, 150.0, 20.0, -30.0, -120.0]], dtype=torch.float64)
    aberrations = Aberrations(torch.eye(2, dtype=torch.float64)[None], odd)
    images = torch.randn(2, BOX, BOX, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = Aberrations.none(1).corrected(images, DISK, 0, 1.0, BOX * PIXEL_SIZE)
    found = aberrations.corrected(images, DISK, 0, 1.0, BOX * PIXEL_SIZE)
    phase = microscope.Microscope(odd=tuple(odd[0].tolist())).phase(*(DISK.pixels.numpy() / (BOX * PIXEL_SIZE)).T)
    np.testing.assert_allclose(found, plain.numpy() * np.exp(-1j * phase), atol=1e-10)
