"""Local spectra: a volume as overlapping windows, each with a Fourier transform of its own, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import ft_to_volume, volume_to_ft
from solvar_engine.imaging.shells import shell_count, shell_index_volume, shell_sum

_SMALLEST = 16  # px: a smaller window has hardly any shells
_SHARE = 3  # windows along an edge of the box


@dataclass(frozen=True)
class LocalWindows:
    """Windows of sine shape on a lattice of half their width.

    Analysis and synthesis both multiply by the window; the squares of overlapping windows add up to one, so that what
    is analysed and not changed comes back exactly.

    Attributes
    ----------
    box_size : int
        Edge of the volumes, px.
    size : int
        Edge of a window, px, even.
    """

    box_size: int
    size: int

    @staticmethod
    def create(box_size: int) -> LocalWindows:
        """Windows of a third of the box, of at least 16 px."""
        return LocalWindows(box_size, max(_SMALLEST, 2 * round(box_size / (2 * _SHARE))))

    def __post_init__(self) -> None:
        if self.size < 2 or self.size % 2:
            raise ValueError(f"the edge of a window is {self.size} px, expected an even number")

    @property
    def hop(self) -> int:
        """Distance of neighbouring windows, px."""
        return self.size // 2

    @property
    def per_edge(self) -> int:
        """Windows along an edge of the box, half windows outside included."""
        return -(-self.box_size // self.hop) + 1

    @property
    def count(self) -> int:
        """Number of windows."""
        return self.per_edge**3

    @property
    def shells(self) -> int:
        """Number of shells of a window's spectrum."""
        return shell_count(self.size)

    def analyse(self, volume: Tensor) -> Tensor:
        """Spectra of all windows.

        Parameters
        ----------
        volume : Tensor, shape (z, y, x)

        Returns
        -------
        Tensor, shape (windows, size, size, size // 2 + 1), complex
        """
        return volume_to_ft(self.cut(volume) * self._profile(volume))

    def cut(self, volume: Tensor) -> Tensor:
        """Voxels of all windows, not weighted, shape (windows, size, size, size); zero outside the box."""
        end = (self.per_edge + 1) * self.hop - self.box_size - self.hop
        padded = torch.nn.functional.pad(volume, (self.hop, end) * 3)
        blocks = padded.unfold(0, self.size, self.hop).unfold(1, self.size, self.hop).unfold(2, self.size, self.hop)
        return blocks.reshape(-1, self.size, self.size, self.size)

    def synthesise(self, spectra: Tensor) -> Tensor:
        """Volume (z, y, x) of the spectra of all windows; the inverse of :meth:`analyse`."""
        blocks = ft_to_volume(spectra, self.size)
        return self.add_up(blocks * self._profile(blocks))

    def add_up(self, blocks: Tensor) -> Tensor:
        """Sum of windows (windows, size, size, size) at their places: the adjoint of :meth:`cut`."""
        edge = self.per_edge
        # every window is eight octants, and octants of one kind tile the space without overlap
        octants = blocks.reshape(edge, edge, edge, 2, self.hop, 2, self.hop, 2, self.hop)
        cells = edge + 1
        total = blocks.new_zeros(cells, self.hop, cells, self.hop, cells, self.hop)
        for dz in (0, 1):
            for dy in (0, 1):
                for dx in (0, 1):
                    part = octants[:, :, :, dz, :, dy, :, dx].permute(0, 3, 1, 4, 2, 5)
                    total[dz : dz + edge, :, dy : dy + edge, :, dx : dx + edge] += part
        kept = slice(self.hop, self.hop + self.box_size)
        return total.reshape((cells * self.hop,) * 3)[kept, kept, kept]

    def shell_sums(self, products: Tensor) -> Tensor:
        """Sums of real fields on the windows' spectra over their shells, shape (windows, shells), float64."""
        return torch.cat([shell_sum(part, self.size) for part in products.split(64)])

    def spread(self, values: Tensor, beyond: Tensor | None = None) -> Tensor:
        """Spread one number per window and shell over all coefficients of the spectra.

        Parameters
        ----------
        values : Tensor, shape (windows, shells)
        beyond : Tensor, shape (windows,), optional
            Value outside the last complete shell, zero without it.

        Returns
        -------
        Tensor, shape (windows, size, size, size // 2 + 1)
        """
        outside = values.new_zeros(values.shape[0]) if beyond is None else beyond
        return torch.cat((values, outside[:, None]), dim=1)[:, shell_index_volume(self.size)]

    def smooth_places(self, values: Tensor) -> Tensor:
        """Blend sums (windows, shells) with those of neighbouring windows, by binomial weights."""
        edge = self.per_edge
        grid = values.reshape(edge, edge, edge, -1)
        for axis in range(3):
            grid = self.smooth_shells(grid.movedim(axis, -1)).movedim(-1, axis)
        return grid.reshape(values.shape)

    def smooth_shells(self, values: Tensor) -> Tensor:
        """Blend sums with those of neighbouring shells, the last axis, by binomial weights."""
        padded = torch.cat((values[..., :1], values, values[..., -1:]), dim=-1)
        return 0.25 * padded[..., :-2] + 0.5 * values + 0.25 * padded[..., 2:]

    def shell_of_box(self) -> Tensor:
        """Shell of the whole box, as a real number, at which each shell of a window lies; shape (shells,)."""
        return torch.arange(self.shells, dtype=torch.float64) * (self.box_size / self.size)

    def interpolate(self, values: Tensor) -> Tensor:
        """Smooth field (z, y, x) that has a value (windows,) at the centre of each window."""
        profile = self._profile(torch.zeros((self.size,) * 3)) ** 2
        return self.add_up(values.float()[:, None, None, None] * profile)

    def weight_of(self, mask: Tensor) -> Tensor:
        """Share of a mask in each window, shape (windows,)."""
        profile = self._profile(mask) ** 2
        return (self.cut(mask) * profile).sum(dim=(1, 2, 3)) / profile.sum()

    def _profile(self, like: Tensor) -> Tensor:
        """Product of half sine waves, shape (size, size, size)."""
        position = (torch.arange(self.size, dtype=torch.float64) + 0.5) / self.size
        wave = torch.sin(torch.pi * position).to(like.dtype)
        return wave[:, None, None] * wave[None, :, None] * wave[None, None, :]
