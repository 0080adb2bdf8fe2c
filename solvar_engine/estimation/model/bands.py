"""Frequency marching: the same problem on smaller boxes first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from solvar_engine.imaging.fourier import (
    HalfDisk,
    fourier_crop_volume,
    ft_to_volume,
    low_pass,
    nyquist_shell,
    resize_volume_ft,
    volume_to_ft,
)
from solvar_engine.projectors.base import Projector
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.normal_equations import crop_density

_FIRST_SHELL = 8


@dataclass(frozen=True)
class Band:
    """Everything of the problem cut to the shells up to ``shell_max``, on the smallest box that holds them.

    Attributes
    ----------
    disk : HalfDisk
        Pixels of the images.
    box_size : int
        Edge of the volumes of this band.
    full_box_size : int
        Edge of the working box.
    projector : Projector
    mask_root : Tensor, shape (z, y, x)
        Square root of the soft mask: applied on both sides of the preconditioner it confines steps to the mask and
        keeps the preconditioner symmetric.
    mask_overlap : Tensor, shape (z, y, x)
        Normalised autocorrelation of ``mask_root``; multiplying by it smooths a spectrum as the mask does.
    density : Tensor, shape (z, y, x // 2 + 1)
        D(k) of all images, in the units of this box.
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
    box_size: int
    full_box_size: int
    projector: Projector
    mask_root: Tensor
    mask_overlap: Tensor
    density: Tensor
    mean: Tensor
    nuisance: Tensor
    contrast_variance: float = 0.0
    nuisance_mean: Tensor | None = None

    @property
    def shell_max(self) -> int:
        """Last shell of the band."""
        return self.disk.shell_max

    def expected_nuisance(self, index: Tensor) -> Tensor:
        """Where the latent coordinates of the nuisance factors are expected, for some particles; (n, f), float64."""
        if self.nuisance_mean is None:
            return torch.zeros(len(index), len(self.nuisance), dtype=torch.float64, device=self.nuisance.device)
        return self.nuisance_mean[index].to(self.nuisance.device)

    def bound(self, spectrum: Tensor) -> Tensor:
        """Raise a spectrum to what the mask makes of it.

        Inside a mask neighbouring frequencies mix: where the spectrum of an operator dips (at the origin, between
        shells of a prior), the masked operator sees the average of the surroundings, and a step that is divided by
        the dip overshoots.

        Parameters
        ----------
        spectrum : Tensor, shape (..., z, y, x // 2 + 1), real, positive

        Returns
        -------
        Tensor, same shape
        """
        smooth_ft = volume_to_ft(ft_to_volume(spectrum.to(torch.complex64), self.box_size) * self.mask_overlap)
        return torch.maximum(spectrum, smooth_ft.real)


def marching_shells(box_size: int) -> list[int]:
    """Last shells of the bands, each about twice the one before, the last one complete.

    Examples
    --------
    >>> marching_shells(64), marching_shells(128)
    ([8, 16, 31], [8, 16, 32, 63])
    """
    last = nyquist_shell(box_size)
    shells = [last]
    shell = _FIRST_SHELL
    lower = []
    while shell <= 0.75 * last:
        lower.append(shell)
        shell *= 2
    return lower + shells


def band_box(shell_max: int, full_box_size: int) -> int:
    """Smallest even box with a fast transform that holds a band, or the working box itself."""
    if shell_max == nyquist_shell(full_box_size):
        return full_box_size
    return min(2 * int(next_fast_len(shell_max + 1, real=True)), full_box_size)


def make_band(
    shell_max: int, disk: HalfDisk, mean: Tensor, mask: Tensor, density: Tensor, options: SliceOptions
) -> Band:
    """Cut the working problem to a band.

    Parameters
    ----------
    shell_max : int
    disk : HalfDisk
        Of the working box.
    mean, mask : Tensor, shape (z, y, x)
        At the working box; the mean already masked, the mask that of the factors.
    density : Tensor, shape (z, y, x // 2 + 1)
        At the working box.
    options : SliceOptions

    Returns
    -------
    Band
    """
    full = mean.shape[-1]
    box_size = band_box(shell_max, full)
    band_disk = disk.prefix(shell_max)
    mask_root = fourier_crop_volume(mask, box_size).clamp(0, 1).sqrt()
    return Band(
        disk=band_disk,
        box_size=box_size,
        full_box_size=full,
        projector=create_projector(box_size, band_disk, options),
        mask_root=mask_root,
        mask_overlap=_overlap(mask_root),
        density=crop_density(density, full, box_size),
        mean=change_box(mean, box_size, shell_max),
        nuisance=mean.new_zeros(0, box_size, box_size, box_size),
    )


def _overlap(mask_root: Tensor) -> Tensor:
    overlap = ft_to_volume((volume_to_ft(mask_root).abs() ** 2).to(torch.complex64), mask_root.shape[-1])
    return overlap / overlap.max()


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


def split_batches(index: Tensor, count: int, generator: torch.Generator) -> list[Tensor]:
    """Deal particles at random into ``count`` mini-batches of nearly equal size, each in file order."""
    shuffled = index[torch.randperm(index.shape[0], generator=generator)]
    return [part.sort().values for part in shuffled.tensor_split(count)]
