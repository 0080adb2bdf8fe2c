"""Compiled kernel of the derivatives of slices by the pose: from the same eight corners, with no array in between.

An image's mixture of channels is formed at the corners first; its slope in three directions then costs no more than
that of a single volume.
"""

from __future__ import annotations

import numba
import numpy as np

from solvar_engine.projectors.numba_cells import compiled, corner_weights, inlined, place, prefetch_ahead

_BLOCK = 64  # pixels of a float32 sum, before it is added up in float64


@inlined
def _slope(v, fx, fy, fz):  # type: ignore[no-untyped-def]
    """Gradient (x, y, z) of trilinear interpolation between eight corner values, x fastest."""
    one = np.float32(1.0)
    gx, gy, gz = one - fx, one - fy, one - fz
    along_x = gz * (gy * (v[1] - v[0]) + fy * (v[3] - v[2])) + fz * (gy * (v[5] - v[4]) + fy * (v[7] - v[6]))
    along_y = gz * (gx * (v[2] - v[0]) + fx * (v[3] - v[1])) + fz * (gx * (v[6] - v[4]) + fx * (v[7] - v[5]))
    along_z = gy * (gx * (v[4] - v[0]) + fx * (v[5] - v[1])) + fy * (gx * (v[6] - v[2]) + fx * (v[7] - v[3]))
    return along_x, along_y, along_z


@inlined
def _turn(slope, rotation, kx, ky):  # type: ignore[no-untyped-def]
    """Derivatives by a rotation vector in the frame of the image: slope . R (w x k)."""
    along = [
        rotation[0, i] * slope[0] + rotation[1, i] * slope[1] + rotation[2, i] * slope[2] for i in range(3)
    ]
    return ky * along[2], -kx * along[2], kx * along[1] - ky * along[0]


@compiled
def pose_products_trilinear(  # type: ignore[no-untyped-def]
    grid, rotation, pixels, phase_slope, ctf, weight, images, coefficients, moments, centre, out, turn_out
):
    """See :meth:`~.base.Projector.pose_products`; complex channels are pairs of floats.

    ``pixels`` are in cells of the grid, ``phase_slope`` (pixels, 2) is the phase by which a pixel turns per pixel of
    shift.
    """
    channels = grid.shape[3] // 2
    width = channels + 6
    for n in numba.prange(rotation.shape[0]):
        matrix = rotation[n]
        real, imaginary = np.empty(width, np.float32), np.empty(width, np.float32)
        row = np.empty(2 * channels, np.float32)
        reverse = np.empty(2 * channels, np.float32)
        mixed_real, mixed_imaginary = np.empty(8, np.float32), np.empty(8, np.float32)
        correlated = np.empty(8, np.float32)
        partial, total = np.empty((5, width), np.float32), np.zeros((5, width), np.float64)
        turn_partial, turn_total = np.empty(3, np.float32), np.zeros(3, np.float64)
        for start in range(0, pixels.shape[0], _BLOCK):
            partial[:] = 0
            turn_partial[:] = 0
            for p in range(start, min(start + _BLOCK, pixels.shape[0])):
                prefetch_ahead(grid, matrix, pixels, p, centre, 0, grid.shape[0])
                kx, ky = pixels[p, 0], pixels[p, 1]
                x, y, z, flipped = place(matrix, kx, ky)
                ix, iy, iz, corner_weight = corner_weights(x, y, z)
                fx, fy, fz = np.float32(x - ix), np.float32(y - iy), np.float32(z - iz)
                iy, iz = iy + centre, iz + centre
                corners = (
                    grid[iz, iy, ix], grid[iz, iy, ix + 1], grid[iz, iy + 1, ix], grid[iz, iy + 1, ix + 1],
                    grid[iz + 1, iy, ix], grid[iz + 1, iy, ix + 1], grid[iz + 1, iy + 1, ix],
                    grid[iz + 1, iy + 1, ix + 1],
                )  # fmt: skip
                row[:] = 0
                for q in range(8):
                    corner, share = corners[q], corner_weight[q]
                    for j in range(2 * channels):
                        row[j] += share * corner[j]
                # moments @ slice, interleaved: what each channel's derivative is multiplied by
                for j in range(channels):
                    a, b = np.float32(0), np.float32(0)
                    for i in range(channels):
                        a += moments[n, j, i] * row[2 * i]
                        b += moments[n, j, i] * row[2 * i + 1]
                    reverse[2 * j], reverse[2 * j + 1] = a, b
                for q in range(8):
                    corner = corners[q]
                    a, b, c = np.float32(0), np.float32(0), np.float32(0)
                    for j in range(channels):
                        a += coefficients[n, j] * corner[2 * j]
                        b += coefficients[n, j] * corner[2 * j + 1]
                        c += reverse[2 * j] * corner[2 * j] + reverse[2 * j + 1] * corner[2 * j + 1]
                    mixed_real[q], mixed_imaginary[q], correlated[q] = a, b, c
                # the Friedel mate was read: the frequency and the imaginary part change sign
                sign = np.float32(-1.0) if flipped else np.float32(1.0)
                scale = ctf[n, p]
                value_real, value_imaginary = np.float32(0), np.float32(0)
                for j in range(channels):
                    real[j], imaginary[j] = scale * row[2 * j], sign * scale * row[2 * j + 1]
                    value_real += coefficients[n, j] * real[j]
                    value_imaginary += coefficients[n, j] * imaginary[j]
                turned = _turn(_slope(mixed_real, fx, fy, fz), matrix, kx, ky)
                turned_imaginary = _turn(_slope(mixed_imaginary, fx, fy, fz), matrix, kx, ky)
                for k in range(3):
                    real[channels + k] = sign * scale * turned[k]
                    imaginary[channels + k] = scale * turned_imaginary[k]
                for k in range(2):
                    real[channels + 3 + k] = -phase_slope[p, k] * value_imaginary
                    imaginary[channels + 3 + k] = phase_slope[p, k] * value_real
                real[channels + 5], imaginary[channels + 5] = images[n, 2 * p], images[n, 2 * p + 1]
                for k in range(5):
                    a, b = weight[p] * real[channels + k], weight[p] * imaginary[channels + k]
                    for j in range(width):
                        partial[k, j] += a * real[j] + b * imaginary[j]
                correlation = _turn(_slope(correlated, fx, fy, fz), matrix, kx, ky)
                for k in range(3):
                    turn_partial[k] += sign * weight[p] * scale * scale * correlation[k]
            total += partial
            turn_total += turn_partial
        out[n] = total
        turn_out[n] = turn_total
