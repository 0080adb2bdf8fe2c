"""Figures of where the particles lie: latent coordinates, flat map, clusters, orientations."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from solvar_engine.reports import style
from solvar_engine.reports.model import ReportFigure, RunData

MAX_PAIRED_COMPONENTS = 4
MAX_HISTOGRAMS = 12
MAX_POINTS = 60_000
MAX_NUMBERED_CLUSTERS = 50


@style.styled
def latent_figure(data: RunData) -> ReportFigure | None:
    """Draw the density of particles over the leading pairs of components."""
    n_components = data.z.shape[1]
    if n_components < 2 or not data.n_particles:
        return None
    pairs = leading_pairs(data.components.is_reproducible)
    n_columns = min(3, len(pairs))
    n_rows = -(-len(pairs) // n_columns)
    figure = style.new_figure(0.3 + 3.3 * n_rows if n_columns > 1 else 4.6)
    panels = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes, (first, second) in zip(panels.flat, pairs, strict=False):
        _draw_pair(figure, axes, data, first, second)
    caption = (
        "How many particles (colour, logarithmic) lie where along two components. Separate islands are "
        "discrete states, bands and arcs are continuous motions, a round featureless cloud is a component "
        "in which particles cannot be told apart. Both axes have the same unit: distance here is difference "
        "of density."
    )
    if data.centres is not None:
        caption += " Numbers mark the centres of the clusters."
    return ReportFigure("Particles along the leading components", caption, figure)


def leading_pairs(is_reproducible: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Choose the pairs of components that are worth a picture.

    Parameters
    ----------
    is_reproducible : ndarray, shape (r,)
        Which components both halves of the particles agree on.

    Returns
    -------
    list of (int, int)
        0-based pairs among the first four reproducible components, or among three when fewer than that are
        reproducible (filled up with others); the leading pair first.

    Examples
    --------
    >>> leading_pairs(np.array([True, True, False, False]))
    [(0, 1), (0, 2), (1, 2)]
    """
    order = np.argsort(~is_reproducible, kind="stable")
    n_chosen = int(np.clip(is_reproducible.sum(), 3, MAX_PAIRED_COMPONENTS))
    chosen = sorted(order[:n_chosen].tolist())
    return sorted(combinations(chosen, 2), key=lambda pair: (pair[1], pair[0]))


def _draw_pair(figure: Figure, axes: Axes, data: RunData, first: int, second: int) -> None:
    """Draw one pair of components with the cluster centres."""
    image = style.density_image(axes, data.z[:, first], data.z[:, second])
    bar = figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02, aspect=30)
    style.plain_log_axis(bar.ax.yaxis)
    bar.ax.tick_params(labelsize=8)
    axes.set(xlabel=_component_name(data, first), ylabel=_component_name(data, second))
    axes.locator_params(nbins=5)
    is_clear = data.components.is_reproducible[[first, second]].all()
    if is_clear and data.centres is not None and len(data.centres) <= MAX_NUMBERED_CLUSTERS:
        _number_points(axes, data.centres[:, [first, second]])


def _component_name(data: RunData, index: int) -> str:
    """Name an axis, with a warning if the component is not reproducible."""
    name = f"z{_subscript(index + 1)}"
    return name if data.components.is_reproducible[index] else f"{name} (not reproducible)"


