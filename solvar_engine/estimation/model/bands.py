"""The model of images in a band of frequencies: coarse ones need smaller boxes and fewer pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from solvar_engine.imaging.fourier import (
    HalfDisk,
    ft_to_volume,
    low_pass,
    nyquist_shell,
    resize_volume_ft,
    volume_to_ft,
)
from solvar_engine.projectors.base import Projector
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import SliceOptions


@dataclass(frozen=True)
class Band:
    """The model of images cut to the shells up to ``shell_max``, on the smallest box that holds them.

    Attributes
    ----------
    disk : HalfDisk
        Pixels of the images.
    projector : Projector
        From volumes of this band's box to images.
    mean : Tensor, shape (z, y, x)
    nuisance : Tensor, shape (f, z, y, x)
        Factors that are not fitted, with latent coordinates of unit variance: what errors of the poses make of the
        mean; none if the poses are taken as they are.
    contrast_variance : float
        Of the relative error of the images' contrasts.
    nuisance_mean : Tensor, shape (n, f), float64, optional
        Where the latent coordinates of the nuisance factors are expected, for every particle of the source (a table on
        the CPU, like all of these); at zero without it.
    """

    disk: HalfDisk
    projector: Projector
    mean: Tensor
    nuisance: Tensor
    contrast_variance: float = 0.0
    nuisance_mean: Tensor | None = None

    @property
    def shell_max(self) -> int:
        """Last shell of the band."""
        return self.disk.shell_max

    @property
    def box_size(self) -> int:
        """Edge of the volumes of this band."""
        return int(self.mean.shape[-1])

    def expected_nuisance(self, index: Tensor) -> Tensor:
        """Where the latent coordinates of the nuisance factors are expected, for some particles; (n, f), float64."""
        if self.nuisance_mean is None:
            return torch.zeros(len(index), len(self.nuisance), dtype=torch.float64, device=self.nuisance.device)
        return self.nuisance_mean[index].to(self.nuisance.device)


def make_band(shell_max: int, disk: HalfDisk, mean: Tensor, options: SliceOptions) -> Band:
    """Cut the model of images to a band, without nuisance factors, the contrasts taken as they are.

    Parameters
    ----------
    shell_max : int
    disk : HalfDisk
        Of the working box.
    mean : Tensor, shape (z, y, x)
        At the working box.
    options : SliceOptions

    Returns
    -------
    Band
    """
    box_size = band_box(shell_max, mean.shape[-1])
    band_disk = disk.prefix(shell_max)
    projector = create_projector(box_size, band_disk, options)
    cut = change_box(mean, box_size, shell_max)
    return Band(band_disk, projector, cut, nuisance=cut.new_zeros(0, *cut.shape))


def band_box(shell_max: int, full_box_size: int) -> int:
    """Smallest even box with a fast transform that holds a band, or the working box itself."""
    if shell_max == nyquist_shell(full_box_size):
        return full_box_size
    return min(2 * int(next_fast_len(shell_max + 1, real=True)), full_box_size)


def change_box(volumes: Tensor, box_size: int, shell_max: float | None = None) -> Tensor:
    """Move volumes to another box, keeping their Fourier coefficients (not their density values).

    Parameters
    ----------
    volumes : Tensor, shape (..., z, y, x)
    box_size : int
    shell_max : float, optional
        Low-pass to this shell.

    Returns
    -------
    Tensor, shape (..., box_size, box_size, box_size)
    """
    old = volumes.shape[-1]
    resized = volumes
    if old != box_size:
        resized = ft_to_volume(resize_volume_ft(volume_to_ft(volumes), old, box_size), box_size)
    return resized if shell_max is None else low_pass(resized, shell_max)
