"""Slices by the non-uniform fast Fourier transform on a GPU (cuFINUFFT), one channel after the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors.nufft import FROM_VOLUME, TO_VOLUME, TOLERANCE, NufftProjector


class GpuNufftProjector(NufftProjector):
    """Slices on a GPU to a given tolerance; see :class:`~.nufft.NufftProjector`."""

    def __init__(
        self,
        box_size: int,
        disk: HalfDisk,
        *,
        tolerance: float = TOLERANCE,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cuda",
    ) -> None:
        super().__init__(box_size, disk, tolerance=tolerance, dtype=dtype, device=device)

    def _read(self, grid: Tensor, rotation: Tensor, ctf: Tensor | None) -> Tensor:
        shape = (rotation.shape[0], len(self.disk))
        slices = grid.new_zeros(*shape, grid.shape[0], dtype=self._dtype.to_complex())
        if len(rotation):
            plan = self._plan(FROM_VOLUME, rotation)
            for channel, volume in enumerate(grid):
                slices[..., channel] = plan.execute(volume.to(slices.dtype).contiguous()).reshape(shape)
        return slices if ctf is None else slices * ctf[..., None]

    def _add(self, slices: Tensor, rotation: Tensor, ctf: Tensor | None, out: Tensor) -> None:
        if not len(rotation):
            return
        plan = self._plan(TO_VOLUME, rotation)
        scaled = slices if ctf is None else slices * ctf[..., None]
        for volume, values in zip(out, scaled.to(self._dtype.to_complex()).unbind(-1), strict=True):
            volume += plan.execute(values.flatten().contiguous()).real

    def _plan(self, kind: int, rotation: Tensor) -> Any:
        """Plan with its points sorted; both kinds use the same kernel, that of cuFINUFFT's defaults."""
        import cufinufft

        options = {} if self._device.index is None else {"gpu_device_id": self._device.index}
        plan = cufinufft.Plan(
            kind,
            (self.box_size,) * 3,
            eps=self._tolerance,
            isign=-1 if kind == FROM_VOLUME else 1,
            dtype="complex128" if self._dtype == torch.float64 else "complex64",
            **options,
        )
        plan.setpts(*self._points(rotation).flatten(1))
        return plan
