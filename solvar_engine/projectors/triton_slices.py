"""Triton kernels that take slices and add them back, with Gram matrices and combinations on the way.

Programs are numbered image by image, then by blocks of pixels. Pixels are sorted by their radius: programs that run at
the same time touch one shell of the grid, which the cache of the card can hold, whatever the size of the grid.
"""

from __future__ import annotations

import triton
import triton.language as tl

from solvar_engine.projectors.triton_cells import (
    cell_of_pixel,
    conjugated,
    interpolate,
    split_complex,
    spread,
    steps_between_cells,
    visited_image,
)

_VARYING = ("centre", "count", "tiles", "copy_floats")
"""Arguments for which no kernel of its own is compiled where they happen to be 1 or a multiple of 16."""


@triton.jit(do_not_specialize=_VARYING)
def read_slices(  # type: ignore[no-untyped-def]
    grid, order, rotation, pixels, ctf, images, weight, out, gram, centre, count, tiles,
    CHANNELS: tl.constexpr, FLOATS: tl.constexpr, LANES: tl.constexpr, PIXELS: tl.constexpr,
    NEAREST: tl.constexpr, HAS_CTF: tl.constexpr, HAS_GRAM: tl.constexpr,
):  # fmt: skip
    """Slices (image, pixel, channel), and of each block of pixels the Gram matrices with the image as last channel."""
    image = visited_image(order)
    lane = tl.program_id(2) * LANES + tl.arange(0, LANES)
    column = tl.arange(0, LANES // 2)
    along_y, along_z = steps_between_cells(centre, FLOATS)
    total = tl.zeros([LANES // 2, LANES // 2], tl.float64)
    for tile in range(tiles):
        pixel = (tl.program_id(1) * tiles + tile) * PIXELS + tl.arange(0, PIXELS)
        inside = pixel < count
        place = image * count + pixel
        kx = tl.load(pixels + 2 * pixel, mask=inside, other=0.0)
        ky = tl.load(pixels + 2 * pixel + 1, mask=inside, other=0.0)
        cell, x, y, z, sign = cell_of_pixel(rotation, image, kx, ky, centre, NEAREST)
        cells = grid + (cell * FLOATS)[:, None] + lane[None, :]
        mask = inside[:, None] & (lane < FLOATS)[None, :]
        values = interpolate(cells, mask, x, y, z, along_y, along_z, FLOATS, NEAREST)
        values = conjugated(values, lane, sign)
        if HAS_CTF:
            values *= tl.load(ctf + place, mask=inside, other=0.0)[:, None]
        rows = out + (place * (2 * CHANNELS))[:, None] + lane[None, :]
        tl.store(rows, values, mask=inside[:, None] & (lane < 2 * CHANNELS)[None, :])
        if HAS_GRAM:
            real, imaginary = split_complex(values)
            is_image = (column == CHANNELS)[None, :]
            real = tl.where(is_image, tl.load(images + 2 * place, mask=inside, other=0.0)[:, None], real)
            imaginary = tl.where(is_image, tl.load(images + 2 * place + 1, mask=inside, other=0.0)[:, None], imaginary)
            share = tl.load(weight + pixel, mask=inside, other=0.0)[:, None]
            sums = tl.dot(tl.trans(share * real), real, input_precision="ieee")
            sums = tl.dot(tl.trans(share * imaginary), imaginary, sums, input_precision="ieee")
            total += sums.to(tl.float64)
    if HAS_GRAM:
        width = CHANNELS + 1
        block = image * tl.num_programs(1) + tl.program_id(1)
        entries = gram + block * (width * width) + column[:, None] * width + column[None, :]
        tl.store(entries, total, mask=(column < width)[:, None] & (column < width)[None, :])


@triton.jit(do_not_specialize=_VARYING)
def add_slices(  # type: ignore[no-untyped-def]
    slices, order, rotation, pixels, ctf, out, centre, count, tiles, copy_floats,
    CHANNELS: tl.constexpr, FLOATS: tl.constexpr, LANES: tl.constexpr, PIXELS: tl.constexpr, COPIES: tl.constexpr,
    NEAREST: tl.constexpr, HAS_CTF: tl.constexpr,
):  # fmt: skip
    """Add slices (image, pixel, channel) to one of the copies of a grid."""
    image = visited_image(order)
    grid = out + tl.program_id(0) % COPIES * copy_floats.to(tl.int64)
    lane = tl.program_id(2) * LANES + tl.arange(0, LANES)
    along_y, along_z = steps_between_cells(centre, FLOATS)
    for tile in range(tiles):
        pixel = (tl.program_id(1) * tiles + tile) * PIXELS + tl.arange(0, PIXELS)
        inside = pixel < count
        place = image * count + pixel
        rows = slices + (place * (2 * CHANNELS))[:, None] + lane[None, :]
        mask = inside[:, None] & (lane < 2 * CHANNELS)[None, :]
        values = tl.load(rows, mask=mask, other=0.0)
        if HAS_CTF:
            values *= tl.load(ctf + place, mask=inside, other=0.0)[:, None]
        kx = tl.load(pixels + 2 * pixel, mask=inside, other=0.0)
        ky = tl.load(pixels + 2 * pixel + 1, mask=inside, other=0.0)
        cell, x, y, z, sign = cell_of_pixel(rotation, image, kx, ky, centre, NEAREST)
        cells = grid + (cell * FLOATS)[:, None] + lane[None, :]
        spread(cells, conjugated(values, lane, sign), mask, x, y, z, along_y, along_z, FLOATS, NEAREST)


@triton.jit(do_not_specialize=_VARYING)
def add_combinations(  # type: ignore[no-untyped-def]
    slices, order, rotation, pixels, ctf, images, coefficients, weight, out, centre, count, tiles, copy_floats,
    CHANNELS: tl.constexpr, COLUMNS: tl.constexpr, FLOATS: tl.constexpr, LANES: tl.constexpr, IN_LANES: tl.constexpr,
    PIXELS: tl.constexpr, COPIES: tl.constexpr, NEAREST: tl.constexpr,
):  # fmt: skip
    """Add combinations of each image's slices and the image itself, which are written nowhere in between."""
    image = visited_image(order)
    grid = out + tl.program_id(0) % COPIES * copy_floats.to(tl.int64)
    lane, in_lane = tl.arange(0, LANES), tl.arange(0, IN_LANES)
    channel, column = tl.arange(0, IN_LANES // 2), tl.arange(0, LANES // 2)
    along_y, along_z = steps_between_cells(centre, FLOATS)
    entries = coefficients + image * ((CHANNELS + 1) * COLUMNS) + channel[:, None] * COLUMNS + column[None, :]
    mixing = tl.load(entries, mask=(channel <= CHANNELS)[:, None] & (column < COLUMNS)[None, :], other=0.0)
    for tile in range(tiles):
        pixel = (tl.program_id(1) * tiles + tile) * PIXELS + tl.arange(0, PIXELS)
        inside = pixel < count
        place = image * count + pixel
        rows = slices + (place * (2 * CHANNELS))[:, None] + in_lane[None, :]
        values = tl.load(rows, mask=inside[:, None] & (in_lane < 2 * CHANNELS)[None, :], other=0.0)
        real, imaginary = split_complex(values)
        is_image = (channel == CHANNELS)[None, :]
        real = tl.where(is_image, tl.load(images + 2 * place, mask=inside, other=0.0)[:, None], real)
        imaginary = tl.where(is_image, tl.load(images + 2 * place + 1, mask=inside, other=0.0)[:, None], imaginary)
        kx = tl.load(pixels + 2 * pixel, mask=inside, other=0.0)
        ky = tl.load(pixels + 2 * pixel + 1, mask=inside, other=0.0)
        cell, x, y, z, sign = cell_of_pixel(rotation, image, kx, ky, centre, NEAREST)
        scale = tl.load(ctf + place, mask=inside, other=0.0) * tl.load(weight + pixel, mask=inside, other=0.0)
        real = tl.dot(real, mixing, input_precision="ieee") * scale[:, None]
        imaginary = tl.dot(imaginary, mixing, input_precision="ieee") * (scale * sign)[:, None]
        combined = tl.reshape(tl.join(real, imaginary), [PIXELS, LANES])
        cells = grid + (cell * FLOATS)[:, None] + lane[None, :]
        mask = inside[:, None] & (lane < 2 * COLUMNS)[None, :]
        spread(cells, combined, mask, x, y, z, along_y, along_z, FLOATS, NEAREST)
