"""Pictures of what rays have hit: surfaces lit from the upper left.

A picture has its first row at the bottom (``imshow(origin="lower")``), as slices have.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from solvar_plugin.viewers.plots.surfaces import TOWARDS, Hits

_EDGE = 0.7  # pixels
_LIGHT = np.array([-0.45, 0.55, 0.70]) / np.linalg.norm([-0.45, 0.55, 0.70])
_HALFWAY = (_LIGHT + [0, 0, 1]) / np.linalg.norm(_LIGHT + [0, 0, 1])


def shade(hits: Hits, color: np.ndarray) -> np.ndarray:
    """Light a surface from the upper left, darken its hollows and rims, on a transparent background.

    Parameters
    ----------
    hits : Hits
        What one direction sees.
    color : ndarray, shape (3,) or (n, n, 3)
        Red, green and blue from 0 to 1, of the whole surface or of each pixel.

    Returns
    -------
    ndarray, shape (n, n, 4), float
        Red, green, blue and opacity, from 0 to 1.
    """
    lit = np.clip(hits.normal @ _LIGHT, 0, 1)
    facing = np.clip(hits.normal[..., TOWARDS], 0, 1)
    brightness = 0.34 + 0.52 * lit + 0.22 * facing
    brightness *= (1 - 0.55 * _hollowness(hits)) * (0.72 + 0.28 * np.sqrt(facing))
    shine = 0.16 * np.clip(hits.normal @ _HALFWAY, 0, 1) ** 24
    return _with_soft_edge(np.minimum(brightness[..., None] * color + shine[..., None], 1), hits.is_hit)


def _with_soft_edge(color: np.ndarray, is_hit: np.ndarray) -> np.ndarray:
    """Add an opacity that fades over about two pixels, with the colours of the edge carried outwards."""
    opacity = gaussian_filter(is_hit.astype(float), _EDGE)
    around = gaussian_filter(color * is_hit[..., None], (_EDGE, _EDGE, 0)) / np.maximum(opacity, 1e-6)[..., None]
    picture = np.concatenate([np.where(is_hit[..., None], color, around), opacity[..., None]], axis=2)
    return np.clip(picture, 0, 1)


def _hollowness(hits: Hits) -> np.ndarray:
    """How far each point lies behind what surrounds it, from 0 to 1: the light that its neighbours take away."""
    is_hit = hits.is_hit
    if not is_hit.any():
        return np.zeros(hits.height.shape)
    height = np.where(is_hit, hits.height, 0.0)
    weight = is_hit.astype(float)
    pixels = hits.height.shape[0]
    span = max(float(np.ptp(hits.height[is_hit])), 1e-6)
    total = np.zeros(hits.height.shape)
    for sigma in (0.012 * pixels, 0.035 * pixels):
        around = gaussian_filter(height, sigma) / np.maximum(gaussian_filter(weight, sigma), 1e-6)
        total += np.clip((around - height) / (0.16 * span), 0, 1)
    return np.where(is_hit, total / 2, 0.0)


def overlay(
    first: Hits, second: Hits, colors: tuple[np.ndarray, np.ndarray, np.ndarray], tolerance: float
) -> np.ndarray:
    """Draw two surfaces in one picture: what is in front in its colour, what both share in a third.

    Parameters
    ----------
    first, second : Hits
        Of one direction, radius and size.
    colors : tuple of three ndarray, shape (3,)
        Of the first surface, the second, and where they coincide.
    tolerance : float
        Surfaces closer to each other than this coincide; voxels.

    Returns
    -------
    ndarray, shape (n, n, 4), float
        Red, green, blue and opacity, from 0 to 1.
    """
    is_first = first.height >= second.height
    front = Hits(
        np.maximum(first.height, second.height),
        np.where(is_first[..., None], first.position, second.position),
        np.where(is_first[..., None], first.normal, second.normal),
    )
    with np.errstate(invalid="ignore"):
        # the distance along the line of sight is longer than that between the surfaces where they are seen aslant
        apart = np.abs(first.height - second.height) * np.clip(front.normal[..., TOWARDS], 0.1, 1)
    color = np.where(is_first[..., None], colors[0], colors[1])
    color = np.where((apart <= tolerance)[..., None], colors[2], color)
    return shade(front, color)


def on_white(picture: np.ndarray) -> np.ndarray:
    """Lay a picture on white.

    Parameters
    ----------
    picture : ndarray, shape (n, n, 4)
        Red, green, blue and opacity, from 0 to 1.

    Returns
    -------
    ndarray, shape (n, n, 3), uint8
    """
    opacity = picture[..., 3:]
    return np.rint(255 * (picture[..., :3] * opacity + 1 - opacity)).astype(np.uint8)
