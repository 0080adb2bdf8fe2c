"""Plots of where the particles lie in the latent space.

Each function draws into an empty figure that has constrained layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from solvar_engine.contract.errors import UserError
from solvar_plugin.viewers import style
from solvar_plugin.viewers.run_data import Components

POINTS, HEXAGONS = "points", "hexagons"
MAX_AUTOMATIC_POINTS = 20_000
MAX_POINTS = 60_000
MAX_HISTOGRAMS = 12
MAX_LEGEND_ROWS = 20
MAX_CENTRES = 50
MAX_LARGE_CENTRES = 12


@dataclass(frozen=True)
class Axis:
    """One coordinate of every particle.

    Attributes
    ----------
    values : ndarray, shape (n,)
    name : str
        Short, with the label of a component.
    label : str
        For the side of a plot.
    is_clear : bool
        False for a component that must not be interpreted.
    has_scale : bool
        False where distances mean nothing, as in a UMAP.
    """

    values: np.ndarray
    name: str
    label: str
    is_clear: bool = True
    has_scale: bool = True


@dataclass(frozen=True)
class Coloring:
    """What the colour of a particle says.

    Attributes
    ----------
    values : ndarray, shape (n,)
        Numbers, or category numbers from 1.
    label : str
        With unit.
    is_category : bool
        Whether the values are categories.
    """

    values: np.ndarray
    label: str
    is_category: bool = False


@dataclass(frozen=True)
class Places:
    """Positions that are marked and numbered from 1.

    Attributes
    ----------
    points : ndarray, shape (k, 2)
        Rows of NaN are left out.
    label : str
        What they are, in the plural.
    is_path : bool
        Whether a line leads from each to the next.
    """

    points: np.ndarray
    label: str = "the centres of the clusters"
    is_path: bool = False


@dataclass(frozen=True)
class Marks:
    """Particles that are to be seen on top of all others.

    Attributes
    ----------
    chosen : ndarray of bool, shape (n,)
    label : str
        What they are, in the plural.
    """

    chosen: np.ndarray
    label: str


def component_axis(components: Components, z: np.ndarray, index: int) -> Axis:
    """Make an axis of a component (0-based index) from the coordinates z, shape (n, r)."""
    label = components.label[index]
    text = f"z{style.subscript(index + 1)}, coordinate along component {index + 1}" + (f" ({label})" if label else "")
    return Axis(z[:, index].astype(float), components.title(index), text, is_clear=not label)


def umap_axis(embedding: np.ndarray, index: int) -> Axis:
    """Make an axis of the flat map, shape (n, 2); index 0 or 1."""
    name = f"UMAP {index + 1}"
    return Axis(embedding[:, index], name, name, has_scale=False)


def uncertainty(precision: np.ndarray, indices: list[int]) -> np.ndarray:
    """Posterior standard deviation of some coordinates, all together.

    Parameters
    ----------
    precision : ndarray, shape (n, r, r)
        Posterior precision of each particle.
    indices : list of int
        0-based components; the rest is marginalised.

    Returns
    -------
    ndarray, shape (n,)
        Square root of the sum of the posterior variances, in the units of z.

    Raises
    ------
    UserError
        If a precision cannot be inverted.

    Examples
    --------
    >>> uncertainty(np.array([[[4.0, 0.0], [0.0, 1.0]]]), [0])
    array([0.5])
    """
    try:
        covariance = np.linalg.inv(precision.astype(np.float64))
    except np.linalg.LinAlgError as error:
        raise UserError("The uncertainty of a particle is infinite: colour by something else.") from error
    variance = covariance[:, indices, indices].sum(axis=1)
    return np.sqrt(np.maximum(variance, 0.0))


def choose_drawing(count: int) -> str:
    """Choose between points and hexagons by the number of particles."""
    return POINTS if count <= MAX_AUTOMATIC_POINTS else HEXAGONS


def random_subset(count: int, largest: int = MAX_POINTS) -> np.ndarray:
    """Choose the particles that are drawn one by one, in random order, so that none covers a whole group."""
    return np.random.default_rng(0).permutation(count)[:largest]


def middles_of_clusters(points: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Find the particle in the middle of each cluster, since the mean of a ring would lie in its hole.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
    cluster : ndarray, shape (n,)
        From 1.

    Returns
    -------
    ndarray, shape (k, 2)
        One row for each number from 1 to the largest; NaN for a number without particles.
    """
    middles = np.full((int(cluster.max(initial=0)), 2), np.nan)
    for number in range(1, len(middles) + 1):
        members = points[cluster == number]
        if len(members):
            middle = np.median(members, axis=0)
            middles[number - 1] = members[np.linalg.norm(members - middle, axis=1).argmin()]
    return middles


# ---------------------------------------------------------------------------- scatter, density


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


# -------------------------------------------------------------------------------- histograms


@style.styled
def draw_histograms(figure: Figure, coordinates: list[Axis]) -> None:
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
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
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
    style.add_note(figure, note)


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
