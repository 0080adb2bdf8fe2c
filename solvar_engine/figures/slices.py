"""Pictures of slices through a volume. Volumes have shape (z, y, x); a slice's first axis points up."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from solvar_engine.figures import style

AXES = ("z", "y", "x")
WINDOW_MARGIN = 3  # voxels
PLANES = {"z": ("x", "y"), "y": ("x", "z"), "x": ("y", "z")}
"""Axis that a slice lies across -> the axes that point right and up in it."""


def central_slice(volume: np.ndarray, axis: str) -> np.ndarray:
    """Cut a volume across an axis through the centre of the box, index ``box_size // 2``.

    Examples
    --------
    >>> volume = np.zeros((4, 4, 4)); volume[2, 1, 3] = 1
    >>> np.argwhere(central_slice(volume, "z")).tolist()  # row y, column x
    [[1, 3]]
    """
    return volume.take(volume.shape[0] // 2, axis=AXES.index(axis))


def montage_indices(extent: tuple[int, int], count: int) -> np.ndarray:
    """Choose the slices of a montage: evenly spaced, the first and the last a half step from the ends.

    Parameters
    ----------
    extent : (int, int)
        First and last index that may be chosen.
    count : int
        How many; fewer are returned if there are not so many.

    Examples
    --------
    >>> montage_indices((0, 9), 5).tolist()
    [1, 3, 5, 7, 9]
    """
    first, last = extent
    size = last - first + 1
    count = max(1, min(count, size))
    return first + ((np.arange(count) + 0.5) * size / count).astype(int)


def mask_extent(mask: np.ndarray | None, box_size: int, axis: str) -> tuple[int, int]:
    """First and last slice across an axis that the mask touches; without a mask (or an empty one) all.

    Examples
    --------
    >>> mask = np.zeros((8, 8, 8)); mask[2:5] = 1
    >>> mask_extent(mask, 8, "z")
    (2, 4)
    """
    if mask is None or mask.shape[0] != box_size:
        return 0, box_size - 1
    others = tuple(other for other in range(3) if other != AXES.index(axis))
    touched = np.flatnonzero((mask > 0.5).any(axis=others))
    return (int(touched[0]), int(touched[-1])) if len(touched) else (0, box_size - 1)


@style.styled
def draw_slices(
    figure: Figure, volume: np.ndarray, pixel_size: float, mask: np.ndarray | None = None, is_difference: bool = False
) -> str:
    """Draw the central slices across z, y and x, and below them the sums along the same axes.

    Parameters
    ----------
    figure : Figure
    volume : ndarray, shape (z, y, x)
        A map.
    pixel_size : float
        Angstrom; 0 if unknown.
    mask : ndarray, shape (z, y, x), optional
        Its edge is outlined.
    is_difference : bool
        Whether the volume has both signs (an eigenvolume): drawn in red and blue about zero.
    """
    panels = figure.subplots(2, 3)
    box_size = volume.shape[0]
    pictures = (
        [central_slice(volume, axis) for axis in AXES],
        [volume.sum(axis=AXES.index(axis)) for axis in AXES],
    )
    outlines = outlines_of(mask, volume)
    for row, label in enumerate(("density", "sum of the density along the axis")):
        limits = color_limits(pictures[row], is_difference)
        for column, axis in enumerate(AXES):
            axes = panels[row, column]
            outline = outlines[row][column] if outlines[row] else None
            image = draw_picture(axes, pictures[row][column], limits, is_difference, outline)
            _name_axes(axes, axis)
            title = f"slice {axis} = {box_size // 2}" if row == 0 else f"sum along {axis}"
            axes.set_title(title, fontsize=10, loc="center")
        style.color_bar(figure, image, list(panels[row]), label, shrink=0.8, aspect=28)
    style.scale_bar(panels[0, 0], box_size, pixel_size, style.INK if is_difference else "white")
    how = "Red is density that appears, blue density that disappears as the coordinate grows. " if is_difference else ""
    return how + "The thin line is the edge of the mask. Arrows name the axes of each picture."


def outlines_of(mask: np.ndarray | None, volume: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Central slices and shadows of the mask of a volume, across z, y and x; none without a mask of its box."""
    if mask is None or mask.shape != volume.shape:
        return [], []
    return [central_slice(mask, axis) for axis in AXES], [mask.max(axis=AXES.index(axis)) for axis in AXES]


