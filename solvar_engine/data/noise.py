"""Background and noise of particle images."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk, images_to_disk
from solvar_engine.imaging.masks import real_radius
from solvar_engine.imaging.shells import shell_means

BACKGROUND_RADIUS = 0.47  # of the box: outside this circle an image is taken for background
_STRANGE = 10.0  # sampling errors between an image's background deviation and the median


def background_mask(box_size: int, device: torch.device | str = "cpu") -> Tensor:
    """Pixels outside the particle, shape (y, x), bool."""
    return real_radius(box_size, 2, device) > BACKGROUND_RADIUS * box_size


def background_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the background of each image.

    Parameters
    ----------
    images : Tensor, shape (n, y, x), float32

    Returns
    -------
    mean, deviation : Tensor, shape (n,), float32

    Examples
    --------
    >>> background_statistics(torch.full((1, 16, 16), 2.0))[0].item()
    2.0
    """
    background = images[:, background_mask(images.shape[-1], images.device)]
    return background.mean(dim=1), background.std(dim=1)


def background_power(images: Tensor, disk: HalfDisk) -> Tensor:
    """Noise variance per shell, from the background of images whose background mean is zero.

    Parameters
    ----------
    images : Tensor, shape (n, y, x), float32
    disk : HalfDisk

    Returns
    -------
    Tensor, shape (n, shells), float64
        Smoothed by the transform of the background's shape.
    """
    background = background_mask(images.shape[-1], images.device).to(images.dtype)
    power = images_to_disk(images * background, disk).abs().double() ** 2 / float(background.mean())
    return shell_means(power, disk)


def repair_origin(noise_variance: Tensor, input_box: int) -> Tensor:
    """Give the origin the noise that subtracting the background's mean has left there.

    The background's own spectrum vanishes at the origin and is too low beside it. With a fraction f of the pixels in
    the background, the orthonormal coefficient at the origin keeps the noise of the others, variance (1 - f) sigma^2,
    and takes (1 / f - 1)^2 f sigma^2 from the mean that is subtracted: (1 / f - 1) sigma^2 in all.

    Parameters
    ----------
    noise_variance : Tensor, shape (..., shells)
        From :func:`background_power`.
    input_box : int
        Box of the images on disk, px.

    Returns
    -------
    Tensor, shape (..., shells)
    """
    repaired = noise_variance.clone()
    level = noise_variance[..., 2:5].mean(dim=-1)
    repaired[..., 0] = level * (1 / float(background_mask(input_box).float().mean()) - 1)
    repaired[..., 1] = torch.maximum(repaired[..., 1], level)
    return repaired


def normalisation(deviation: Tensor, background_pixels: int) -> Tensor:
    """Factors that bring images to a common background deviation, ones for those that have it already.

    Images that differ by no more than the sampling error of their own deviation are left alone: scaling them would only
    add that error. Single images far from the others are brought to them: one hot pixel would outweigh a data set.

    Parameters
    ----------
    deviation : Tensor, shape (n,)
        Background standard deviation of each image of one optics group.
    background_pixels : int
        Number of pixels that each was measured on.

    Returns
    -------
    Tensor, shape (n,), float32
        Median deviation over each deviation, or one.
    """
    median = deviation.median()
    difference = (deviation / median - 1).abs()
    sampling_error = (0.5 / background_pixels) ** 0.5
    if 1.4826 * float(difference.median()) > 3 * sampling_error:
        return median / deviation
    return torch.where(difference > _STRANGE * sampling_error, median / deviation, 1.0)
