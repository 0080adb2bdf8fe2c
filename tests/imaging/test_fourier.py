"""The Fourier conventions, against transforms written from their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvar_engine.imaging.fourier import (
    HalfDisk,
    disk_to_images,
    fourier_crop_volume,
    ft_to_volume,
    hermitian_weight,
    images_to_disk,
    images_to_scaled_disk,
    low_pass,
    nyquist_shell,
    padded_rfft3,
    padded_rfft3_adjoint,
    shift_phases,
    volume_radius,
    volume_to_ft,
)
from tests.imaging.closed_form import asymmetric_atoms, random_rotations, relative_error

BOXES = [16, 17]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def direct_transform(image: np.ndarray, kx: int, ky: int) -> complex:
    """Orthonormal transform at one frequency, from the definition, centre at index box // 2."""
    axis = np.arange(image.shape[-1]) - image.shape[-1] // 2
    wave = np.exp(-2j * np.pi * (kx * axis[None, :] + ky * axis[:, None]) / image.shape[-1])
    return complex((image * wave).sum() / image.shape[-1])


# --- the list of pixels


@pytest.mark.parametrize("box_size", [8, 9, 64])
def test_disk_holds_one_of_each_friedel_pair(box_size: int) -> None:
    disk = HalfDisk.create(box_size)
    listed = {tuple(pixel) for pixel in disk.pixels.tolist()}
    limit = (box_size - 1) // 2
    for kx in range(-limit, limit + 1):
        for ky in range(-limit, limit + 1):
            inside = kx**2 + ky**2 <= limit**2
            found = ((kx, ky) in listed) + ((-kx, -ky) in listed and (kx, ky) != (0, 0))
            assert found == int(inside), (kx, ky)
    assert len(listed) == len(disk)


def test_disk_size_of_the_usual_box() -> None:
    disk = HalfDisk.create(64)
    assert len(disk) == 1501
    assert disk.shell_max == 31
    assert float(disk.weight.sum()) == 1 + 2 * 1500  # independent real numbers of an image


@pytest.mark.parametrize("shell_max", [0, 1, 5, 7])
def test_lower_band_is_a_prefix(shell_max: int) -> None:
    whole, band = HalfDisk.create(16), HalfDisk.create(16, shell_max)
    prefix = whole.prefix(shell_max)
    assert torch.equal(prefix.pixels, band.pixels)
    assert torch.equal(prefix.pixels, whole.pixels[: len(band)])
    assert torch.equal(prefix.weight, band.weight)
    assert torch.equal(prefix.shell, band.shell)
    assert (prefix.box_size, prefix.shell_max) == (16, shell_max)


def test_disk_starts_at_the_origin_and_knows_its_shells() -> None:
    disk = HalfDisk.create(32)
    radius = disk.pixels.double().norm(dim=1)
    assert disk.pixels[0].tolist() == [0, 0]
    assert bool((radius.ceil().diff() >= 0).all())
    assert torch.equal(disk.shell, radius.round().long())


@pytest.mark.parametrize("shell_max", [-1, 8, 100])
def test_disk_beyond_nyquist_is_refused(shell_max: int) -> None:
    with pytest.raises(ValueError, match=f"shell_max is {shell_max}, expected 0 to 7 for a box of 16"):
        HalfDisk.create(16, shell_max)


def test_disk_cannot_grow() -> None:
    with pytest.raises(ValueError, match="the disk ends at 4"):
        HalfDisk.create(16, 4).prefix(5)


# --- images


@pytest.mark.parametrize("box_size", BOXES)
def test_image_coefficients_follow_the_definition(box_size: int) -> None:
    image = noise(1, box_size, box_size)
    disk = HalfDisk.create(box_size)
    coefficients = images_to_disk(image, disk)[0].numpy()
    expected = [direct_transform(image[0].numpy(), kx, ky) for kx, ky in disk.pixels.tolist()]
    np.testing.assert_allclose(coefficients, expected, atol=1e-12)


@pytest.mark.parametrize("box_size", BOXES)
def test_images_and_coefficients_are_inverses(box_size: int) -> None:
    disk = HalfDisk.create(box_size)
    coefficients = torch.complex(noise(3, len(disk)), noise(3, len(disk), seed=1))
    coefficients[:, 0] = coefficients[:, 0].real.to(coefficients.dtype)
    images = disk_to_images(coefficients, disk, box_size)
    assert images.shape == (3, box_size, box_size)
    torch.testing.assert_close(images_to_disk(images, disk), coefficients)


