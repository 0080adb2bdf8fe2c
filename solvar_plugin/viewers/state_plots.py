"""Plots of reconstructed states beside one another.

Each function draws into an empty figure that has constrained layout.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from solvar_engine.contract.results import FSC_THRESHOLD, resolution_at_threshold
from solvar_plugin.convert.states import StateTable, is_limit
from solvar_plugin.viewers import slices, style
from solvar_plugin.viewers.curves import fsc_label
from solvar_plugin.viewers.shading import shade
from solvar_plugin.viewers.surface_levels import automatic_level, surface_radius
from solvar_plugin.viewers.surface_plots import STONE, show_picture, show_scale
from solvar_plugin.viewers.surfaces import DIRECTIONS, Surface

MAX_PICTURES = 24
MAX_NAMED_CURVES = 20
_COLUMNS = 6
_PIXELS = 260


def grid_of(count: int) -> tuple[int, int]:
    """Return rows and columns for pictures of so many states.

    Examples
    --------
    >>> grid_of(5), grid_of(8), grid_of(100)
    ((1, 5), (2, 4), (4, 6))
    """
    count = min(count, MAX_PICTURES)
    rows = -(-count // _COLUMNS)
    return rows, -(-count // rows)


@style.styled
def draw_state_table(figure: Figure, table: StateTable, names: list[str], pixel_size: float) -> None:
    """Draw how many images each state was made from, and its resolution.

    Parameters
    ----------
    figure : Figure
        Empty.
    table : StateTable
    names : list of str
        Of the states.
    pixel_size : float
        Of the volumes, Angstrom.
    """
    has_resolution = np.isfinite(table.resolution).any()
    panels = figure.subplots(1, 2 if has_resolution else 1, squeeze=False, sharey=True)[0]
    place = np.arange(len(names))
    columns = [("images", table.images_used.astype(float), style.BLUE, "{:,.0f}")]
    if has_resolution:
        columns.append(("resolution (Å; small is fine)", table.resolution, style.GREEN, "{:.1f}"))
    for axes, (label, values, color, pattern) in zip(panels, columns):
        bars = axes.barh(place, np.nan_to_num(values), color=color, height=0.7)
        texts = [pattern.format(value) if np.isfinite(value) else "unknown" for value in values]
        axes.bar_label(bars, labels=texts, padding=4, fontsize=9)
        axes.set_xlabel(label)
        axes.margins(x=0.14)
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5))
    panels[0].set_yticks(place, names)
    panels[0].invert_yaxis()
    note = (
        "Images in the kernels that were chosen, averaged over the molecule: rigid parts are made from many more than "
        f"moving ones. The resolution is where the half-maps' correlation falls below {FSC_THRESHOLD} inside the mask; "
        "the maps of local resolution say where it is better or worse."
    )
    if any(is_limit(resolution, pixel_size) for resolution in table.resolution):
        note += f" {2 * pixel_size:.1f} Å is the limit of the pixel size."
    if not has_resolution:
        note = (
            "Particles that are nearest to each state. The volumes are the mean plus components: they have no "
            "half-maps, and so no resolution of their own."
        )
    style.add_note(figure, note)


@style.styled
def draw_state_fsc(figure: Figure, frequency: np.ndarray, correlation: np.ndarray, names: list[str]) -> None:
    """Draw the correlation of the half-maps of every state.

    Parameters
    ----------
    figure : Figure
        Empty.
    frequency : ndarray, shape (shells,)
        1/Angstrom.
    correlation : ndarray, shape (states, shells)
    names : list of str
        Of the states.
    """
    axes = figure.add_subplot()
    axes.axhline(FSC_THRESHOLD, color=style.GREY, linewidth=1, linestyle="--")
    axes.axhline(0, color=style.PALE, linewidth=0.8)
    for number, (name, curve) in enumerate(zip(names, correlation), start=1):
        crossing = resolution_at_threshold(frequency, curve)
        shown = fsc_label(name, crossing) if number <= MAX_NAMED_CURVES else None
        axes.plot(frequency, curve, color=style.category_color(number - 1), linewidth=1.5, label=shown)
    axes.set(ylabel="Fourier shell correlation", ylim=(min(0.0, float(np.nanmin(correlation))) - 0.05, 1.03))
    style.resolution_axis(axes, float(frequency.max()))
    figure.legend(loc="outside right upper", fontsize=9)
    style.add_note(
        figure,
        "Correlation of the two half-maps of each state inside the mask of the run, shell by shell. Half-maps are "
        "neither filtered nor sharpened.",
    )


@style.styled
def draw_state_slices(
    figure: Figure, volumes: list[np.ndarray], names: list[str], pixel_size: float, axis: str
) -> None:
    """Draw the central slice of every state, all in the same greys.

    Parameters
    ----------
    figure : Figure
        Empty.
    volumes : list of ndarray, shape (z, y, x)
        At most `MAX_PICTURES`.
    names : list of str
    pixel_size : float
        Angstrom; 0 if unknown.
    axis : str
        Which the slices lie across: x, y or z.
    """
    panels = figure.subplots(*grid_of(len(volumes)), squeeze=False).ravel()
    pictures = [slices.central_slice(volume, axis) for volume in volumes]
    low, high = slices.color_limits(pictures, False)
    for axes, picture, name in zip(panels, pictures, names):
        axes.imshow(picture, origin="lower", cmap=style.VOLUME_MAP, vmin=low, vmax=high, interpolation="bicubic")
        axes.set_title(name, fontsize=10, loc="center")
    for axes in panels:
        style.picture_axes(axes)
    style.scale_bar(panels[0], volumes[0].shape[0], pixel_size)
    style.add_note(figure, f"Central slices across {axis}, in the same greys.")


@style.styled
def draw_state_surfaces(
    figure: Figure,
    volumes: list[np.ndarray],
    names: list[str],
    pixel_size: float,
    axis: str,
    level: float | None,
    mask: np.ndarray | None,
) -> None:
    """Draw the surface of every state from the same direction at the same level.

    Parameters
    ----------
    figure : Figure
        Empty.
    volumes : list of ndarray, shape (z, y, x)
        At most `MAX_PICTURES`.
    names : list of str
    pixel_size : float
        Angstrom; 0 if unknown.
    axis : str
        Direction of the view: x, y or z.
    level : float, optional
        Density of the surface; without it, chosen from the average of the states.
    mask : ndarray, shape (z, y, x), optional
    """
    how = "" if level is not None else ", chosen automatically"
    level = automatic_level(np.mean(volumes, axis=0), mask) if level is None else level
    radius = surface_radius([(volume, level) for volume in volumes])
    panels = figure.subplots(*grid_of(len(volumes)), squeeze=False).ravel()
    for axes, volume, name in zip(panels, volumes, names):
        show_picture(axes, shade(Surface(volume, level).look(DIRECTIONS[axis], radius, _PIXELS), STONE))
        axes.set_title(name, fontsize=10, loc="center")
    for axes in panels:
        style.picture_axes(axes)
    show_scale(panels[0], radius, pixel_size, _PIXELS)
    style.add_note(figure, f"Seen along {axis}, all at level {level:.4g}{how}.")
