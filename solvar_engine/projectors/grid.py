"""The oversampled Fourier grid that interpolating projectors read and fill."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import nyquist_shell, padded_rfft3, padded_rfft3_adjoint

CHUNK_BYTES = 16_000_000
"""Slices that projectors with a grid handle in one call: not much more than what the processor's cache holds."""

_CHANNELS_AT_ONCE = 2  # of which padded spectra exist beside the grid: few for memory, but one is slower to scatter


@dataclass(frozen=True)
class GridGeometry:
    """Shape of the half grid kx >= 0 around a band, and the way between it and real volumes.

    Only the cube that the band can reach is kept: ``reach`` = oversampling * shell_max cells on each side, and one
    more, always zero, so that a coordinate rounded past the edge stays inside the array.

    Attributes
    ----------
    box_size : int
        Edge of the volumes, px.
    shell_max : int
        Last shell of the slices.
    oversampling : int
        Zero-padding factor.
    interpolation : str
        ``trilinear`` or ``nearest``; decides the gridding correction.
    """

    box_size: int
    shell_max: int
    oversampling: int
    interpolation: str

    def __post_init__(self) -> None:
        if not isinstance(self.oversampling, int) or self.oversampling < 1:
            raise ValueError(f"oversampling is {self.oversampling}, expected an integer of at least 1")
        if self.shell_max > nyquist_shell(self.box_size):
            raise ValueError(f"shell {self.shell_max} lies beyond Nyquist of a box of {self.box_size} px")

    @property
    def padded_size(self) -> int:
        """Edge of the zero-padded volume, px."""
        return self.oversampling * self.box_size

    @property
    def centre(self) -> int:
        """Index of frequency zero on the z and y axes."""
        return self.oversampling * self.shell_max + 1

    def shape(self, channels: int) -> tuple[int, int, int, int]:
        """Shape (z, y, x >= 0, channels) of a grid."""
        return (2 * self.centre + 1, 2 * self.centre + 1, self.centre + 1, channels)

    def gridding_correction(self, dtype: torch.dtype, device: torch.device | str) -> Tensor:
        """Transform of the interpolation kernel at the voxels: sinc^2 (trilinear) or sinc (nearest), per axis.

        Volumes are divided by it, since interpolation in Fourier space multiplies them by it.
        """
        axis = torch.arange(self.box_size, dtype=torch.float64, device=device) - self.box_size // 2
        profile = torch.sinc(axis / self.padded_size)
        if self.interpolation == "trilinear":
            profile = profile**2
        return (profile[:, None, None] * profile[None, :, None] * profile[None, None, :]).to(dtype)

    def to_grid(self, volumes: Tensor) -> Tensor:
        """Transform real volumes (channels, z, y, x) into a grid (z, y, x >= 0, channels), complex."""
        grid = volumes.new_zeros(self.shape(volumes.shape[0]), dtype=volumes.dtype.to_complex())
        self.fill(grid, volumes)
        return grid

    def fill(self, grid: Tensor, volumes: Tensor) -> None:
        """Transform real volumes into a grid of zeros."""
        correction = self.gridding_correction(volumes.dtype, volumes.device) * self.box_size
        for part, some in zip(volumes.split(_CHANNELS_AT_ONCE), grid.split(_CHANNELS_AT_ONCE, dim=-1), strict=True):
            spectrum = padded_rfft3(part / correction, self.padded_size)
            for target, source in self._blocks():
                some[target] = spectrum[(slice(None), *source)].permute(1, 2, 3, 0)

    def to_volumes(self, grid: Tensor) -> Tensor:
        """Adjoint of :meth:`to_grid`."""
        half = self.padded_size // 2 + 1
        volumes = []
        for part in grid.split(_CHANNELS_AT_ONCE, dim=-1):
            spectrum = grid.new_zeros(part.shape[-1], self.padded_size, self.padded_size, half)
            for target, source in self._blocks():
                spectrum[(slice(None), *source)] = part[target].permute(3, 0, 1, 2)
            volumes.append(padded_rfft3_adjoint(spectrum, self.box_size))
        correction = self.gridding_correction(volumes[0].dtype, grid.device) * self.box_size
        return torch.cat(volumes) / correction

    def check_grid(self, name: str, grid: Tensor) -> None:
        """Raise ValueError unless a grid (its last four axes) has this geometry."""
        if grid.dim() < 4 or tuple(grid.shape[-4:]) != self.shape(grid.shape[-1]):
            raise ValueError(f"{name} has shape {tuple(grid.shape)}, expected {self.shape(grid.shape[-1])}")

    def _blocks(self) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """Pairs of slices (grid, FFT order) that cover the band: four quadrants of (z, y)."""
        reach, centre, size = self.centre - 1, self.centre, self.padded_size
        halves = [
            (slice(centre, centre + reach + 1), slice(0, reach + 1)),
            (slice(centre - reach, centre), slice(size - reach, size)),
        ]
        along_x = slice(0, reach + 1)
        return [((z[0], y[0], along_x), (z[1], y[1], along_x)) for z in halves for y in halves]
