"""The reference projector: plain torch, any floating dtype, any device."""

from __future__ import annotations

from torch import Tensor

from solvar_engine.projectors import gather
from solvar_engine.projectors.grid_projector import GridProjector


class TorchProjector(GridProjector):
    """Slices by torch's own indexing; in float64 the truth that other backends are tested against.

    See :class:`~.grid_projector.GridProjector` for the parameters.
    """

    def _read(self, grid: Tensor, rotation: Tensor, ctf: Tensor | None) -> Tensor:
        slices = gather.read(grid, self._geometry, self.coordinates(rotation))
        return slices if ctf is None else slices * ctf[..., None]

    def _add(self, slices: Tensor, rotation: Tensor, ctf: Tensor | None, out: Tensor) -> None:
        values = slices if ctf is None else slices * ctf[..., None]
        gather.add(values, self._geometry, self.coordinates(rotation), out)
