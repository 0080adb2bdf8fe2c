"""The contrast transfer function against its textbook form, evaluated pixel by pixel in double precision."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy import constants

from solvar_engine.imaging.ctf import ctf_values, electron_wavelength
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.imaging.types import Ctf

TYPICAL = {
    "defocus_u": 15000.0,
    "defocus_v": 14000.0,
    "defocus_angle": 30.0,
    "voltage": 300.0,
    "cs": 2.7,
    "amplitude_contrast": 0.1,
    "phase_shift": 0.0,
    "b_factor": 0.0,
    "scale": 1.0,
}


def make_ctf(dtype: torch.dtype = torch.float64, is_phase_flipped: bool = False, **changes: float) -> Ctf:
    values = {name: torch.tensor([value], dtype=dtype) for name, value in {**TYPICAL, **changes}.items()}
    return Ctf(**values, is_phase_flipped=torch.tensor([is_phase_flipped]))


def textbook(kx: int, ky: int, extent: float, parameters: dict[str, float]) -> float:
    """One value, with physical constants and SI units up to the end; extent = box * pixel size, Angstrom."""
    energy = parameters["voltage"] * 1e3 * constants.e
    rest = constants.m_e * constants.c**2
    wavelength = constants.h * constants.c / math.sqrt(energy * (energy + 2 * rest))
    s = math.hypot(kx, ky) / (extent * 1e-10)
    direction = math.atan2(ky, kx) - math.radians(parameters["defocus_angle"])
    du, dv = parameters["defocus_u"] * 1e-10, parameters["defocus_v"] * 1e-10
    defocus = du * math.cos(direction) ** 2 + dv * math.sin(direction) ** 2
    aberration = math.pi * wavelength * defocus * s**2
    aberration -= math.pi / 2 * parameters["cs"] * 1e-3 * wavelength**3 * s**4
    w = parameters["amplitude_contrast"]
    shift = math.radians(parameters["phase_shift"]) + math.atan2(w, math.sqrt(1 - w**2))
    envelope = math.exp(-parameters["b_factor"] * 1e-20 * s**2 / 4)
    return parameters["scale"] * envelope * math.sin(aberration + shift)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"voltage": 200.0, "cs": 0.01},
        {"defocus_angle": -75.0, "defocus_u": 30000.0},
        {"phase_shift": 90.0, "amplitude_contrast": 0.07},
        {"b_factor": 120.0, "scale": 0.7},
        {"defocus_u": -5000.0, "defocus_v": -4000.0},
    ],
)
@pytest.mark.parametrize("box_size", [32, 33])
def test_values_follow_the_textbook(changes: dict[str, float], box_size: int) -> None:
    disk, pixel_size = HalfDisk.create(box_size), 1.7
    parameters = {**TYPICAL, **changes}
    expected = [textbook(kx, ky, box_size * pixel_size, parameters) for kx, ky in disk.pixels.tolist()]
    values = ctf_values(make_ctf(**changes), disk, pixel_size)[0].numpy()
    # The field's formula for the wavelength differs from today's constants by 5e-6: some 1e-3 at 100 rad.
    np.testing.assert_allclose(values, expected, atol=1e-3)


@pytest.mark.parametrize(("voltage", "expected"), [(80.0, 0.041757), (200.0, 0.025079), (300.0, 0.019687)])
def test_wavelength_of_the_tables(voltage: float, expected: float) -> None:
    # Reimer & Kohl, Transmission Electron Microscopy, table 2.2: 4.1757, 2.5079 and 1.9687 pm
    wavelength = electron_wavelength(torch.tensor(voltage, dtype=torch.float64)).item()
    assert wavelength == pytest.approx(expected, abs=2e-6)


def test_sign_is_positive_at_zero_frequency() -> None:
    assert ctf_values(make_ctf(), HalfDisk.create(8), 2.0)[0, 0].item() == pytest.approx(0.1)


@pytest.mark.parametrize("changes", [{}, {"phase_shift": 90.0, "b_factor": 80.0}, {"scale": -0.7}])
def test_phase_flipped_images_have_the_absolute_value_of_the_oscillation(changes: dict[str, float]) -> None:
    disk, pixel_size = HalfDisk.create(33), 1.7
    parameters = {**TYPICAL, **changes}
    signed = [textbook(kx, ky, 33 * pixel_size, {**parameters, "scale": 1.0}) for kx, ky in disk.pixels.tolist()]
    assert min(signed) < -0.3
    values = ctf_values(make_ctf(is_phase_flipped=True, **changes), disk, pixel_size)[0].numpy()
    # an image that is dark as a whole (negative scale) stays so
    np.testing.assert_allclose(values, parameters["scale"] * np.abs(signed), atol=1e-3)


def test_flipping_an_image_by_the_sign_of_its_transfer_function_leaves_the_flipped_one() -> None:
    disk = HalfDisk.create(32)
    plain, flipped = (ctf_values(make_ctf(is_phase_flipped=is_flipped), disk, 2.0) for is_flipped in (False, True))
    torch.testing.assert_close(plain.sign() * plain, flipped, rtol=0, atol=0)


def test_defocus_angle_names_the_axis_of_defocus_u() -> None:
    # Along the x axis (angle 0) the defocus is defocus_u, along y it is defocus_v.
    disk = HalfDisk.create(32)
    values = ctf_values(make_ctf(defocus_angle=0.0), disk, 3.0)[0]
    for axis, defocus in ((0, TYPICAL["defocus_u"]), (1, TYPICAL["defocus_v"])):
        on_axis = disk.pixels[:, 1 - axis] == 0
        round_ctf = ctf_values(make_ctf(defocus_u=defocus, defocus_v=defocus), disk, 3.0)[0]
        torch.testing.assert_close(values[on_axis], round_ctf[on_axis])


def test_single_precision_is_enough() -> None:
    disk = HalfDisk.create(128)
    changes = {"defocus_u": 30000.0, "defocus_v": 29000.0}
    single = ctf_values(make_ctf(torch.float32, **changes), disk, 1.0)
    double = ctf_values(make_ctf(torch.float64, **changes), disk, 1.0)
    assert single.dtype == torch.float32
    assert (single - double).abs().max().item() < 1e-3


def test_particles_are_independent_and_unchanged() -> None:
    disk = HalfDisk.create(16)
    pairs = zip(_columns(make_ctf()), _columns(make_ctf(b_factor=50.0, is_phase_flipped=True)), strict=True)
    both = Ctf(*(torch.cat(pair) for pair in pairs))
    copies = [column.clone() for column in _columns(both)]
    values = ctf_values(both, disk, 2.0)
    torch.testing.assert_close(values[:1], ctf_values(make_ctf(), disk, 2.0))
    torch.testing.assert_close(values[1:], ctf_values(make_ctf(b_factor=50.0, is_phase_flipped=True), disk, 2.0))
    assert all(torch.equal(column, copy) for column, copy in zip(_columns(both), copies, strict=True))


def _columns(ctf: Ctf) -> list[torch.Tensor]:
    columns = (getattr(ctf, field.name) for field in fields(Ctf))
    return [column for column in columns if column is not None]


def test_values_depend_on_the_frequency_only() -> None:
    # Half the box with twice the pixel size has the same frequencies at the same Fourier pixels.
    large, small = HalfDisk.create(64), HalfDisk.create(32)
    shared = large.prefix(small.shell_max)
    torch.testing.assert_close(ctf_values(make_ctf(), shared, 1.5), ctf_values(make_ctf(), small, 3.0))
