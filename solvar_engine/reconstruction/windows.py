"""Local spectra: a volume as overlapping windows, each with a Fourier transform of its own, and back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import block_order, block_spectra, hermitian_weight, spectra_to_blocks
from solvar_engine.imaging.shells import shell_count, shell_index_volume

_SMALLEST = 16  # px: a smaller window has hardly any shells
_SHARE = 3  # windows along an edge of the box
_INSIDE = 0.05  # of a mask: less is the ringing of one that was sampled finer


@dataclass(frozen=True)
class LocalWindows:
    """Windows of sine shape on a lattice of half their width.

    Analysis and synthesis both multiply by the window; the squares of overlapping windows add up to one, so that what
    is analysed and not changed comes back exactly, wherever all windows that overlap there are used.

    Attributes
    ----------
    box_size : int
        Edge of the volumes, px.
    size : int
        Edge of a window, px, even.
    place : Tensor, shape (windows, 3), int64
        (z, y, x) on the lattice of the windows that are used, all of them without it; a table on the CPU.
    """

    box_size: int
    size: int
    place: Tensor = field(default_factory=lambda: torch.empty(0, 3, dtype=torch.long), compare=False)

    @staticmethod
    def create(box_size: int, mask: Tensor | None = None) -> LocalWindows:
        """Windows of a third of the box, of at least 16 px: all, or those that overlap with a mask (z, y, x)."""
        everywhere = LocalWindows(box_size, max(_SMALLEST, 2 * round(box_size / (2 * _SHARE))))
        if mask is None:
            return everywhere
        touches = torch.nn.functional.max_pool3d(everywhere.padded(mask)[None, None], everywhere.size, everywhere.hop)
        return replace(everywhere, place=everywhere.place[touches.flatten().cpu() > _INSIDE])

    def __post_init__(self) -> None:
        if self.size < 2 or self.size % 2:
            raise ValueError(f"the edge of a window is {self.size} px, expected an even number")
        if not len(self.place):
            axis = torch.arange(self.per_edge)
            object.__setattr__(self, "place", torch.cartesian_prod(axis, axis, axis))

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
        """Number of windows that are used."""
        return len(self.place)

    @property
    def shells(self) -> int:
        """Number of shells of a window's spectrum."""
        return shell_count(self.size)

    def analyse(self, volume: Tensor) -> Tensor:
        """Spectra of all windows of a volume (z, y, x): (windows, size, size, size // 2 + 1), complex."""
        return block_spectra(self.cut(volume).mul_(self._profile(volume)))

    def padded(self, volume: Tensor) -> Tensor:
        """Volume with zeros around it, as far as windows reach."""
        end = (self.per_edge + 1) * self.hop - self.box_size - self.hop
        return torch.nn.functional.pad(volume, (self.hop, end) * 3)

    def cut(self, volume: Tensor) -> Tensor:
        """Voxels of all windows, not weighted, shape (windows, size, size, size); zero outside the box."""
        padded = self.padded(volume)
        return torch.stack([padded[where] for where in self._slices()])

    def synthesise(self, spectra: Tensor) -> Tensor:
        """Volume (z, y, x) of the spectra of all windows; the inverse of :meth:`analyse`."""
        blocks = spectra_to_blocks(spectra)
        return self.add_up(blocks.mul_(self._profile(blocks)))

    def add_up(self, blocks: Tensor) -> Tensor:
        """Sum of windows (windows, size, size, size) at their places: the adjoint of :meth:`cut`."""
        total = blocks.new_zeros(((self.per_edge + 1) * self.hop,) * 3)
        for where, block in zip(self._slices(), blocks, strict=True):
            total[where] += block
        kept = slice(self.hop, self.hop + self.box_size)
        return total[kept, kept, kept]

    def _slices(self) -> list[tuple[slice, ...]]:
        """Voxels of each window in a padded volume."""
        starts = (self.place * self.hop).tolist()
        return [tuple(slice(start, start + self.size) for start in corner) for corner in starts]

    def shell_sums(self, products: Tensor) -> Tensor:
        """Sums of real fields on the windows' spectra over their full shells, shape (windows, shells), float64."""
        sums = products.new_zeros(len(products), self.shells + 1, dtype=torch.float64)
        weighted = (products * hermitian_weight(self.size, products.device)).flatten(1)
        sums.index_add_(1, self._shell_index(products.device).flatten(), weighted.double())
        return sums[:, : self.shells]

    def powers(self, spectra: Tensor) -> Tensor:
        """Sums of squared amplitudes over the shells of each window, shape (windows, shells), float64."""
        return self.shell_sums(torch.view_as_real(spectra).square().sum(dim=-1))

    def products(self, first: Tensor, second: Tensor) -> Tensor:
        """Real inner products of two sets of spectra, per window and shell, shape (windows, shells), float64."""
        return self.shell_sums((torch.view_as_real(first) * torch.view_as_real(second)).sum(dim=-1))

    def spread(self, values: Tensor) -> Tensor:
        """Spread one number per window and shell (windows, shells) over all coefficients of the spectra.

        Coefficients outside the last complete shell get its value: a window has wide shells, and what lies beyond its
        last one may still be inside the band of the volume.
        """
        return torch.cat((values, values[:, -1:]), dim=1)[:, self._shell_index(values.device)]

    def smooth_places(self, values: Tensor) -> Tensor:
        """Blend sums (windows, shells) with those of neighbouring windows, by binomial weights; others count zero."""
        edge = self.per_edge
        grid = values.new_zeros(edge, edge, edge, values.shape[-1])
        where = tuple(self.place.unbind(1))
        grid[where] = values
        for axis in range(3):
            grid = self.smooth_shells(grid.movedim(axis, -1)).movedim(-1, axis)
        return grid[where]

    def smooth_shells(self, values: Tensor) -> Tensor:
        """Blend sums with those of neighbouring shells, the last axis, by binomial weights."""
        padded = torch.cat((values[..., :1], values, values[..., -1:]), dim=-1)
        return 0.25 * padded[..., :-2] + 0.5 * values + 0.25 * padded[..., 2:]

    def interpolate(self, values: Tensor, outside: float = 0.0) -> Tensor:
        """Smooth field (z, y, x) that has a value (windows,) at the centre of each window, and one outside them."""
        profile = self._profile(values.float()) ** 2
        return self.add_up((values.float() - outside)[:, None, None, None] * profile) + outside

    def weight_of(self, mask: Tensor) -> Tensor:
        """Share of a mask in each window, shape (windows,)."""
        profile = self._profile(mask) ** 2
        return (self.cut(mask) * profile).sum(dim=(1, 2, 3)) / profile.sum()

    def _shell_index(self, device: torch.device) -> Tensor:
        """Shell of each coefficient of a window's spectrum, in the order of the spectra."""
        return block_order(shell_index_volume(self.size, device))

    def _profile(self, like: Tensor) -> Tensor:
        """Product of half sine waves, shape (size, size, size), of the type and on the device of a tensor."""
        position = (torch.arange(self.size, dtype=torch.float64, device=like.device) + 0.5) / self.size
        wave = torch.sin(torch.pi * position).to(like.dtype)
        return wave[:, None, None] * wave[None, :, None] * wave[None, None, :]
