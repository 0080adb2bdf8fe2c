"""The volume of a state from its half-maps, without a fit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from solvar_engine.imaging.fourier import low_pass
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.jobs.states.kernel_volumes import finish_state
from solvar_engine.reconstruction.filtering import local_filter, local_fsc
from solvar_engine.reconstruction.kernel_blending import Blend
from solvar_engine.reconstruction.windows import LocalWindows
from tests.reconstruction.simulated import noise

BOX, PIXEL_SIZE, LAST = 40, 2.0, 6


@pytest.fixture(scope="module")
def finished():
    """Half-maps that agree up to shell 6, in a mask as sharp as can be, which makes noise correlate beyond."""
    mask = (sphere_mask(BOX, 6, 0.1) > 0.5).float()
    signal = low_pass(20 * noise(BOX, BOX, BOX), LAST)
    half1, half2 = (signal + noise(BOX, BOX, BOX, seed=seed) for seed in (1, 2))
    windows = LocalWindows.create(BOX, mask)
    shares = torch.full((2, windows.count, windows.shells), 0.5, dtype=torch.float64)
    problem = SimpleNamespace(source=SimpleNamespace(box_size=BOX, pixel_size=PIXEL_SIZE), mask=mask, seed=0)
    volumes = SimpleNamespace(blend=Blend(half1, half2, shares), windows=windows, counts=torch.tensor([100, 300]))
    return finish_state(problem, volumes), half1, half2, mask, windows


def test_resolution_is_that_of_the_signal_and_not_of_the_mask(finished) -> None:
    """Shell 6 to 9 of 80 Angstrom: two shells are left to what the mask mixes."""
    assert BOX * PIXEL_SIZE / (LAST + 3) < finished[0].resolution < BOX * PIXEL_SIZE / LAST


def test_volume_is_the_filtered_average_inside_the_mask(finished) -> None:
    state, half1, half2, mask, windows = finished
    expected = local_filter(0.5 * (half1 + half2), local_fsc(half1, half2, windows), windows) * mask
    torch.testing.assert_close(state.volume, expected)
    assert torch.equal(state.half1, half1) and torch.equal(state.half2, half2)
    assert state.images_used == 200
