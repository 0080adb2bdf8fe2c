"""Local correlation of half-maps, the filter that it suggests, and the local resolution."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import ft_to_volume, volume_to_ft
from solvar_engine.imaging.shells import fsc, resolution_at, shell_index_volume
from solvar_engine.reconstruction.windows import LocalWindows

_RANDOM_FROM = 0.8  # FSC of unmasked half-maps below which the mask's effect is measured (Chen et al. 2013)


def local_fsc(half1: Tensor, half2: Tensor, windows: LocalWindows) -> Tensor:
    """Fourier shell correlation of half-maps (z, y, x) in every window, neighbours blended: (windows, shells)."""
    first, second = windows.analyse(half1), windows.analyse(half2)
    # not with neighbouring shells, too: where the signal ends, the last shell would lend its correlation to the next
    cross, power1, power2 = (
        windows.smooth_places(sums)
        for sums in (windows.products(first, second), windows.powers(first), windows.powers(second))
    )
    return cross / (power1 * power2).clamp_min(torch.finfo(torch.float64).tiny).sqrt()


def local_filter(volume: Tensor, correlation: Tensor, windows: LocalWindows) -> Tensor:
    """Filter the average of two half-maps by their local correlation F: Wiener's gain is 2 F / (1 + F).

    Parameters
    ----------
    volume : Tensor, shape (z, y, x)
    correlation : Tensor, shape (windows, shells)
        Of the half-maps.
    windows : LocalWindows

    Returns
    -------
    Tensor, shape (z, y, x)
    """
    positive = correlation.clamp(0, 1)
    gain = (2 * positive / (1 + positive)).to(volume.dtype)
    return windows.synthesise(windows.analyse(volume) * windows.spread(gain))


def local_resolution(correlation: Tensor, windows: LocalWindows, pixel_size: float, threshold: float) -> Tensor:
    """Resolution at every voxel, interpolated between windows; outside them, the worst of theirs.

    Parameters
    ----------
    correlation : Tensor, shape (windows, shells)
    windows : LocalWindows
    pixel_size : float
        Angstrom.
    threshold : float
        Correlation at which the resolution is read off.

    Returns
    -------
    Tensor, shape (z, y, x), float32
        Angstrom.
    """
    found = [resolution_at(curve, threshold, windows.size, pixel_size) for curve in correlation]
    return windows.interpolate(torch.tensor(found, device=correlation.device), outside=max(found))


def corrected_fsc(half1: Tensor, half2: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """FSC (shells,), float64, of half-maps (z, y, x) inside a mask, without what the mask itself contributes.

    Beyond the shell at which the unmasked half-maps fall below 0.8, their phases are randomised; what correlation is
    left inside the mask, R, is the mask's: (F - R) / (1 - R) (Chen et al., Ultramicroscopy 2013).
    """
    masked = fsc(half1, half2, mask)
    below = torch.nonzero(fsc(half1, half2) < _RANDOM_FROM).flatten()
    if not len(below):
        return masked
    # two shells further, where the mask no longer mixes in coefficients that were kept
    first = max(int(below[0]), 1)
    replaced = [randomise_phases(half, first, generator) for half in (half1, half2)]
    random = fsc(replaced[0], replaced[1], mask).clamp(0, 0.999)
    corrected = (masked - random) / (1 - random)
    return torch.cat((masked[: first + 2], corrected[first + 2 :]))


def randomise_phases(volume: Tensor, first_shell: int, generator: torch.Generator) -> Tensor:
    """Replace the phases of a volume (z, y, x) from a shell on by those of white noise; amplitudes stay."""
    box_size = volume.shape[-1]
    spectrum = volume_to_ft(volume)
    # drawn on the CPU, so that a seed means the same numbers on every device
    noise = volume_to_ft(torch.randn(volume.shape, generator=generator).to(volume.device))
    phases = noise / noise.abs().clamp_min(torch.finfo(noise.real.dtype).tiny)
    is_random = shell_index_volume(box_size, volume.device) >= first_shell
    return ft_to_volume(torch.where(is_random, spectrum.abs() * phases, spectrum), box_size)
