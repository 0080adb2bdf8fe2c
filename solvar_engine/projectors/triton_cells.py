"""What all Triton kernels share: where on the grid a pixel of a slice lies, and reading and adding at its corners.

A tile is a block (pixels, lanes) of floats; lanes are the real and imaginary parts of all channels, side by side as in
the grid, whose channels lie last. Offsets into grids and slices have 64 bits.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def visited_image(order):  # type: ignore[no-untyped-def]
    """Image of this program: neighbours in the order of programs see the volume from nearly the same side."""
    return tl.load(order + tl.program_id(0)).to(tl.int64)


@triton.jit
def cell_of_pixel(rotation, image, kx, ky, centre, NEAREST: tl.constexpr):  # type: ignore[no-untyped-def]
    """Number of the cell that each pixel falls into, its place (x, y, z) inside, and -1 where its mate was taken.

    Products are rounded as written, so that every kernel finds a pixel in the same cell.
    """
    row = rotation + image * 9
    x = tl.fma(tl.load(row + 1), ky, tl.load(row) * kx)
    y = tl.fma(tl.load(row + 4), ky, tl.load(row + 3) * kx)
    z = tl.fma(tl.load(row + 7), ky, tl.load(row + 6) * kx)
    sign = tl.where(x < 0, -1.0, 1.0)
    x, y, z = x * sign, y * sign, z * sign
    if NEAREST:
        x, y, z = x + 0.5, y + 0.5, z + 0.5
    lowest_x, lowest_y, lowest_z = tl.floor(x), tl.floor(y), tl.floor(z)
    plane = lowest_z.to(tl.int64) + centre
    line = plane * (2 * centre + 1) + lowest_y.to(tl.int64) + centre
    cell = line * (centre + 1) + lowest_x.to(tl.int64)
    return cell, x - lowest_x, y - lowest_y, z - lowest_z, sign


@triton.jit
def steps_between_cells(centre, FLOATS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Floats from a cell to the next one along y and along z."""
    along_y = (centre + 1).to(tl.int64) * FLOATS
    return along_y, along_y * (2 * centre + 1)


@triton.jit
def axis_weight(fraction, UPPER: tl.constexpr):  # type: ignore[no-untyped-def]
    """Weight of the lower or the upper corner along an axis."""
    if UPPER:
        return fraction
    else:
        return 1.0 - fraction


@triton.jit
def interpolate(cells, mask, x, y, z, along_y, along_z, FLOATS: tl.constexpr, NEAREST: tl.constexpr):  # type: ignore[no-untyped-def]
    """Read a tile: the weighted sum over the corners of the cells that `cells` points to."""
    if NEAREST:
        return tl.load(cells, mask=mask, other=0.0)
    else:
        values = tl.zeros(cells.shape, tl.float32)
        for corner in tl.static_range(8):
            step = (corner & 1) * FLOATS + ((corner >> 1) & 1) * along_y + (corner >> 2) * along_z
            weight = axis_weight(z, corner >> 2) * axis_weight(y, (corner >> 1) & 1) * axis_weight(x, corner & 1)
            values += weight[:, None] * tl.load(cells + step, mask=mask, other=0.0)
        return values


@triton.jit
def spread(cells, values, mask, x, y, z, along_y, along_z, FLOATS: tl.constexpr, NEAREST: tl.constexpr):  # type: ignore[no-untyped-def]
    """Add a tile: the adjoint of `interpolate`. Programs meet in the cells, so every addition is atomic."""
    if NEAREST:
        tl.atomic_add(cells, values, mask=mask, sem="relaxed")
    else:
        for corner in tl.static_range(8):
            step = (corner & 1) * FLOATS + ((corner >> 1) & 1) * along_y + (corner >> 2) * along_z
            weight = axis_weight(z, corner >> 2) * axis_weight(y, (corner >> 1) & 1) * axis_weight(x, corner & 1)
            tl.atomic_add(cells + step, weight[:, None] * values, mask=mask, sem="relaxed")


@triton.jit
def conjugated(values, lane, sign):  # type: ignore[no-untyped-def]
    """Conjugate the pixels of a tile whose Friedel mate was taken."""
    return tl.where((lane & 1)[None, :] == 1, sign[:, None] * values, values)


@triton.jit
def split_complex(values):  # type: ignore[no-untyped-def]
    """Real and imaginary parts (pixels, channels) of a tile."""
    return tl.split(tl.reshape(values, [values.shape[0], values.shape[1] // 2, 2]))
