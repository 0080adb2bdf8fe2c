"""The interface of all projectors, and the one place where a backend is chosen."""

from __future__ import annotations

import logging
from typing import Protocol

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk

logger = logging.getLogger(__name__)

INTERPOLATIONS = ("trilinear", "nearest", "nufft")

DEFAULT_OVERSAMPLING = 2

_NUFFT_BACKENDS = ("finufft_cpu",)
_GRID_BACKENDS = ("numba_cpu", "torch_ref")


class Projector(Protocol):
    """Linear operator from volumes to central slices, linear in the volumes.

    The volumes first become a ``grid`` (temporary, of the backend's own layout: usually their oversampled transform),
    from which slices at any rotation are taken. ``project`` after ``to_grid`` and ``to_volumes`` after ``backproject``
    are exact adjoints for the real inner products sum Re(conj(a) b) over the pixel list and the sum over voxels.

    Attributes
    ----------
    box_size : int
        Edge of the volumes, px.
    disk : HalfDisk
        Pixels of the slices.
    chunk_bytes : int
        Size of the slices that are best handled in one call; see :func:`images_per_call`.
    """

    box_size: int
    disk: HalfDisk
    chunk_bytes: int

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

    def pose_products(
        self,
        grid: Tensor,
        rotation: Tensor,
        factor: Tensor,
        images: Tensor,
        coefficients: Tensor,
        moments: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Correlate derivatives by the pose with the slices, with each other and with the images.

        The pose of an image has five parameters: a rotation vector w (radians) in the frame of the image, which turns
        ``rotation`` into ``rotation @ exp(w)``, and the shift (x, y) that centres the image, in pixels of the disk's
        box, which multiplies the slice that it is compared with by exp(2 pi i k . shift / box). Derivatives are those
        of one combination of channels per image, s = sum_j c_j P v_j.

        Parameters
        ----------
        grid, rotation, factor
            As for :meth:`project`.
        images : Tensor, shape (n, pixels), complex
        coefficients : Tensor, shape (n, channels), real
            c, the weights of the channels.
        moments : Tensor, shape (n, channels, channels), real
            M, symmetric.

        Returns
        -------
        products : Tensor, shape (n, 5, channels + 6), float64
            Real inner products over the full plane of the five derivatives of s with the slices, the derivatives and,
            last, the image.
        turn : Tensor, shape (n, 3), float64
            sum_ij M_ij <P v_i, dP v_j / dw>: half the derivative of tr(M G), G the Gram matrix of the slices.

        Raises
        ------
        ValueError
            If slices are piecewise constant (interpolation 'nearest') and have no derivative.
        """
        ...


def images_per_call(projector: Projector, channels: int) -> int:
    """Number of images whose slices of all channels fill what a projector best handles in one call.

    Parameters
    ----------
    projector : Projector
    channels : int

    Returns
    -------
    int
        At least 16.
    """
    return max(16, projector.chunk_bytes // (len(projector.disk) * channels * 8))


def create_projector(
    box_size: int,
    disk: HalfDisk,
    *,
    interpolation: str = "trilinear",
    oversampling: int = DEFAULT_OVERSAMPLING,
    tolerance: float | None = None,
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
    interpolation : {'trilinear', 'nearest', 'nufft'}
        How slices are read off a grid, or 'nufft' to evaluate the volumes' transform directly, without one.
    oversampling : int
        Zero-padding factor of the Fourier grid; 'nufft' has none and takes the default only.
    tolerance : float, optional
        Relative error of the slices, for 'nufft' only.
    device : torch.device or str
    backend : {'auto', 'numba_cpu', 'torch_ref', 'finufft_cpu'}
        ``auto`` takes Numba's kernels on a CPU and plain torch elsewhere, and FINUFFT for 'nufft'. A backend that is
        named is never replaced.

    Raises
    ------
    ValueError
        For an unknown name, a backend that cannot run on the device or has no such interpolation, or an argument that
        means nothing to it.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation is {interpolation!r}, expected one of {', '.join(INTERPOLATIONS)}")
    known = _NUFFT_BACKENDS if interpolation == "nufft" else _GRID_BACKENDS
    device_type = torch.device(device).type
    if backend == "auto":
        backend = known[0] if device_type == "cpu" else known[-1]
    if backend not in known:
        raise ValueError(f"projector backend is {backend!r}, expected auto or {' or '.join(known)} for {interpolation}")
    if backend.endswith("_cpu") and device_type != "cpu":
        raise ValueError(f"the backend {backend} runs on the CPU only, not on {device}")
    if interpolation == "nufft":
        if oversampling != DEFAULT_OVERSAMPLING:
            raise ValueError(f"oversampling is {oversampling}, but nufft has no grid to oversample: leave it out")
        logger.debug("projector %s on %s, %s", backend, device, interpolation)
        from solvar_engine.projectors.nufft import TOLERANCE, NufftProjector

        return NufftProjector(box_size, disk, tolerance=TOLERANCE if tolerance is None else tolerance)
    if tolerance is not None:
        raise ValueError(f"tolerance is {tolerance}, but {interpolation} has none: leave it out")
    logger.debug("projector %s on %s, %s, oversampling %d", backend, device, interpolation, oversampling)
    if backend == "numba_cpu":
        from solvar_engine.projectors.numba_cpu import NumbaProjector

        return NumbaProjector(box_size, disk, interpolation=interpolation, oversampling=oversampling)
    from solvar_engine.projectors.torch_ref import TorchProjector

    return TorchProjector(box_size, disk, interpolation=interpolation, oversampling=oversampling, device=device)
