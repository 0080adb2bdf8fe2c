"""What every projector does. A backend writes how a grid is made, read and filled, and overrides what it can fuse."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from solvar_engine.imaging.background import bytes_per_image
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors.checks import check_pose_mixture, check_rotation, check_slices, check_volumes
from solvar_engine.projectors.combinations import (
    combine_with_images,
    gram_with_images,
    pose_products,
    rotation_derivatives,
)


class ConvolutionSums(Protocol):
    """Sums over images that make the normal equations of a reconstruction, whose operator is a convolution."""

    def add(self, images: Tensor, power: Tensor, rotation: Tensor) -> None:
        """Add images times their transfer functions, and these squared, each (n, pixels), complex."""
        ...

    def right_side(self) -> Tensor:
        """Back-projection of the images (z, y, x)."""
        ...

    def kernel(self) -> Tensor:
        """Back-projection of the squared transfer functions to twice the box, (2 z, 2 y, 2 x)."""
        ...


class Projector(ABC):
    """Linear operator from volumes to central slices, linear in the volumes.

    The volumes first become a ``grid`` (temporary, of the backend's own layout: usually their oversampled transform),
    from which slices at any rotation are taken. ``project`` after ``to_grid`` and ``to_volumes`` after ``backproject``
    are exact adjoints for the real inner products sum Re(conj(a) b) over the pixel list and the sum over voxels.

    Arguments are checked here, once for all backends, because compiled kernels would follow them out of their arrays.
    Gram matrices, combinations and pose products are made from slices by plain torch unless a backend overrides
    `_gram`, `_combine` or `_pose_products`, or what makes slices and products at once: `_read_with_gram`,
    `_add_combinations`.

    Parameters
    ----------
    box_size : int
        Edge of the volumes, px.
    disk : HalfDisk
        Pixels of the slices.
    device : torch.device or str
        Where grids, accumulators and slices lie.
    dtype : torch.dtype
        Real type of the volumes.

    Attributes
    ----------
    chunk_bytes : int
        Size of the slices that are best handled in one call; see :func:`images_per_call`.
    buffer_bytes : float
        Memory that calls take beside their arguments and results, if that counts.
    """

    chunk_bytes: int
    buffer_bytes: float = 0.0

    def __init__(
        self,
        box_size: int,
        disk: HalfDisk,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.box_size = box_size
        self.disk = disk
        self._device, self._dtype = torch.device(device), dtype
        self._weight = disk.weight.to(self._device, dtype)

    # ---------------------------------------------------------------- what a backend writes

    @abstractmethod
    def new_accumulator(self, channels: int) -> Tensor:
        """Zeros into which :meth:`backproject` adds; one tensor, even where it holds several partial sums."""

    @abstractmethod
    def grid_bytes(self, channels: int) -> float:
        """Memory of a grid of so many channels."""

    @abstractmethod
    def accumulator_bytes(self, channels: int, threads: int) -> float:
        """Memory of an accumulator that so many threads of the CPU add into, and of what it is merged into."""

    @abstractmethod
    def convolution_sums(self) -> ConvolutionSums:
        """Start sums for the normal equations of a reconstruction.

        Raises
        ------
        ValueError
            If there is a grid of another oversampling than two: the kernel needs exactly twice the box.
        """

    @abstractmethod
    def _to_grid(self, volumes: Tensor) -> Tensor:
        """Grid of volumes of this device and type."""

    @abstractmethod
    def _to_volumes(self, merged: Tensor) -> Tensor:
        """Adjoint of `_to_grid`."""

    @abstractmethod
    def _check_grid(self, name: str, grid: Tensor) -> None:
        """Raise ValueError unless this is a grid or an accumulator of such a projector."""

    @abstractmethod
    def _channels(self, grid: Tensor) -> int:
        """Number of channels of a grid or an accumulator."""

    @abstractmethod
    def _read(self, grid: Tensor, rotation: Tensor, ctf: Tensor | None) -> Tensor:
        """Slices (n, pixels, channels), times the transfer functions if there are any."""

    @abstractmethod
    def _add(self, slices: Tensor, rotation: Tensor, ctf: Tensor | None, out: Tensor) -> None:
        """Adjoint of `_read`: add to an accumulator."""

    @abstractmethod
    def _read_with_slopes(self, grid: Tensor, rotation: Tensor, ctf: Tensor) -> tuple[Tensor, Tensor]:
        """Slices, and their derivatives (n, pixels, channels, 3) by the frequency, Fourier pixels, frame of the volume.

        Raises
        ------
        ValueError
            If there are none.
        """

    # ---------------------------------------------------------------- what it may override

    def merged(self, accumulator: Tensor) -> Tensor:
        """Sum of the partial sums of an accumulator: of the layout of a grid."""
        return accumulator

    def _gram(self, slices: Tensor, images: Tensor) -> Tensor:
        return gram_with_images(slices, images, self._weight)

    def _combine(self, slices: Tensor, images: Tensor, coefficients: Tensor) -> Tensor:
        return combine_with_images(slices, images, coefficients, self._weight)

    def _read_with_gram(
        self, grid: Tensor, rotation: Tensor, ctf: Tensor, images: Tensor
    ) -> tuple[Tensor, Tensor]:
        slices = self._read(grid, rotation, ctf)
        return slices, self._gram(slices, images)

    def _add_combinations(
        self,
        slices: Tensor,
        images: Tensor,
        coefficients: Tensor,
        rotation: Tensor,
        ctf: Tensor,
        out: Tensor,
    ) -> None:
        self._add(self._combine(slices, images, coefficients), rotation, ctf, out)

    def _pose_products(
        self,
        grid: Tensor,
        rotation: Tensor,
        ctf: Tensor,
        images: Tensor,
        coefficients: Tensor,
        moments: Tensor,
    ) -> tuple[Tensor, Tensor]:
        slices, slopes = self._read_with_slopes(grid, rotation, ctf)
        pixels = self.disk.pixels.to(self._device, self._dtype)
        turned = rotation_derivatives(slopes.movedim(2, 0), rotation.to(self._dtype), pixels).movedim(0, 2)
        return pose_products(slices, turned, images, coefficients, moments, self.disk)

    # ---------------------------------------------------------------- what all share

    def to_grid(self, volumes: Tensor) -> Tensor:
        """Prepare real volumes (channels, z, y, x) for slicing."""
        check_volumes("volumes", volumes, self.box_size)
        return self._to_grid(volumes.to(self._device, self._dtype))

    def to_volumes(self, accumulator: Tensor) -> Tensor:
        """Adjoint of :meth:`to_grid`: turn an accumulator into real volumes (channels, z, y, x)."""
        self._check_grid("accumulator", accumulator)
        return self._to_volumes(self.merged(accumulator))

    def project(self, grid: Tensor, rotation: Tensor, ctf: Tensor | None = None) -> Tensor:
        """Slice all channels at each rotation.

        Parameters
        ----------
        grid : Tensor
            From :meth:`to_grid`.
        rotation : Tensor, shape (n, 3, 3), float32
            Image to volume.
        ctf : Tensor, shape (n, pixels), real, optional
            Contrast transfer functions, by which the slices are multiplied.

        Returns
        -------
        Tensor, shape (n, pixels, channels), complex
        """
        check_rotation(rotation)
        self._check_grid("grid", grid)
        return self._read(grid, rotation, self._checked(ctf, rotation))

    def backproject(self, slices: Tensor, rotation: Tensor, out: Tensor, ctf: Tensor | None = None) -> None:
        """Add the adjoint of :meth:`project` of slices (n, pixels, channels) to an accumulator."""
        check_rotation(rotation)
        self._check_grid("out", out)
        check_slices("slices", slices, rotation.shape[0], len(self.disk), self._channels(out))
        self._add(slices, rotation, self._checked(ctf, rotation), out)

    def project_with_gram(
        self, grid: Tensor, rotation: Tensor, ctf: Tensor, images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Slice all channels and correlate them with each other and with the images.

        Parameters
        ----------
        grid, rotation, ctf
            As for :meth:`project`.
        images : Tensor, shape (n, pixels), complex

        Returns
        -------
        slices : Tensor, shape (n, pixels, channels), complex
        gram : Tensor, shape (n, channels + 1, channels + 1), float64
            Real inner products over the full plane (Hermitian weights), the image being the last channel.
        """
        check_rotation(rotation)
        self._check_grid("grid", grid)
        count, pixels = rotation.shape[0], len(self.disk)
        check_slices("images", images, count, pixels)
        check_slices("ctf", ctf, count, pixels)
        return self._read_with_gram(grid, rotation, ctf.to(self._dtype), images)

    def backproject_combination(
        self,
        slices: Tensor,
        images: Tensor,
        coefficients: Tensor,
        rotation: Tensor,
        ctf: Tensor,
        out: Tensor,
    ) -> None:
        """Back-project, with Hermitian weights, linear combinations of each image's slices and the image itself.

        Parameters
        ----------
        slices : Tensor, shape (n, pixels, channels), complex
        images : Tensor, shape (n, pixels), complex
        coefficients : Tensor, shape (n, channels + 1, channels_out), real
            Column by column the weights of the slices and, last, of the image.
        rotation, ctf
            As for :meth:`project`.
        out : Tensor
            Accumulator of ``channels_out`` channels, modified.
        """
        check_rotation(rotation)
        self._check_grid("out", out)
        count, pixels = rotation.shape[0], len(self.disk)
        check_slices("slices", slices, count, pixels, slices.shape[-1])
        check_slices("images", images, count, pixels)
        check_slices("ctf", ctf, count, pixels)
        check_slices("coefficients", coefficients, count, slices.shape[-1] + 1, self._channels(out))
        self._add_combinations(slices, images, coefficients, rotation, ctf.to(self._dtype), out)

    def pose_products(
        self,
        grid: Tensor,
        rotation: Tensor,
        ctf: Tensor,
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
        grid, rotation, ctf
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
        check_rotation(rotation)
        self._check_grid("grid", grid)
        check_slices("ctf", ctf, rotation.shape[0], len(self.disk))
        check_pose_mixture(coefficients, moments, images, rotation.shape[0], len(self.disk), self._channels(grid))
        return self._pose_products(grid, rotation, ctf.to(self._dtype), images, coefficients, moments)

    def _checked(self, ctf: Tensor | None, rotation: Tensor) -> Tensor | None:
        if ctf is None:
            return None
        check_slices("ctf", ctf, rotation.shape[0], len(self.disk))
        return ctf.to(self._dtype)


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
    bytes_of_image = len(projector.disk) * channels * 8 + bytes_per_image(projector.disk)
    return max(16, projector.chunk_bytes // bytes_of_image)
