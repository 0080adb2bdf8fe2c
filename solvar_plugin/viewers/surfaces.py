"""Pictures of iso-surfaces, made with numpy and scipy alone: rays are cast at the volume and what they hit is shaded.

Volumes have shape (z, y, x). A picture has its first row at the bottom (``imshow(origin="lower")``), as slices have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates, zoom

RIGHT, UP, TOWARDS = 0, 1, 2

DIRECTIONS = {
    "z": np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=float),
    "y": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=float),
    "x": np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=float),
}
"""Axis that one looks along -> unit vectors (x, y, z) that point right, up and towards the viewer.

All are right-handed, so that no picture is a mirror image, and each shows what a slice across its axis shows.
"""

FINE_BOX = 100
"""Smaller boxes are interpolated to twice the sampling, so that their surfaces look smooth."""

_MARGIN = 2  # voxels
_STEP = 0.5  # voxels
_BISECTIONS = 5
_EDGE = 0.7  # pixels
_LIGHT = np.array([-0.45, 0.55, 0.70]) / np.linalg.norm([-0.45, 0.55, 0.70])
_HALFWAY = (_LIGHT + [0, 0, 1]) / np.linalg.norm(_LIGHT + [0, 0, 1])


@dataclass(frozen=True)
class Hits:
    """Where rays from one direction hit a surface.

    Attributes
    ----------
    height : ndarray, shape (n, n)
        Position towards the viewer, voxels from the centre of the box; -inf where a ray hits nothing.
    position : ndarray, shape (n, n, 3)
        Indices (z, y, x) of the hit in the volume; arbitrary where there is none.
    normal : ndarray, shape (n, n, 3)
        Unit vector out of the surface, along right, up and towards the viewer.
    """

    height: np.ndarray
    position: np.ndarray
    normal: np.ndarray

    @property
    def is_hit(self) -> np.ndarray:
        """Which rays hit the surface; shape (n, n), bool."""
        return np.isfinite(self.height)


def automatic_level(volume: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Choose the level that best parts molecule from solvent, by the method of Otsu (1979).

    Parameters
    ----------
    volume : ndarray, shape (z, y, x)
        A map.
    mask : ndarray, shape (z, y, x), optional
        Voxels above 0.5 are looked at; without one (or with an empty one), all.

    Returns
    -------
    float
        A level between the smallest and the largest value; the common value of a volume that has only one.

    Examples
    --------
    >>> 0 < automatic_level(np.repeat([0.0, 1.0], 4).reshape(2, 2, 2)) < 1
    True
    """
    inside = np.ones(volume.shape, dtype=bool) if mask is None or mask.shape != volume.shape else mask > 0.5
    values = volume[inside] if inside.any() else volume.ravel()
    counts, edges = np.histogram(values, bins=256)
    if edges[0] == edges[-1] or values.min() == values.max():
        return float(values.flat[0])
    middle = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sum_below = np.cumsum(counts * middle)[:-1]
    sum_above = (counts * middle).sum() - sum_below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sum_below / below - sum_above / above) ** 2
    # a plateau, as between two separate peaks, is cut in its middle
    best = np.flatnonzero(np.isclose(between, np.nanmax(between), rtol=1e-9))
    return float(edges[1:-1][best].mean())


