"""Overviews of volumes: the mean and the eigenvolumes, and the states along each component."""

from __future__ import annotations

from typing import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from solvar_engine.contract.results import Components
from solvar_engine.figures import style
from solvar_engine.figures.slices import (
    AXES,
    central_slice,
    central_window,
    color_limits,
    draw_outline,
    draw_picture,
    outlines_of,
)

STEPS = (-2, -1, 0, 1, 2)
"""States that are drawn, in standard deviations from the mean."""
MAP_COLUMNS, STATE_COLUMNS = 6, len(STEPS) + 1
OUTLINE_LEVEL = 0.2
OUTLINE_SMOOTHING = 0.015
_LEFT, _TOP, _GAP, _BORDER = 0.55, 0.3, 0.06, 0.03  # inches


def grid_height(n_rows: int, n_columns: int, width: float) -> float:
    """Height of a figure with rows of square pictures, inches."""
    return _TOP + n_rows * (_edge(n_columns, width) + _GAP) - _GAP + _BORDER


def _edge(n_columns: int, width: float) -> float:
    """Edge of a picture, inches."""
    return (width - _LEFT - _BORDER - (n_columns - 1) * _GAP) / n_columns


def _picture_grid(figure: Figure, n_rows: int, n_columns: int) -> np.ndarray:
    """Make square panels side by side, with room for row labels at the left and titles above."""
    width, height = figure.get_size_inches()
    edge = _edge(n_columns, width)
    figure.set_layout_engine("none")
    frame = {"left": _LEFT / width, "right": 1 - _BORDER / width, "top": 1 - _TOP / height, "bottom": _BORDER / height}
    gaps = {"wspace": _GAP / edge, "hspace": _GAP / edge}
    panels = figure.subplots(n_rows, n_columns, squeeze=False, gridspec_kw={**frame, **gaps})
    for axes in panels.flat:
        style.picture_axes(axes)
    return panels


def _name_row(axes: Axes, name: str, is_clear: bool) -> None:
    axes.set_ylabel(name.replace(" (", "\n("), fontsize=9, color=style.INK if is_clear else style.VERMILLION)


def _how_many(drawn: int, components: Components) -> str:
    """Say how many components are drawn if not all are."""
    return f" The first {drawn} of {len(components)} components are drawn." if drawn < len(components) else ""


