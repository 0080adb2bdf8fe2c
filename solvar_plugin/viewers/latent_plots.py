"""Plots of where the particles lie in the latent space.

Each function draws into an empty figure that has constrained layout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from solvar_plugin.viewers import style
from solvar_plugin.viewers.latent_data import HEXAGONS, Axis, Coloring, Marks, Places, choose_drawing, random_subset

MAX_LEGEND_ROWS = 20
MAX_CENTRES = 50
MAX_LARGE_CENTRES = 12


@style.styled
def draw_latent(
    figure: Figure,
    x: Axis,
    y: Axis,
    coloring: Coloring | None = None,
    drawing: str | None = None,
    places: Places | None = None,
    marks: Marks | None = None,
) -> None:
    """Draw the particles along two coordinates, with histograms at the margins.

    Parameters
    ----------
    figure : Figure
        Empty.
    x, y : Axis
        Coordinates of every particle.
    coloring : Coloring, optional
        Without it, hexagons show the number of particles and points have one colour.
    drawing : {"points", "hexagons"}, optional
        Default: by the number of particles.
    places : Places, optional
        Positions that are marked and numbered.
    marks : Marks, optional
        Particles that are drawn once more, on top.
    """
    drawing = drawing or choose_drawing(len(x.values))
    has_margins = x.has_scale and y.has_scale
    grid = figure.add_gridspec(2, 2, width_ratios=(5, 1), height_ratios=(1, 5)) if has_margins else None
    axes = figure.add_subplot(grid[1, 0] if grid else 111)
    notes = []
    if drawing == HEXAGONS:
        mappable, label = _draw_hexagons(axes, x.values, y.values, coloring)
    else:
        shown = random_subset(len(x.values))
        mappable, label = _draw_points(axes, x.values, y.values, coloring, shown)
        if len(shown) < len(x.values):
            notes.append(f"{len(shown):,} of {len(x.values):,} particles, chosen at random, are drawn.")
    _label_axes(axes, x, y)
    if marks is not None:
        _draw_marks(axes, x.values, y.values, marks)
    if places is not None and len(places.points) <= MAX_CENTRES:
        _mark_places(axes, places)
        notes.append(f"Numbers mark {places.label}.")
    if grid:
        _draw_margins(figure, grid, axes, x.values, y.values)
    if coloring is not None and coloring.is_category:
        _category_legend(figure, coloring)
    elif mappable is not None:
        bar = figure.colorbar(mappable, ax=axes, location="bottom", shrink=0.6, aspect=40, pad=0.02)
        bar.set_label(label, fontsize=9.5)
        bar.outline.set_visible(False)
        if coloring is None:
            style.plain_log_axis(bar.ax.xaxis)
    if not (x.is_clear and y.is_clear):
        notes.insert(0, "A coordinate with a remark in brackets must not be interpreted as a motion.")
    if not has_margins:
        notes.insert(0, "UMAP keeps neighbours together; distances between far-away groups and its axes mean nothing.")
    if notes:
        style.add_note(figure, " ".join(notes))


def _draw_points(
    axes: Axes, x: np.ndarray, y: np.ndarray, coloring: Coloring | None, shown: np.ndarray
) -> tuple[Any, str]:
    """Draw points, smaller the more there are; return what a colour bar needs and its label."""
    options: dict[str, Any] = {
        "s": float(np.clip(16_000 / max(len(shown), 1), 2.0, 18.0)),
        "linewidths": 0,
        "alpha": 0.8,
    }
    if coloring is None:
        axes.scatter(x[shown], y[shown], color=style.BLUE, **{**options, "alpha": 0.5})
        return None, ""
    values = coloring.values[shown]
    if coloring.is_category:
        axes.scatter(x[shown], y[shown], c=[style.category_color(int(number) - 1) for number in values], **options)
        return None, ""
    low, high = _limits(coloring.values)
    points = axes.scatter(x[shown], y[shown], c=values, cmap=style.SEQUENTIAL_MAP, vmin=low, vmax=high, **options)
    return points, coloring.label


def _draw_hexagons(axes: Axes, x: np.ndarray, y: np.ndarray, coloring: Coloring | None) -> tuple[Any, str]:
    """Draw hexagons with the number of particles, their median value or their commonest category."""
    # few particles need large hexagons, or each holds one
    options: dict[str, Any] = {
        "gridsize": int(np.clip(np.sqrt(len(x)) * 0.5, 12, 70)),
        "linewidths": 0.2,
        "edgecolors": "face",
        "mincnt": 1,
    }
    axes.grid(False)
    if coloring is None:
        return axes.hexbin(x, y, bins="log", cmap=style.density_map(), **options), "particles"
    if not coloring.is_category:
        low, high = _limits(coloring.values)
        drawn = axes.hexbin(
            x,
            y,
            C=coloring.values,
            reduce_C_function=np.median,
            cmap=style.SEQUENTIAL_MAP,
            vmin=low,
            vmax=high,
            **options,
        )
        return drawn, f"{coloring.label}, median"
    n_categories = int(coloring.values.max())
    colors = ListedColormap([style.category_color(index) for index in range(n_categories)])
    axes.hexbin(
        x, y, C=coloring.values, reduce_C_function=_commonest, cmap=colors, vmin=0.5, vmax=n_categories + 0.5, **options
    )
    return None, ""


def _draw_marks(axes: Axes, x: np.ndarray, y: np.ndarray, marks: Marks) -> None:
    """Draw the marked particles and say how many they are."""
    chosen = np.flatnonzero(marks.chosen)
    shown = chosen[random_subset(len(chosen))]
    size = float(np.clip(8_000 / max(len(shown), 1), 6.0, 26.0))
    axes.scatter(x[shown], y[shown], s=size, color=style.VERMILLION, edgecolors="white", linewidths=0.4, zorder=3)
    label = f"{marks.label} ({len(chosen):,})"
    handle = Line2D([], [], marker="o", linestyle="", markersize=7, color=style.VERMILLION, label=label)
    axes.legend(handles=[handle], loc="upper right", handletextpad=0.2)


def _commonest(values: Any) -> float:
    """Return the commonest category among some."""
    return float(np.bincount(np.asarray(values, dtype=np.intp)).argmax())


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Colour limits that a few outliers do not stretch, nor rounding errors of values that are all alike."""
    low, high = (float(limit) for limit in np.nanpercentile(values, (1, 99)))
    room = 0.01 * max(abs(low), abs(high), 1e-6)
    return (low, high) if high - low > room else (low - 5 * room, high + 5 * room)