def component_level(eigenvolume: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Choose the level of an eigenvolume's lobes: three times its root mean square in the mask.

    Parameters
    ----------
    eigenvolume, mask : ndarray, shape (z, y, x)
        Without a mask (or with an empty one) the whole box counts.

    Returns
    -------
    float
        Not larger than 0.7 of the largest absolute value.
    """
    inside = np.ones(eigenvolume.shape, dtype=bool) if mask is None or mask.shape != eigenvolume.shape else mask > 0.5
    values = np.abs(eigenvolume[inside] if inside.any() else eigenvolume.ravel()).astype(np.float64)
    return float(min(3 * np.sqrt(np.mean(np.square(values))), 0.7 * values.max()))


def surface_radius(volumes: list[tuple[np.ndarray, float]]) -> float:
    """Find half the edge of the smallest cube about the centre of the box that holds some surfaces.

    Parameters
    ----------
    volumes : list of (ndarray of shape (z, y, x), float)
        Volumes of one box with their levels.

    Returns
    -------
    float
        Voxels, with a small margin; half the box if no surface is there.

    Examples
    --------
    >>> point = np.zeros((9, 9, 9)); point[4, 4, 7] = 1
    >>> surface_radius([(point, 0.5)])
    4.5
    """
    box_size = volumes[0][0].shape[0]
    inside = np.concatenate([np.argwhere(volume >= level) for volume, level in volumes])
    if not len(inside):
        return box_size / 2
    return float(np.abs(inside - box_size // 2).max()) + 1.5


class Surface:
    """An iso-surface that can be looked at from any direction.

    Parameters
    ----------
    volume : ndarray, shape (z, y, x)
        A cubic map.
    level : float
        The surface surrounds the voxels at or above it; what lies beyond the box counts as below.

    Examples
    --------
    >>> ball = np.zeros((9, 9, 9)); ball[3:6, 3:6, 3:6] = 1
    >>> Surface(ball, 0.5).look(DIRECTIONS["z"], radius=4, pixels=9).is_hit.sum()
    9
    """

    def __init__(self, volume: np.ndarray, level: float) -> None:
        self.level = float(level)
        self._box_size = volume.shape[0]
        self._scale = 2 if self._box_size <= FINE_BOX else 1
        inside = np.argwhere(volume >= level)
        self.is_empty = not len(inside)
        if self.is_empty:
            return
        # only the part with the surface, so that large boxes take no longer than their molecule needs
        first = np.maximum(inside.min(axis=0) - _MARGIN, 0)
        last = np.minimum(inside.max(axis=0) + _MARGIN, self._box_size - 1)
        part = volume[tuple(slice(low, high + 1) for low, high in zip(first, last))].astype(np.float32)
        if self._scale > 1:
            part = zoom(part, [(2 * edge - 1) / edge for edge in part.shape], order=3, mode="nearest")
        # one more voxel all around closes surfaces that reach the edge of the box
        below = min(float(part.min()), self.level) - 1e-6 - 1e-3 * abs(self.level)
        self._volume = np.pad(part, 1, constant_values=below)
        self._first = first - 1 / self._scale
        self._distance = distance_transform_edt(self._volume < self.level).astype(np.float32)
        self._gradient = np.gradient(gaussian_filter(self._volume, 0.7))

    def look(self, axes: np.ndarray, radius: float, pixels: int) -> Hits:
        """Cast one ray for each pixel of a picture.

        Parameters
        ----------
        axes : ndarray, shape (3, 3)
            Orthonormal rows right, up and towards the viewer, in (x, y, z); see `DIRECTIONS`.
        radius : float
            From the centre of the picture, which is that of the box, to its edge; voxels.
        pixels : int
            Edge of the picture.

        Returns
        -------
        Hits
        """
        # rows of `axes` in the order (z, y, x) of the array
        right, up, towards = np.asarray(axes, dtype=float)[:, ::-1]
        line = ((np.arange(pixels) + 0.5) / pixels * 2 - 1) * radius
        across, upward = (part.reshape(-1, 1) for part in np.meshgrid(line, line))
        start = self._box_size // 2 + across * right + upward * up
        height = np.full(len(start), -np.inf)
        normal = np.zeros((len(start), 3))
        if not self.is_empty:
            self._march(start, towards, height)
        is_hit = np.isfinite(height)
        position = start + np.where(is_hit, height, 0.0)[:, None] * towards
        if is_hit.any():
            normal[is_hit] = self._normals(position[is_hit]) @ np.stack([right, up, towards], axis=1)
        shape = (pixels, pixels)
        return Hits(height.reshape(shape), position.reshape(*shape, 3), normal.reshape(*shape, 3))

    def _march(self, start: np.ndarray, towards: np.ndarray, height: np.ndarray) -> None:
        """Move along all rays at once from the front, by as much as the distance to the surface allows."""
        where, end = self._crossing(start, towards)
        ray = np.flatnonzero(where > end)
        where, previous = where[ray], where[ray]
        while len(ray):
            position = self._to_fine(start[ray] + where[:, None] * towards)
            step = np.maximum(self._distance_at(position), _STEP)
            # far from the surface there is no need to look at the volume
            is_inside = step <= _STEP
            is_inside[is_inside] = self._sample(position[is_inside]) >= self.level
            hit = ray[is_inside]
            height[hit] = self._bisect(start[hit], towards, previous[is_inside], where[is_inside])
            previous = where
            where = where - step
            goes_on = ~is_inside & (where > end[ray])
            ray, where, previous = ray[goes_on], where[goes_on], previous[goes_on]

    def _crossing(self, start: np.ndarray, towards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Heights at which rays enter and leave the stored part; entry below exit for a ray that misses it."""
        corner = (np.array(self._volume.shape) - 1) / self._scale
        entry, leaving = np.full(len(start), np.inf), np.full(len(start), -np.inf)
        for axis in range(3):
            low, high = self._first[axis] - start[:, axis], self._first[axis] + corner[axis] - start[:, axis]
            if abs(towards[axis]) < 1e-9:
                entry[(low > 0) | (high < 0)] = -np.inf
            else:
                ends = np.stack([low, high]) / towards[axis]
                entry, leaving = np.minimum(entry, ends.max(axis=0)), np.maximum(leaving, ends.min(axis=0))
        return entry, leaving

    def _bisect(self, start: np.ndarray, towards: np.ndarray, outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
        """Halve the interval between a point outside and one inside the surface; return heights."""
        for _ in range(_BISECTIONS):
            middle = 0.5 * (outer + inner)
            is_inside = self._sample(self._to_fine(start + middle[:, None] * towards)) >= self.level
            inner, outer = np.where(is_inside, middle, inner), np.where(is_inside, outer, middle)
        return 0.5 * (outer + inner)

    def _to_fine(self, position: np.ndarray) -> np.ndarray:
        """Indices in the stored part of the volume, from those in the box."""
        return (position - self._first) * self._scale

    def _sample(self, fine: np.ndarray) -> np.ndarray:
        """Interpolate the stored part linearly."""
        return map_coordinates(self._volume, fine.T, order=1, mode="nearest")

    def _distance_at(self, fine: np.ndarray) -> np.ndarray:
        """Distance that a ray may travel at least before it reaches the surface; voxels, maybe negative."""
        index = np.clip(np.rint(fine), 0, np.array(self._volume.shape) - 1).astype(np.intp)
        distance = self._distance[index[:, 0], index[:, 1], index[:, 2]]
        # half a cell's diagonal to the nearest grid point, and a whole one before the first grid point inside
        return (distance - 1.5 * np.sqrt(3)) / self._scale

    def _normals(self, position: np.ndarray) -> np.ndarray:
        """Unit vectors (z, y, x) down the gradient."""
        fine = self._to_fine(position).T
        slope = np.stack([map_coordinates(part, fine, order=1, mode="nearest") for part in self._gradient], axis=1)
        return -slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-12)


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


def sample(volume: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Interpolate a volume at positions.

    Parameters
    ----------
    volume : ndarray, shape (z, y, x)
    position : ndarray, shape (..., 3)
        Indices (z, y, x).

    Returns
    -------
    ndarray, shape (...)
    """
    flat = map_coordinates(volume, position.reshape(-1, 3).T, order=1, mode="nearest")
    return flat.reshape(position.shape[:-1])


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
