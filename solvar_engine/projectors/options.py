"""How slices are taken: one set of options for every projector of a command."""

from __future__ import annotations

import importlib
import logging
import os
from dataclasses import dataclass
from functools import cache

import torch

DEFAULT_OVERSAMPLING = 2

_GRID_BACKENDS = ("numba_cpu", "triton_gpu", "torch_ref")
_BACKENDS = {"trilinear": _GRID_BACKENDS, "nearest": _GRID_BACKENDS, "nufft": ("finufft_cpu", "finufft_gpu")}
"""Of each interpolation: the one for a CPU, the one for a GPU, and what runs anywhere if there is any."""
_LIBRARIES = {"triton_gpu": "triton", "finufft_gpu": "cufinufft"}

logger = logging.getLogger(__name__)


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
    backend : {'auto', 'numba_cpu', 'triton_gpu', 'torch_ref', 'finufft_cpu', 'finufft_gpu'}
        ``auto`` takes Numba's kernels on a CPU, Triton's on a GPU and plain torch elsewhere or where Triton is not
        installed, and FINUFFT or cuFINUFFT for 'nufft'. A backend that is named is never replaced.

    Raises
    ------
    ValueError
        For an unknown name, a backend that cannot run on the device or has no such interpolation, or an oversampling
        that is impossible or means nothing to it.

    Examples
    --------
    >>> SliceOptions().chosen_backend, SliceOptions(device="mps").chosen_backend
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
        self._check_device()
        if not isinstance(self.oversampling, int) or self.oversampling < 1:
            raise ValueError(f"oversampling is {self.oversampling}, expected an integer of at least 1")
        if self.interpolation == "nufft" and self.oversampling != DEFAULT_OVERSAMPLING:
            raise ValueError(f"oversampling is {self.oversampling}, but nufft has no grid to oversample: leave it out")

    def _check_device(self) -> None:
        chosen, device = self.chosen_backend, torch.device(self.device).type
        if chosen.endswith("_cpu") and device != "cpu":
            raise ValueError(f"the backend {chosen} runs on the CPU only, not on {self.device}")
        is_interpreted = chosen == "triton_gpu" and device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
        if chosen.endswith("_gpu") and device != "cuda" and not is_interpreted:
            raise ValueError(f"the backend {chosen} runs on a GPU only, not on {self.device}")
        if chosen in _LIBRARIES and not can_be_imported(_LIBRARIES[chosen]):
            raise ValueError(f"the backend {chosen} needs the library {_LIBRARIES[chosen]}, which cannot be imported")

    @property
    def chosen_backend(self) -> str:
        """The backend by its own name."""
        on_cpu, on_gpu, *anywhere = _BACKENDS[self.interpolation]
        device = torch.device(self.device).type
        if self.backend != "auto":
            return self.backend
        if device == "cuda" and can_be_imported(_LIBRARIES[on_gpu]):
            return on_gpu
        return on_cpu if device == "cpu" or not anywhere else anywhere[0]


@cache
def can_be_imported(library: str) -> bool:
    """Tell whether a library for GPUs is there, and works; if not, say so once."""
    try:
        importlib.import_module(library)
    except (ImportError, OSError, RuntimeError) as error:
        logger.warning("the library %s cannot be imported (%s): on a GPU its slices need it to be fast", library, error)
        return False
    return True


DEFAULT_OPTIONS = SliceOptions()
"""Trilinear interpolation on the CPU."""
