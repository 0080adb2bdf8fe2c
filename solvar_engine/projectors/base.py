"""The interface of all projectors, and the one place where a backend is chosen."""

from __future__ import annotations

import logging
from typing import Protocol

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk

logger = logging.getLogger(__name__)

INTERPOLATIONS = ("trilinear", "nearest")


class Projector(Protocol):
    """Linear operator from volumes to central slices, linear in the volumes.

    The volumes first become an oversampled Fourier ``grid`` (temporary, of the backend's own layout), from which
    slices at any rotation are interpolated. ``project`` after ``to_grid`` and ``to_volumes`` after ``backproject``
    are exact adjoints for the real inner products sum Re(conj(a) b) over the pixel list and the sum over voxels.
    """

    box_size: int
    disk: HalfDisk

    def to_grid(self, volumes: Tensor) -> Tensor:
        """Prepare real volumes (channels, z, y, x) for slicing."""
        ...

    def project(self, grid: Tensor, rotation: Tensor, factor: Tensor | None = None) -> Tensor:
        """Slice all channels at each rotation.

        Parameters
        ----------
        grid : Tensor
            From :meth:`to_grid`.
        rotation : Tensor, shape (n, 3, 3), float32
            Image to volume.
        factor : Tensor, shape (n, pixels), real, optional
            Multiplies every slice, as the contrast transfer function does.

        Returns
        -------
        Tensor, shape (n, pixels, channels), complex
        """
        ...

    def new_accumulator(self, channels: int) -> Tensor:
        """Zeros into which :meth:`backproject` adds."""
        ...

    def backproject(
        self, slices: Tensor, rotation: Tensor, out: Tensor, factor: Tensor | None = None
    ) -> None:
        """Add the adjoint of :meth:`project` of slices (n, pixels, channels) to an accumulator."""
        ...

    def to_volumes(self, accumulator: Tensor) -> Tensor:
        """Adjoint of :meth:`to_grid`: turn an accumulator into real volumes (channels, z, y, x)."""
        ...

    def project_with_gram(
        self, grid: Tensor, rotation: Tensor, factor: Tensor, images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Slice all channels and correlate them with each other and with the images.

        Parameters
        ----------
        grid, rotation, factor
            As for :meth:`project`.
        images : Tensor, shape (n, pixels), complex

        Returns
        -------
        slices : Tensor, shape (n, pixels, channels), complex
        gram : Tensor, shape (n, channels + 1, channels + 1), float64
            Real inner products over the full plane (Hermitian weights), the image being the last channel.
        """
        ...

    def backproject_combination(
        self,
        slices: Tensor,
        images: Tensor,
        coefficients: Tensor,
        rotation: Tensor,
        factor: Tensor,
        out: Tensor,
    ) -> None:
        """Back-project, with Hermitian weights, linear combinations of each image's slices and the image itself.

        Parameters
        ----------
        slices : Tensor, shape (n, pixels, channels), complex
        images : Tensor, shape (n, pixels), complex
        coefficients : Tensor, shape (n, channels + 1, channels_out), real
            Column by column the weights of the slices and, last, of the image.
        rotation, factor
            As for :meth:`project`.
        out : Tensor
            Accumulator of ``channels_out`` channels, modified.
        """
        ...


def create_projector(
    box_size: int,
    disk: HalfDisk,
    *,
    interpolation: str = "trilinear",
    oversampling: int = 2,
    device: torch.device | str = "cpu",
    backend: str = "auto",
) -> Projector:
    """Make the projector for a box and a band.

    Parameters
    ----------
    box_size : int
        Edge of the volumes, px.
    disk : HalfDisk
        Pixels of the slices; may belong to a larger box, since Fourier pixels do not depend on it.
    interpolation : {'trilinear', 'nearest'}
    oversampling : int
        Zero-padding factor of the Fourier grid.
    device : torch.device or str
    backend : {'auto', 'numba_cpu', 'torch_ref'}
        ``auto`` takes Numba's kernels on a CPU and plain torch elsewhere. A backend that is named is never replaced.

    Raises
    ------
    ValueError
        For an unknown name, or a backend that cannot run on the device.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation is {interpolation!r}, expected one of {', '.join(INTERPOLATIONS)}")
    device_type = torch.device(device).type
    if backend == "auto":
        backend = "numba_cpu" if device_type == "cpu" else "torch_ref"
    logger.debug("projector %s on %s, %s, oversampling %d", backend, device, interpolation, oversampling)
    if backend == "numba_cpu":
        if device_type != "cpu":
            raise ValueError(f"the backend numba_cpu runs on the CPU only, not on {device}")
        from solvar_engine.projectors.numba_cpu import NumbaProjector

        return NumbaProjector(box_size, disk, interpolation=interpolation, oversampling=oversampling)
    if backend == "torch_ref":
        from solvar_engine.projectors.torch_ref import TorchProjector

        return TorchProjector(
            box_size, disk, interpolation=interpolation, oversampling=oversampling, device=device
        )
    raise ValueError(f"projector backend is {backend!r}, expected auto, numba_cpu or torch_ref")
