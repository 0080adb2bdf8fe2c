"""Local correlation, its filter, and the correction for a mask, against closed forms and plain transforms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.imaging.fourier import low_pass, volume_to_ft
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.imaging.shells import fsc, shell_index_volume
from solvar_engine.reconstruction.filtering import (
    corrected_fsc,
    local_filter,
    local_fsc,
    local_resolution,
    randomise_phases,
)
from solvar_engine.reconstruction.windows import LocalWindows
from tests.reconstruction.simulated import noise, relative_error

BOX = 32


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def windows() -> LocalWindows:
    return LocalWindows.create(BOX)


# --- local correlation


def test_local_correlation_is_that_of_the_sums_over_neighbouring_windows(windows) -> None:
    """Sums are blended, not correlations: cross-spectrum over the root of both power spectra, sign included."""
    half1, half2 = noise(BOX, BOX, BOX), -0.3 * noise(BOX, BOX, BOX) + noise(BOX, BOX, BOX, seed=1)
    edge, size = windows.per_edge, windows.size
    wave = torch.sin(torch.pi * (torch.arange(size) + 0.5) / size)
    profile = wave[:, None, None] * wave[:, None] * wave
    first, second = (torch.fft.fftn((windows.cut(half) * profile).double(), dim=(1, 2, 3)) for half in (half1, half2))
    frequency = torch.fft.fftfreq(size, 1 / size)
    radius = (frequency[:, None, None] ** 2 + frequency[:, None] ** 2 + frequency**2).sqrt().round()
    weight = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    kernel = weight[:, None, None] * weight[:, None] * weight

    def blended(left: Tensor, right: Tensor) -> Tensor:
        """Sums per shell; binomial weights along each axis of the lattice, as a convolution."""
        product = (left * right.conj()).real
        sums = [product[:, radius == number].sum(dim=1) for number in range((size - 1) // 2 + 1)]
        lattice = torch.nn.functional.pad(torch.stack(sums).reshape(-1, 1, edge, edge, edge), (1,) * 6, "replicate")
        return torch.nn.functional.conv3d(lattice, kernel[None, None]).flatten(1).T

    expected = blended(first, second) / (blended(first, first) * blended(second, second)).sqrt()
    torch.testing.assert_close(local_fsc(half1, half2, windows), expected, rtol=1e-3, atol=1e-3)
    assert float(expected[:, 3:].mean()) < -0.2


def test_a_volume_agrees_with_itself_whatever_its_scale(windows) -> None:
    volume = noise(BOX, BOX, BOX)
    found = local_fsc(volume, 2.0 * volume, windows)
    torch.testing.assert_close(found, torch.ones_like(found), rtol=0, atol=1e-4)


# --- filter


@pytest.mark.parametrize(("correlation", "gain"), [(1.0, 1.0), (0.5, 2 / 3), (0.2, 1 / 3), (-0.4, 0.0), (1.3, 1.0)])
def test_gain_of_the_filter_is_that_of_wiener_for_the_average_of_two_halves(windows, correlation, gain) -> None:
    volume = noise(BOX, BOX, BOX)
    curve = torch.full((windows.count, windows.shells), correlation, dtype=torch.float64)
    torch.testing.assert_close(local_filter(volume, curve, windows), gain * volume, rtol=1e-3, atol=1e-4)


def test_filter_acts_on_the_shells_that_it_was_told(windows) -> None:
    """Where the first shells agree and the others do not, a wave of low frequency stays and one of high does not."""
    curve = torch.zeros(windows.count, windows.shells, dtype=torch.float64)
    curve[:, :4] = 1.0
    place = torch.arange(BOX) / windows.size
    for cycles, kept in ((1.0, True), (6.5, False)):
        wave = torch.cos(2 * torch.pi * cycles * place)[:, None, None].expand(BOX, BOX, BOX)
        inner = (slice(10, 22),) * 3
        found = local_filter(wave, curve, windows)[inner].norm() / wave[inner].norm()
        assert (float(found) > 0.95) if kept else (float(found) < 0.1)


# --- resolution


def test_local_resolution_is_read_off_in_the_windows_own_shells(windows) -> None:
    """Correlation falls to a half at shell 4 of windows of 16 px of 2 Angstrom: 8 Angstrom."""
    curve = torch.zeros(windows.count, windows.shells, dtype=torch.float64)
    curve[:, :4], curve[:, 4] = 1.0, 0.5
    found = local_resolution(curve, windows, 2.0, 0.5)
    torch.testing.assert_close(found, torch.full((BOX,) * 3, 8.0), rtol=0.02, atol=0)


def test_outside_the_windows_the_resolution_is_the_worst_of_theirs() -> None:
    box = 48
    mask = torch.zeros(box, box, box)
    mask[4:40, 4:12, 4:12] = 1.0
    windows = LocalWindows.create(box, mask)
    curve = torch.ones(windows.count, windows.shells, dtype=torch.float64)
    curve[0, 3:] = 0.0
    found = local_resolution(curve, windows, 2.0, 0.143)
    assert float(found.min()) == pytest.approx(4.0, rel=0.01)  # twice the pixel
    assert float(found[-1, -1, -1]) == pytest.approx(float(found.max()), rel=0.01)
    assert 10 < float(found.max()) < 17  # between shells 2 and 3 of 16 px


# --- correction for a mask


def halves_of(signal: Tensor) -> tuple[Tensor, Tensor]:
    return signal + noise(BOX, BOX, BOX, seed=1), signal + noise(BOX, BOX, BOX, seed=2)


def test_correlation_that_a_mask_makes_of_randomised_halves_is_taken_away() -> None:
    """(F - R) / (1 - R), two shells beyond the one where the unmasked halves fall below 0.8; before it, F."""
    half1, half2 = halves_of(low_pass(20 * noise(BOX, BOX, BOX), 5))
    mask = (sphere_mask(BOX, 5, 0.1) > 0.5).float()
    found = corrected_fsc(half1, half2, mask, seeded())
    masked = fsc(half1, half2, mask)
    first = next(number for number, value in enumerate(fsc(half1, half2).tolist()) if value < 0.8)
    assert first == 6
    generator = seeded()
    random = fsc(*(randomise_phases(half, first, generator) for half in (half1, half2)), mask)
    expected = (masked - random.clamp_min(0)) / (1 - random.clamp_min(0))
    torch.testing.assert_close(found[: first + 2], masked[: first + 2])
    torch.testing.assert_close(found[first + 2 :], expected[first + 2 :])
    assert float(masked[8:].mean()) > 0.3 and abs(float(found[8:].mean())) < 0.15


def test_signal_that_is_there_is_not_corrected_away() -> None:
    """Half-maps of equal signal and noise in all shells correlate by a half, inside a mask as everywhere."""
    half1, half2 = halves_of(noise(BOX, BOX, BOX))
    found = corrected_fsc(half1, half2, sphere_mask(BOX, 9, 3), seeded())
    assert float(found[4:].mean()) == pytest.approx(0.5, abs=0.06)


def test_halves_that_agree_everywhere_need_no_correction() -> None:
    half = noise(BOX, BOX, BOX)
    mask = sphere_mask(BOX, 8, 2)
    torch.testing.assert_close(corrected_fsc(half, half, mask, seeded()), fsc(half, half, mask))


def test_randomised_phases_keep_amplitudes_and_what_is_below() -> None:
    volume = noise(BOX, BOX, BOX)
    random = randomise_phases(volume, 7, seeded())
    before, after = volume_to_ft(volume), volume_to_ft(random)
    is_kept = shell_index_volume(BOX) < 7
    torch.testing.assert_close(after[is_kept], before[is_kept], rtol=1e-3, atol=1e-3)
    inner = (shell_index_volume(BOX) >= 7) & (shell_index_volume(BOX) < 15)
    torch.testing.assert_close(after[inner].abs(), before[inner].abs(), rtol=1e-2, atol=1e-2)
    correlation = fsc(volume, random)
    assert float(correlation[:7].min()) > 0.999 and float(correlation[8:].abs().max()) < 0.1
    assert relative_error(random, volume) > 0.5