def _crop(volume: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Cut a volume to the surroundings of the mask."""
    return volume[(central_window(mask, len(volume)),) * 3]


@style.styled
def draw_maps(
    figure: Figure,
    mean: np.ndarray,
    eigenvolumes: Sequence[np.ndarray],
    components: Components,
    pixel_size: float,
    mask: np.ndarray | None = None,
) -> str:
    """Draw three orthogonal sections and projections of the mean and of each eigenvolume.

    Parameters
    ----------
    figure : Figure
        Empty; `grid_height` of 1 + k rows and `MAP_COLUMNS` columns.
    mean : ndarray, shape (z, y, x)
    eigenvolumes : sequence of k ndarray, shape (z, y, x)
        The leading ones.
    components : Components
        At least k.
    pixel_size : float
        Angstrom; 0 if unknown.
    mask : ndarray, shape (z, y, x), optional
        Its edge is outlined, and pictures are cut to its surroundings.
    """
    panels = _picture_grid(figure, 1 + len(eigenvolumes), MAP_COLUMNS)
    names = ["mean", *(components.title(index) for index in range(len(eigenvolumes)))]
    is_clear = [True, *components.is_reproducible]
    for row, volume in enumerate((mean, *eigenvolumes)):
        _draw_volume_row(panels[row], _crop(volume, mask), None if mask is None else _crop(mask, mask), row > 0)
        _name_row(panels[row, 0], names[row], is_clear[row])
    titles = [f"{kind} along {axis}" for kind in ("section", "sum") for axis in AXES]
    for axes, title in zip(panels[0], titles):
        axes.set_title(title, fontsize=9, loc="center")
    style.scale_bar(panels[0, 0], len(_crop(mean, mask)), pixel_size)
    return (
        "Left three: central sections; right three: sums along the same axes. Mean in grey (bright is dense). "
        "Components: red is density that appears and blue is density that disappears as the particle's coordinate "
        "grows; a red and a blue flank on the two sides of a domain is that domain moving. The thin line is the edge "
        "of the mask." + _how_many(len(eigenvolumes), components)
    )


def _draw_volume_row(
    panels: Sequence[Axes], volume: np.ndarray, mask: np.ndarray | None, is_difference: bool
) -> None:
    """Draw sections, then sums, of one volume."""
    sections = [central_slice(volume, axis) for axis in AXES]
    sums = [volume.sum(axis=AXES.index(axis)) for axis in AXES]
    for start, pictures, outlines in zip((0, 3), (sections, sums), outlines_of(mask, volume)):
        limits = color_limits(pictures, is_difference)
        for index, picture in enumerate(pictures):
            outline = outlines[index] if outlines else None
            draw_picture(panels[start + index], picture, limits, is_difference, outline)


@style.styled
def draw_states(
    figure: Figure,
    mean: np.ndarray,
    eigenvolumes: Sequence[np.ndarray],
    components: Components,
    pixel_size: float,
    mask: np.ndarray | None = None,
) -> str:
    """Draw the states from -2 to +2 standard deviations along each component, summed along one axis.

    Parameters
    ----------
    figure : Figure
        Empty; `grid_height` of k rows and `STATE_COLUMNS` columns.
    mean, eigenvolumes, components, pixel_size, mask
        As for `draw_maps`; k is at least 1.
    """
    panels = _picture_grid(figure, len(eigenvolumes), STATE_COLUMNS)
    inside = _crop(mean if mask is None else mean * mask, mask)
    for row, eigenvolume in enumerate(eigenvolumes):
        part = _crop(eigenvolume, mask)
        axis = clearest_axis(part)
        change = components.deviation(row) * part.sum(axis=axis)
        _draw_state_row(panels[row], inside.sum(axis=axis), change)
        name = f"{components.title(row)}\nseen along {AXES[axis]}"
        _name_row(panels[row, 0], name, bool(components.is_reproducible[row]))
    titles = ["mean" if step == 0 else f"{step:+d} sd".replace("-", "−") for step in STEPS]
    for axes, title in zip(panels[0], (*titles, "+2 sd minus −2 sd")):
        axes.set_title(title, fontsize=9, loc="center")
    style.scale_bar(panels[0, 0], len(inside), pixel_size)
    return (
        "The molecule along each component: mean plus −2 to +2 standard deviations (square root of the held-out "
        "eigenvalue), summed along the axis in which the change shows best. The orange line is the outline of the "
        "mean in every picture: look where the density leaves it. Right: the difference of the two ends, red gained "
        "and blue lost. States are mean plus one component, which shows small motions well and blurs large ones."
        + _how_many(len(eigenvolumes), components)
    )


def clearest_axis(eigenvolume: np.ndarray) -> int:
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


def _draw_state_row(panels: Sequence[Axes], mean: np.ndarray, change: np.ndarray) -> None:
    """Draw the states of one component and the difference of its ends."""
    pictures = [mean + step * change for step in STEPS]
    limits = color_limits([mean], False)[0], color_limits(pictures, False)[1]
    # smoothed, so that the outline is one line and not a speckle at every weak spot
    smooth = _smoothed(mean, max(1.0, OUTLINE_SMOOTHING * len(mean)))
    level = OUTLINE_LEVEL * float(smooth.max())
    for axes, picture in zip(panels, pictures):
        draw_picture(axes, picture, limits, False)
        draw_outline(axes, smooth, level, style.ORANGE)
    difference = (STEPS[-1] - STEPS[0]) * change
    draw_picture(panels[-1], difference, color_limits([difference], True), True)
    draw_outline(panels[-1], smooth, level, style.GREY)


def _smoothed(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve a picture with a Gaussian; sigma in pixels, edges mirrored."""
    reach = int(np.ceil(4 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    for axis in (0, 1):
        padded = np.pad(picture, [(reach, reach) if axis == other else (0, 0) for other in (0, 1)], "symmetric")
        picture = np.apply_along_axis(np.convolve, axis, padded, kernel / kernel.sum(), mode="valid")
    return picture