@pytest.mark.parametrize("box_size", BOXES)
def test_weighted_inner_products_equal_those_of_the_images(box_size: int) -> None:
    disk = HalfDisk.create(box_size)
    first, second = (
        disk_to_images(images_to_disk(noise(2, box_size, box_size, seed=seed), disk), disk, box_size)
        for seed in (0, 1)
    )
    products = images_to_disk(first, disk).conj() * images_to_disk(second, disk)
    in_fourier_space = (disk.weight.double() * products.real).sum(dim=1)
    torch.testing.assert_close(in_fourier_space, (first * second).sum(dim=(1, 2)))


def test_noise_variance_is_the_same_in_both_spaces() -> None:
    disk = HalfDisk.create(32)
    power = (images_to_disk(2.0 * noise(200, 32, 32), disk).abs() ** 2).mean(dim=0)
    # 200 images: the average of a disk of 797 - 1 complex coefficients is known to a fraction of a percent.
    assert power[1:].mean().item() == pytest.approx(4.0, rel=0.01)


def test_larger_images_are_cropped_without_a_factor() -> None:
    images = noise(2, 24, 24)
    small = HalfDisk.create(16)
    large = HalfDisk.create(24).prefix(small.shell_max)
    torch.testing.assert_close(images_to_disk(images, small), images_to_disk(images, large))


def test_small_images_cannot_fill_a_large_disk() -> None:
    with pytest.raises(ValueError, match="images of 8 px cannot fill a disk of radius 7"):
        images_to_disk(torch.zeros(1, 8, 8), HalfDisk.create(16))


@pytest.mark.parametrize("box_size", BOXES)
def test_shift_phases_move_images_by_whole_pixels(box_size: int) -> None:
    disk = HalfDisk.create(box_size)
    image = disk_to_images(images_to_disk(noise(1, box_size, box_size), disk), disk, box_size)
    phases = shift_phases(disk, torch.tensor([[2.0, -3.0]], dtype=torch.float64), box_size)
    moved = disk_to_images(images_to_disk(image, disk) * phases, disk, box_size)
    # (x, y) = (2, -3): columns to the right, rows upwards
    torch.testing.assert_close(moved, image.roll((-3, 2), dims=(1, 2)))


@pytest.mark.parametrize("box_size", [32, 33])
def test_shift_phases_move_atoms_by_fractions(box_size: int) -> None:
    atoms = asymmetric_atoms(box_size)
    rotation, shift = np.eye(3)[None], np.array([[0.3, -1.7]])
    disk = HalfDisk.create(box_size)
    centred = images_to_disk(torch.from_numpy(atoms.projections(rotation, box_size)), disk)
    moved = images_to_disk(torch.from_numpy(atoms.projections(rotation, box_size, shift)), disk)
    predicted = centred * shift_phases(disk, torch.from_numpy(shift), box_size)
    assert relative_error(predicted.numpy(), moved.numpy()) < 1e-4


@pytest.mark.parametrize(("box_size", "ratio"), [(32, 0.8), (33, 0.8), (32, 1.25)])
def test_images_of_another_pixel_size_keep_their_frequencies(box_size: int, ratio: float) -> None:
    atoms = asymmetric_atoms(box_size, sigma=2.0)
    disk = HalfDisk.create(box_size)
    image = torch.from_numpy(atoms.projections(np.eye(3)[None], box_size))
    sampled = images_to_scaled_disk(image, disk, ratio)[0].numpy()
    frequency = disk.pixels.numpy() * ratio / box_size
    expected = atoms.transform(np.pad(frequency, ((0, 0), (0, 1)))) / box_size
    inside = np.linalg.norm(disk.pixels.numpy(), axis=1) * ratio <= nyquist_shell(box_size)
    assert relative_error(sampled[inside], expected[inside]) < 1e-3
    assert np.all(sampled[~inside] == 0)
    assert inside.all() == (ratio < 1)


# --- volumes


@pytest.mark.parametrize("box_size", BOXES)
def test_central_slice_is_the_transform_of_the_projection(box_size: int) -> None:
    volume = noise(box_size, box_size, box_size)
    disk = HalfDisk.create(box_size)
    centre = box_size // 2
    kx, ky = disk.pixels.unbind(1)
    central = volume_to_ft(volume)[centre, ky + centre, kx]
    torch.testing.assert_close(central, images_to_disk(volume.sum(dim=0)[None], disk)[0])


@pytest.mark.parametrize("box_size", BOXES)
def test_volume_transform_keeps_its_energy_times_the_box(box_size: int) -> None:
    volume = noise(box_size, box_size, box_size)
    energy = (volume_to_ft(volume).abs() ** 2 * hermitian_weight(box_size).double()).sum()
    torch.testing.assert_close(energy, box_size * (volume**2).sum())


