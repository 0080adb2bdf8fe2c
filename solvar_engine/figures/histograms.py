"""Histograms of the particles along the components."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from solvar_engine.figures import style
from solvar_engine.figures.coordinates import Axis

MAX_HISTOGRAMS = 12


@style.styled
def draw_histograms(figure: Figure, coordinates: list[Axis]) -> str:
    """Draw a histogram of each coordinate, with the normal distribution of its width.

    Parameters
    ----------
    figure : Figure
        Empty; see `histograms_shape` for its panels.
    coordinates : list of Axis
        At least one; the first `MAX_HISTOGRAMS` are drawn.
    """
    shown = coordinates[:MAX_HISTOGRAMS]
    panels = figure.subplots(*histograms_shape(len(coordinates)), squeeze=False)
    style.hide_unused(panels, len(shown))
    for axes, coordinate in zip(panels.flat, shown):
        _draw_histogram(axes, coordinate)
    for axes in panels[:, 0]:
        axes.set_ylabel("particles", fontsize=9)
    note = (
        "The line is the normal distribution of the same width: two peaks speak for discrete states, a flat top for a "
        "motion between two stops, a perfect match for no structure that the images can show, or for noise."
    )
    if not all(coordinate.is_clear for coordinate in shown):
        note += " Pale: do not interpret."
    if len(shown) < len(coordinates):
        note += f" The first {len(shown)} of {len(coordinates)} components are drawn."
    return note


def histograms_shape(count: int) -> tuple[int, int]:
    """Rows and columns of the panels for a number of coordinates."""
    shown = min(count, MAX_HISTOGRAMS)
    n_columns = min(4, shown)
    return -(-shown // n_columns), n_columns


def _draw_histogram(axes: Axes, coordinate: Axis) -> None:
    """Draw one histogram and the normal distribution of the same mean and width."""
    values = coordinate.values
    bins = int(np.clip(np.sqrt(len(values)), 8, 60))
    _, edges, _ = axes.hist(values, bins=bins, color=style.BLUE if coordinate.is_clear else style.PALE, alpha=0.9)
    spread = values.std()
    if spread > 0 and coordinate.has_scale:
        x = np.linspace(edges[0], edges[-1], 200)
        scale = len(values) * (edges[1] - edges[0]) / (spread * np.sqrt(2 * np.pi))
        axes.plot(x, scale * np.exp(-0.5 * ((x - values.mean()) / spread) ** 2), color=style.INK, linewidth=1.2)
    color = style.INK if coordinate.is_clear else style.VERMILLION
    axes.set_title(coordinate.name.replace(" (", "\n("), fontsize=9.5, color=color)
    axes.set_xlabel("coordinate z" if coordinate.has_scale else coordinate.name, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.tick_params(labelsize=8.5)
