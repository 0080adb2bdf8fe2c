"""Figures of volumes: the mean, the eigenvolumes, and the states along each component."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from solvar_engine.reports import style
from solvar_engine.reports.model import ReportFigure, RunData

STEPS = (-2, -1, 0, 1, 2)
CROP_MARGIN = 3
OUTLINE_LEVEL = 0.2
OUTLINE_SMOOTHING = 0.015
AXIS_NAMES = ("z", "y", "x")


@style.styled
def maps_figure(data: RunData) -> ReportFigure | None:
    """Draw three orthogonal sections and projections of the mean and of each eigenvolume."""
    if data.mean is None:
        return None
    window = crop_window(data.mean.shape[0], data.mask)
    volumes = [data.mean[window], *(volume[window] for volume in data.eigenvolumes)]
    names = ["mean", *(data.components.title(index) for index in range(len(data.eigenvolumes)))]
    mask = None if data.mask is None else data.mask[window]
    figure, panels = style.picture_grid(len(volumes), 6)
    for row, (volume, name) in enumerate(zip(volumes, names, strict=True)):
        _draw_volume_row(panels[row], volume, mask, is_mean=row == 0)
        is_good = row == 0 or bool(data.components.is_reproducible[row - 1])
        panels[row, 0].set_ylabel(
            name.replace(" (", "\n("), fontsize=9, color=style.INK if is_good else style.VERMILLION
        )
    titles = [f"{kind} along {axis}" for kind in ("section", "sum") for axis in AXIS_NAMES]
    for column, title in enumerate(titles):
        panels[0, column].set_title(title, fontsize=9, loc="center")
    _draw_scale_bar(panels[0, 0], volumes[0].shape[2], data.pixel_size)
    caption = (
        "Left three: central sections; right three: sums along the same axes. Mean in grey (bright is "
        "dense). Components: red is density that appears and blue is density that disappears as the "
        "particle's coordinate grows; a red and a blue flank on the two sides of a domain is that domain "
        "moving. The thin line is the edge of the mask."
    )
    return ReportFigure("The mean and what varies about it", caption + _how_many(data), figure)


def _how_many(data: RunData) -> str:
    """Say how many components are drawn if not all are."""
    n_drawn, n_components = len(data.eigenvolumes), data.z.shape[1]
    return f" The first {n_drawn} of {n_components} components are drawn." if n_drawn < n_components else ""


def crop_window(box_size: int, mask: NDArray[np.floating] | None) -> tuple[slice, slice, slice]:
    """Return the central cube that holds the mask, with a small margin.

    Parameters
    ----------
    box_size : int
        Edge of the volume, voxels.
    mask : ndarray, shape (z, y, x), or None
        Values in [0, 1]; without one (or with an empty one) the whole box is returned.

    Returns
    -------
    tuple of three slices
        The same range on each axis, symmetric about the centre ``box_size // 2``.

    Examples
    --------
    >>> crop_window(16, None)[0]
    slice(0, 16, None)
    """
    if mask is None or not (mask > 0.01).any():
        return (slice(0, box_size),) * 3
    distance = np.abs(np.argwhere(mask > 0.01) - box_size // 2).max() + CROP_MARGIN
    centre = box_size // 2
    return (slice(max(0, int(centre - distance)), min(box_size, int(centre + distance + 1))),) * 3


def _draw_volume_row(
    panels: Sequence[Axes], volume: NDArray[np.floating], mask: NDArray[np.floating] | None, is_mean: bool
) -> None:
    """Draw sections, then sums, of one volume."""
    middle = volume.shape[0] // 2
    sections = [volume.take(middle, axis=axis) for axis in range(3)]
    sums = [volume.sum(axis=axis) for axis in range(3)]
    for index, pictures in enumerate((sections, sums)):
        low, high = _density_limits(pictures) if is_mean else _symmetric_limits(pictures)
        cmap = style.VOLUME_MAP if is_mean else style.DIVERGING_MAP
        for axis, picture in enumerate(pictures):
            axes = panels[3 * index + axis]
            _draw_picture(axes, picture, cmap, low, high)
            if mask is not None:
                outline = mask.take(middle, axis=axis) if index == 0 else mask.max(axis=axis)
                _draw_outline(axes, outline, 0.5, style.ORANGE if is_mean else style.GREY, linewidth=0.7)


def _draw_picture(axes: Axes, picture: NDArray[np.floating], cmap: str, low: float, high: float) -> None:
    """Draw a slice with its first axis upwards."""
    axes.imshow(picture, cmap=cmap, vmin=low, vmax=high, origin="lower", interpolation="bicubic")


def _draw_outline(
    axes: Axes, picture: NDArray[np.floating], level: float, color: str, linewidth: float = 1.0
) -> None:
    """Draw a contour, if the picture crosses the level at all."""
    if picture.min() < level < picture.max():
        axes.contour(picture, levels=[level], colors=[color], linewidths=[linewidth])


def _density_limits(pictures: Sequence[NDArray[np.floating]]) -> tuple[float, float]:
    """Return grey limits: a little below the background to nearly the brightest."""
    values = np.concatenate([picture.ravel() for picture in pictures])
    low, high = float(np.percentile(values, 1)), float(np.percentile(values, 99.8))
    return low, max(high, low + 1e-12)


def _symmetric_limits(pictures: Sequence[NDArray[np.floating]]) -> tuple[float, float]:
    """Return limits about zero, so that white is no change."""
    high = max(float(np.percentile(np.abs(np.concatenate([p.ravel() for p in pictures])), 99.8)), 1e-12)
    return -high, high


def _draw_scale_bar(axes: Axes, n_pixels: int, pixel_size: float | None) -> None:
    """Draw a bar of a round number of Angstrom, about a quarter of the picture."""
    if not pixel_size:
        return
    aim = 0.3 * n_pixels * pixel_size
    magnitude = 10.0 ** np.floor(np.log10(aim))
    length = max(step * magnitude for step in (1, 2, 5) if step * magnitude <= aim)
    start = 0.06 * n_pixels
    axes.plot([start, start + length / pixel_size], [start, start], color="white", linewidth=2.5)
    axes.text(
        start + length / pixel_size / 2, start + 0.03 * n_pixels, f"{length:g} Å", color="white", ha="center",
        va="bottom", fontsize=8,
    )  # fmt: skip


@style.styled
def states_figure(data: RunData) -> ReportFigure | None:
    """Draw the states from -2 to +2 standard deviations along each component."""
    if data.mean is None or not data.eigenvolumes:
        return None
    window = crop_window(data.mean.shape[0], data.mask)
    mask = np.ones_like(data.mean[window]) if data.mask is None else data.mask[window]
    mean = data.mean[window] * mask
    figure, panels = style.picture_grid(len(data.eigenvolumes), len(STEPS) + 1)
    for row, eigenvolume in enumerate(data.eigenvolumes):
        deviation = np.sqrt(max(float(np.nan_to_num(data.components.eigenvalue[row])), 0.0))
        axis = clearest_axis(eigenvolume[window])
        change = deviation * eigenvolume[window].sum(axis=axis)
        _draw_state_row(panels[row], mean.sum(axis=axis), change)
        is_good = bool(data.components.is_reproducible[row])
        panels[row, 0].set_ylabel(
            data.components.title(row).replace(" (", "\n(") + f"\nseen along {AXIS_NAMES[axis]}",
            fontsize=9,
            color=style.INK if is_good else style.VERMILLION,
        )
    for column, step in enumerate(STEPS):
        title = "mean" if step == 0 else f"{step:+d} sd".replace("-", "−")
        panels[0, column].set_title(title, fontsize=9, loc="center")
    panels[0, -1].set_title("+2 sd minus −2 sd", fontsize=9, loc="center")
    _draw_scale_bar(panels[0, 0], mean.shape[2], data.pixel_size)
    caption = (
        "The molecule along each component: mean plus −2 to +2 standard deviations (square root of the "
        "held-out eigenvalue), summed along the axis in which the change shows best. The orange line is the "
        "outline of the mean in every picture: look where the density leaves it. Right: the difference of "
        "the two ends, red gained and blue lost. States are mean plus one component, which shows small "
        "motions well and blurs large ones."
    )
    return ReportFigure("States along each component", caption + _how_many(data), figure)


def clearest_axis(eigenvolume: NDArray[np.floating]) -> int:
    """Return the array axis along which the sum of an eigenvolume keeps most of its energy.

    Parameters
    ----------
    eigenvolume : ndarray, shape (z, y, x)
        A volume with positive and negative parts.

    Returns
    -------
    int
        0 (z), 1 (y) or 2 (x).

    Examples
    --------
    >>> volume = np.zeros((4, 4, 4))
    >>> volume[0, 0, 0], volume[0, 0, 3] = 1, -1  # cancels when summed along x
    >>> clearest_axis(volume)
    0
    """
    return int(np.argmax([np.square(eigenvolume.sum(axis=axis)).sum() for axis in range(3)]))


def _draw_state_row(panels: Sequence[Axes], mean: NDArray[np.floating], change: NDArray[np.floating]) -> None:
    """Draw the states of one component and the difference of its ends."""
    pictures = [mean + step * change for step in STEPS]
    low, high = _density_limits([mean])[0], _density_limits(pictures)[1]
    # Smoothed, so that the outline is one line and not a speckle at every weak spot.
    smooth = gaussian_filter(mean, max(1.0, OUTLINE_SMOOTHING * mean.shape[0]))
    level = OUTLINE_LEVEL * float(smooth.max())
    for axes, picture in zip(panels, pictures, strict=False):
        _draw_picture(axes, picture, style.VOLUME_MAP, low, high)
        _draw_outline(axes, smooth, level, style.ORANGE)
    difference = (STEPS[-1] - STEPS[0]) * change
    _draw_picture(panels[-1], difference, style.DIVERGING_MAP, *_symmetric_limits([difference]))
    _draw_outline(panels[-1], smooth, level, style.GREY)
