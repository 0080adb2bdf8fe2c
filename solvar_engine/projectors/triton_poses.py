"""Triton kernel of the derivatives of slices by the pose: from the same eight corners, with no array in between."""

from __future__ import annotations

import triton
import triton.language as tl

from solvar_engine.projectors.triton_cells import (
    axis_weight,
    cell_of_pixel,
    split_complex,
    steps_between_cells,
    visited_image,
)

DERIVED = tl.constexpr(16)  # columns of a matrix product, the least of one: five derivatives and the image


@triton.jit
def turned(rotation, image, x, y, z, kx, ky):  # type: ignore[no-untyped-def]
    """Derivatives by a rotation vector in the frame of the image, slope . R (w x k), from slopes (x, y, z)."""
    row = rotation + image * 9
    in_x = tl.load(row) * x + tl.load(row + 3) * y + tl.load(row + 6) * z
    in_y = tl.load(row + 1) * x + tl.load(row + 4) * y + tl.load(row + 7) * z
    in_z = tl.load(row + 2) * x + tl.load(row + 5) * y + tl.load(row + 8) * z
    return ky * in_z, -kx * in_z, kx * in_y - ky * in_x


@triton.jit
def columns_of(a, b, c, d, e, f):  # type: ignore[no-untyped-def]
    """Put six vectors (pixels,) side by side, in the first columns of a block."""
    column = tl.arange(0, DERIVED)[None, :]
    first = tl.where(column == 0, a[:, None], 0.0) + tl.where(column == 1, b[:, None], 0.0)
    second = tl.where(column == 2, c[:, None], 0.0) + tl.where(column == 3, d[:, None], 0.0)
    third = tl.where(column == 4, e[:, None], 0.0) + tl.where(column == 5, f[:, None], 0.0)
    return first + second + third


