from __future__ import annotations

import pytest
import torch

from solvar_engine.abinitio.moments.alignment import (
    aligned_error,
    empirical_moments,
    fourier_matrix,
    gaussian_mixtures,
    moment_errors,
    moments_of_signal,
    spectral_inversion,
)

POINTS = 9


def pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    signal = gaussian_mixtures(1, 2, POINTS, generator)[0]
    return 3 * signal, gaussian_mixtures(1, 2, POINTS, generator)[0]


def test_moments_are_averages_over_shifts() -> None:
    signal, density = pair(0)
    fourier = fourier_matrix(POINTS)
    moved = torch.stack([fourier @ (signal.roll(shift) + 0j) for shift in range(POINTS)])
    first, second = moments_of_signal(signal, density)
    torch.testing.assert_close(first, (density + 0j) @ moved)
    torch.testing.assert_close(second, torch.einsum("s,sk,sl->kl", density + 0j, moved, moved.conj()))


def test_empirical_moments_have_no_noise_in_them() -> None:
    signal, density = pair(1)
    generator = torch.Generator().manual_seed(0)
    shift = torch.multinomial(density, 40_000, replacement=True, generator=generator)
    step = torch.arange(POINTS)
    noise = 0.5 * torch.randn(len(shift), POINTS, generator=generator, dtype=torch.float64)
    observations = signal[(step - shift[:, None]) % POINTS] + noise
    first, second = empirical_moments(observations, 0.5)
    exact_first, exact_second = moments_of_signal(signal, density)
    assert float((first - exact_first).norm() / exact_first.norm()) < 0.02
    assert float((second - exact_second).norm() / exact_second.norm()) < 0.03
    assert float((empirical_moments(observations, 0.0)[1] - exact_second).norm() / exact_second.norm()) > 0.2


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_spectral_inversion_returns_signal_and_density_up_to_a_shift(seed: int) -> None:
    signal, density = pair(seed)
    found_signal, found_density = spectral_inversion(*moments_of_signal(signal, density))
    assert float(aligned_error(found_signal, signal)) < 1e-6 and float(aligned_error(found_density, density)) < 1e-6
    errors = moment_errors(found_signal, found_density, *moments_of_signal(signal, density))
    assert max(map(float, errors)) < 1e-6  # both are moved alike
    dark, _ = spectral_inversion(*moments_of_signal(-signal, density))
    assert float(aligned_error(dark, -signal)) < 1e-6


def test_errors_do_not_see_shifts_and_see_all_else() -> None:
    signal, density = pair(3)
    assert float(aligned_error(signal.roll(4), signal)) == 0
    assert float(aligned_error(1.5 * signal.roll(4), signal)) == pytest.approx(0.5)
    first, second = moments_of_signal(signal, density)
    of_first, of_second = moment_errors(1.1 * signal, density, first, second)
    assert float(of_first) == pytest.approx(0.1) and float(of_second) == pytest.approx(0.21)
