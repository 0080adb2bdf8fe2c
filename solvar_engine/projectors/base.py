"""The interface of all projectors."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk


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
