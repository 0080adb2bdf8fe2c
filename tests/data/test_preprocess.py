"""From stacks on disk to centred, whitened coefficients, against closed-form images."""

from __future__ import annotations

import errno
import logging
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.data import preprocess
from solvar_engine.data.faults import BadImages
from solvar_engine.data.noise import background_mask, flattened
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.pixel_faults import sentences_of
from solvar_engine.data.preprocess import cache_bytes, prepare_particles
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.imaging.fourier import HalfDisk, fourier_crop_volume
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.imaging.shells import fsc
from solvar_engine.reconstruction.mean import weak_precision
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations, solve
from tests.imaging.closed_form import Atoms, asymmetric_atoms, random_rotations, relative_error

PIXEL_SIZE = 3.0

Writer = Callable[..., Path]


def angles_of(rotation: np.ndarray) -> dict[str, np.ndarray]:
    rot, tilt, psi = Rotation.from_matrix(rotation).as_euler("ZYZ", degrees=True).T
    return {"rlnAngleRot": rot, "rlnAngleTilt": tilt, "rlnAnglePsi": psi}


def shifts(count: int, seed: int = 5) -> np.ndarray:
    """Angstrom, (x, y)."""
    return np.random.default_rng(seed).normal(0, 4.0, size=(count, 2))


def shift_columns(shift: np.ndarray) -> dict[str, np.ndarray]:
    return {"rlnOriginXAngst": shift[:, 0], "rlnOriginYAngst": shift[:, 1]}


def white_images(count: int, box_size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, box_size, box_size)).astype(np.float32)


def atom_set(
    write: Writer,
    folder: Path,
    box_size: int,
    count: int,
    *,
    shift: np.ndarray | None = None,
    optics: dict | None = None,
    **columns: np.ndarray,
) -> tuple[ParticleStack, Atoms, np.ndarray]:
    """Noise-free closed-form projections, without transfer function, moved by minus the shift of the STAR file."""
    atoms = asymmetric_atoms(box_size, sigma=1.2)
    atoms = Atoms(0.6 * atoms.position, atoms.amplitude, atoms.sigma)
    rotation = random_rotations(count, seed=3)
    shift = np.zeros((count, 2)) if shift is None else shift
    images = atoms.projections(rotation, box_size, -shift / PIXEL_SIZE).astype(np.float32)
    metadata = {**angles_of(rotation), **shift_columns(shift), **columns}
    path = write(folder, images, pixel_size=PIXEL_SIZE, particles=metadata, optics=optics)
    return ParticleStack.from_star(path), atoms, rotation


def exact_coefficients(atoms: Atoms, rotation: np.ndarray, box_size: int, disk: HalfDisk) -> np.ndarray:
    """Orthonormal transform, in a box of `box_size`, of the centred projections."""
    pixels = disk.pixels.double().numpy() / box_size
    frequency = np.einsum("nij,pj->npi", rotation[:, :, :2], pixels)
    return atoms.transform(frequency) / box_size


# --- coefficients


@pytest.mark.parametrize("box_size, working", [(24, 24), (24, 16), (24, 15), (25, 25), (25, 16), (25, 17)])
def test_shifted_images_become_centred_coefficients(
    write_particles: Writer, tmp_path: Path, box_size: int, working: int
) -> None:
    """The sign of shifts, odd boxes, and a crop that keeps coefficients in the scale of the input box."""
    stack, atoms, rotation = atom_set(write_particles, tmp_path, box_size, 5, shift=shifts(5))
    prepared = prepare_particles(stack, working, scratch=None)
    expected = exact_coefficients(atoms, rotation, box_size, HalfDisk.create(working))
    assert prepared.coefficients.dtype == torch.complex64
    assert relative_error(prepared.grey_unit * prepared.coefficients.numpy(), expected) < 2e-3
    assert (prepared.box_size, prepared.input_box) == (working, box_size)
    assert prepared.pixel_size == pytest.approx(PIXEL_SIZE * box_size / working)
    assert len(prepared) == 5


