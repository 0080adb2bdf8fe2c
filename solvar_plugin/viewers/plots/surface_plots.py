"""Figures of iso-surfaces: one volume, what an eigenvolume changes, and states beside one another.

Volumes have shape (z, y, x). The figures given are empty and have constrained layout; how to read them is returned.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from solvar_engine.figures import states, style
from solvar_engine.figures.slices import PLANES
from solvar_plugin.viewers.plots.shading import on_white, overlay, shade
from solvar_plugin.viewers.plots.surface_levels import automatic_level, component_level, surface_radius
from solvar_plugin.viewers.plots.surfaces import DIRECTIONS, Hits, Surface

STONE = np.array([0.76, 0.81, 0.86])
LOSS, GAIN = np.array(to_rgb("#2C7FB8")), np.array(to_rgb("#D7301F"))
PIXELS_LARGE, PIXELS_SMALL = 480, 260


@style.styled
def draw_surface(
    figure: Figure, volume: np.ndarray, pixel_size: float, level: float | None = None, mask: np.ndarray | None = None
) -> str:
    """Draw the iso-surface of a map from three directions.

    Parameters
    ----------
    figure : Figure
    volume : ndarray, shape (z, y, x)
    pixel_size : float
        Angstrom; 0 if unknown.
    level : float, optional
        Default: chosen within the mask.
    mask : ndarray, shape (z, y, x), optional
    """
    how = "" if level is not None else ", chosen automatically"
    level = automatic_level(volume, mask) if level is None else level
    surface = Surface(volume, level)
    radius = surface_radius([(volume, level)])
    panels = figure.subplots(1, 3)
    for axes, (axis, direction) in zip(panels, DIRECTIONS.items()):
        show_picture(axes, shade(surface.look(direction, radius, PIXELS_LARGE), STONE), axis)
    show_scale(panels[0], radius, pixel_size, PIXELS_LARGE)
    note = f"Surface at level {level:.4g}{how}. Largest value of the volume: {volume.max():.4g}."
    return note if not surface.is_empty else f"Nothing reaches the level: choose a lower one. {note}"


@style.styled
def draw_component(
    figure: Figure,
    eigenvolume: np.ndarray,
    mean: np.ndarray,
    pixel_size: float,
    level: float | None = None,
    mask: np.ndarray | None = None,
) -> str:
    """Draw where an eigenvolume adds and removes density, as lobes before the pale surface of the mean.

    Parameters
    ----------
    figure : Figure
    eigenvolume, mean : ndarray, shape (z, y, x)
    pixel_size : float
        Angstrom; 0 if unknown.
    level : float, optional
        Of the lobes, above 0. Default: three times the root mean square within the mask.
    mask : ndarray, shape (z, y, x), optional
    """
    how = "" if level is not None else ", chosen automatically"
    level = component_level(eigenvolume, mask) if level is None else abs(level)
    mean_level = automatic_level(mean, mask)
    gain, loss, body = Surface(eigenvolume, level), Surface(-eigenvolume, level), Surface(mean, mean_level)
    radius = surface_radius([(eigenvolume, level), (-eigenvolume, level), (mean, mean_level)])
    panels = figure.subplots(1, 3)
    for axes, (axis, direction) in zip(panels, DIRECTIONS.items()):
        hits = [surface.look(direction, radius, PIXELS_LARGE) for surface in (gain, loss, body)]
        lobes = overlay(hits[0], hits[1], (GAIN, LOSS, GAIN), tolerance=0.0)
        show_picture(axes, _behind_veil(lobes, hits), axis)
    show_scale(panels[0], radius, pixel_size, PIXELS_LARGE)
    return (
        "Red: density that appears; blue: density that disappears as the coordinate grows. A red and a blue lobe on "
        "two sides of a domain is that domain moving. Pale: the mean map, which the lobes shine through. "
        f"Surfaces at ±{level:.3g}{how}; mean at {mean_level:.3g}."
    )


@style.styled
def draw_state_surfaces(
    figure: Figure,
    volumes: list[np.ndarray],
    names: list[str],
    pixel_size: float,
    axis: str,
    level: float | None,
    mask: np.ndarray | None,
) -> str:
    """Draw the surface of every state from the same direction at the same level.

    Parameters
    ----------
    figure : Figure
    volumes : list of ndarray, shape (z, y, x)
        At most `states.MAX_PICTURES`.
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
    panels = states.state_panels(figure, names)
    for axes, volume in zip(panels, volumes):
        show_picture(axes, shade(Surface(volume, level).look(DIRECTIONS[axis], radius, PIXELS_SMALL), STONE))
    show_scale(panels[0], radius, pixel_size, PIXELS_SMALL)
    return f"Seen along {axis}, all at level {level:.4g}{how}."


def _behind_veil(lobes: np.ndarray, hits: list[Hits]) -> np.ndarray:
    """Lay the mean over the lobes where it is in front of them, as a veil, and behind them elsewhere."""
    gain, loss, body = hits
    veil = shade(body, STONE)
    has_lobe = gain.is_hit | loss.is_hit
    is_veiled = body.is_hit & (body.height >= np.maximum(gain.height, loss.height))
    # lobes in front of the mean keep their colour
    share = np.where(is_veiled, 0.62, 1.0)[..., None]
    pale = np.clip(0.35 + 0.65 * veil[..., :3], 0, 1)
    color = np.where(has_lobe[..., None], share * lobes[..., :3] + (1 - share) * veil[..., :3], pale)
    return np.concatenate([color, np.maximum(lobes[..., 3:], veil[..., 3:])], axis=2)


def show_picture(axes: Axes, picture: np.ndarray, axis: str = "") -> None:
    """Show a rendered picture on white, with the direction above it if one is given."""
    axes.imshow(on_white(picture), origin="lower", interpolation="antialiased")
    style.picture_axes(axes)
    if axis:
        right, up = PLANES[axis]
        axes.set_title(f"along {axis}  ({right} →, {up} ↑)", fontsize=10, loc="center", color=style.GREY)


def show_scale(axes: Axes, radius: float, pixel_size: float, pixels: int) -> None:
    """Draw a scale bar on a picture that is 2 * radius voxels wide."""
    style.scale_bar(axes, pixels, pixel_size * 2 * radius / pixels, style.INK)