def _label_axes(axes: Axes, x: Axis, y: Axis) -> None:
    """Name both axes; a coordinate that must not be interpreted is named in a warning colour."""
    axes.set(xlabel=x.label, ylabel=y.label)
    axes.xaxis.label.set_color(style.INK if x.is_clear else style.VERMILLION)
    axes.yaxis.label.set_color(style.INK if y.is_clear else style.VERMILLION)
    if not x.has_scale:
        axes.set_xticks([])
    if not y.has_scale:
        axes.set_yticks([])


def _mark_places(axes: Axes, places: Places) -> None:
    """Mark and number positions, with smaller marks if there are many."""
    is_crowded = len(places.points) > MAX_LARGE_CENTRES
    if places.is_path:
        axes.plot(*places.points.T, "-", color=style.INK, linewidth=1.4, alpha=0.8)
    mark = {"color": "white", "markeredgecolor": style.INK, "markersize": 13 if is_crowded else 17}
    for number, (x, y) in enumerate(places.points, start=1):
        if np.isfinite([x, y]).all():
            axes.plot([x], [y], "o", markeredgewidth=1.2, alpha=0.85, **mark)
            size = 7 if is_crowded else 9
            axes.text(x, y, str(number), ha="center", va="center_baseline", fontsize=size, fontweight="bold")


def _draw_margins(figure: Figure, grid: Any, axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Draw the histogram of each coordinate at its margin."""
    bins = int(np.clip(np.sqrt(len(x)), 10, 80))
    above, beside = figure.add_subplot(grid[0, 0], sharex=axes), figure.add_subplot(grid[1, 1], sharey=axes)
    above.hist(x, bins=bins, color=style.PALE)
    beside.hist(y, bins=bins, color=style.PALE, orientation="horizontal")
    for margin, is_above in ((above, True), (beside, False)):
        margin.grid(False)
        margin.tick_params(labelbottom=False, labelleft=False, bottom=False, left=False)
        margin.spines["left" if is_above else "bottom"].set_visible(False)
    above.set_ylabel("particles", fontsize=8.5, color=style.GREY)
    beside.set_xlabel("particles", fontsize=8.5, color=style.GREY)


def _category_legend(figure: Figure, coloring: Coloring) -> None:
    """List the categories with their sizes."""
    numbers, sizes = np.unique(coloring.values, return_counts=True)
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=7, color=style.category_color(int(number) - 1),
               label=f"{int(number)}  ({size:,})")
        for number, size in zip(numbers, sizes)
    ]  # fmt: skip
    legend = figure.legend(
        handles=handles[: 2 * MAX_LEGEND_ROWS],
        title=f"{coloring.label} (particles)",
        loc="outside right upper",
        ncols=1 if len(handles) <= MAX_LEGEND_ROWS else 2,
        handletextpad=0.2,
        title_fontsize=9.5,
    )
    legend.set_alignment("left")
