"""Figures of poses: what a refinement has changed, and from which directions the molecule is seen."""

from __future__ import annotations

from typing import Any, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from solvar_engine.contract.results import PoseChanges
from solvar_engine.figures import style

_BULK = 99.5
_BINS = 60


@style.styled
def draw_pose_changes(figure: Figure, changes: PoseChanges) -> str:
    """Draw how far orientations and shifts are from those of the input, beside how uncertain they are."""
    left, right = figure.subplots(1, 2)
    _draw_change(left, changes.rotation, changes.rotation_std, "turn from the given orientation (degrees)", "°")
    _draw_change(right, changes.shift, changes.shift_std, "move from the given shift (Å)", " Å")
    left.set_ylabel("particles")
    return (
        "How far each particle's orientation was turned, and its shift moved, from what the input says (bars), and how "
        "uncertain the refined ones are by image and input, under the volumes found (line). Changes much larger than "
        "the uncertainty have corrected errors of the input; changes of its size are mostly noise. The last bar holds "
        "all that lies beyond. Each particle's change and uncertainty are in particles.star."
    )


def _draw_change(axes: Axes, change: np.ndarray, std: np.ndarray, label: str, unit: str) -> None:
    """Draw the histograms of changes and of standard deviations."""
    largest = max(float(np.percentile(values, _BULK)) for values in (change, std))
    edges = np.linspace(0, largest if largest > 0 else 1.0, _BINS + 1)
    medians = [f"{np.median(values):.2f}{unit}" for values in (change, std)]
    bars: dict[str, Any] = {"bins": edges.tolist(), "color": style.BLUE, "alpha": 0.85}
    axes.hist(np.clip(change, 0, edges[-1]), label=f"change (median {medians[0]})", **bars)
    line: dict[str, Any] = {"bins": edges.tolist(), "histtype": "step", "color": style.VERMILLION, "linewidth": 1.6}
    axes.hist(np.clip(std, 0, edges[-1]), label=f"uncertainty (median {medians[1]})", **line)
    axes.set_xlabel(label)
    axes.legend(loc="upper right", fontsize=9)


@style.styled
def draw_directions(figure: Figure, views: Mapping[str, np.ndarray]) -> str:
    """Draw how densely the sphere of viewing directions is covered.

    Parameters
    ----------
    figure : Figure
    views : mapping of str to ndarray, shape (n, 2)
        Title -> rot and tilt of every particle, degrees; one panel for each.
    """
    densities = {title: direction_density(view) for title, view in views.items()}
    highest = max(2.0, *(float(np.percentile(density, 99)) for _, _, density in densities.values()))
    panels = figure.subplots(1, len(views), squeeze=False, subplot_kw={"projection": "mollweide"})[0]
    coverage = []
    for axes, (title, (longitude, latitude, density)) in zip(panels, densities.items()):
        axes.grid(False)
        image = axes.pcolormesh(
            longitude, latitude, density, cmap=style.SEQUENTIAL_MAP, shading="gouraud", vmin=0, vmax=highest,
            rasterized=True,
        )  # fmt: skip
        axes.grid(True, color="white", alpha=0.3, linewidth=0.5)
        axes.set_xticklabels([])
        axes.set_yticks(np.deg2rad([-60, -30, 0, 30, 60]), ["−60°", "−30°", "0°", "30°", "60°"], fontsize=8)
        axes.set_title(title, loc="center")
        coverage.append((f"{title}: " if title else "") + _coverage_sentence(density, latitude))
    style.color_bar(figure, image, list(panels), "times the uniform density", shrink=0.7, aspect=25, pad=0.03)
    return (
        "Directions from which the molecule is seen, on an equal-area map (rot across, 90° − tilt upwards). "
        f"{' '.join(coverage)} Large dark regions mean that maps and motions are less certain along some directions."
    )


def direction_density(view: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    >>> direction_density(np.array([[0.0, 90.0]]))[2].argmax()  # one direction, in the middle of the map
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


def _middles(edges: np.ndarray) -> np.ndarray:
    """Return the middles of consecutive edges."""
    return 0.5 * (edges[1:] + edges[:-1])


def _directions(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Turn broadcast longitudes and latitudes (radians) into unit vectors, last axis xyz."""
    longitude, latitude = np.broadcast_arrays(longitude, latitude)
    horizontal = np.cos(latitude)
    x, y = horizontal * np.cos(longitude), horizontal * np.sin(longitude)
    return np.stack([x, y, np.sin(latitude)], axis=-1)


def _coverage_sentence(relative: np.ndarray, latitude: np.ndarray) -> str:
    """Say which part of the sphere is hardly seen."""
    area = np.broadcast_to(np.cos(latitude)[:, None], relative.shape)
    thin = 100 * float(area[relative < 0.2].sum() / area.sum())
    if thin < 0.5:
        return "Every part of the sphere has at least a fifth of the uniform density."
    return f"{thin:.0f} % of the sphere has less than a fifth of the uniform density."
