"""B-factors of known fall-offs, and agreement with `relion_postprocess` on the same half-maps."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import torch

from solvar_engine.data.volumes import write_volume
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.imaging.shells import fsc
from solvar_engine.imaging.types import Volume
from solvar_engine.reconstruction.filtering import corrected_fsc
from solvar_engine.reconstruction.sharpening import fit_b_factor, sharpen
from solvar_engine.simulation.projections import atom_volume
from tests.reconstruction.simulated import noise

BOX, PIXEL_SIZE = 48, 1.6


def test_fall_off_is_found_and_undone():
    volume = noise(BOX, BOX, BOX)
    fallen = sharpen(volume, 120.0, PIXEL_SIZE)
    fit = fit_b_factor(fallen, torch.ones(BOX // 2), PIXEL_SIZE, 4.0)
    assert fit is not None and fit.b_factor == pytest.approx(-120.0, abs=4.0)
    torch.testing.assert_close(sharpen(fallen, -120.0, PIXEL_SIZE), volume, atol=1e-3, rtol=1e-3)


def test_amplitudes_are_weighted_by_what_the_halves_agree_on():
    """Flat amplitudes times C = sqrt(2 F / (1 + F)), with F such that C falls off by a known B-factor."""
    frequency = torch.arange(BOX // 2, dtype=torch.float64) / (BOX * PIXEL_SIZE)
    weight = torch.exp(-0.25 * 90.0 * frequency**2)
    fit = fit_b_factor(noise(BOX, BOX, BOX), weight**2 / (2 - weight**2), PIXEL_SIZE, 4.0)
    assert fit is not None and fit.b_factor == pytest.approx(-90.0, abs=4.0)


def test_nothing_is_blown_up_beyond_the_resolution():
    molecule = atom_volume(0.1 * noise(60, 3), torch.ones(60), BOX, 0.04) * sphere_mask(BOX, 16, 2)
    sharp = sharpen(molecule, -900.0, PIXEL_SIZE, 8.0)
    shells = fsc(sharp, molecule)
    assert float(shells[1:9].min()) > 0.95  # within a shell the factor varies
    # twelve cycles per 77 Angstrom are 6.4 Angstrom: the factor is that of 8
    assert float(sharp.abs().max()) < 20 * float(molecule.abs().max())


def test_nothing_is_fitted_to_a_low_resolution():
    assert fit_b_factor(noise(BOX, BOX, BOX), torch.ones(BOX // 2), PIXEL_SIZE, 9.0) is None


@pytest.mark.skipif(shutil.which("relion_postprocess") is None, reason="RELION is not installed")
def test_b_factor_equals_that_of_relion(tmp_path):
    generator = torch.Generator().manual_seed(1)
    atoms = (0.16 * torch.randn(60, 3, generator=generator)).clamp(-0.3, 0.3)
    volume = atom_volume(atoms, torch.ones(60), BOX, 0.0125)
    halves = [volume + 0.5 * float(volume.std()) * noise(BOX, BOX, BOX, seed=seed) for seed in (1, 2)]
    mask = sphere_mask(BOX, 16, 4)
    for name, data in (("half1", halves[0]), ("half2", halves[1]), ("mask", mask)):
        write_volume(tmp_path / f"{name}.mrc", Volume(data, PIXEL_SIZE))
    command = "relion_postprocess --i half1.mrc --i2 half2.mrc --mask mask.mrc --o post --auto_bfac --autob_highres 3.5"
    # its exit code also tells whether a PDF could be drawn
    subprocess.run([*command.split(), "--angpix", str(PIXEL_SIZE)], cwd=tmp_path, check=False, capture_output=True)
    found = re.search(r"_rlnBfactorUsedForSharpening\s+(\S+)", (tmp_path / "post.star").read_text(encoding="utf-8"))
    assert found is not None
    correlation = corrected_fsc(halves[0], halves[1], mask, torch.Generator().manual_seed(0))
    fit = fit_b_factor(0.5 * (halves[0] + halves[1]), correlation, PIXEL_SIZE, 3.5)
    assert fit is not None and fit.b_factor == pytest.approx(float(found[1]), rel=0.03)
