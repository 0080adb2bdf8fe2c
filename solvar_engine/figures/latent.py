"""Figures of where the particles lie in the latent space."""

from __future__ import annotations

from itertools import combinations
from typing import Any, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from solvar_engine.figures import style
from solvar_engine.figures.coordinates import (
    HEXAGONS,
    Axis,
    Coloring,
    Marks,
    Places,
    choose_drawing,
    middles_of_clusters,
    random_subset,
    umap_axis,
)

MAX_LEGEND_ROWS = 20
MAX_CENTRES = 50
MAX_LARGE_CENTRES = 12
MAX_PAIRED_COMPONENTS = 4
UMAP_NOTE = "UMAP keeps neighbours together; distances between far-away groups and its axes mean nothing."


@style.styled
def draw_latent(
    figure: Figure,
    x: Axis,
    y: Axis,
    coloring: Coloring | None = None,
    drawing: str | None = None,
    places: Places | None = None,
    marks: Marks | None = None,
) -> str:
    """Draw the particles along two coordinates, with histograms at the margins.

    Parameters
    ----------
    figure : Figure
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
        mappable, label = draw_hexagons(axes, x.values, y.values, coloring)
    else:
        shown = random_subset(len(x.values))
        mappable, label = draw_points(axes, x.values, y.values, coloring, shown)
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
        bar = style.color_bar(figure, mappable, axes, label, location="bottom", shrink=0.6)
        if coloring is None:
            style.plain_log_axis(bar.ax.xaxis)
    if not (x.is_clear and y.is_clear):
        notes.insert(0, "A coordinate with a remark in brackets must not be interpreted as a motion.")
    if not has_margins:
        notes.insert(0, UMAP_NOTE)
    return " ".join(notes)


@style.styled
def draw_pairs(figure: Figure, axes_of_z: list[Axis], centres: np.ndarray | None = None) -> str:
    """Draw the density of particles over the leading pairs of components.

    Parameters
    ----------
    figure : Figure
        Empty; see `pairs_shape` for its panels.
    axes_of_z : list of Axis
        Coordinates along all components, at least two.
    centres : ndarray, shape (k, r), optional
        Of the clusters.
    """
    pairs = leading_pairs([axis.is_clear for axis in axes_of_z])
    panels = figure.subplots(*pairs_shape(axes_of_z), squeeze=False)
    for axes, (first, second) in zip(panels.flat, pairs):
        x, y = axes_of_z[first], axes_of_z[second]
        mappable, _ = draw_hexagons(axes, x.values, y.values)
        style.plain_log_axis(style.color_bar(figure, mappable, axes, "", shrink=0.85, aspect=30).ax.yaxis)
        axes.set(xlabel=x.name, ylabel=y.name)
        axes.locator_params(nbins=5)
        if x.is_clear and y.is_clear and centres is not None and len(centres) <= MAX_CENTRES:
            _mark_places(axes, Places(centres[:, [first, second]]), is_crowded=True)
    note = (
        "How many particles (colour, logarithmic) lie where along two components. Separate islands are discrete "
        "states, bands and arcs are continuous motions, a round featureless cloud is a component in which particles "
        "cannot be told apart. Both axes have the same unit: distance here is difference of density."
    )
    return note if centres is None else f"{note} Numbers mark the centres of the clusters."


def pairs_shape(axes_of_z: list[Axis]) -> tuple[int, int]:
    """Rows and columns of the panels of `draw_pairs`."""
    count = len(leading_pairs([axis.is_clear for axis in axes_of_z]))
    return -(-count // 3), min(3, count)


def leading_pairs(is_clear: Sequence[bool]) -> list[tuple[int, int]]:
    """Choose the pairs of components that are worth a picture.

    Parameters
    ----------
    is_clear : sequence of bool, length r
        Which components are taken at face value.

    Returns
    -------
    list of (int, int)
        0-based pairs among the first four clear components, or among three when fewer than that are clear (filled up
        with others); the leading pair first.

    Examples
    --------
    >>> leading_pairs([True, True, False, False])
    [(0, 1), (0, 2), (1, 2)]
    """
    order = np.argsort(~np.asarray(is_clear, dtype=bool), kind="stable")
    n_chosen = int(np.clip(np.sum(is_clear), 3, MAX_PAIRED_COMPONENTS))
    chosen = sorted(order[:n_chosen].tolist())
    return sorted(combinations(chosen, 2), key=lambda pair: (pair[1], pair[0]))


@style.styled
def draw_map(figure: Figure, embedding: np.ndarray, leading: Axis, cluster: np.ndarray | None) -> str:
    """Draw the flat map three times: density, clusters, first coordinate.

    Parameters
    ----------
    figure : Figure
    embedding : ndarray, shape (n, 2)
    leading : Axis
        The first component.
    cluster : ndarray, shape (n,), or None
        From 1.
    """
    x, y = (umap_axis(embedding, index) for index in (0, 1))
    shown = random_subset(len(embedding))
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    mappable, label = draw_hexagons(panels[0], x.values, y.values)
    style.plain_log_axis(_bar_below(figure, mappable, panels[0], label).ax.xaxis)
    groups = None if cluster is None else Coloring(cluster, "cluster", is_category=True)
    draw_points(panels[1], x.values, y.values, groups, shown, scale=0.5)
    if cluster is not None and cluster.max(initial=0) <= MAX_CENTRES:
        _mark_places(panels[1], Places(middles_of_clusters(embedding, cluster)), is_crowded=True)
    coloring = Coloring(leading.values, leading.name)
    mappable, label = draw_points(panels[2], x.values, y.values, coloring, shown, scale=0.5)
    _bar_below(figure, mappable, panels[2], label)
    for axes, title in zip(panels, ("density", "clusters", f"coordinate along {leading.name}")):
        axes.set(xlabel=x.label, xticks=[], yticks=[])
        axes.set_title(title)
        axes.grid(False)
    panels[0].set_ylabel(y.label)
    return (
        f"The reproducible components flattened onto two axes. {UMAP_NOTE} Left: number of particles (logarithmic). "
        "Middle: the clusters of clusters.csv. Right: the first coordinate, to see where the leading motion runs."
    )


def _bar_below(figure: Figure, mappable: Any, axes: Axes, label: str) -> Any:
    return style.color_bar(figure, mappable, axes, label, location="bottom", shrink=0.8)


def draw_points(
    axes: Axes, x: np.ndarray, y: np.ndarray, coloring: Coloring | None, shown: np.ndarray, scale: float = 1.0
) -> tuple[Any, str]:
    """Draw points, smaller the more there are; return what a colour bar needs and its label."""
    options: dict[str, Any] = {
        "s": scale * float(np.clip(16_000 / max(len(shown), 1), 2.0, 18.0)),
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


def draw_hexagons(
    axes: Axes, x: np.ndarray, y: np.ndarray, coloring: Coloring | None = None
) -> tuple[Any, str]:
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
    colors = ListedColormap([style.category_color(index) for index in range(-1, n_categories)])
    options.update(vmin=-0.5, vmax=n_categories + 0.5)
    axes.hexbin(x, y, C=coloring.values, reduce_C_function=_commonest, cmap=colors, **options)
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


def _mark_places(axes: Axes, places: Places, is_crowded: bool = False) -> None:
    """Mark and number positions, with smaller marks if there are many."""
    is_crowded = is_crowded or len(places.points) > MAX_LARGE_CENTRES
    if places.is_path:
        axes.plot(*places.points.T, "-", color=style.INK, linewidth=1.4, alpha=0.8)
    mark: dict[str, Any] = {"color": "white", "markeredgecolor": style.INK, "markersize": 13 if is_crowded else 17}
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
               label=f"{int(number) or 'none'}  ({size:,})")
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
