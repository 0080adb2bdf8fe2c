"""Sizes by which Triton kernels share out their work; they change the speed, and sums in their last bits."""

from __future__ import annotations

from dataclasses import dataclass

_MOST_WARPS = 8
_LEAST_PIXELS, _MOST_PIXELS = 16, 256  # matrix products need 16; a tile of more gains nothing


@dataclass(frozen=True)
class Tiles:
    """How one kernel cuts its slices.

    Attributes
    ----------
    floats : int
        Of a tile: pixels times lanes, the floats of their channels; powers of two.
    pixels : int
        That a program goes through, tile by tile, at most.
    warps : int
        Threads of a program, in groups of 32; more where many lanes make tiles larger.
    stages : int
        Tiles that are on their way at the same time; more than one takes shared memory.
    """

    floats: int = 1024
    pixels: int = 256
    warps: int = 4
    stages: int = 1

    def pixels_of_tile(self, lanes: int) -> int:
        """Number of pixels of a tile with so many lanes."""
        return min(max(self.floats // lanes, _LEAST_PIXELS), _MOST_PIXELS)

    def warps_of_tile(self, lanes: int) -> int:
        """Number of warps of a tile with so many lanes."""
        return min(self.warps * max(1, self.pixels_of_tile(lanes) * lanes // self.floats), _MOST_WARPS)

    def tiles_of_program(self, lanes: int, pixels: int) -> int:
        """Number of tiles of a program where slices have so many pixels."""
        return max(1, -(-min(self.pixels, pixels) // self.pixels_of_tile(lanes)))


@dataclass(frozen=True)
class Tuning:
    """Choices that only a card can tell; the defaults are reckoned, not measured.

    Attributes
    ----------
    read, read_with_gram, add, add_combinations, pose_products : Tiles
        Of each kernel.
    sort_from_bytes : float
        Images are visited sorted by direction where grids are larger: what the cache of a card holds.
    private_bytes : float
        Largest memory of the copies of a grid into which images are added in turn, so that fewer meet in a cell.
    most_copies : int
    """

    read: Tiles = Tiles()
    read_with_gram: Tiles = Tiles(pixels=512)
    add: Tiles = Tiles()
    add_combinations: Tiles = Tiles()
    pose_products: Tiles = Tiles(floats=512, pixels=512)
    sort_from_bytes: float = 64e6
    private_bytes: float = 16e6
    most_copies: int = 8


DEFAULT_TUNING = Tuning()
