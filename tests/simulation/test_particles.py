"""Simulated particles: statistics of what is drawn, and images against their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.imaging.fourier import disk_to_images, images_to_disk
from solvar_engine.imaging.rotation import angular_distance_deg
from solvar_engine.simulation import phantoms as module
from solvar_engine.simulation.particles import (
    ImageModel,
    SimulatedParticles,
    draw_particles,
    noisy_images,
    signal_variance,
)
from solvar_engine.simulation.phantoms import make_phantom
from solvar_engine.simulation.projections import project_atoms

BOX, PIXEL_SIZE = 32, 6.0


def draw(count: int = 400, seed: int = 0, name: str = "assembly", **errors: float) -> SimulatedParticles:
    return draw_particles(make_phantom(name), count, BOX, PIXEL_SIZE, seed, **errors)


def model(count: int = 60, seed: int = 0, name: str = "assembly", **errors: float) -> ImageModel:
    return ImageModel(make_phantom(name), draw(count, seed, name, **errors), BOX, PIXEL_SIZE)


def test_states_follow_their_populations_exactly_and_are_shuffled() -> None:
    state = draw(1000).state
    expected = np.round(make_phantom("assembly").population * 1000)
    assert np.bincount(state.numpy()).tolist() == expected.tolist()
    assert not bool((state.diff() >= 0).all())


def test_numbers_that_do_not_divide_are_shared_out() -> None:
    state = draw(123, name="hinge").state
    counts = np.bincount(state.numpy(), minlength=50)
    assert counts.sum() == 123
    assert set(counts.tolist()) == {2, 3}


def test_contrasts_are_positive_with_mean_one_and_the_asked_spread() -> None:
    contrast = draw(20000, contrast_std=0.2).contrast
    assert float(contrast.mean()) == pytest.approx(1.0, abs=1e-5)
    assert float(contrast.std()) == pytest.approx(0.2, rel=0.03)
    assert float(draw(5000, contrast_std=0.9).contrast.min()) > 0.0
    assert bool((draw(10).contrast == 1.0).all())


def test_true_shifts_scale_with_the_box() -> None:
    shift_px = draw(5000).pose.shift / PIXEL_SIZE
    assert float(shift_px.std()) == pytest.approx(0.75, rel=0.04)  # 1.5 px at box 64


def test_pose_errors_have_the_asked_size_per_axis() -> None:
    drawn = draw(5000, rotation_error_deg=3.0, shift_error_px=0.5)
    angle_deg = angular_distance_deg(drawn.given_pose.rotation, drawn.pose.rotation)
    # the length of three normal components: mean sqrt(8 / pi) sigma
    assert float(angle_deg.mean()) == pytest.approx(3.0 * np.sqrt(8 / np.pi), rel=0.03)
    shift_px = (drawn.given_pose.shift - drawn.pose.shift) / PIXEL_SIZE
    assert float(shift_px.std()) == pytest.approx(0.5, rel=0.03)


def test_without_errors_the_given_poses_are_the_truth() -> None:
    drawn = draw(50)
    assert torch.equal(drawn.given_pose.shift, drawn.pose.shift)
    assert torch.allclose(drawn.given_pose.rotation, drawn.pose.rotation, atol=1e-6)


def test_errors_and_contrast_leave_everything_else_as_it_was() -> None:
    plain, spoilt = draw(50), draw(50, contrast_std=0.3, rotation_error_deg=3.0, shift_error_px=1.0)
    assert torch.equal(plain.state, spoilt.state)
    assert torch.equal(plain.pose.rotation, spoilt.pose.rotation)
    assert torch.equal(plain.pose.shift, spoilt.pose.shift)
    assert torch.equal(plain.ctf.defocus_u, spoilt.ctf.defocus_u)


def test_seeds_decide() -> None:
    assert torch.equal(draw(20, seed=3).pose.rotation, draw(20, seed=3).pose.rotation)
    assert not torch.equal(draw(20, seed=3).pose.rotation, draw(20, seed=4).pose.rotation)


def test_defocus_is_in_range_with_some_astigmatism() -> None:
    ctf = draw(1000).ctf
    mean = (ctf.defocus_u + ctf.defocus_v) / 2
    assert 1.0e4 <= float(mean.min()) and float(mean.max()) <= 2.5e4
    difference = ctf.defocus_u - ctf.defocus_v
    assert 0.0 <= float(difference.min()) and 500.0 < float(difference.max()) <= 600.0


def test_an_image_is_contrast_times_ctf_times_the_shifted_projection() -> None:
    simulated = model(3, contrast_std=0.3)
    disk = simulated.disk
    coefficients = simulated.coefficients(slice(0, 3))
    drawn, phantom = simulated.particles, make_phantom("assembly")
    for row in range(3):
        state = drawn.state[row]
        one = slice(row, row + 1)
        # moving the observed image by +shift centres it, so its atoms stand at R^T x - shift
        shift = drawn.pose.shift[row] / (PIXEL_SIZE * BOX)
        moved = phantom.atoms[state] @ drawn.pose.rotation[row].double()
        moved[:, :2] -= shift
        centred = project_atoms(
            moved[None], phantom.mass[state][None], torch.eye(3)[None], disk, phantom.sigma
        )
        expected = drawn.contrast[row] * ctf_values(drawn.ctf[one], disk, PIXEL_SIZE) * centred
        assert float((coefficients[one] - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_the_signal_variance_is_that_of_the_pixels() -> None:
    simulated = model(20, contrast_std=0.3)
    images = disk_to_images(simulated.coefficients(slice(0, 20)), simulated.disk, BOX)
    expected = images.double().var(dim=(1, 2), correction=0).mean()
    assert signal_variance(simulated) == pytest.approx(float(expected), rel=1e-4)


def test_noise_is_white_with_variance_one_and_the_signal_is_as_strong_as_asked() -> None:
    simulated = model(200, name="static")
    snr = 0.2
    scale = float(np.sqrt(snr / signal_variance(simulated)))
    disk = simulated.disk
    images = torch.from_numpy(np.concatenate(list(noisy_images(simulated, scale, seed=5))))
    assert images.shape == (200, BOX, BOX) and images.dtype == torch.float32
    clean = torch.cat([scale * simulated.coefficients(rows) for rows in simulated.batches()])
    noise = images - disk_to_images(clean, disk, BOX)
    assert float(noise.var()) == pytest.approx(1.0, rel=0.01)
    spectrum = (images_to_disk(noise, disk).abs() ** 2).mean(dim=0)
    low, high = spectrum[disk.shell < 8].mean(), spectrum[disk.shell >= 8].mean()
    assert float(low) == pytest.approx(float(high), rel=0.05)
    assert float(images.var()) == pytest.approx(1.0 + snr, rel=0.02)


def test_images_do_not_depend_on_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    simulated = model(11)
    together = np.concatenate(list(noisy_images(simulated, 1.0, seed=0)))
    variance = signal_variance(simulated)
    monkeypatch.setattr(module, "_BATCH_BYTES", 1.0)
    assert simulated.batch_size == 1
    assert np.allclose(np.concatenate(list(noisy_images(simulated, 1.0, seed=0))), together, atol=1e-4)
    assert signal_variance(simulated) == pytest.approx(variance, rel=1e-5)


def test_images_do_not_depend_on_what_is_kept_in_memory() -> None:
    kept = model(11)
    some = ImageModel(kept.molecule, kept.particles, BOX, PIXEL_SIZE, memory_bytes=8 * 5 * len(kept.disk))
    assert signal_variance(some) == signal_variance(kept)
    for first, second in zip(noisy_images(kept, 1.0, 0), noisy_images(some, 1.0, 0), strict=True):
        assert np.array_equal(first, second)
