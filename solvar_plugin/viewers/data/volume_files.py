"""Volumes that a viewer can show, and how they are read."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import NamedTuple

import mrcfile
import numpy as np

from solvar_engine.contract.errors import UserError

DENSITY, MASK, COMPONENT = "density", "mask", "component"


class VolumeEntry(NamedTuple):
    """A volume that can be chosen.

    Attributes
    ----------
    name : str
        As shown to the user.
    path : Path
        Its MRC file.
    kind : str
        `DENSITY`, `MASK` or `COMPONENT`.
    """

    name: str
    path: Path
    kind: str


class Volume(NamedTuple):
    """A volume: data of shape (z, y, x), float32, and its pixel size in Angstrom (0 if the file has none)."""

    data: np.ndarray
    pixel_size: float


def read_volume(path: Path) -> Volume:
    """Read a cubic volume.

    Raises
    ------
    UserError
        If the file is not a readable MRC file or holds no cubic volume.
    """
    try:
        with mrcfile.open(path) as mrc:
            data, pixel_size = np.array(mrc.data, dtype=np.float32), float(mrc.voxel_size.x)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a readable MRC file ({error}).") from error
    if data.ndim != 3 or len(set(data.shape)) != 1:
        size = " x ".join(str(edge) for edge in data.shape)
        raise UserError(f"{path} holds {size} voxels, but a cubic volume is needed.")
    if not np.isfinite(data).all():
        raise UserError(f"{path} holds values that are not numbers: run the protocol again.")
    return Volume(data, pixel_size)
