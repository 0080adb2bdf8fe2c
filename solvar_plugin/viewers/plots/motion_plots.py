"""Figures and movies of the motion along a component, as iso-surfaces.

Volumes have shape (z, y, x). The figures given are empty and have constrained layout.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from solvar_engine.figures import style
from solvar_engine.figures.slices import PLANES
from solvar_plugin.viewers.plots.shading import on_white, overlay, shade
from solvar_plugin.viewers.plots.surface_levels import automatic_level, surface_radius
from solvar_plugin.viewers.plots.surface_plots import STONE, show_picture, show_scale
from solvar_plugin.viewers.plots.surfaces import DIRECTIONS, Surface, sample

LOW = np.array([0.45, 0.69, 0.88])
HIGH = np.array([0.95, 0.60, 0.42])
COINCIDENCE = 0.6
"""Surfaces closer than this are drawn as one; voxels."""
PIXELS_SMALL, PIXELS_MOVIE = 320, 320
MOVIE_STEPS = 9
"""Frames from one end of a motion to the other."""


@style.styled
def draw_motion(
    figure: Figure,
    mean: np.ndarray,
    change: np.ndarray,
    pixel_size: float,
    extent: float,
    level: float | None = None,
    mask: np.ndarray | None = None,
) -> str:
    """Draw both ends of a motion, their overlay, and the mean coloured by what changes.

    Parameters
    ----------
    figure : Figure
    mean : ndarray, shape (z, y, x)
    change : ndarray, shape (z, y, x)
        Eigenvolume times the standard deviation of the particles along it.
    pixel_size : float
        Angstrom; 0 if unknown.
    extent : float
        How far the ends are from the mean, in standard deviations.
    level : float, optional
        Of all surfaces. Default: chosen for the mean within the mask.
    mask : ndarray, shape (z, y, x), optional
    """
    how = "" if level is not None else ", chosen automatically"
    level = automatic_level(mean, mask) if level is None else level
    volumes = [mean - extent * change, mean + extent * change, mean]
    surfaces = [Surface(volume, level) for volume in volumes]
    radius = surface_radius([(volume, level) for volume in volumes])
    looks = {
        axis: [surface.look(direction, radius, PIXELS_SMALL) for surface in surfaces]
        for axis, direction in DIRECTIONS.items()
    }
    colored = {axis: extent * sample(change, hits[2].position) for axis, hits in looks.items()}
    limit = _color_limit([values[looks[axis][2].is_hit] for axis, values in colored.items()])
    panels = figure.subplots(3, 4)
    for row, (axis, (low, high, middle)) in enumerate(looks.items()):
        pictures = (
            shade(low, LOW),
            overlay(low, high, (LOW, HIGH, STONE), COINCIDENCE),
            shade(high, HIGH),
            shade(middle, _diverging(colored[axis], limit)),
        )
        for axes, picture in zip(panels[row], pictures):
            show_picture(axes, picture)
        right, up = PLANES[axis]
        panels[row, 0].set_ylabel(f"along {axis}\n({right} →, {up} ↑)", fontsize=9, color=style.GREY)
    titles = (f"−{extent:g} sd", "both ends", f"+{extent:g} sd", "mean, coloured by what changes")
    for axes, title in zip(panels[0], titles):
        axes.set_title(title, fontsize=10.5, loc="center")
    mappable = ScalarMappable(Normalize(-limit, limit), colormaps[style.DIVERGING_MAP])
    label = f"density gained at +{extent:g} sd"
    style.color_bar(figure, mappable, list(panels[:, 3]), label, shrink=0.5, aspect=25)
    show_scale(panels[0, 0], radius, pixel_size, PIXELS_SMALL)
    return (
        f"Blue: {extent:g} standard deviations below the mean, orange: as far above; grey: both alike. Right: red is "
        "where the surface gains density and moves outwards as the coordinate grows, blue where it recedes. All "
        f"surfaces at level {level:.4g}{how}. States are the mean plus one component, which shows small motions well "
        "and blurs large ones."
    )


def _diverging(values: np.ndarray, limit: float) -> np.ndarray:
    """Colours of values from -limit to limit, white at 0; shape (..., 3)."""
    return colormaps[style.DIVERGING_MAP](Normalize(-limit, limit, clip=True)(values))[..., :3]


def _color_limit(parts: list[np.ndarray]) -> float:
    """Symmetric limit that a few stray points do not stretch."""
    values = np.abs(np.concatenate(parts))
    return max(float(np.percentile(values, 98)), 1e-12) if len(values) else 1.0


def movie_frames(
    mean: np.ndarray,
    change: np.ndarray,
    extent: float,
    level: float | None = None,
    mask: np.ndarray | None = None,
    pixels: int = PIXELS_MOVIE,
) -> tuple[np.ndarray, np.ndarray]:
    """Render a motion from one end to the other and back, seen from three directions side by side.

    Parameters
    ----------
    mean, change, extent, level, mask
        As for `draw_motion`.
    pixels : int
        Edge of each of the three pictures.

    Returns
    -------
    position : ndarray, shape (frames,)
        Standard deviations from the mean; the frames can be repeated without a jump.
    frames : ndarray, shape (frames, pixels, 3 * pixels, 3), uint8
        First row at the top, as image files have it.
    """
    level = automatic_level(mean, mask) if level is None else level
    # slower at the ends, as a pendulum
    there = -extent * np.cos(np.linspace(0, np.pi, MOVIE_STEPS))
    radius = surface_radius([(mean + step * change, level) for step in (-extent, 0.0, extent)])
    frames = []
    for step in there:
        surface = Surface(mean + step * change, level)
        views = [on_white(shade(surface.look(axes, radius, pixels), STONE)) for axes in DIRECTIONS.values()]
        frames.append(np.concatenate(views, axis=1)[::-1])
    order = [*range(MOVIE_STEPS), *range(MOVIE_STEPS - 2, 0, -1)]
    return there[order], np.stack(frames)[order]


def write_gif(path: Path, frames: np.ndarray, milliseconds: int) -> None:
    """Write an animated GIF that repeats for ever.

    Parameters
    ----------
    path : Path
        Its folder must exist.
    frames : ndarray, shape (frames, y, x, 3), uint8
    milliseconds : int
        Each frame is shown for.
    """
    from PIL import Image

    images = [Image.fromarray(frame).quantize(64) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=milliseconds, loop=0, optimize=False)


@style.styled
def draw_movie(figure: Figure, position: np.ndarray, frames: np.ndarray, milliseconds: int, note: str) -> str:
    """Play the frames in a figure, as long as the figure lives.

    Parameters
    ----------
    figure : Figure
    position, frames : ndarray
        As `movie_frames` returns them.
    milliseconds : int
        Between frames.
    note : str
        What is to be written below the pictures; returned as it is.
    """
    from matplotlib.animation import FuncAnimation

    extent = float(np.abs(position).max())
    pictures, gauge = figure.subplots(2, 1, gridspec_kw={"height_ratios": (1, 0.06)})
    image = pictures.imshow(frames[0], interpolation="antialiased")
    style.picture_axes(pictures)
    for number, axis in enumerate(DIRECTIONS):
        right, up = PLANES[axis]
        pictures.text(
            (number + 0.5) / 3, 1.0, f"along {axis}  ({right} →, {up} ↑)", transform=pictures.transAxes,
            ha="center", va="bottom", fontsize=9.5, color=style.GREY,
        )  # fmt: skip
    gauge.set(xlim=(-1.15 * extent, 1.15 * extent), ylim=(-1, 1), yticks=[])
    gauge.set_xlabel("standard deviations from the mean")
    gauge.grid(False)
    for side in ("left", "bottom"):
        gauge.spines[side].set_visible(False)
    gauge.axhline(0, color=style.PALE, linewidth=2)
    marker = gauge.plot([position[0]], [0], "o", color=style.BLUE, markersize=11)[0]

    def show_frame(number: int) -> tuple[object, object]:
        image.set_data(frames[number])
        marker.set_xdata([position[number]])
        return image, marker

    # only the pictures are drawn anew, so that the windows stay responsive
    options = {"interval": milliseconds, "blit": True, "cache_frame_data": False}
    figure.solvar_animation = FuncAnimation(figure, show_frame, len(frames), **options)
    return note
