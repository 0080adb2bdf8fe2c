"""From wide to narrow kernels: in every window and shell, only the detail that both half-sets agree on.

A wide kernel has little noise and much bias, a narrow one the reverse. Choosing, window by window, the kernel that
predicts the narrowest one of the other half-set best (as RECOVAR does) needs many images: with few, the narrowest
kernel is mostly noise and the choice random. Kernels are nested, so what a narrower one adds to a wider one is new
information with noise of its own; how much of it is signal, its correlation between the half-sets tells. So each
half-set predicts the other here, too, but step by step, and steps are not taken or left but weighed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import ft_to_volume
from solvar_engine.imaging.shells import coefficients_per_shell
from solvar_engine.reconstruction.kernel_regression import KernelSums, half_set_estimates
from solvar_engine.reconstruction.windows import LocalWindows

_INDEPENDENT = 0.6  # real numbers that a coefficient of a window stands for: windows overlap and taper off
_CAUTION = 1.0  # standard deviations by which noise alone is taken to correlate


@dataclass(frozen=True)
class Blend:
    """Volumes of both half-sets, and what they are made of.

    Attributes
    ----------
    half1, half2 : Tensor, shape (z, y, x), float32
        Not filtered.
    shares : Tensor, shape (kernels, windows, shells), float64
        Weight of each kernel; they add up to one.
    """

    half1: Tensor
    half2: Tensor
    shares: Tensor


def blend_kernels(
    halves: tuple[KernelSums, KernelSums], offsets: tuple[Tensor, Tensor], windows: LocalWindows, mask: Tensor
) -> Blend:
    """Refine the volumes of the flat kernel by narrower and narrower ones, inside a mask.

    Parameters
    ----------
    halves, offsets
        As for :func:`~.kernel_regression.half_set_estimates`.
    windows : LocalWindows
    mask : Tensor, shape (z, y, x)
        Where states differ: detail is added here.
    """
    kernels = len(halves[0])

    def volumes_of(kernel: int) -> list[Tensor]:
        return [
            ft_to_volume(estimate, windows.box_size) for estimate in half_set_estimates(halves, offsets, kernel, mask)
        ]

    current = volumes_of(kernels - 1)
    shares = torch.zeros(kernels, windows.count, windows.shells, dtype=torch.float64, device=mask.device)
    shares[-1] = 1.0
    for kernel in reversed(range(kernels - 1)):
        first, second = (
            windows.analyse((narrower - wider) * mask)
            for narrower, wider in zip(volumes_of(kernel), current, strict=True)
        )
        gain = agreement_gain(first, second, windows)
        weight = windows.spread(gain.float())
        for volume, detail in zip(current, (first, second), strict=True):
            volume += windows.synthesise(detail.mul_(weight))
        shares *= 1 - gain
        shares[kernel] += gain
    return Blend(current[0], current[1], shares)


def agreement_gain(first: Tensor, second: Tensor, windows: LocalWindows) -> Tensor:
    """Share of signal in the average of two details with independent noise, window by window and shell by shell.

    With F their correlation, less what noise alone makes of it, Wiener's gain for the average is 2 F / (1 + F).

    Parameters
    ----------
    first, second : Tensor, shape (windows, size, size, size // 2 + 1), complex
        Spectra of the details in all windows.
    windows : LocalWindows

    Returns
    -------
    Tensor, shape (windows, shells), float64, 0 to 1
    """
    cross = windows.smooth_shells(windows.products(first, second))
    powers = [windows.smooth_shells(windows.powers(part)) for part in (first, second)]
    correlation = cross / (powers[0] * powers[1]).clamp_min(torch.finfo(torch.float64).tiny).sqrt()
    chance = _CAUTION / (_INDEPENDENT * coefficients_per_shell(windows.size, first.device)).sqrt()
    certain = (correlation - chance).clamp(0, 1)
    return 2 * certain / (1 + certain)


def blending_bytes(windows: LocalWindows) -> float:
    """Memory that :func:`blend_kernels` takes beside the sums, bytes."""
    spectra = 8.0 * windows.count * windows.size**2 * (windows.size // 2 + 1)
    return 6 * spectra + 40.0 * windows.box_size**3
