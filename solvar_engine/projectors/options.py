"""How slices are taken: one set of options for every projector of a command."""

from __future__ import annotations

from dataclasses import dataclass

import torch

DEFAULT_OVERSAMPLING = 2

_GRID_BACKENDS = ("numba_cpu", "torch_ref")
_BACKENDS = {"trilinear": _GRID_BACKENDS, "nearest": _GRID_BACKENDS, "nufft": ("finufft_cpu",)}
"""Of each interpolation: the first one for a CPU, the last one for other devices."""


@dataclass(frozen=True)
class SliceOptions:
    """How volumes are sliced, whatever their box and band.

    Attributes
    ----------
    interpolation : {'trilinear', 'nearest', 'nufft'}
        How slices are read off a grid, or 'nufft' to evaluate the volumes' transform directly, without one.
    oversampling : int
        Zero-padding factor of the Fourier grid; 'nufft' has none and takes the default only.
    device : str
        Where grids lie and slices are made, as PyTorch names it.
    backend : {'auto', 'numba_cpu', 'torch_ref', 'finufft_cpu'}
        ``auto`` takes Numba's kernels on a CPU and plain torch elsewhere, and FINUFFT for 'nufft'. A backend that is
        named is never replaced.

    Raises
    ------
    ValueError
        For an unknown name, a backend that cannot run on the device or has no such interpolation, or an oversampling
        that is impossible or means nothing to it.

    Examples
    --------
    >>> SliceOptions().chosen_backend, SliceOptions(device="cuda:0").chosen_backend
    ('numba_cpu', 'torch_ref')
    """

    interpolation: str = "trilinear"
    oversampling: int = DEFAULT_OVERSAMPLING
    device: str = "cpu"
    backend: str = "auto"

    def __post_init__(self) -> None:
        if self.interpolation not in _BACKENDS:
            raise ValueError(f"interpolation is {self.interpolation!r}, expected one of {', '.join(_BACKENDS)}")
        try:
            torch.device(self.device)
        except RuntimeError as error:
            raise ValueError(f"device is {self.device!r}, expected one such as cpu or cuda:0") from error
        known = _BACKENDS[self.interpolation]
        if self.backend not in ("auto", *known):
            names = " or ".join(known)
            raise ValueError(
                f"projector backend is {self.backend!r}, expected auto or {names} for {self.interpolation}"
            )
        if self.chosen_backend.endswith("_cpu") and not self._on_cpu:
            raise ValueError(f"the backend {self.chosen_backend} runs on the CPU only, not on {self.device}")
        if not isinstance(self.oversampling, int) or self.oversampling < 1:
            raise ValueError(f"oversampling is {self.oversampling}, expected an integer of at least 1")
        if self.interpolation == "nufft" and self.oversampling != DEFAULT_OVERSAMPLING:
            raise ValueError(f"oversampling is {self.oversampling}, but nufft has no grid to oversample: leave it out")

    @property
    def _on_cpu(self) -> bool:
        return torch.device(self.device).type == "cpu"

    @property
    def chosen_backend(self) -> str:
        """The backend by its own name."""
        known = _BACKENDS[self.interpolation]
        if self.backend != "auto":
            return self.backend
        return known[0] if self._on_cpu else known[-1]


DEFAULT_OPTIONS = SliceOptions()
"""Trilinear interpolation on the CPU."""