@pytest.mark.parametrize("box_size", BOXES)
def test_volume_transform_and_its_inverse(box_size: int) -> None:
    volumes = noise(2, box_size, box_size, box_size)
    torch.testing.assert_close(ft_to_volume(volume_to_ft(volumes), box_size), volumes)


@pytest.mark.parametrize("box_size", [32, 33])
def test_volume_transform_of_atoms_is_known(box_size: int) -> None:
    atoms = asymmetric_atoms(box_size)
    transform = volume_to_ft(torch.from_numpy(atoms.volume(box_size))).numpy()
    centred = np.arange(box_size) - box_size // 2
    z, y, x = np.meshgrid(centred, centred, np.arange(box_size // 2 + 1), indexing="ij")
    expected = atoms.transform(np.stack((x, y, z), axis=-1) / box_size) / box_size
    inside = x**2 + y**2 + z**2 <= nyquist_shell(box_size) ** 2
    assert relative_error(transform[inside], expected[inside]) < 1e-4


@pytest.mark.parametrize(("box_size", "padded"), [(6, 12), (7, 14), (6, 6), (7, 21)])
def test_padded_transform_equals_padding_and_transforming(box_size: int, padded: int) -> None:
    volume = noise(1, box_size, box_size, box_size)
    before = padded // 2 - box_size // 2
    pad = (before, padded - box_size - before)
    expected = np.fft.rfftn(np.fft.ifftshift(np.pad(volume[0].numpy(), (pad, pad, pad))))
    np.testing.assert_allclose(padded_rfft3(volume, padded)[0].numpy(), expected, atol=1e-10)


@pytest.mark.parametrize(("box_size", "padded"), [(6, 12), (7, 14), (5, 5), (7, 21)])
def test_padded_transform_has_its_exact_adjoint(box_size: int, padded: int) -> None:
    volume = noise(2, box_size, box_size, box_size)
    shape = (2, padded, padded, padded // 2 + 1)
    spectrum = torch.complex(noise(*shape, seed=1), noise(*shape, seed=2))
    forward = (padded_rfft3(volume, padded).conj() * spectrum).real.sum()
    torch.testing.assert_close(forward, (volume * padded_rfft3_adjoint(spectrum, box_size)).sum())


@pytest.mark.parametrize(("old", "new"), [(32, 24), (33, 24), (32, 25), (24, 32), (25, 33)])
def test_resampling_keeps_density_values(old: int, new: int) -> None:
    atoms = asymmetric_atoms(16)
    resampled = fourier_crop_volume(torch.from_numpy(atoms.volume(old)), new).numpy()
    # the same atoms in new pixels: lengths scale by new / old, the density in old voxels stays
    scale = new / old
    moved = type(atoms)(atoms.position * scale, atoms.amplitude * scale**3, atoms.sigma * scale)
    assert relative_error(resampled, moved.volume(new)) < 2e-3


def test_low_pass_keeps_the_band_and_only_it() -> None:
    volume = noise(16, 16, 16)
    before, after = volume_to_ft(volume), volume_to_ft(low_pass(volume, 4))
    inside = volume_radius(16) <= 4
    torch.testing.assert_close(after[inside], before[inside])
    assert after[~inside].abs().max().item() < 1e-12


def test_arguments_are_not_modified() -> None:
    disk = HalfDisk.create(8)
    images, volumes = noise(2, 8, 8), noise(2, 8, 8, 8)
    coefficients, spectrum = images_to_disk(images, disk), padded_rfft3(volumes, 16)
    arguments = (images, volumes, coefficients, spectrum)
    copies = [argument.clone() for argument in arguments]
    disk_to_images(coefficients, disk, 8)
    images_to_scaled_disk(images, disk, 1.1)
    fourier_crop_volume(volumes, 8).zero_()
    low_pass(volumes, 2)
    padded_rfft3_adjoint(spectrum, 8)
    for argument, copy in zip(arguments, copies, strict=True):
        assert torch.equal(argument, copy)


def test_single_precision_stays_single() -> None:
    disk = HalfDisk.create(8)
    assert images_to_disk(torch.zeros(1, 8, 8), disk).dtype == torch.complex64
    assert images_to_scaled_disk(torch.zeros(1, 8, 8), disk, 0.9).dtype == torch.complex64
    assert volume_to_ft(torch.zeros(8, 8, 8)).dtype == torch.complex64
    assert fourier_crop_volume(torch.zeros(8, 8, 8), 6).dtype == torch.float32


def test_scipy_rotations_of_the_helper_are_rotations() -> None:
    rotation = random_rotations(20, seed=0)
    product = np.einsum("nij,nkj->nik", rotation, rotation)
    np.testing.assert_allclose(product, np.tile(np.eye(3), (20, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0)
