"""Readings of a list that need a mean of their own, on images whose true ones are known."""

from __future__ import annotations

from dataclasses import replace

import torch

from solvar_engine.data.stream import PreparedParticles
from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.jobs.fit.conventions import gain_without_even_aberrations
from solvar_engine.projectors.options import SliceOptions
from tests.jobs.prepared import PIXEL_SIZE, full_contrast, particles_of
from tests.reconstruction.simulated import LinearPhantom

BOX, IMAGES = 16, 600
PHANTOM = LinearPhantom.create(1, sigma=0.09).scaled(4.0)


def particles(listed: float, true: float) -> PreparedParticles:
    """Images with a constant even aberration, and what their list says of it, radian."""
    z, one = torch.zeros(IMAGES, 1), torch.ones(IMAGES)
    plain = particles_of(PHANTOM, z, BOX)
    defocus = torch.linspace(1e4, 3e4, IMAGES)
    ctf = replace(full_contrast(IMAGES), defocus_u=defocus, defocus_v=defocus, amplitude_contrast=0.1 * one)
    seen, given = (replace(ctf, even_zernike=value * one[:, None]) for value in (true, listed))
    slices = PHANTOM.slices(z, plain.pose.rotation, plain.disk)
    coefficients = plain.coefficients + slices * (ctf_values(seen, plain.disk, PIXEL_SIZE) - 1)
    return replace(plain, coefficients=coefficients, ctf=given)


def test_even_aberrations_of_other_images_are_found_and_right_ones_stay() -> None:
    halves = torch.arange(0, IMAGES, 2), torch.arange(1, IMAGES, 2)
    for true in (0.3, -0.3):
        assert gain_without_even_aberrations(particles(true, true), halves, SliceOptions()) is None
        found = gain_without_even_aberrations(particles(true, 0.0), halves, SliceOptions())
        assert found is not None and found[0] > 5 * found[1] > 0