def _subscript(number: int) -> str:
    """Write a number in subscript digits."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _number_points(axes: Axes, points: NDArray[np.floating]) -> None:
    """Write 1, 2, 3 ... at points."""
    for number, (x, y) in enumerate(points, start=1):
        text = axes.text(x, y, str(number), ha="center", va="center", fontsize=9, fontweight="bold")
        style.outline_text(text)


@style.styled
def histogram_figure(data: RunData) -> ReportFigure | None:
    """Draw a histogram of every component's coordinates."""
    n_shown = min(data.z.shape[1], MAX_HISTOGRAMS)
    if not n_shown or not data.n_particles:
        return None
    n_columns = min(4, n_shown)
    n_rows = -(-n_shown // n_columns)
    figure = style.new_figure(0.5 + 2.0 * n_rows)
    panels = figure.subplots(n_rows, n_columns, squeeze=False)
    for index, axes in enumerate(panels.flat):
        if index < n_shown:
            _draw_histogram(axes, data, index)
        else:
            axes.set_visible(False)
    figure.supylabel("particles", fontsize=10)
    caption = (
        "Particles along each component. The line is the normal distribution of the same width: two peaks "
        "speak for discrete states, a flat top for a motion between two stops, a perfect match for no "
        "structure that the images can show, or for noise. Grey: not reproducible."
    )
    if data.z.shape[1] > n_shown:
        caption += f" The first {n_shown} of {data.z.shape[1]} components are drawn."
    return ReportFigure("Particles along each component", caption, figure)


def _draw_histogram(axes: Axes, data: RunData, index: int) -> None:
    """Draw one histogram and the normal distribution of the same mean and width."""
    values = data.z[:, index].astype(float)
    is_good = bool(data.components.is_reproducible[index])
    n_bins = int(np.clip(np.sqrt(len(values)), 8, 60))
    _, edges, _ = axes.hist(values, bins=n_bins, color=style.BLUE if is_good else style.PALE, alpha=0.85)
    spread = values.std()
    if spread > 0:
        x = np.linspace(edges[0], edges[-1], 200)
        scale = len(values) * (edges[1] - edges[0]) / (spread * np.sqrt(2 * np.pi))
        normal = scale * np.exp(-0.5 * ((x - values.mean()) / spread) ** 2)
        axes.plot(x, normal, color=style.INK, linewidth=1.2)
    title = f"component {index + 1}" + ("" if is_good else "\nnot reproducible")
    axes.set_title(title, fontsize=9, color=style.INK if is_good else style.GREY)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.tick_params(labelsize=8)


@style.styled
def umap_figure(data: RunData) -> ReportFigure | None:
    """Draw the flat map three times: density, clusters, first coordinate."""
    if data.umap is None or not len(data.umap):
        return None
    figure = style.new_figure(3.7)
    density, clusters, leading = figure.subplots(1, 3, sharex=True, sharey=True)
    image = style.density_image(density, data.umap[:, 0], data.umap[:, 1])
    density.set_title("density")
    style.plain_log_axis(_add_colorbar(figure, image, density, "particles").ax.xaxis)
    shown = _random_subset(data.n_particles)
    _draw_clusters(clusters, data, shown)
    values = data.z[shown, 0]
    limit = max(float(np.percentile(np.abs(values), 98)), 1e-12)
    points = _scatter(leading, data.umap[shown], c=values, cmap="cividis", vmin=-limit, vmax=limit)
    leading.set_title("coordinate along component 1")
    _add_colorbar(figure, points, leading, "z₁")
    for axes in (density, clusters, leading):
        axes.set(xlabel="UMAP 1", xticks=[], yticks=[])
        axes.grid(False)
    density.set_ylabel("UMAP 2")
    caption = (
        "The reproducible components flattened onto two axes by UMAP: neighbours stay neighbours, but "
        "distances between far-away groups and the axes themselves mean nothing. Left: number of particles "
        "(logarithmic). Middle: the clusters of clusters.csv. Right: the first coordinate, to see where the "
        "leading motion runs."
    )
    if data.z.shape[1] == 1:
        caption += " With one component the map says no more than its histogram."
    return ReportFigure("Map of all particles", caption, figure)


def _add_colorbar(figure: Figure, mappable: Any, axes: Axes, label: str) -> Any:
    """Put a thin colour bar under a panel."""
    bar = figure.colorbar(mappable, ax=axes, location="bottom", shrink=0.8, aspect=35, pad=0.02)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return bar


def _draw_clusters(axes: Axes, data: RunData, shown: NDArray[np.intp]) -> None:
    """Draw the map coloured by cluster, each cluster numbered at its middle."""
    assert data.umap is not None
    axes.set_title("clusters")
    if data.cluster is None:
        _scatter(axes, data.umap[shown], color=style.GREY)
        return
    numbers = np.unique(data.cluster)
    colors = np.array([style.category_color(number - 1) for number in numbers])
    _scatter(axes, data.umap[shown], c=colors[np.searchsorted(numbers, data.cluster[shown])])
    if len(numbers) > MAX_NUMBERED_CLUSTERS:
        return
    for number in numbers:
        # The medoid of the map's coordinates, since the median of a ring would lie in its hole.
        members = data.umap[data.cluster == number]
        middle = np.median(members, axis=0)
        x, y = members[np.linalg.norm(members - middle, axis=1).argmin()]
        text = axes.text(x, y, str(number), ha="center", va="center", fontsize=10, fontweight="bold")
        style.outline_text(text)


def _scatter(axes: Axes, points: NDArray[np.floating], **kwargs: Any) -> Any:
    """Draw points, smaller the more there are."""
    size = float(np.clip(8000 / max(len(points), 1), 1.0, 14.0))
    return axes.scatter(points[:, 0], points[:, 1], s=size, linewidths=0, alpha=0.8, **kwargs)


def _random_subset(n_particles: int) -> NDArray[np.intp]:
    """Choose the particles that are drawn one by one, in random order, so that none covers a whole group."""
    return np.random.default_rng(0).permutation(n_particles)[:MAX_POINTS]


@style.styled
def orientation_figure(data: RunData) -> ReportFigure | None:
    """Draw how densely the sphere of viewing directions is covered."""
    if data.view is None or not len(data.view):
        return None
    longitude, latitude, relative = orientation_density(data.view)
    figure = style.new_figure(4.0)
    axes = figure.add_subplot(projection="mollweide")
    axes.grid(False)
    image = axes.pcolormesh(
        longitude, latitude, relative, cmap=style.SEQUENTIAL_MAP, shading="gouraud", vmin=0,
        vmax=max(2.0, float(np.percentile(relative, 99))), rasterized=True,
    )  # fmt: skip
    axes.grid(True, color="white", alpha=0.3, linewidth=0.5)
    axes.set_xticklabels([])
    axes.set_yticks(np.deg2rad([-60, -30, 0, 30, 60]), ["−60°", "−30°", "0°", "30°", "60°"], fontsize=8)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.03, aspect=25)
    bar.set_label("times the uniform density", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    caption = (
        f"Directions from which the molecule is seen, on an equal-area map (rot across, 90° − tilt upwards). "
        f"{_coverage_sentence(relative, latitude)} Large dark regions mean that maps and motions are less "
        "certain along some directions."
    )
    return ReportFigure("Viewing directions", caption, figure)


def orientation_density(
    view: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Estimate the density of viewing directions, smoothly over the sphere.

    Directions are counted in cells of equal area, and the counts smoothed with a von Mises-Fisher kernel that
    is the wider the fewer particles there are.

    Parameters
    ----------
    view : ndarray, shape (n, 2)
        RELION's rot and tilt, degrees, n >= 1.

    Returns
    -------
    longitude : ndarray, shape (121,)
        rot, radians, -pi to pi.
    latitude : ndarray, shape (61,)
        pi/2 - tilt, radians, -pi/2 to pi/2.
    density : ndarray, shape (61, 121)
        Particles per solid angle, relative to the same number spread evenly.

    Examples
    --------
    >>> orientation_density(np.array([[0.0, 90.0]]))[2].argmax()  # one direction, in the middle of the map
    3690
    """
    rot, tilt = np.deg2rad(view.astype(np.float64)).T
    longitude = np.arctan2(np.sin(rot) * np.sin(tilt), np.cos(rot) * np.sin(tilt))
    # Equal steps of longitude and of sin(latitude) make cells of equal area.
    longitude_edges, sine_edges = np.linspace(-np.pi, np.pi, 81), np.linspace(-1, 1, 41)
    counts, _, _ = np.histogram2d(longitude, np.cos(tilt), bins=(longitude_edges, sine_edges))
    longitude_middle, sine_middle = _middles(longitude_edges), _middles(sine_edges)
    cells = _directions(longitude_middle[:, None], np.arcsin(sine_middle)[None, :]).reshape(-1, 3)
    shown_longitude, shown_latitude = np.linspace(-np.pi, np.pi, 121), np.linspace(-np.pi / 2, np.pi / 2, 61)
    shown = _directions(shown_longitude[None, :], shown_latitude[:, None]).reshape(-1, 3)
    width = np.clip(2.0 / np.sqrt(len(view)) * 5, np.deg2rad(5), np.deg2rad(15))
    kernel = np.exp((shown @ cells.T - 1) / width**2)
    density = kernel @ counts.ravel() / (kernel.sum(axis=1) * counts.mean())
    return shown_longitude, shown_latitude, density.reshape(len(shown_latitude), len(shown_longitude))


def _middles(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the middles of consecutive edges."""
    return 0.5 * (edges[1:] + edges[:-1])


def _directions(longitude: NDArray[np.float64], latitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn broadcast longitudes and latitudes (radians) into unit vectors, last axis xyz."""
    longitude, latitude = np.broadcast_arrays(longitude, latitude)
    horizontal = np.cos(latitude)
    x, y = horizontal * np.cos(longitude), horizontal * np.sin(longitude)
    return np.stack([x, y, np.sin(latitude)], axis=-1)


def _coverage_sentence(relative: NDArray[np.floating], latitude: NDArray[np.floating]) -> str:
    """Say which part of the sphere is hardly seen."""
    area = np.broadcast_to(np.cos(latitude)[:, None], relative.shape)
    thin = 100 * float(area[relative < 0.2].sum() / area.sum())
    if thin < 0.5:
        return "Every part of the sphere has at least a fifth of the uniform density."
    return f"{thin:.0f} % of the sphere has less than a fifth of the uniform density."
