"""What bounds the steps of factors in a band."""

from __future__ import annotations

import pytest
import torch

from solvar_engine.estimation.model.bands import band_box
from solvar_engine.estimation.solver.preconditioner import Preconditioner, make_preconditioner
from solvar_engine.imaging.fourier import volume_to_ft
from solvar_engine.imaging.masks import sphere_mask
from tests.reconstruction.simulated import noise, relative_error


def preconditioner_of(shell_max: int, box_size: int = 24) -> Preconditioner:
    density = torch.ones(box_size, box_size, box_size // 2 + 1)
    return make_preconditioner(shell_max, sphere_mask(box_size, box_size / 3), density)


def test_density_is_in_the_units_of_the_band() -> None:
    preconditioner = preconditioner_of(8)
    assert preconditioner.box_size == band_box(8, 24)
    middle = preconditioner.box_size // 2
    assert float(preconditioner.density[middle, middle, 1]) == pytest.approx(preconditioner.box_size / 24)


def test_mask_root_squares_to_the_mask() -> None:
    preconditioner = preconditioner_of(11)
    assert relative_error(preconditioner.mask_root**2, sphere_mask(24, 8)) < 1e-5
    assert float(preconditioner.mask_overlap.max()) == pytest.approx(1.0)


def test_bound_raises_dips_to_what_the_mask_sees_and_keeps_flat_spectra() -> None:
    preconditioner = preconditioner_of(11)
    flat = torch.full((1, 24, 24, 13), 3.0)
    torch.testing.assert_close(preconditioner.bound(flat), flat, rtol=1e-4, atol=1e-4)
    dip = flat.clone()
    dip[:, 12, 12, 0] = 0.0
    raised = preconditioner.bound(dip)
    assert bool((raised >= dip).all())
    assert 1.5 < float(raised[0, 12, 12, 0]) <= 3.0


def test_bound_without_mask_changes_nothing() -> None:
    preconditioner = make_preconditioner(5, torch.ones(12, 12, 12), torch.ones(12, 12, 7))
    # Any spectrum of a real, even kernel.
    spectrum = volume_to_ft(noise(12, 12, 12)).abs()[None]
    symmetric = spectrum + spectrum.roll(1, 1)
    smooth = volume_to_ft(noise(12, 12, 12, seed=2)).abs().square()[None]
    assert float((preconditioner.bound(symmetric) - symmetric).min()) >= 0
    torch.testing.assert_close(preconditioner.bound(smooth), smooth, rtol=1e-3, atol=1e-3 * float(smooth.max()))
