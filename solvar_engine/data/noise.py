"""Background and noise of particle images."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.imaging.background import polynomials
from solvar_engine.imaging.fourier import HalfDisk, images_to_disk
from solvar_engine.imaging.masks import real_radius
from solvar_engine.imaging.shells import shell_means

BACKGROUND_RADIUS = 0.47  # of the box: outside this circle an image is taken for background
_DEPLETED_SHELLS = 6  # whose noise flattening lowers; it reaches shell 3 of images of the first optics group
_FLATTENED_TOGETHER = 512  # images, in double precision
_STRANGE = 10.0  # sampling errors between an image's background deviation and the median


def background_mask(box_size: int, device: torch.device | str = "cpu") -> Tensor:
    """Pixels outside the particle, shape (y, x), bool."""
    return real_radius(box_size, 2, device) > BACKGROUND_RADIUS * box_size


def flattened(images: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract from each image the slow background that fits it best outside the particle.

    That is a polynomial of second order (`solvar_engine.imaging.background`): a mean alone leaves a slope, which counts
    as noise and weakens the image.

    Parameters
    ----------
    images : Tensor, shape (n, y, x)

    Returns
    -------
    flat : Tensor, shape (n, y, x)
    deviation : Tensor, shape (n,)
        Standard deviation of what is left outside the particle.

    Examples
    --------
    >>> slope = torch.linspace(0, 1, 16).expand(1, 16, 16)
    >>> bool(flattened(slope)[0].abs().max() < 1e-6)
    True
    """
    outside = background_mask(images.shape[-1], images.device)
    basis = polynomials(images.shape[-1], images.device)
    orthonormal, triangle = torch.linalg.qr(basis[:, outside].T)
    flat, deviation = torch.empty_like(images), images.new_empty(len(images))
    for start in range(0, len(images), _FLATTENED_TOGETHER):
        rows = slice(start, start + _FLATTENED_TOGETHER)
        values = images[rows, outside].double()
        coordinates = torch.linalg.solve_triangular(triangle, (values @ orthonormal).T, upper=True).T
        flat[rows] = images[rows] - torch.einsum("nk,kyx->nyx", coordinates, basis).to(images.dtype)
        left = flat[rows, outside].double().square().sum(dim=1) / (int(outside.sum()) - len(basis))
        # what rounding leaves of a constant is no noise
        spread = values.amax(dim=1) - values.amin(dim=1)
        deviation[rows] = torch.where(spread > 0, left.sqrt(), 0.0).to(images.dtype)
    return flat, deviation


def background_power(images: Tensor, disk: HalfDisk) -> Tensor:
    """Noise variance per shell, from the background of flattened images.

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


def repair_low_shells(noise_variance: Tensor) -> Tensor:
    """Give the lowest shells the noise that subtracting the slow background has taken from the background's spectrum.

    Parameters
    ----------
    noise_variance : Tensor, shape (..., shells)
        From :func:`background_power`.

    Returns
    -------
    Tensor, shape (..., shells)
        The first six shells at least as high as those that follow.
    """
    repaired = noise_variance.clone()
    first = min(_DEPLETED_SHELLS, noise_variance.shape[-1] - 1)
    level = noise_variance[..., first : first + 3].mean(dim=-1, keepdim=True)
    repaired[..., :first] = torch.maximum(repaired[..., :first], level)
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
