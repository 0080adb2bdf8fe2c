"""Closed-form volumes and projections against Gaussians written out in real space and against plain sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvar_engine.imaging.fourier import HalfDisk, disk_to_images, images_to_disk
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.simulation.phantoms import make_phantom
from solvar_engine.simulation.projections import atom_band, atom_volume, project_atoms

BOXES = [32, 33]
SMOOTH = 1 / 16
"""At this width a Gaussian has no energy beyond the band, so that real space knows the answer."""


def few_atoms(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(0.15 * rng.uniform(-1, 1, (5, 3))), torch.from_numpy(rng.uniform(1, 2, 5))


def gaussians_on_grid(atoms: torch.Tensor, mass: torch.Tensor, box: int, sigma: float) -> np.ndarray:
    """Density (z, y, x) of Gaussian atoms written out in real space, px."""
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    density = np.zeros((box, box, box))
    for (ax, ay, az), weight in zip(atoms.numpy() * box, mass.numpy(), strict=True):
        squared = (x - ax) ** 2 + (y - ay) ** 2 + (z - az) ** 2
        density += weight * np.exp(-squared / (2 * (sigma * box) ** 2))
    return density / ((2 * np.pi) ** 1.5 * (sigma * box) ** 3)


@pytest.mark.parametrize("box", BOXES)
def test_volumes_are_gaussians_in_real_space(box: int) -> None:
    atoms, mass = few_atoms()
    expected = gaussians_on_grid(atoms, mass, box, SMOOTH)
    volume = atom_volume(atoms, mass, box, SMOOTH)
    assert volume.dtype == torch.float32
    assert np.abs(volume.numpy() - expected).max() < 1e-5 * expected.max()


@pytest.mark.parametrize("box", BOXES)
def test_projections_are_gaussians_in_real_space_seen_from_the_image(box: int) -> None:
    atoms, mass = few_atoms()
    rotation = random_rotations(3, torch.Generator().manual_seed(1))
    disk = HalfDisk.create(box)
    slices = project_atoms(atoms.expand(3, -1, -1), mass.expand(3, -1), rotation, disk, SMOOTH)
    images = disk_to_images(slices, disk, box)
    for image, matrix in zip(images, rotation, strict=True):
        # R takes image to volume coordinates, so an atom at x is seen at R^T x
        seen = atoms @ matrix.double()
        expected = gaussians_on_grid(seen, mass, box, SMOOTH).sum(axis=0)
        assert np.abs(image.numpy() - expected).max() < 1e-5 * expected.max()


@pytest.mark.parametrize("box", BOXES)
def test_band_limited_images_are_projections_of_band_limited_volumes(box: int) -> None:
    # here the atoms are narrow: a third of the amplitude is left where the band ends
    atoms, mass = few_atoms()
    narrow = 1 / 64
    disk = HalfDisk.create(box)
    volume = atom_volume(atoms, mass, box, narrow)
    slices = project_atoms(atoms[None], mass[None], torch.eye(3)[None], disk, narrow)
    expected = images_to_disk(volume.sum(dim=0)[None], disk)
    assert float((slices - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_slices_equal_plain_sums_of_exponentials() -> None:
    hinge = make_phantom("hinge")
    rotation = random_rotations(1, torch.Generator().manual_seed(2))
    disk = HalfDisk.create(64)
    slices = project_atoms(hinge.atoms[:1], hinge.mass[:1], rotation, disk, hinge.sigma)
    frequency = disk.pixels.double().numpy() @ rotation[0, :, :2].double().numpy().T
    phase = np.exp(-2j * np.pi * frequency @ hinge.atoms[0].numpy().T)
    envelope = np.exp(-2 * np.pi**2 * hinge.sigma**2 * (frequency**2).sum(axis=1))
    expected = phase @ hinge.mass[0].numpy() * envelope / 64
    assert np.abs(slices[0].numpy() - expected).max() < 1e-5 * np.abs(expected).max()


def test_absent_atoms_do_not_contribute() -> None:
    atoms, mass = few_atoms()
    present = mass.clone()
    present[2] = 0.0
    others = [0, 1, 3, 4]
    expected = atom_volume(atoms[others], mass[others], 16, SMOOTH)
    assert torch.allclose(atom_volume(atoms, present, 16, SMOOTH), expected, atol=1e-7)


def test_large_boxes_are_evaluated_where_atoms_have_signal_only() -> None:
    atoms, mass = few_atoms()
    disk = HalfDisk.create(160)
    assert atom_band(160, 1 / 64) == 58 < disk.shell_max
    slices = project_atoms(atoms[None], mass[None], torch.eye(3)[None], disk, 1 / 64)
    assert float(slices[0, disk.shell > 59].abs().max()) == 0.0
    assert float(slices[0, disk.shell == 57].abs().max()) < 1e-5 * float(slices.abs().max())
    assert float(slices[0, disk.shell == 57].abs().max()) > 0.0
