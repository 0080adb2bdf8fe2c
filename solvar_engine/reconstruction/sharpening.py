"""B-factor of a reconstruction from its half-maps, and sharpening by it (Rosenthal & Henderson, J. Mol. Biol. 2003)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from solvar_engine.imaging.fourier import ft_to_volume, volume_radius, volume_to_ft
from solvar_engine.imaging.shells import radial_average

_WORST = 10.0  # Angstrom: below this frequency the shape of the molecule rules the spectrum
_FEWEST = 4  # shells that a line is fitted to


@dataclass(frozen=True)
class GuinierFit:
    """A line through log amplitude over squared frequency.

    Attributes
    ----------
    b_factor : float
        Angstrom^2; negative for amplitudes that fall off, and then to be undone.
    shells : tuple of int
        First and last shell that were fitted.
    """

    b_factor: float
    shells: tuple[int, int]


def fit_b_factor(
    volume: Tensor, correlation: Tensor, pixel_size: float, resolution: float, worst: float = _WORST
) -> GuinierFit | None:
    """Fit the fall-off of amplitudes, weighted by what the half-maps agree on.

    ln(C |F|) = ln A + (B / 4) / d^2, with C = sqrt(2 FSC / (1 + FSC)), by least squares over the shells between
    10 Angstrom and the resolution, all of one weight: as `relion_postprocess` does it.

    Parameters
    ----------
    volume : Tensor, shape (z, y, x)
        Average of the half-maps, not masked.
    correlation : Tensor, shape (shells,)
        FSC of the half-maps.
    pixel_size, resolution, worst : float
        Angstrom; shells between the last two are fitted.

    Returns
    -------
    GuinierFit or None
        None if there are fewer than four shells to fit.
    """
    box_size = volume.shape[-1]
    extent = box_size * pixel_size
    amplitude = radial_average(volume_to_ft(volume).abs(), box_size).cpu().numpy()
    known = correlation.double().clamp(0, 1).cpu().numpy()
    shells = np.arange(len(known))
    with np.errstate(divide="ignore"):
        logarithm = np.log(amplitude * np.sqrt(2 * known / (1 + known)))
    is_fitted = (shells >= extent / worst) & (shells <= extent / resolution) & np.isfinite(logarithm)
    if is_fitted.sum() < _FEWEST:
        return None
    frequency = shells[is_fitted] / extent
    slope, _ = np.polyfit(frequency**2, logarithm[is_fitted], 1)
    fitted = np.flatnonzero(is_fitted)
    return GuinierFit(4 * float(slope), (int(fitted[0]), int(fitted[-1])))


def sharpen(volume: Tensor, b_factor: float, pixel_size: float, resolution: float = 0.0) -> Tensor:
    """Multiply amplitudes by exp(-B / (4 d^2)): a negative B sharpens, a positive one smooths.

    Beyond the resolution the factor stays what it is there: it grows so fast that a trace of what a mask moves to the
    highest frequencies would otherwise outshine the molecule.

    Parameters
    ----------
    volume : Tensor, shape (z, y, x)
    b_factor : float
        Angstrom^2.
    pixel_size, resolution : float
        Angstrom.

    Returns
    -------
    Tensor, shape (z, y, x)

    Examples
    --------
    >>> volume = torch.randn(6, 6, 6)
    >>> torch.allclose(sharpen(volume, 0.0, 3.0), volume, atol=1e-5)
    True
    """
    box_size = volume.shape[-1]
    frequency = volume_radius(box_size, volume.device) / (box_size * pixel_size)
    if resolution > 0:
        frequency = frequency.clamp_max(1 / resolution)
    return ft_to_volume(volume_to_ft(volume) * torch.exp(-0.25 * b_factor * frequency**2), box_size)
