"""Pixels that a detector or an extraction has made, in one image or at one place of all: found, and replaced.

A single pixel that lies far beyond all around is none of a molecule, however strong that is: it would hold most of the
power of the image. A hot pixel at one place of all images is no noise, since it does not average out, and no molecule,
since images turn: it becomes a component. The average image and the variance over images show it. What particles put
there is smooth, even where all are seen from one side: beside the sampling error and what the neighbourhood holds, a
fixed pixel stands out above all but a few pixels around it, and at frequencies near Nyquist in both directions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from solvar_engine.distributed.world import Share
from solvar_engine.imaging.sampling import sample_of

if TYPE_CHECKING:
    from solvar_engine.data.particles import ParticleStack
    from solvar_engine.data.stream import PreparedParticles

Array = NDArray[np.float64]

_IMAGES, _LEAST_IMAGES = 2_000, 100
_TOGETHER = 2_000_000  # pixels
_LARGEST = 10.0  # standard deviations of an image, that one of its pixels counts for
_SURE = 10.0  # standard errors
_SHARP = 0.1  # of what stands out, at frequencies near Nyquist
_LEAST_MEAN, _LEAST_LOG_VARIANCE = 0.1, np.log(4.0)  # standard deviations of images; what is less does no harm
_NO_VARIANCE = 0.1  # of an image: less is that of images almost without noise
_NEARBY = 7  # px, whose own roughness counts
_MOST = 0.2  # of the pixels
_FOURTH_DIFFERENCE = np.array([1, -4, 6, -4, 1]) / 6.0  # 1 for a single pixel
_SHOWN = 5
_FEW = 4  # of the 24 pixels around, that may be faulty, too
_FAR = 8.0  # standard deviations of an image
_MOST_NEAR_ZEROS = 0.01  # of the power elsewhere: of images that were multiplied 0.001, of others 0.08
_TOO_MANY_CUT = "too many to be left out; extract them in a smaller box, or without particles near the edge"
MANY = 0.01
"""Of the images: what more of them have is told in a caution."""
CUT = 0.05
"""Of the box: images whose repeated edges are deeper may show a part of the particle only."""
MOST_CUT = 0.5
"""Of the images: more are not left out, whatever makes their edges so."""


def find_fixed_pixels(stack: ParticleStack, share: Share) -> Tensor | None:
    """Find pixels that stand out at the same place of all images, in a sample of at most 2,000.

    Parameters
    ----------
    stack : ParticleStack
    share : Share
        Of this process, of the images.

    Returns
    -------
    Tensor, shape (y, x), bool
        None if there are none; or so many that their neighbours could not stand in for them.
    """
    own = share.own(sample_of(torch.arange(len(stack)), _IMAGES))
    box_size = stack.box_size
    total = torch.zeros(2, box_size, box_size, dtype=torch.float64)
    count = torch.zeros(1, dtype=torch.float64)
    for rows in own.split(max(1, _TOGETHER // box_size**2)):
        images = stack.images_with_faults(rows.numpy())[0].double()
        images -= images.mean(dim=(1, 2), keepdim=True)
        deviation = images.std(dim=(1, 2), keepdim=True)
        images = (images / deviation)[deviation.flatten() > 0].clamp(-_LARGEST, _LARGEST)
        total += torch.stack((images.sum(dim=0), images.square().sum(dim=0)))
        count += len(images)
    total, count = share.world.total(total, count)
    if float(count) < _LEAST_IMAGES:
        return None
    mean, square = (total / count).numpy()
    found = torch.from_numpy(fixed_pixels(mean, np.log(np.maximum(square - mean**2, 0) + _NO_VARIANCE)))
    return found if 0 < int(found.sum()) <= _MOST * found.numel() else None


def fixed_pixels(mean: Array, log_variance: Array) -> NDArray[np.bool_]:
    """Pixels, and whole rows and columns, that stand out in the average image or in the variance over images.

    Parameters
    ----------
    mean, log_variance : ndarray, shape (y, x)
        Of images of unit deviation.

    Returns
    -------
    ndarray of bool, shape (y, x)
    """
    found = np.zeros(mean.shape, dtype=bool)
    for values, least in ((mean, _LEAST_MEAN), (log_variance, _LEAST_LOG_VARIANCE)):
        for axis in (0, 1):
            lines = _standing_out(np.median(values, axis=axis), least)  # most of a line is beside the particle
            found |= lines[None, :] if axis == 0 else lines[:, None]
        found |= _standing_out(np.where(found, _replaced(values, found), values), least)
    return found


def replace_single_pixels(images: Tensor) -> Tensor:
    """Give single pixels far beyond all but a few of the 24 around the median of these, in place.

    Parameters
    ----------
    images : Tensor, shape (n, y, x)

    Returns
    -------
    Tensor, shape (n,), int64
        How many of each image.
    """
    deviation, mean = torch.std_mean(images, dim=(1, 2), keepdim=True)
    image, row, column = torch.nonzero((images - mean).abs() > _FAR * deviation, as_tuple=True)
    step = torch.arange(-2, 3, device=images.device).repeat(5)
    across, down = step, step.reshape(5, 5).T.flatten()
    last = images.shape[-1] - 1
    # mirrored at the edges
    rows, columns = (last - (last - (at[:, None] + by).abs()).abs() for at, by in ((row, down), (column, across)))
    around = images[image[:, None], rows, columns].sort(dim=1).values
    value, limit = images[image, row, column], _FAR * deviation[image, 0, 0]
    is_single = (value - around[:, -1 - _FEW] > limit) | (around[:, _FEW] - value > limit)
    found = image[is_single], row[is_single], column[is_single]
    images[found] = around[is_single].median(dim=1).values
    return torch.bincount(found[0].cpu(), minlength=len(images))


def repeated_edges(images: Tensor) -> Tensor:
    """How deep the rows or columns at an edge of images repeat each other, as where a box reaches beyond a micrograph.

    Parameters
    ----------
    images : Tensor, shape (n, y, x)

    Returns
    -------
    Tensor, shape (n,), int64
        Pixels; the largest of the four edges.
    """
    depth = torch.zeros(len(images), dtype=torch.int64)
    for turned in (images, images.flip(1), images.mT, images.mT.flip(1)):
        rows = torch.nonzero((turned[:, 0] == turned[:, 1]).all(dim=1)).flatten()
        same = (turned[rows, 1:] == turned[rows, :-1]).all(dim=2)
        depth[rows] = torch.maximum(depth[rows], same.long().cumprod(dim=1).sum(dim=1) + 1)
    return depth


def with_pixels_replaced(images: Tensor, fixed: Tensor) -> Tensor:
    """Images (n, y, x) with the average of the nearest pixels in place of those that are fixed (y, x)."""
    chosen, sources, weights = _neighbours(fixed.numpy())
    flat = images.flatten(1).clone()
    beside = flat[:, torch.from_numpy(sources).to(images.device)] * torch.from_numpy(weights).to(images)
    flat[:, torch.from_numpy(chosen).to(images.device)] = beside.sum(dim=2)
    return flat.reshape(images.shape)


def are_mostly_cut(images: PreparedParticles) -> bool:
    """Whether more images have edges that are not of the micrograph than can be left out."""
    depth = images.repeated_edges
    return depth is not None and int((depth > 0).sum()) > MOST_CUT * len(images)


def sentences_of(images: PreparedParticles, path: object) -> Iterator[str]:
    """Say which pixels of images were replaced, of single ones if many images have them; and which edges repeat.

    Also if backgrounds are not of their images, and if images do not look multiplied with their transfer functions,
    though they are said to be.
    """
    if images.fixed_pixels is not None:
        yield _sentence_of_fixed(images.fixed_pixels, path)
    single = images.single_pixels
    if single is not None and int((single > 0).sum()) > MANY * len(images):
        yield (
            f"{int((single > 0).sum())} of {len(images)} images of {path} have single pixels more than {_FAR:g} "
            f"standard deviations beyond those around ({int(single.sum())} in all): replaced by the median of these;"
            " were hot pixels of the detector left in?"
        )
    depth = images.repeated_edges
    if depth is not None and bool((depth > 0).any()):
        deep = depth[depth > 0]
        reach = f"{int(deep.min())} to {int(deep.max())} px" if len(deep) > 1 else f"{int(deep[0])} px"
        yield (
            f"{len(deep)} of {len(images)} images of {path} repeat one row or column over {reach} at an edge, as boxes"
            " do that reach beyond the micrograph: "
            + (_TOO_MANY_CUT if are_mostly_cut(images) else "left out, as outliers")
        )
    ratio = images.inner_noise
    if ratio is not None and int((ratio != 1).sum()) > MANY * len(images):
        typical = float(ratio[ratio != 1].median())
        yield (
            f"{int((ratio != 1).sum())} of {len(images)} images of {path} have {typical:.2g} times as much noise within"
            " the particle as outside, as if their background was replaced: they are scaled by the noise within; give"
            " images as they were extracted"
        )
    power = images.near_zeros
    if power is not None and float((power > _MOST_NEAR_ZEROS).float().mean()) > MANY:
        yield (
            f"{int((power > _MOST_NEAR_ZEROS).sum())} of {len(images)} images of {path} are said to be multiplied with"
            " their CTF (rlnCtfDataAreCtfPremultiplied), but hold more near its zeros than is left then: were they"
            " multiplied at all, with this CTF, and in boxes no larger than these? Extract them without that"
        )


def _sentence_of_fixed(fixed: Tensor, path: object) -> str:
    places = [f"{column + 1}, {row + 1}" for row, column in torch.nonzero(fixed).tolist()]
    shown = "; ".join(places[:_SHOWN]) + ("; ..." if len(places) > _SHOWN else "")
    what = "pixel stands" if len(places) == 1 else "pixels stand"
    return (
        f"{len(places)} {what} out at the same place of images of {path}, as by a detector's fault (column, row:"
        f" {shown}): replaced by the average of those beside"
    )


def _standing_out(values: Array, least: float) -> NDArray[np.bool_]:
    """Where an image, or a line, has values unlike those around and unlike anything smooth."""
    window = (5,) * values.ndim
    few = _FEW if values.ndim == 2 else _FEW // 2
    above = values - ndimage.rank_filter(values, -1 - few, size=window, mode="mirror")
    below = values - ndimage.rank_filter(values, few, size=window, mode="mirror")
    excess = np.maximum(above, 0) + np.minimum(below, 0)
    sharp = values
    for axis in range(values.ndim):
        sharp = ndimage.convolve1d(sharp, _FOURTH_DIFFERENCE, axis=axis, mode="mirror")
    noise_gain = float(np.square(_FOURTH_DIFFERENCE).sum() ** (values.ndim / 2))
    found = np.abs(excess) > np.maximum(least, _SURE * _deviation(sharp) / noise_gain)
    found &= (sharp * excess > 0) & (np.abs(sharp) > np.maximum(_SHARP * np.abs(excess), _SURE * _deviation(sharp)))
    for place in np.argwhere(found):
        nearby = tuple(slice(max(0, at - _NEARBY), at + _NEARBY + 1) for at in place)
        found[tuple(place)] = abs(sharp[tuple(place)]) > _SURE * _deviation(sharp[nearby])
    return found


def _deviation(values: Array) -> float:
    """Standard deviation without regard to outliers."""
    return 1.4826 * float(np.median(np.abs(values)))


def _replaced(values: Array, fixed: NDArray[np.bool_]) -> Array:
    image = torch.from_numpy(values)[None]
    return with_pixels_replaced(image, torch.from_numpy(fixed))[0].numpy() if fixed.any() else values


def _neighbours(fixed: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """For each of m fixed pixels, places and weights (m, k) of the sound ones in the smallest square around it."""
    box_size = len(fixed)
    parts = []
    for row, column in np.argwhere(fixed):
        for radius in range(1, box_size):
            first_row, first_column = max(0, row - radius), max(0, column - radius)
            square = ~fixed[first_row : row + radius + 1, first_column : column + radius + 1]
            if square.any():
                break
        y, x = np.nonzero(square)
        parts.append((y + first_row) * box_size + x + first_column)
    most = max(len(part) for part in parts)
    sources, weights = np.zeros((len(parts), most), dtype=np.int64), np.zeros((len(parts), most))
    for number, part in enumerate(parts):
        sources[number, : len(part)], weights[number, : len(part)] = part, 1 / len(part)
    return np.flatnonzero(fixed), sources, weights
