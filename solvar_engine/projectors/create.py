"""The one place where a backend is chosen."""

from __future__ import annotations

import logging
from typing import Any

from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors.base import Projector
from solvar_engine.projectors.options import SliceOptions

logger = logging.getLogger(__name__)


def create_projector(box_size: int, disk: HalfDisk, options: SliceOptions) -> Projector:
    """Make the projector for a box and a band.

    Parameters
    ----------
    box_size : int
        Edge of the volumes, px.
    disk : HalfDisk
        Pixels of the slices; may belong to a larger box, since Fourier pixels do not depend on it.
    options : SliceOptions

    Raises
    ------
    ValueError
        If the band reaches beyond Nyquist of the box.
    """
    backend, interpolation, oversampling = options.chosen_backend, options.interpolation, options.oversampling
    if interpolation == "nufft":
        logger.debug("projector %s on %s, %s", backend, options.device, interpolation)
        if backend == "finufft_gpu":
            from solvar_engine.projectors.nufft_gpu import GpuNufftProjector

            return GpuNufftProjector(box_size, disk, device=options.device)
        from solvar_engine.projectors.nufft import NufftProjector

        return NufftProjector(box_size, disk)
    logger.debug("projector %s on %s, %s, oversampling %d", backend, options.device, interpolation, oversampling)
    if backend == "numba_cpu":
        from solvar_engine.projectors.numba_cpu import NumbaProjector

        return NumbaProjector(box_size, disk, interpolation=interpolation, oversampling=oversampling)
    sampling: dict[str, Any] = {"interpolation": interpolation, "oversampling": oversampling, "device": options.device}
    if backend == "triton_gpu":
        from solvar_engine.projectors.triton_gpu import TritonProjector

        return TritonProjector(box_size, disk, **sampling)
    from solvar_engine.projectors.torch_ref import TorchProjector

    return TorchProjector(box_size, disk, **sampling)