def test_shift_of_the_wrong_sign_would_be_seen(write_particles: Writer, tmp_path: Path) -> None:
    shift = shifts(4)
    stack, atoms, rotation = atom_set(write_particles, tmp_path, 24, 4, shift=shift, **shift_columns(-shift))
    prepared = prepare_particles(stack, 24, scratch=None)
    expected = exact_coefficients(atoms, rotation, 24, HalfDisk.create(24))
    assert relative_error(prepared.grey_unit * prepared.coefficients.numpy(), expected) > 0.2


def test_volumes_of_a_smaller_box_are_larger_by_the_square_of_the_ratio(
    write_particles: Writer, tmp_path: Path
) -> None:
    """(N0 / N)^2 times the average of the fine voxels."""
    box_size, working, count = 24, 16, 200
    # Amplitude contrast alone, hardly any defocus, no aberration: the transfer function is one.
    particles = {"rlnDefocusU": np.full(count, 1e-3), "rlnDefocusV": np.full(count, 1e-3)}
    optics = {"rlnAmplitudeContrast": [1.0], "rlnSphericalAberration": [0.0]}
    stack, atoms, _ = atom_set(
        write_particles, tmp_path, box_size, count, shift=shifts(count), optics=optics, **particles
    )
    prepared = prepare_particles(stack, working, scratch=None)
    # Images without noise have no background to compare: leave their scale alone.
    source = replace(prepared, noise_variance=torch.ones_like(prepared.noise_variance), image_scale=torch.ones(count))
    normal = accumulate_normal_equations(source, torch.arange(count))
    ball = sphere_mask(working, working / 3)
    volume = prepared.grey_unit * solve(normal, weak_precision(normal)) * ball
    average = fourier_crop_volume(torch.from_numpy(atoms.volume(box_size)).float(), working) * ball
    assert float(fsc(volume, average)[:6].min()) > 0.98
    ratio = float((volume * average).sum() / average.square().sum())
    assert ratio == pytest.approx((box_size / working) ** 2, rel=0.03)


def test_background_mean_is_removed(write_particles: Writer, tmp_path: Path) -> None:
    images = white_images(6, 16)
    levels = np.linspace(-50, 80, 6, dtype=np.float32)[:, None, None]
    no_shift = shift_columns(np.zeros((6, 2)))
    plain = write_particles(tmp_path / "plain", images, particles=no_shift)
    lifted = write_particles(tmp_path / "lifted", images + levels, particles=no_shift)
    first, second = (
        prepare_particles(ParticleStack.from_star(path), 16, scratch=None).coefficients for path in (plain, lifted)
    )
    torch.testing.assert_close(second, first, rtol=0, atol=1e-3)
    flat = flattened(torch.from_numpy(images))[0]
    np.testing.assert_allclose(first[:, 0].real, flat.sum(dim=(1, 2)) / 16, atol=1e-4)


def test_masked_images_are_refused_by_name(write_particles: Writer, tmp_path: Path) -> None:
    images = white_images(6, 16)
    images[3, background_mask(16).numpy()] = 0.0
    stack = ParticleStack.from_star(write_particles(tmp_path, images))
    with pytest.raises(UserError, match=r"Image 4 of .*particles\.mrcs is constant outside the particle"):
        prepare_particles(stack, 16, scratch=None)


# --- memory and disk


