"""Inner products and linear combinations of slices and images, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk

_IMAGES_TOGETHER = 32
"""Images that are widened to float64 at a time, so that no copy of a whole batch is made."""


def gram_with_images(slices: Tensor, images: Tensor, weight: Tensor) -> Tensor:
    """Real inner products, over the full plane, of each image's slices and the image itself.

    Parameters
    ----------
    slices : Tensor, shape (n, pixels, channels), complex
    images : Tensor, shape (n, pixels), complex
    weight : Tensor, shape (pixels,), real
        Hermitian weights.

    Returns
    -------
    Tensor, shape (n, channels + 1, channels + 1), float64
        The image is the last channel.

    Examples
    --------
    >>> one = torch.ones(1, 4, 1, dtype=torch.complex64)
    >>> gram_with_images(one, 2 * one[..., 0], torch.ones(4))[0].tolist()
    [[4.0, 8.0], [8.0, 16.0]]
    """
    wide_weight = weight.double()[:, None, None]
    parts = []
    for some_slices, some_images in zip(
        slices.split(_IMAGES_TOGETHER), images.split(_IMAGES_TOGETHER), strict=True
    ):
        columns = torch.cat((some_slices, some_images[..., None]), dim=-1)
        values = torch.view_as_real(columns).double().transpose(2, 3)  # (n, pixels, 2, channels)
        weighted = (values * wide_weight).flatten(1, 2)
        parts.append(weighted.mT @ values.flatten(1, 2))
    return torch.cat(parts)


def combine_with_images(slices: Tensor, images: Tensor, coefficients: Tensor, weight: Tensor) -> Tensor:
    """Hermitian-weighted linear combinations of each image's slices and the image itself.

    Parameters
    ----------
    slices : Tensor, shape (n, pixels, channels), complex
    images : Tensor, shape (n, pixels), complex
    coefficients : Tensor, shape (n, channels + 1, channels_out), real
    weight : Tensor, shape (pixels,), real

    Returns
    -------
    Tensor, shape (n, pixels, channels_out), complex

    Examples
    --------
    >>> one = torch.ones(1, 4, 1, dtype=torch.complex64)
    >>> combine_with_images(one, one[..., 0], torch.tensor([[[3.0], [4.0]]]), torch.ones(4))[0, 0].tolist()
    [(7+0j)]
    """
    columns = torch.cat((slices, images[..., None]), dim=-1) * weight[:, None]
    return columns @ coefficients.to(columns.dtype)


def phase_slope(disk: HalfDisk) -> Tensor:
    """Phase by which each pixel of a slice turns per pixel of the disk's box that the image is shifted: (pixels, 2)."""
    return disk.pixels.double() * (2 * torch.pi / disk.box_size)


def rotation_derivatives(slopes: Tensor, rotation: Tensor, pixels: Tensor) -> Tensor:
    """Derivatives of slices by a rotation vector in the frame of the image: slope . R (w x k).

    Parameters
    ----------
    slopes : Tensor, shape (..., n, pixels, 3), complex
        Derivatives by the frequency (x, y, z) in the frame of the volume.
    rotation : Tensor, shape (n, 3, 3)
    pixels : Tensor, shape (pixels, 2)
        (kx, ky) in the unit of the slopes.

    Returns
    -------
    Tensor, shape (..., n, pixels, 3), complex

    Examples
    --------
    >>> slopes = torch.tensor([[[0.0, 0.0, 5.0]]])
    >>> rotation_derivatives(slopes, torch.eye(3)[None], torch.tensor([[2.0, 3.0]])).tolist()
    [[[15.0, -10.0, 0.0]]]
    """
    x, y, z = (slopes @ rotation.to(slopes.dtype)).unbind(-1)  # in the frame of the image
    kx, ky = pixels.unbind(-1)
    return torch.stack((ky * z, -kx * z, kx * y - ky * x), dim=-1)


def pose_products(
    slices: Tensor, derivatives: Tensor, images: Tensor, coefficients: Tensor, moments: Tensor, disk: HalfDisk
) -> tuple[Tensor, Tensor]:
    """Products of :meth:`~.base.Projector.pose_products` from slices and the derivatives of every channel.

    Parameters
    ----------
    slices : Tensor, shape (n, pixels, channels), complex
    derivatives : Tensor, shape (n, pixels, channels, 3), complex
        By the rotation vector.
    images, coefficients, moments
        As there.
    disk : HalfDisk

    Returns
    -------
    products : Tensor, shape (n, 5, channels + 6), float64
    turn : Tensor, shape (n, 3), float64
    """
    kind, channels = slices.dtype, slices.shape[-1]
    weight = disk.weight.to(slices.device)
    mixed = slices @ coefficients.to(kind)[..., None]
    turned = torch.einsum("npck,nc->npk", derivatives, coefficients.to(kind))
    moved = 1j * phase_slope(disk).to(kind) * mixed
    columns = torch.cat((slices, turned, moved), dim=-1)
    products = gram_with_images(columns, images, weight)[:, channels : channels + 5]
    reverse = (slices @ moments.to(kind)).conj() * weight[:, None]
    turn = torch.einsum("npc,npck->nk", reverse, derivatives).real
    return products, turn.double()