@triton.jit(do_not_specialize=("centre", "count", "tiles"))
def pose_products(  # type: ignore[no-untyped-def]
    grid, order, rotation, pixels, phase_slope, ctf, weight, images, coefficients, moments, out, turn_out,
    centre, count, tiles,
    CHANNELS: tl.constexpr, FLOATS: tl.constexpr, LANES: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Sums of each block of pixels; see :meth:`~.base.Projector.pose_products`.

    ``pixels`` are in cells of the grid, ``phase_slope`` (pixels, 2) is the phase by which a pixel turns per pixel of
    shift.
    """
    image = visited_image(order)
    lane, channel = tl.arange(0, LANES), tl.arange(0, LANES // 2)
    derived = tl.arange(0, DERIVED)
    is_channel = channel < CHANNELS
    along_y, along_z = steps_between_cells(centre, FLOATS)
    mixture = tl.load(coefficients + image * CHANNELS + channel, mask=is_channel, other=0.0)[None, :]
    entries = moments + image * (CHANNELS * CHANNELS) + channel[:, None] * CHANNELS + channel[None, :]
    moment = tl.load(entries, mask=is_channel[:, None] & is_channel[None, :], other=0.0)
    with_slices = tl.zeros([DERIVED, LANES // 2], tl.float64)
    with_derived = tl.zeros([DERIVED, DERIVED], tl.float64)
    turn = tl.zeros([DERIVED], tl.float64)
    for tile in range(tiles):
        pixel = (tl.program_id(1) * tiles + tile) * PIXELS + tl.arange(0, PIXELS)
        inside = pixel < count
        place = image * count + pixel
        kx = tl.load(pixels + 2 * pixel, mask=inside, other=0.0)
        ky = tl.load(pixels + 2 * pixel + 1, mask=inside, other=0.0)
        cell, x, y, z, sign = cell_of_pixel(rotation, image, kx, ky, centre, False)
        cells = grid + (cell * FLOATS)[:, None] + lane[None, :]
        mask = inside[:, None] & (lane < FLOATS)[None, :]
        values = tl.zeros([PIXELS, LANES], tl.float32)
        slope_x, slope_y, slope_z = values, values, values
        for corner in tl.static_range(8):
            step = (corner & 1) * FLOATS + ((corner >> 1) & 1) * along_y + (corner >> 2) * along_z
            corners = tl.load(cells + step, mask=mask, other=0.0)
            in_x, in_y = axis_weight(x, corner & 1), axis_weight(y, (corner >> 1) & 1)
            in_z = axis_weight(z, corner >> 2)
            values += (in_z * in_y * in_x)[:, None] * corners
            slope_x += (in_z * in_y * (2 * (corner & 1) - 1))[:, None] * corners
            slope_y += (in_z * in_x * (2 * ((corner >> 1) & 1) - 1))[:, None] * corners
            slope_z += (in_y * in_x * (2 * (corner >> 2) - 1))[:, None] * corners
        real, imaginary = split_complex(values)
        real_x, imaginary_x = split_complex(slope_x)
        real_y, imaginary_y = split_complex(slope_y)
        real_z, imaginary_z = split_complex(slope_z)
        # what each channel's derivative is multiplied by
        real_moment = tl.dot(real, moment, input_precision="ieee")
        imaginary_moment = tl.dot(imaginary, moment, input_precision="ieee")
        turn_x, turn_y, turn_z = turned(
            rotation,
            image,
            tl.sum(real_moment * real_x + imaginary_moment * imaginary_x, axis=1),
            tl.sum(real_moment * real_y + imaginary_moment * imaginary_y, axis=1),
            tl.sum(real_moment * real_z + imaginary_moment * imaginary_z, axis=1),
            kx,
            ky,
        )
        # the Friedel mate was read: the frequency and the imaginary part change sign
        scale = tl.load(ctf + place, mask=inside, other=0.0)
        share = tl.load(weight + pixel, mask=inside, other=0.0)
        size = sign * share * scale * scale
        nothing = tl.zeros([PIXELS], tl.float32)
        columns = columns_of(size * turn_x, size * turn_y, size * turn_z, nothing, nothing, nothing)
        turn += tl.sum(columns, axis=0).to(tl.float64)
        real, imaginary = scale[:, None] * real, (sign * scale)[:, None] * imaginary
        mixed_real, mixed_imaginary = tl.sum(mixture * real, axis=1), tl.sum(mixture * imaginary, axis=1)
        real_0, real_1, real_2 = turned(
            rotation,
            image,
            tl.sum(mixture * real_x, axis=1),
            tl.sum(mixture * real_y, axis=1),
            tl.sum(mixture * real_z, axis=1),
            kx,
            ky,
        )
        imaginary_0, imaginary_1, imaginary_2 = turned(
            rotation,
            image,
            tl.sum(mixture * imaginary_x, axis=1),
            tl.sum(mixture * imaginary_y, axis=1),
            tl.sum(mixture * imaginary_z, axis=1),
            kx,
            ky,
        )
        phase_x = tl.load(phase_slope + 2 * pixel, mask=inside, other=0.0)
        phase_y = tl.load(phase_slope + 2 * pixel + 1, mask=inside, other=0.0)
        turning = sign * scale
        real_columns = columns_of(
            turning * real_0,
            turning * real_1,
            turning * real_2,
            -phase_x * mixed_imaginary,
            -phase_y * mixed_imaginary,
            tl.load(images + 2 * place, mask=inside, other=0.0),
        )
        imaginary_columns = columns_of(
            scale * imaginary_0,
            scale * imaginary_1,
            scale * imaginary_2,
            phase_x * mixed_real,
            phase_y * mixed_real,
            tl.load(images + 2 * place + 1, mask=inside, other=0.0),
        )
        real_rows = tl.trans(share[:, None] * real_columns)
        imaginary_rows = tl.trans(share[:, None] * imaginary_columns)
        sums = tl.dot(real_rows, real, input_precision="ieee")
        with_slices += tl.dot(imaginary_rows, imaginary, sums, input_precision="ieee").to(tl.float64)
        sums = tl.dot(real_rows, real_columns, input_precision="ieee")
        with_derived += tl.dot(imaginary_rows, imaginary_columns, sums, input_precision="ieee").to(tl.float64)
    block = image * tl.num_programs(1) + tl.program_id(1)
    rows = out + block * (5 * (CHANNELS + 6)) + (derived * (CHANNELS + 6))[:, None]
    is_row = (derived < 5)[:, None]
    tl.store(rows + channel[None, :], with_slices, mask=is_row & is_channel[None, :])
    tl.store(rows + CHANNELS + derived[None, :], with_derived, mask=is_row & (derived < 6)[None, :])
    tl.store(turn_out + block * 3 + derived, turn, mask=derived < 3)