def test_memory_and_scratch_file_hold_the_same(write_particles: Writer, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    stack = ParticleStack.from_star(write_particles(tmp_path / "set", white_images(20, 16)))
    in_memory, on_disk = (prepare_particles(stack, 14, scratch=place) for place in (None, scratch))
    assert torch.equal(on_disk.coefficients, in_memory.coefficients)
    assert torch.equal(on_disk.noise_variance, in_memory.noise_variance)
    assert list(scratch.iterdir()) == [], "the scratch file has no name that a killed run could leave behind"
    assert cache_bytes(20, 14) == in_memory.coefficients.nbytes
    for first, second in zip(batches_of(in_memory), batches_of(on_disk), strict=True):
        assert torch.equal(first.images, second.images)


def batches_of(prepared: PreparedParticles, batch_size: int = 7):
    return list(prepared.batches(torch.arange(len(prepared)), prepared.disk, batch_size))


def test_full_disk_is_an_error_before_any_image_is_read(
    write_particles: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = ParticleStack.from_star(write_particles(tmp_path, white_images(6, 16)))
    asked_for = []

    def no_room(descriptor: int, offset: int, length: int) -> None:
        asked_for.append(length)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    monkeypatch.setattr(ParticleStack, "images", lambda *_: pytest.fail("read an image"))
    with pytest.raises(OSError) as caught:
        prepare_particles(stack, 16, scratch=tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert asked_for == [cache_bytes(6, 16)]


def test_results_do_not_depend_on_the_chunks_that_are_read(
    write_particles: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = ParticleStack.from_star(write_particles(tmp_path, white_images(11, 16)))
    whole = prepare_particles(stack, 16, scratch=None)
    monkeypatch.setattr(preprocess, "_CHUNK_PIXELS", 3 * 16**2)
    reported: list[tuple[int, int]] = []
    parts = prepare_particles(stack, 16, scratch=None, progress=lambda done, total: reported.append((done, total)))
    torch.testing.assert_close(parts.coefficients, whole.coefficients)
    torch.testing.assert_close(parts.noise_variance, whole.noise_variance)
    assert reported == [(3, 11), (6, 11), (9, 11), (11, 11)]


def test_working_box_cannot_exceed_the_images(write_particles: Writer, tmp_path: Path) -> None:
    stack = ParticleStack.from_star(write_particles(tmp_path, white_images(6, 16)))
    with pytest.raises(ValueError, match="box is 18, but the images have 16 px"):
        prepare_particles(stack, 18, scratch=None)


# --- noise


@pytest.mark.parametrize("box_size, working", [(24, 24), (25, 18)])
def test_white_noise_is_measured_and_whitened(
    write_particles: Writer, tmp_path: Path, box_size: int, working: int
) -> None:
    images = 3.0 * white_images(400, box_size) + 10.0
    prepared = prepare_particles(ParticleStack.from_star(write_particles(tmp_path, images)), working, scratch=None)
    variance = prepared.grey_unit**2 * prepared.noise_variance[0]
    torch.testing.assert_close(variance[1:], torch.full_like(variance[1:], 9.0), rtol=0.1, atol=0)
    power = whitened_power(prepared)
    torch.testing.assert_close(power[1:], torch.ones_like(power[1:]), rtol=0.3, atol=0)
    assert float(power[1:].mean()) == pytest.approx(1.0, abs=0.04)


def whitened_power(prepared: PreparedParticles, group: int | None = None) -> Tensor:
    """Average power of every pixel of the whitened images, of one optics group if given, with what backgrounds took."""
    parts = []
    for batch in batches_of(prepared, 64):
        power, lost = batch.images.abs().double().square(), batch.background.variance()
        power[:, : lost.shape[1]] += lost
        parts.append(power)
    power = torch.cat(parts)
    return (power if group is None else power[prepared.group == group]).mean(dim=0)


def test_different_gains_are_equalised_and_said(
    write_particles: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gain = np.linspace(0.5, 2.0, 61, dtype=np.float32)
    images = white_images(61, 24) * gain[:, None, None]
    with caplog.at_level(logging.INFO):
        prepared = prepare_particles(ParticleStack.from_star(write_particles(tmp_path, images)), 24, scratch=None)
    assert "differ in background deviation" in caplog.text and "opticsGroup1" in caplog.text
    whitened = torch.cat([batch.images for batch in batches_of(prepared)])
    deviation = whitened[:, 1:].abs().square().mean(dim=1).sqrt().double()
    assert float(deviation.std() / deviation.mean()) < 0.12 < float(gain.std() / gain.mean())
    # The noise is that of the images after scaling.
    assert float(whitened_power(prepared)[1:].mean()) == pytest.approx(1.0, abs=0.05)


def test_noise_is_that_of_images_at_their_common_deviation(write_particles: Writer, tmp_path: Path) -> None:
    """Whatever few of them were stronger: white noise of the median's variance, in units of its own."""
    gain = np.where(np.arange(200) % 5 == 0, 6.0, np.where(np.arange(200) % 5 == 1, 0.3, 1.0)).astype(np.float32)
    images = white_images(200, 24)
    prepared = prepare_particles(
        ParticleStack.from_star(write_particles(tmp_path, images * gain[:, None, None])), 24, scratch=None
    )
    noise = prepared.noise_variance[0, 2:].double() * prepared.grey_unit**2
    torch.testing.assert_close(noise.mean(), torch.tensor(1.0, dtype=torch.float64), rtol=0.1, atol=0)
    torch.testing.assert_close(noise, torch.ones_like(noise), rtol=0.25, atol=0)


def test_equal_gains_are_left_alone_without_a_word(
    write_particles: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_particles(tmp_path, white_images(60, 24))
    with caplog.at_level(logging.INFO):
        prepared = prepare_particles(ParticleStack.from_star(path), 24, scratch=None)
    assert torch.equal(prepared.image_scale, torch.ones(60))
    assert not caplog.records


@pytest.mark.parametrize("factor", [1.0, 3e-9, 1e14])
def test_grey_values_are_kept_in_a_unit_in_which_noise_is_near_one(
    factor: float, write_particles: Writer, tmp_path: Path
) -> None:
    images = white_images(6, 16)
    images[2] *= 1e6  # one that is damaged
    stack = ParticleStack.from_star(write_particles(tmp_path, images * np.float32(factor)))
    prepared = prepare_particles(stack, 16, scratch=None)
    assert 0.5 < factor / prepared.grey_unit < 2
    assert math.frexp(prepared.grey_unit)[0] == 0.5, "not a power of two"
    torch.testing.assert_close(
        (prepared.coefficients * prepared.image_scale[:, None] * prepared.grey_unit / factor).abs().square().mean(),
        torch.tensor(1.0), rtol=0.2, atol=0,
    )  # fmt: skip


@pytest.mark.parametrize("factor", [1e-17, 1e17])
def test_grey_values_beyond_float32_are_refused(factor: float, write_particles: Writer, tmp_path: Path) -> None:
    stack = ParticleStack.from_star(write_particles(tmp_path, white_images(6, 16) * np.float32(factor)))
    with pytest.raises(UserError, match="standard deviation .*outside 1e-15 to 1e.15: multiply the images"):
        prepare_particles(stack, 16, scratch=None)


def test_batches_of_phase_flipped_images_have_the_absolute_transfer_function(
    write_particles: Writer, tmp_path: Path
) -> None:
    flipped = {"rlnCtfDataArePhaseFlipped": [1, 1, 1, 0, 0, 0]}
    (before,), (after,) = (
        batches_of(prepare_particles(ParticleStack.from_star(path), 12, scratch=None))
        for path in (write_particles(tmp_path / "a"), write_particles(tmp_path / "b", particles=flipped))
    )
    assert bool((before.ctf[:3] < 0).any())
    torch.testing.assert_close(after.ctf[:3], before.ctf[:3].abs(), rtol=0, atol=0)
    torch.testing.assert_close(after.ctf[3:], before.ctf[3:], rtol=0, atol=0)
    torch.testing.assert_close(after.images, before.images, rtol=0, atol=0)


# --- optics groups of different pixel size


def two_groups(count: int, pixel_sizes: tuple[float, float]) -> tuple[dict, dict]:
    """Columns of particles that alternate between two optics groups, and of the groups."""
    optics = {
        "rlnOpticsGroup": [1, 2],
        "rlnOpticsGroupName": ["first", "second"],
        "rlnVoltage": [300.0, 300.0],
        "rlnSphericalAberration": [2.7, 2.7],
        "rlnAmplitudeContrast": [0.1, 0.1],
        "rlnImagePixelSize": list(pixel_sizes),
        "rlnImageSize": [24, 24],
        "rlnImageDimensionality": [2, 2],
    }
    return {"rlnOpticsGroup": np.arange(count) % 2 + 1}, optics


@pytest.mark.parametrize("second", [2.4, 3.6])
@pytest.mark.parametrize("working", [24, 16])
def test_groups_are_sampled_at_the_same_frequencies(
    write_particles: Writer, tmp_path: Path, second: float, working: int
) -> None:
    """The same density seen with two pixel sizes gives the same coefficients, shifts included."""
    count, sizes = 8, (PIXEL_SIZE, second)
    particles, optics = two_groups(count, sizes)
    rotation, shift = random_rotations(count, seed=3), shifts(count)
    first = asymmetric_atoms(24, sigma=1.2)
    first = Atoms(0.5 * first.position, first.amplitude, first.sigma)
    images = []
    for row in range(count):
        zoom = PIXEL_SIZE / sizes[row % 2]
        # Grey values are densities per area: they do not depend on the sampling.
        atoms = Atoms(first.position * zoom, first.amplitude * zoom**2, first.sigma * zoom)
        images.append(atoms.projections(rotation[row : row + 1], 24, -shift[row : row + 1] / sizes[row % 2])[0])
    metadata = {**particles, **angles_of(rotation), **shift_columns(shift)}
    path = write_particles(tmp_path, np.float32(images), particles=metadata, optics=optics)
    prepared = prepare_particles(ParticleStack.from_star(path), working, scratch=None)
    disk = HalfDisk.create(working)
    expected = exact_coefficients(first, rotation, 24, disk)
    # Beyond a group's own Nyquist there is nothing to sample.
    beyond = disk.pixels.double().norm(dim=1).numpy() * second / PIXEL_SIZE > 11
    expected[1::2, beyond] = 0
    for group in range(2):
        found = prepared.grey_unit * prepared.coefficients[prepared.group == group].numpy()
        assert relative_error(found, expected[group::2]) < 5e-3
        assert not found[:, beyond].any() if group == 1 else found[:, -1].all()


@pytest.mark.parametrize("second", [2.4, 3.6])
def test_every_group_is_whitened(write_particles: Writer, tmp_path: Path, second: float) -> None:
    """White noise of another variance in each group has unit power in all pixels that the group sees."""
    count = 800
    particles, optics = two_groups(count, (PIXEL_SIZE, second))
    images = white_images(count, 24) * np.where(np.arange(count) % 2, 2.0, 1.0)[:, None, None].astype(np.float32)
    path = write_particles(tmp_path, images, particles=particles, optics=optics)
    prepared = prepare_particles(ParticleStack.from_star(path), 24, scratch=None)
    inside = prepared.disk.pixels.double().norm(dim=1) * second / PIXEL_SIZE <= 11
    first, other = (whitened_power(prepared, group) for group in range(2))
    assert float(first[1:].mean()) == pytest.approx(1.0, abs=0.05)
    assert float(other[inside][1:].mean()) == pytest.approx(1.0, abs=0.05)


def test_groups_of_three_images_are_whitened_as_one_group_is(
    write_particles: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Their medians are those of all, and so is the shape of their noise; one group has no image that can be used."""
    images = white_images(90, 24)
    images[4] *= 8.0
    images[87:] = 0.0
    many = {"rlnOpticsGroup": np.arange(90) // 3 + 1}
    optics = {
        "rlnOpticsGroup": list(range(1, 31)), "rlnOpticsGroupName": [f"group{g}" for g in range(30)],
        **{name: [value] * 30 for name, value in (
            ("rlnVoltage", 300.0), ("rlnSphericalAberration", 2.7), ("rlnAmplitudeContrast", 0.1),
            ("rlnImagePixelSize", 3.0), ("rlnImageSize", 24), ("rlnImageDimensionality", 2),
        )},
    }  # fmt: skip
    together, apart = (
        prepare_particles(
            ParticleStack.from_star(write_particles(tmp_path / name, images, **columns)), 24, scratch=None,
            bad_images=BadImages(leave_out=True),
        )
        for name, columns in (("one", {}), ("many", {"particles": many, "optics": optics}))
    )  # fmt: skip
    assert torch.equal(together.image_scale, apart.image_scale)
    assert float(apart.image_scale[4]) == pytest.approx(1 / 8, rel=0.2)
    ratio = apart.noise_variance / together.noise_variance
    assert float((ratio - 1).abs().max()) < 0.25
    assert float((ratio / ratio.mean(dim=1, keepdim=True) - 1).abs().max()) < 0.1


@pytest.mark.parametrize(("strongest", "level"), [(5.0, "INFO"), (1e6, "WARNING")])
def test_a_stack_of_several_scales_is_told_loudly_where_they_differ_widely(
    strongest: float, level: str, write_particles: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = white_images(60, 24)
    images[7] *= np.float32(strongest)
    with caplog.at_level(logging.INFO):
        prepare_particles(ParticleStack.from_star(write_particles(tmp_path, images)), 24, scratch=None)
    assert [record.levelname for record in caplog.records if "background deviation" in record.message] == [level]


def test_the_groups_whose_backgrounds_differ_are_named(
    write_particles: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A small one is held against the median of all, and named itself."""
    images = white_images(90, 24)
    images[80:] *= np.float32(5.0)
    groups = {"rlnOpticsGroup": np.where(np.arange(90) < 80, 1, 2)}
    optics = {
        "rlnOpticsGroup": [1, 2], "rlnOpticsGroupName": ["many", "few"],
        **{name: [value] * 2 for name, value in (
            ("rlnVoltage", 300.0), ("rlnSphericalAberration", 2.7), ("rlnAmplitudeContrast", 0.1),
            ("rlnImagePixelSize", 3.0), ("rlnImageSize", 24), ("rlnImageDimensionality", 2),
        )},
    }  # fmt: skip
    path = write_particles(tmp_path, images, particles=groups, optics=optics)
    with caplog.at_level(logging.INFO):
        prepare_particles(ParticleStack.from_star(path), 24, scratch=None)
    (said,) = [record.message for record in caplog.records if "background deviation" in record.message]
    assert said.startswith("10 images of optics group few differ in background deviation (")
    lowest, highest = (float(value) for value in said.partition("(")[2].partition(")")[0].split(" to "))
    assert 4 < lowest < highest < 6


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_images_of_replaced_background_are_scaled_by_the_noise_within(
    strength: float, write_particles: Writer, tmp_path: Path
) -> None:
    """And the noise is of one level all over the image, or it would look like none of the particle."""
    box, count = 48, 60
    random = np.random.default_rng(3)
    images = random.normal(size=(count, box, box))
    whole = prepare_particles(ParticleStack.from_star(write_particles(tmp_path / "whole", images)), box, scratch=None)
    axis = np.arange(box) - box // 2
    outside = axis[:, None] ** 2 + axis**2 > (0.4 * box) ** 2
    images[::3] = np.where(outside, strength * random.normal(size=(count // 3, box, box)), images[::3])
    path = write_particles(tmp_path / "filled", images)
    source = prepare_particles(ParticleStack.from_star(path), box, scratch=None)
    torch.testing.assert_close(source.image_scale, torch.ones(count), rtol=0.12, atol=0)
    torch.testing.assert_close(source.noise_variance[:, 4:], whole.noise_variance[:, 4:], rtol=0.15, atol=0)
    assert torch.equal(source.inner_noise != 1, torch.arange(count) % 3 == 0)
    power = torch.cat([batch.images[:, 20:].abs().square().mean(dim=1) for batch in batches_of(source)])
    assert float(power[::3].mean() / power[source.inner_noise == 1].mean()) == pytest.approx(1.0, abs=0.1)
    (sentence,) = sentences_of(source, path)
    assert sentence.startswith(f"{count // 3} of {count} images of {path} have ")
    assert float(sentence.partition(" have ")[2].partition(" times as much noise within")[0]) == pytest.approx(
        1 / strength, rel=0.08
    )
    assert not list(sentences_of(whole, path))
