"""Figures of reconstructed states beside one another."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from solvar_engine.contract.results import FSC_THRESHOLD, StateTable, is_limit, resolution_at_threshold
from solvar_engine.figures import style
from solvar_engine.figures.slices import central_slice, color_limits, draw_picture
from solvar_engine.figures.spectra import fsc_axes, fsc_label

MAX_PICTURES = 24
MAX_NAMED_CURVES = 20
_COLUMNS = 6


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


def state_panels(figure: Figure, names: list[str]) -> np.ndarray:
    """Make one panel for the picture of each state, with its name above."""
    panels = figure.subplots(*grid_of(len(names)), squeeze=False).ravel()
    style.hide_unused(panels, len(names))
    for axes, name in zip(panels, names):
        axes.set_title(name, fontsize=10, loc="center")
    return panels


@style.styled
def draw_state_table(figure: Figure, table: StateTable, names: list[str], pixel_size: float) -> str:
    """Draw how many images each state was made from, and its resolution.

    Parameters
    ----------
    figure : Figure
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
    return note


@style.styled
def draw_state_fsc(figure: Figure, frequency: np.ndarray, correlation: np.ndarray, names: list[str]) -> str:
    """Draw the correlation of the half-maps of every state.

    Parameters
    ----------
    figure : Figure
    frequency : ndarray, shape (shells,)
        1/Angstrom.
    correlation : ndarray, shape (states, shells)
    names : list of str
        Of the states.
    """
    axes = figure.add_subplot()
    for number, (name, curve) in enumerate(zip(names, correlation), start=1):
        crossing = resolution_at_threshold(frequency, curve)
        shown = fsc_label(name, crossing) if number <= MAX_NAMED_CURVES else None
        axes.plot(frequency, curve, color=style.category_color(number - 1), linewidth=1.5, label=shown)
    fsc_axes(axes, frequency, float(np.nanmin(correlation)))
    figure.legend(loc="outside right upper", fontsize=9)
    return (
        "Correlation of the two half-maps of each state inside the mask of the run, shell by shell. Half-maps are "
        "neither filtered nor sharpened."
    )


@style.styled
def draw_state_slices(
    figure: Figure, volumes: list[np.ndarray], names: list[str], pixel_size: float, axis: str
) -> str:
    """Draw the central slice of every state, all in the same greys.

    Parameters
    ----------
    figure : Figure
    volumes : list of ndarray, shape (z, y, x)
        At most `MAX_PICTURES`.
    names : list of str
    pixel_size : float
        Angstrom; 0 if unknown.
    axis : str
        Which the slices lie across: x, y or z.
    """
    panels = state_panels(figure, names)
    pictures = [central_slice(volume, axis) for volume in volumes]
    limits = color_limits(pictures, False)
    for axes, picture in zip(panels, pictures):
        draw_picture(axes, picture, limits, is_difference=False)
    style.scale_bar(panels[0], volumes[0].shape[0], pixel_size)
    return f"Central slices across {axis}, in the same greys."
