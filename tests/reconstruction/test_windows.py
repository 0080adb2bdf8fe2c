"""Local spectra against plain Fourier transforms of one window after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from solvar_engine.reconstruction.windows import LocalWindows
from tests.reconstruction.simulated import noise

BOX = 24


@pytest.fixture(scope="module")
def windows() -> LocalWindows:
    return LocalWindows.create(BOX)


def plain_windows(volume: Tensor, windows: LocalWindows) -> np.ndarray:
    """Every window times its sine, cut out voxel by voxel; (windows, size, size, size), float64."""
    size, hop = windows.size, windows.size // 2
    wave = np.sin(np.pi * (np.arange(size) + 0.5) / size)
    profile = wave[:, None, None] * wave[:, None] * wave
    padded = np.zeros((BOX + 4 * size,) * 3)
    padded[2 * size : 2 * size + BOX, 2 * size : 2 * size + BOX, 2 * size : 2 * size + BOX] = volume.numpy()
    blocks = []
    for place in windows.place.tolist():
        z, y, x = (2 * size - hop + hop * number for number in place)
        blocks.append(padded[z : z + size, y : y + size, x : x + size] * profile)
    return np.stack(blocks)


def plain_shell_sums(products: np.ndarray) -> np.ndarray:
    """Sums over full shells of fields on the full spectrum, the zero frequency at index 0; (windows, shells)."""
    size = products.shape[-1]
    frequency = np.fft.fftfreq(size, 1 / size)
    radius = np.sqrt(frequency[:, None, None] ** 2 + frequency[:, None] ** 2 + frequency**2)
    shell = np.round(radius).astype(int)
    return np.stack([products[:, shell == number].sum(axis=1) for number in range((size - 1) // 2 + 1)], axis=1)


def test_sizes_are_those_that_the_box_asks_for() -> None:
    """A third of the box, even, at least 16 px; half windows outside at both ends."""
    assert [LocalWindows.create(box).size for box in (24, 48, 60, 100)] == [16, 16, 20, 34]
    windows = LocalWindows.create(BOX)
    assert (windows.hop, windows.per_edge, windows.count, windows.shells) == (8, 4, 64, 8)
    with pytest.raises(ValueError, match="expected an even number"):
        LocalWindows(BOX, 15)


def test_powers_and_products_count_the_full_spectrum(windows) -> None:
    """Both Friedel mates of a coefficient, as a complex transform of each window has them."""
    first, second = noise(BOX, BOX, BOX), noise(BOX, BOX, BOX, seed=1)
    spectra = [np.fft.fftn(plain_windows(volume, windows), axes=(1, 2, 3)) for volume in (first, second)]
    power = plain_shell_sums(np.abs(spectra[0]) ** 2)
    product = plain_shell_sums((spectra[0] * spectra[1].conj()).real)
    found = windows.powers(windows.analyse(first)).numpy()
    scale = power.sum() / found.sum()  # transforms may be normalised in any way, all shells alike
    np.testing.assert_allclose(found * scale, power, rtol=1e-4, atol=1e-4 * power.max())
    crossed = windows.products(windows.analyse(first), windows.analyse(second)).numpy()
    np.testing.assert_allclose(crossed * scale, product, rtol=1e-4, atol=1e-4 * power.max())


def test_every_shell_of_white_noise_has_its_number_of_coefficients(windows) -> None:
    ones = torch.ones(2, windows.size, windows.size, windows.size // 2 + 1)
    expected = plain_shell_sums(np.ones((2,) + (windows.size,) * 3))
    np.testing.assert_array_equal(windows.shell_sums(ones).numpy(), expected)


def test_values_are_spread_over_the_shells_that_they_were_summed_on(windows) -> None:
    values = 1 + torch.rand(windows.count, windows.shells, generator=torch.Generator().manual_seed(0))
    field = windows.spread(values)
    counts = plain_shell_sums(np.ones((1,) + (windows.size,) * 3))[0]
    torch.testing.assert_close(windows.shell_sums(field), values.double() * torch.from_numpy(counts))
    # the corners, which no full shell holds, go on as the last shell does
    torch.testing.assert_close(field.amax(dim=(1, 2, 3)), values.amax(dim=1))
    only_last = torch.zeros_like(values)
    only_last[:, -1] = 1.0
    assert float(windows.spread(only_last).mean()) > 0.4


def test_windows_lie_where_their_places_say(windows) -> None:
    """On a lattice of half a window, (z, y, x), the first ones half outside."""
    volume = noise(BOX, BOX, BOX)
    wave = torch.sin(torch.pi * (torch.arange(windows.size) + 0.5) / windows.size)
    profile = wave[:, None, None] * wave[:, None] * wave
    expected = plain_windows(volume, windows)
    np.testing.assert_allclose((windows.cut(volume) * profile).numpy(), expected, atol=1e-5)
    number = windows.place.tolist().index([1, 0, 2])
    assert torch.equal(windows.cut(volume)[number, :, 8:, :], volume[0:16, 0:8, 8:24])


def test_windows_of_a_mask_are_those_that_hold_a_part_of_it() -> None:
    mask = torch.zeros(BOX, BOX, BOX)
    mask[20, 2, 12] = 1.0
    chosen = {tuple(place) for place in LocalWindows.create(BOX, mask).place.tolist()}
    assert chosen == {(z, y, x) for z in (2, 3) for y in (0, 1) for x in (1, 2)}
    ringing = 0.04 * torch.ones(BOX, BOX, BOX) + mask
    assert {tuple(place) for place in LocalWindows.create(BOX, ringing).place.tolist()} == chosen


def test_neighbours_are_blended_by_binomial_weights(windows) -> None:
    """A quarter from either side along each axis; at the end of the lattice a window is its own neighbour."""
    values = torch.zeros(windows.count, 2, dtype=torch.float64)
    places = [tuple(place) for place in windows.place.tolist()]
    values[places.index((1, 2, 0)), 1] = 64.0
    blended = windows.smooth_places(values)
    assert not blended[:, 0].any()
    inner, first = {0: 2.0, 1: 1.0, -1: 1.0}, {0: 3.0, 1: 1.0}
    for number, (z, y, x) in enumerate(places):
        expected = inner.get(z - 1, 0.0) * inner.get(y - 2, 0.0) * first.get(x, 0.0)
        assert float(blended[number, 1]) == pytest.approx(expected)


def test_windows_that_are_not_used_count_zero_for_their_neighbours() -> None:
    mask = torch.zeros(BOX, BOX, BOX)
    mask[20, 2, 12] = 1.0
    windows = LocalWindows.create(BOX, mask)  # two along each axis: (2, 3), (0, 1) and (1, 2)
    blended = windows.smooth_places(torch.ones(windows.count, 1, dtype=torch.float64))
    # along z and y one of both lies at an end: 1/2 or 3/4 of itself, 1/4 of the other; along x 3/4 in all
    expected = {(2, 0): 0.75 * 1.0, (2, 1): 0.75 * 0.75, (3, 0): 1.0 * 1.0, (3, 1): 1.0 * 0.75}
    for (z, y, _), value in zip(windows.place.tolist(), blended[:, 0].tolist(), strict=True):
        assert value == pytest.approx(0.75 * expected[z, y])


def test_shells_are_blended_by_binomial_weights_and_ends_are_kept(windows) -> None:
    values = torch.tensor([[4.0, 0.0, 0.0, 8.0]], dtype=torch.float64)
    assert windows.smooth_shells(values).tolist() == [[3.0, 1.0, 2.0, 6.0]]


def test_field_between_windows_has_their_values_at_their_centres(windows) -> None:
    """And the squares of the sines, which add up to one, in between."""
    values = torch.arange(windows.count, dtype=torch.float64)
    field = windows.interpolate(values)
    places = windows.place.tolist()
    for place, value in zip(places, values.tolist(), strict=True):
        centre = [8 * number for number in place]
        if all(1 <= voxel < BOX for voxel in centre):
            corner = field[tuple(slice(voxel - 1, voxel + 1) for voxel in centre)]
            assert float(corner.mean()) == pytest.approx(value, abs=0.01 * windows.count)
    # where windows are, what lies outside does not matter
    torch.testing.assert_close(windows.interpolate(values, outside=5.0), field, rtol=1e-3, atol=1e-3)


def test_weight_of_a_mask_is_its_share_of_each_window(windows) -> None:
    mask = (noise(BOX, BOX, BOX) > 0).float()
    size = windows.size
    wave = np.sin(np.pi * (np.arange(size) + 0.5) / size)
    profile = (wave[:, None, None] * wave[:, None] * wave) ** 2
    plain = plain_windows(mask, windows) * np.sqrt(profile)
    np.testing.assert_allclose(windows.weight_of(mask).numpy(), plain.sum(axis=(1, 2, 3)) / profile.sum(), rtol=1e-4)
    inner = windows.place.eq(2).all(dim=1)
    torch.testing.assert_close(windows.weight_of(torch.ones(BOX, BOX, BOX))[inner], torch.ones(1))
