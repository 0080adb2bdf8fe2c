"""Coloured noise: its variance falls from low to high frequencies, as that of micrographs does."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from solvar_engine.imaging.fourier import filter_images, hermitian_weight

CORNER_FREQUENCY = 1.0 / 50.0
"""Frequency, 1/Angstrom, at which half of the additional variance is left."""


def noise_amplitude(excess: float, box_size: int, pixel_size: float) -> Tensor:
    """Amplitude by which white noise is filtered.

    Its square is proportional to 1 + excess / (1 + (frequency / corner frequency)^2), and averages to 1 over all
    frequencies of the box: the variance of the pixels is what it was.

    Parameters
    ----------
    excess : float
        At least 0.
    box_size : int
    pixel_size : float
        Angstrom.

    Returns
    -------
    Tensor, shape (y, x // 2 + 1), float32
        As :func:`~.fourier.filter_images` takes it.

    Examples
    --------
    >>> float(noise_amplitude(0.0, 8, 3.0).mean())
    1.0
    """
    ky = torch.arange(box_size, dtype=torch.float64) - box_size // 2
    kx = torch.arange(box_size // 2 + 1, dtype=torch.float64)
    frequency_squared = (ky[:, None] ** 2 + kx**2) / (box_size * pixel_size) ** 2
    power = 1.0 + excess / (1.0 + frequency_squared / CORNER_FREQUENCY**2)
    mean = (power * hermitian_weight(box_size)).sum() / box_size**2
    return (power / mean).sqrt().float()


def coloured(noise: np.ndarray, amplitude: Tensor) -> np.ndarray:
    """Filter white noise (n, y, x), float32, on the device of the amplitude."""
    return filter_images(torch.from_numpy(noise).to(amplitude.device), amplitude).cpu().numpy()
