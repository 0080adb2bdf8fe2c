"""Mean, eigenvolumes and masks of a run as the textures that the page sums."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.run import RunDir
from solvar_engine.data.volumes import read_volume
from solvar_engine.imaging.fourier import fourier_crop_volume

MAX_BOX = 128
"""Larger volumes are shown on a coarser grid: what moves is seen at low resolution."""

MAX_COMPONENTS = 47
"""Volumes of further components are not shown: a graphics card is sure to combine 16 textures of four."""

HALF, BYTES = "f16", "i8"
_MARGIN = 2  # voxels around the mask
_VOLUMES_PER_TEXEL = 4


@dataclass(frozen=True)
class Basis:
    """The volumes of a run on one grid; everything in MRC order, (z, y, x).

    Attributes
    ----------
    volumes : ndarray, shape (1 + r, z, y, x), float32
        Mean, then eigenvolumes.
    mask, focus_mask : ndarray, shape (z, y, x), or None
        From 0 to 1; those that the run has.
    pixel_size : float
        Angstrom.
    box_size : int
        Edge of the whole grid, px.
    start : tuple of int
        Where the grid begins in the whole one, (z, y, x), px.
    """

    volumes: NDArray[np.float32]
    mask: NDArray[np.float32] | None
    focus_mask: NDArray[np.float32] | None
    pixel_size: float
    box_size: int
    start: tuple[int, int, int] = (0, 0, 0)

    @classmethod
    def read(cls, run: RunDir, rank: int) -> Basis:
        """Read the mean, the first `rank` eigenvolumes and the masks of a run.

        Raises
        ------
        UserError
            If a file is absent or damaged.
        """
        mean = read_volume(run.mean)
        box_size = min(mean.box_size, MAX_BOX)
        paths = [run.mean, *(run.eigenvolume(component) for component in range(1, rank + 1))]
        masks = [_read(path, box_size) if path.exists() else None for path in (run.mask, run.focus_mask)]
        pixel_size = mean.pixel_size * mean.box_size / box_size
        return cls(np.stack([_read(path, box_size) for path in paths]), masks[0], masks[1], pixel_size, box_size)

    def cropped(self) -> Basis:
        """Return what lies inside the mask and a small margin around it."""
        if self.mask is None:
            return self
        inside = np.nonzero(self.mask > 0.01)
        if not len(inside[0]):
            return self
        first = [max(int(index.min()) - _MARGIN, 0) for index in inside]
        last = [min(int(index.max()) + 1 + _MARGIN, self.box_size) for index in inside]
        part = tuple(slice(*ends) for ends in zip(first, last, strict=True))
        focus = None if self.focus_mask is None else self.focus_mask[part]
        start = (first[0], first[1], first[2])
        return Basis(self.volumes[(slice(None), *part)], self.mask[part], focus, self.pixel_size, self.box_size, start)

    @property
    def dims(self) -> tuple[int, int, int]:
        """Edges (x, y, z), px, as a texture has them."""
        depth, height, width = self.volumes.shape[1:]
        return width, height, depth

    @property
    def scale(self) -> NDArray[np.float64]:
        """Largest absolute value of each volume, by which `packed` divides; 1 for an empty one."""
        largest = np.abs(self.volumes).max(axis=(1, 2, 3)).astype(np.float64)
        return np.where(largest > 0, largest, 1.0)

    def packed(self, form: str) -> bytes:
        """Return the volumes over their scale, four to a texel: (textures, z, y, x, 4), float16 or 1/127 as int8."""
        count = -(-len(self.volumes) // _VOLUMES_PER_TEXEL)
        dtype = np.float16 if form == HALF else np.int8
        texels = np.zeros((count, *self.volumes.shape[1:], _VOLUMES_PER_TEXEL), dtype=dtype)
        for number, (volume, scale) in enumerate(zip(self.volumes, self.scale, strict=True)):
            unit = volume / scale
            texture, channel = divmod(number, _VOLUMES_PER_TEXEL)
            texels[texture, ..., channel] = unit if form == HALF else np.round(unit * 127)
        return texels.astype(texels.dtype.newbyteorder("<"), copy=False).tobytes()

    def matched(self, path: Path) -> NDArray[np.float16]:
        """Read another volume of the same extent on the grid of this one, scaled to the mean.

        Its scale may differ, as images of another size have; the least-squares factor makes one level fit both.

        Raises
        ------
        UserError
            If the file is absent or damaged.
        """
        part = tuple(slice(begin, begin + edge) for begin, edge in zip(self.start, self.volumes.shape[1:], strict=True))
        volume, mean = _read(path, self.box_size)[part].astype(np.float64), self.volumes[0]
        power = float((volume * volume).sum())
        if not power > 0:
            raise UserError(f"{path} is empty: make the volumes of the states again.")
        factor = float((volume * mean).sum()) / power
        return (volume * (factor if factor > 0 else 1.0)).astype("<f2")


def _read(path: Path, box_size: int) -> NDArray[np.float32]:
    volume = read_volume(path)
    data: NDArray[np.float32] = fourier_crop_volume(volume.data, box_size).numpy().astype(np.float32, copy=False)
    if not np.isfinite(data).all():
        raise UserError(f"{path} holds values that are not numbers: the run is damaged, fit it again.")
    return data