@style.styled
def draw_montage(
    figure: Figure,
    volume: np.ndarray,
    pixel_size: float,
    axis: str,
    count: int,
    mask: np.ndarray | None = None,
    is_difference: bool = False,
) -> str:
    """Draw many slices across one axis, over the range that the mask touches and cut to its surroundings.

    Parameters
    ----------
    figure : Figure
    volume, pixel_size, mask, is_difference
        As for `draw_slices`.
    axis : {"z", "y", "x"}
        Across which the slices lie.
    count : int
        How many, at least 1.
    """
    box_size = volume.shape[0]
    indices = montage_indices(mask_extent(mask, box_size, axis), count)
    window = central_window(mask, box_size)
    slices = [volume.take(index, axis=AXES.index(axis))[window, window] for index in indices]
    limits = color_limits(slices, is_difference)
    n_rows, n_columns = montage_shape(len(indices))
    panels = figure.subplots(n_rows, n_columns, squeeze=False)
    style.hide_unused(panels, len(indices))
    edge = mask if mask is not None and mask.shape == volume.shape else None
    for panel, index, picture in zip(panels.flat, indices, slices):
        outline = None if edge is None else edge.take(index, axis=AXES.index(axis))[window, window]
        image = draw_picture(panel, picture, limits, is_difference, outline)
        panel.set_title(f"{axis} = {index}", fontsize=9, loc="center", pad=3)
    style.color_bar(figure, image, list(panels.flat), "density", shrink=0.6)
    _name_axes(panels[0, 0], axis)
    style.scale_bar(panels[0, 0], slices[0].shape[1], pixel_size, style.INK if is_difference else "white")
    return ""


def montage_shape(count: int) -> tuple[int, int]:
    """Rows and columns of a montage: wider than high, with few places left empty.

    Examples
    --------
    >>> montage_shape(20), montage_shape(1)
    ((4, 5), (1, 1))
    """
    widest = int(np.ceil(np.sqrt(2 * count)))
    candidates = range(min(int(np.ceil(np.sqrt(count))), widest), widest + 1)
    n_columns = min(candidates, key=lambda columns: (-count % columns, abs(columns - np.sqrt(1.6 * count))))
    return -(-count // n_columns), n_columns


def central_window(mask: np.ndarray | None, box_size: int) -> slice:
    """Range of indices, alike on all axes and symmetric about the centre, that holds the mask with a margin.

    Examples
    --------
    >>> mask = np.zeros((16, 16, 16)); mask[8, 8, 10] = 1
    >>> central_window(mask, 16)
    slice(3, 14, None)
    """
    if mask is None or mask.shape[0] != box_size or not (mask > 0.01).any():
        return slice(0, box_size)
    centre = box_size // 2
    reach = int(np.abs(np.argwhere(mask > 0.01) - centre).max()) + WINDOW_MARGIN
    return slice(max(0, centre - reach), min(box_size, centre + reach + 1))


def color_limits(pictures: list[np.ndarray], is_difference: bool) -> tuple[float, float]:
    """Limits of the grey scale that ignore stray voxels; about zero for differences, so that white is no change."""
    values = np.concatenate([picture.ravel() for picture in pictures])
    if is_difference:
        high = max(float(np.percentile(np.abs(values), 99.8)), 1e-12)
        return -high, high
    low, high = (float(limit) for limit in np.percentile(values, (1, 99.8)))
    return low, max(high, low + 1e-12)


def draw_outline(axes: Axes, picture: np.ndarray, level: float, color: str) -> None:
    """Draw a contour, if the picture crosses the level at all."""
    if picture.min() < level < picture.max():
        axes.contour(picture, levels=[level], colors=[color], linewidths=[0.8])


def draw_picture(
    axes: Axes, picture: np.ndarray, limits: tuple[float, float], is_difference: bool, mask: np.ndarray | None = None
) -> AxesImage:
    """Draw a slice with its first axis upwards, and the edge of the mask in it."""
    color_map = style.DIVERGING_MAP if is_difference else style.VOLUME_MAP
    low, high = limits
    image = axes.imshow(picture, cmap=color_map, vmin=low, vmax=high, origin="lower", interpolation="bicubic")
    style.picture_axes(axes)
    if mask is not None:
        draw_outline(axes, mask, 0.5, style.GREY if is_difference else style.ORANGE)
    return image


def _name_axes(axes: Axes, axis: str) -> None:
    """Name the axes of a slice across an axis."""
    right, up = PLANES[axis]
    axes.set_xlabel(f"{right} →", fontsize=8.5, color=style.GREY, labelpad=2)
    axes.set_ylabel(f"{up} →", fontsize=8.5, color=style.GREY, labelpad=2)
