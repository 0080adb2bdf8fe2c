"""Batches of preprocessed particles."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.data import stream
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.model.residuals import ResidualNoise
from solvar_engine.imaging.background import background_columns
from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.imaging.fourier import HalfDisk, images_to_disk, shift_phases
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.imaging.types import Batch, Ctf, MicrographNoise, Pose

COUNT, BOX, PIXEL_SIZE = 23, 16, 3.0
DISK = HalfDisk.create(BOX)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_ctf(count: int = COUNT) -> Ctf:
    defocus = 1e4 + 1e4 * torch.rand(count, generator=random(1))
    constant = torch.ones(count)
    nothing = torch.zeros(count)
    microscope = (300 * constant, 2.7 * constant, 0.1 * constant)
    return Ctf(defocus, defocus, nothing, *microscope, nothing, nothing, constant, constant < 0)


@pytest.fixture(scope="module")
def prepared() -> PreparedParticles:
    """White noise of unit variance in two optics groups, whose stated noise differs."""
    images = torch.randn(COUNT, BOX, BOX, generator=random())
    variance = torch.stack((torch.linspace(1.0, 2.0, DISK.shell_max + 1), torch.full((DISK.shell_max + 1,), 4.0)))
    return PreparedParticles(
        coefficients=images_to_disk(images, DISK),
        disk=DISK,
        box_size=BOX,
        pixel_size=PIXEL_SIZE,
        pose=Pose(random_rotations(COUNT, random(2)), torch.zeros(COUNT, 2)),
        ctf=make_ctf(),
        group=torch.arange(COUNT) % 2,
        frequency_ratio=torch.ones(2),
        input_box=BOX,
        noise_variance=variance,
        image_scale=torch.linspace(0.5, 1.5, COUNT),
        sign=1.0,
    )


def noisy(coefficients: Tensor, group: Tensor, noise_variance: Tensor) -> PreparedParticles:
    """Particles of two optics groups whose images are known, as they are said to be."""
    count = len(group)
    return PreparedParticles(
        coefficients=coefficients,
        disk=DISK,
        box_size=BOX,
        pixel_size=PIXEL_SIZE,
        pose=Pose(random_rotations(count, random(2)), torch.zeros(count, 2)),
        ctf=make_ctf(count),
        group=group,
        frequency_ratio=torch.ones(2),
        input_box=BOX,
        noise_variance=noise_variance,
        image_scale=torch.ones(count),
        sign=1.0,
    )


def everything(prepared: PreparedParticles, disk: HalfDisk = DISK, batch_size: int = COUNT) -> Batch:
    """All particles in one batch, with the backgrounds that they came with."""
    parts = list(prepared.batches(torch.arange(len(prepared)), disk, batch_size))
    images = torch.cat([part.with_background() for part in parts])
    names = ("ctf", "rotation", "contrast", "index")
    return Batch(images, *(torch.cat([getattr(part, name) for part in parts]) for name in names))


def left_of(prepared: PreparedParticles) -> Tensor:
    """Images without their backgrounds."""
    return torch.cat([part.images for part in prepared.batches(torch.arange(COUNT), DISK, COUNT)])


def deviation(prepared: PreparedParticles, disk: HalfDisk = DISK) -> Tensor:
    """The origin counts as if its noise was 100 times as wide."""
    of_pixels = prepared.noise_variance.sqrt()[prepared.group][:, disk.shell]
    return torch.where(disk.shell == 0, 100.0, 1.0) * of_pixels


def test_slow_backgrounds_of_images_on_disk_make_no_difference(prepared) -> None:
    """Those of the images before they were centred, whatever their noise."""
    axis = torch.linspace(-1, 1, BOX)
    slow = 3.0 * axis - 2.0 * axis[:, None] + axis * axis[:, None] - 1.5 * axis**2 + 0.5
    centred = replace(prepared, pose=replace(prepared.pose, shift=torch.full((COUNT, 2), 4.0)))
    phases = shift_phases(DISK, torch.full((COUNT, 2), 4.0 / PIXEL_SIZE), BOX)
    added = images_to_disk(slow.expand(COUNT, BOX, BOX), DISK) * phases
    strength = torch.linspace(1, 9, COUNT)[:, None]
    dirty = replace(centred, coefficients=centred.coefficients + strength * added)
    first, second = (next(iter(source.batches(torch.arange(COUNT), DISK, COUNT))) for source in (centred, dirty))
    inner = DISK.shell > 0  # of the offset, a hundredth is left
    scale = float(first.images.abs().max())
    torch.testing.assert_close(second.images[:, inner], first.images[:, inner], rtol=0, atol=0.05 * scale)
    assert float((second.with_background() - first.with_background())[:, inner].abs().max()) > 3 * scale


def test_images_and_transfer_function_are_divided_by_the_noise_deviation(prepared) -> None:
    batch = everything(prepared)
    expected = prepared.coefficients * prepared.image_scale[:, None] / deviation(prepared)
    torch.testing.assert_close(batch.images, expected)
    torch.testing.assert_close(batch.ctf, ctf_values(make_ctf(), DISK, PIXEL_SIZE) / deviation(prepared))
    assert torch.equal(batch.rotation, prepared.pose.rotation)
    assert torch.equal(batch.contrast, torch.ones(COUNT))
    assert torch.equal(batch.index, torch.arange(COUNT))


def test_particles_come_in_the_order_asked_for_with_a_true_last_batch(prepared) -> None:
    index = torch.tensor([20, 3, 3, 11, 0, 7, 22])
    parts = list(prepared.batches(index, DISK, 3))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert torch.equal(torch.cat([part.index for part in parts]), index)
    whole = everything(prepared)
    torch.testing.assert_close(torch.cat([part.with_background() for part in parts]), whole.images[index])
    torch.testing.assert_close(torch.cat([part.ctf for part in parts]), whole.ctf[index])
    torch.testing.assert_close(torch.cat([part.rotation for part in parts]), whole.rotation[index])


def test_batch_size_does_not_matter_and_batches_can_be_read_again(prepared) -> None:
    whole = everything(prepared)
    for batch_size in (1, 5, 100):
        parts = everything(prepared, batch_size=batch_size)
        torch.testing.assert_close(parts.images, whole.images)
        torch.testing.assert_close(parts.ctf, whole.ctf)
    assert list(prepared.batches(torch.arange(0), DISK, 4)) == []


@pytest.mark.parametrize("shell_max", [0, 3, 6])
def test_lower_band_is_the_beginning_of_the_whole(prepared, shell_max: int) -> None:
    band = DISK.prefix(shell_max)
    low, whole = everything(prepared, band), everything(prepared)
    assert low.images.shape == (COUNT, len(band))
    torch.testing.assert_close(low.images, whole.images[:, : len(band)])
    torch.testing.assert_close(low.ctf, whole.ctf[:, : len(band)])


def test_sign_of_contrast_turns_the_transfer_function(prepared) -> None:
    """Dark particles: image = -ctf x projection; the images themselves stay as they are."""
    plain, inverted = everything(prepared), everything(prepared.with_sign(-1.0))
    assert torch.equal(inverted.images, plain.images)
    assert torch.equal(inverted.ctf, -plain.ctf)
    assert torch.equal(everything(prepared).ctf, plain.ctf)


def test_new_noise_replaces_the_old(prepared) -> None:
    quarter = everything(prepared.with_noise(4 * prepared.noise_variance.double()))
    plain = everything(prepared)
    torch.testing.assert_close(2 * quarter.images, plain.images)
    torch.testing.assert_close(2 * quarter.ctf, plain.ctf)
    assert quarter.images.dtype == torch.complex64 and quarter.ctf.dtype == torch.float32


def test_pixels_beyond_the_nyquist_of_a_group_count_for_nothing(prepared) -> None:
    coarse = replace(prepared, frequency_ratio=torch.tensor([1.0, 1.4]))
    batch, plain = everything(coarse), everything(prepared)
    beyond = DISK.pixels.double().norm(dim=1) * 1.4 > (BOX - 1) // 2
    assert torch.equal(batch.ctf[::2], plain.ctf[::2])
    assert not batch.ctf[1::2, beyond].any()
    assert torch.equal(batch.ctf[1::2, ~beyond], plain.ctf[1::2, ~beyond])


def test_noise_measured_on_batches_whitens_them() -> None:
    """The loop of a fit: whiten, take residuals, correct the noise, whiten again."""
    count = 1500
    group = torch.arange(count) % 2
    truth = torch.stack((torch.linspace(4.0, 1.0, DISK.shell_max + 1), torch.linspace(0.5, 3.0, DISK.shell_max + 1)))
    white = images_to_disk(torch.randn(count, BOX, BOX, generator=random(7)), DISK)
    source = noisy(white * truth.sqrt()[group][:, DISK.shell], group, 1.08 * truth)
    noise = ResidualNoise(2, DISK)
    for batch in source.batches(torch.arange(count), DISK, 100):
        noise.add(batch.images.abs().square(), source.group[batch.index], batch.kept_variance())
    corrected = source.with_noise(noise.update(source.noise_variance))
    torch.testing.assert_close(corrected.noise_variance[:, 1:], truth[:, 1:], rtol=0.08, atol=0)
    batch = next(iter(corrected.batches(torch.arange(count), DISK, count)))
    power, kept = batch.images.abs().square()[:, 1:], batch.kept_variance()[:, 1:]
    for number in range(2):
        assert float(power[group == number].sum() / kept[group == number].sum()) == pytest.approx(1.0, abs=0.01)


def test_columns_of_backgrounds_are_made_once_for_groups_that_are_alike(prepared, monkeypatch) -> None:
    made = []

    def record(*of_group: object) -> Tensor:
        made.append(of_group)
        return background_columns(*of_group)

    monkeypatch.setattr(stream, "background_columns", record)
    first, second = prepared.noise_variance
    alike = replace(
        prepared,
        group=torch.arange(COUNT) % 4,
        noise_variance=torch.stack((first, second, first, second)),
        frequency_ratio=torch.tensor([1.0, 1.0, 1.0, 1.1]),
    )
    for _ in range(2):
        together = everything(alike)
        everything(alike, DISK.prefix(4))
    assert len(made) == 2 * 3
    for number in range(4):
        alone = replace(
            alike,
            group=torch.zeros(COUNT, dtype=torch.int64),
            noise_variance=alike.noise_variance[[number]],
            frequency_ratio=alike.frequency_ratio[[number]],
        )
        rows = alike.group == number
        torch.testing.assert_close(left_of(alike)[rows], left_of(alone)[rows])
        torch.testing.assert_close(together.images[rows], everything(alone).images[rows])
    del made[:]
    everything(alike.with_noise(2 * alike.noise_variance))
    assert len(made) == 3


def test_images_follow_their_refined_shifts(prepared: PreparedParticles) -> None:
    """Also when poses change again, and in a lower band."""
    shift_px = torch.randn(COUNT, 2, generator=random(5))
    rotation = random_rotations(COUNT, random(6))
    once = prepared.with_pose(Pose(rotation, torch.ones(COUNT, 2)))
    moved = once.with_pose(Pose(rotation, shift_px * PIXEL_SIZE))
    for disk in (DISK, DISK.prefix(4)):
        before, after = everything(prepared, disk), everything(moved, disk)
        torch.testing.assert_close(after.images, before.images * shift_phases(disk, shift_px, BOX))
        assert torch.equal(after.rotation, rotation)
    back = moved.with_pose(prepared.pose)
    torch.testing.assert_close(everything(back).images, everything(prepared).images)


def test_what_is_subtracted_is_missing_from_the_images(prepared: PreparedParticles) -> None:
    """In the units of batches: whitened, and at the scale of each image; only of the rows and the band named."""
    changed = replace(prepared, coefficients=prepared.coefficients.clone())
    band, rows = DISK.prefix(4), torch.tensor([17, 2, 9])
    before = everything(prepared).images
    amount = torch.complex(*torch.randn(2, 3, len(band), generator=random(8)))
    changed.subtract(rows, amount)
    expected = before.clone()
    expected[rows, : len(band)] -= amount
    torch.testing.assert_close(everything(changed).images, expected, rtol=1e-4, atol=1e-5)
    changed.subtract(rows, everything(changed, band).images[rows])
    assert float(everything(changed, band).images[rows].abs().max()) < 1e-5


def test_images_that_were_moved_are_not_subtracted_from(prepared: PreparedParticles) -> None:
    moved = prepared.with_pose(Pose(prepared.pose.rotation, torch.ones(COUNT, 2)))
    with pytest.raises(ValueError, match="cannot be subtracted from"):
        moved.subtract(torch.tensor([0]), prepared.coefficients[:1])


def test_known_contrasts_come_with_their_images(prepared: PreparedParticles) -> None:
    contrast = torch.linspace(0.5, 1.5, COUNT).double()
    batch = everything(prepared.with_contrast(contrast), batch_size=5)
    torch.testing.assert_close(batch.contrast, contrast.float())
    torch.testing.assert_close(batch.images, everything(prepared).images)


def test_grey_scale_is_one_of_the_signal_and_its_sign_turns_the_image(prepared: PreparedParticles) -> None:
    """Beside a contrast that is known, and images that something is taken from."""
    scale = torch.linspace(0.5, 3.0, COUNT)
    scale[::3] *= -1
    known = torch.linspace(0.8, 1.2, COUNT)
    plain, scaled = everything(prepared), everything(prepared.with_contrast(known).with_grey_scale(scale))
    torch.testing.assert_close(scaled.images, plain.images * scale.sign()[:, None])
    torch.testing.assert_close(scaled.ctf, plain.ctf)
    torch.testing.assert_close(scaled.contrast, known * scale.abs())
    source = replace(prepared, coefficients=prepared.coefficients.clone()).with_grey_scale(scale)
    source.subtract(torch.arange(COUNT), everything(source).images)
    assert float(everything(source).images.abs().max()) < 1e-4


def test_noise_of_micrographs_whitens_and_is_measured(prepared) -> None:
    """Images are whitened by the noise of their micrograph, backgrounds are removed as if it was that of a group."""
    count, micrographs = 600, 6
    of_row, group = torch.arange(count) % micrographs, torch.arange(count) % 2
    truth = torch.stack([torch.linspace(1 + 0.2 * number, 1.0, DISK.shell_max + 1) for number in range(micrographs)])
    truth = truth / truth.mean(dim=0)  # both groups differ from all by as much
    white = images_to_disk(torch.randn(count, BOX, BOX, generator=random(7)), DISK)
    plain = replace(
        noisy(white * truth.sqrt()[of_row][:, DISK.shell], group, torch.ones(2, DISK.shell_max + 1)),
        micrographs=MicrographNoise(of_row),
    )
    source = plain.with_noise(plain.noise_variance, truth)
    as_groups = replace(
        plain, group=of_row, noise_variance=truth, frequency_ratio=torch.ones(micrographs), micrographs=None
    )
    (found,), (expected,) = (each.batches(torch.arange(count), DISK, count) for each in (source, as_groups))
    torch.testing.assert_close(found.images, expected.images, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.ctf, expected.ctf)
    torch.testing.assert_close(found.kept_variance(), expected.kept_variance(), rtol=1e-4, atol=1e-4)
    for known in (plain, source):
        noise = ResidualNoise(2, DISK, known.micrographs)
        for batch in known.batches(torch.arange(count), DISK, 100):
            noise.add(batch.images.abs().square(), group[batch.index], batch.kept_variance(), batch.index)
        ratio, of_groups = noise.ratio(group), noise.update(known.noise_variance)
        assert ratio is not None
        measured = ratio * of_groups[torch.arange(micrographs) % 2]
        torch.testing.assert_close(measured[:, 1:], truth[:, 1:].float(), rtol=0.12, atol=0)


def test_images_without_a_measured_micrograph_stay_as_they_are(prepared) -> None:
    unmeasured = replace(prepared, micrographs=MicrographNoise(torch.arange(COUNT) % 4))
    assert torch.equal(left_of(unmeasured), left_of(prepared))
    one = unmeasured.with_noise(prepared.noise_variance, torch.ones(4, DISK.shell_max + 1))
    torch.testing.assert_close(left_of(one), left_of(prepared), rtol=1e-4, atol=1e-5)
    four = unmeasured.with_noise(prepared.noise_variance, torch.full((4, DISK.shell_max + 1), 4.0))
    torch.testing.assert_close(left_of(four), 0.5 * left_of(prepared), rtol=1e-4, atol=1e-5)
