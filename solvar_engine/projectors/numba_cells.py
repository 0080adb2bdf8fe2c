"""What all compiled kernels share: how they are compiled, and where on the grid a pixel of a slice lies."""

from __future__ import annotations

import math
from collections.abc import Callable

import numba
import numpy as np


def compiled(function: Callable) -> Callable:
    """Compile for parallel use, with a cache on disk wherever numba finds a folder that it may write.

    Without fast-math, which gains nothing here, and lets freshly compiled code round differently from the same code
    read back from the cache.
    """
    options = {"parallel": True, "nogil": True}
    try:
        return numba.njit(**options, cache=True)(function)
    except RuntimeError:  # numba: no locator available for the cache, everything is read-only
        return numba.njit(**options)(function)


def inlined(function: Callable) -> Callable:
    """Compile as a part of the kernels that call it; small enough for the compiler to inline."""
    return numba.njit()(function)


@inlined
def place(rotation, kx, ky):  # type: ignore[no-untyped-def]
    """Grid coordinates of a pixel, on the stored half x >= 0, and whether its Friedel mate was taken for that."""
    x = rotation[0, 0] * kx + rotation[0, 1] * ky
    y = rotation[1, 0] * kx + rotation[1, 1] * ky
    z = rotation[2, 0] * kx + rotation[2, 1] * ky
    flipped = x < 0
    if flipped:
        x, y, z = -x, -y, -z
    return x, y, z, flipped


@inlined
def corner_weights(x, y, z):  # type: ignore[no-untyped-def]
    """Lower corner of the cell around a point, and the weights of its eight corners, x fastest."""
    one = np.float32(1.0)
    x0, y0, z0 = math.floor(x), math.floor(y), math.floor(z)
    fx, fy, fz = np.float32(x - x0), np.float32(y - y0), np.float32(z - z0)
    gx, gy, gz = one - fx, one - fy, one - fz
    w00, w01, w10, w11 = gz * gy, gz * fy, fz * gy, fz * fy
    corners = (w00 * gx, w00 * fx, w01 * gx, w01 * fx, w10 * gx, w10 * fx, w11 * gx, w11 * fx)
    return int(x0), int(y0), int(z0), corners
