"""Inner products and linear combinations of slices and images, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

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
