"""The backends that the conformance suite runs on, and how exact each one is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors.base import Projector
from solvar_engine.projectors.numba_cpu import NumbaProjector
from solvar_engine.projectors.torch_ref import TorchProjector


@dataclass(frozen=True)
class Backend:
    """A way to make projectors, with the type it computes in and the relative error that this allows."""

    name: str
    create: Callable[..., Projector]
    dtype: torch.dtype
    rounding: float


def _reference(box_size: int, disk: HalfDisk, **options: object) -> Projector:
    return TorchProjector(box_size, disk, dtype=torch.float64, **options)  # type: ignore[arg-type]


REFERENCE = Backend("torch_ref", _reference, torch.float64, 1e-11)
BACKENDS = [REFERENCE, Backend("numba_cpu", NumbaProjector, torch.float32, 2e-5)]
