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
from solvar_engine.projectors.triton_gpu import TritonProjector
from solvar_engine.projectors.triton_tuning import Tiles, Tuning


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

    The first of its samplings is the one that tests of manners use. Where sums are added up in any order,
    back-projections repeat to rounding only. What is slow has one kind of box for each of its samplings.
    """

    name: str
    create: Callable[..., Projector]
    dtype: torch.dtype
    rounding: float
    samplings: tuple[Sampling, ...] = GRID_SAMPLINGS
    repeats: bool = True
    is_slow: bool = False


def _reference(box_size: int, disk: HalfDisk, **options: object) -> Projector:
    return TorchProjector(box_size, disk, dtype=torch.float64, **options)  # type: ignore[arg-type]


def _double_nufft(box_size: int, disk: HalfDisk) -> Projector:
    return NufftProjector(box_size, disk, tolerance=1e-12, dtype=torch.float64)


class _OnGpu:
    """A projector on a GPU that takes its arguments from the CPU and gives slices, volumes and products back to it."""

    def __init__(self, projector: Projector) -> None:
        self._projector = projector

    def __getattr__(self, name: str) -> object:
        wrapped = getattr(self._projector, name)
        if not callable(wrapped) or name in ("new_accumulator", "merged", "convolution_sums"):
            return wrapped
        stays = name == "to_grid"

        def call(*arguments: object) -> object:
            found = wrapped(*(a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments))
            if stays or found is None or isinstance(found, float):
                return found
            return tuple(part.cpu() for part in found) if isinstance(found, tuple) else found.cpu()

        return call


HAS_GPU = torch.cuda.is_available()
_WIDE = Tiles(floats=4096)  # what the interpreter does at once costs nothing
INTERPRETED = Tuning(_WIDE, _WIDE, _WIDE, _WIDE, _WIDE)


def _triton(box_size: int, disk: HalfDisk, **options: object) -> Projector:
    if HAS_GPU:
        return _OnGpu(TritonProjector(box_size, disk, **options))  # type: ignore[arg-type, return-value]
    return TritonProjector(box_size, disk, device="cpu", tuning=INTERPRETED, **options)  # type: ignore[arg-type]


REFERENCE = Backend("torch_ref", _reference, torch.float64, 1e-11)
BACKENDS = [
    REFERENCE,
    Backend("numba_cpu", NumbaProjector, torch.float32, 2e-5),
    Backend(
        "triton_gpu",
        _triton,
        torch.float32,
        2e-5,
        GRID_SAMPLINGS if HAS_GPU else (Sampling("trilinear", 2), Sampling("nearest", 2)),
        repeats=not HAS_GPU,
        is_slow=not HAS_GPU,
    ),
    Backend("finufft_cpu", NufftProjector, torch.float32, 2e-5, (Sampling("nufft"),)),
    Backend("finufft_cpu_double", _double_nufft, torch.float64, 1e-11, (Sampling("nufft"),)),
]
