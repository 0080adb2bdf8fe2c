"""The backends that the conformance suite runs on, and how exact each one is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors.base import Projector
from solvar_engine.projectors.nufft import NufftProjector
from solvar_engine.projectors.numba_cpu import NumbaProjector
from solvar_engine.projectors.torch_ref import TorchProjector


@dataclass(frozen=True)
class Sampling:
    """A way to read slices; without a grid there is nothing to oversample."""

    interpolation: str
    oversampling: int | None = None

    def __str__(self) -> str:
        return self.interpolation if self.oversampling is None else f"{self.interpolation}-x{self.oversampling}"

    @property
    def options(self) -> dict[str, object]:
        """Arguments for the projectors that have a grid."""
        if self.oversampling is None:
            return {}
        return {"interpolation": self.interpolation, "oversampling": self.oversampling}


GRID_SAMPLINGS = tuple(itertools.starmap(Sampling, itertools.product(("trilinear", "nearest"), (1, 2, 3))))


@dataclass(frozen=True)
class Backend:
    """A way to make projectors, with the type it computes in and the relative error that this allows.

    The first of its samplings is the one that tests of manners use.
    """

    name: str
    create: Callable[..., Projector]
    dtype: torch.dtype
    rounding: float
    samplings: tuple[Sampling, ...] = GRID_SAMPLINGS


def _reference(box_size: int, disk: HalfDisk, **options: object) -> Projector:
    return TorchProjector(box_size, disk, dtype=torch.float64, **options)  # type: ignore[arg-type]


def _double_nufft(box_size: int, disk: HalfDisk) -> Projector:
    return NufftProjector(box_size, disk, tolerance=1e-12, dtype=torch.float64)


REFERENCE = Backend("torch_ref", _reference, torch.float64, 1e-11)
BACKENDS = [
    REFERENCE,
    Backend("numba_cpu", NumbaProjector, torch.float32, 2e-5),
    Backend("finufft_cpu", NufftProjector, torch.float32, 2e-5, (Sampling("nufft"),)),
    Backend("finufft_cpu_double", _double_nufft, torch.float64, 1e-11, (Sampling("nufft"),)),
]
