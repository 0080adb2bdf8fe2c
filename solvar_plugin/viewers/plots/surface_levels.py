"""Where the surface of a volume lies: its level, and how far it reaches."""

from __future__ import annotations

import numpy as np


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
