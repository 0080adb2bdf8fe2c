"""Iso-surfaces, found with numpy and scipy alone: rays are cast at a volume, of shape (z, y, x)."""

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
