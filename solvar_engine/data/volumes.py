"""Maps and masks as MRC files."""

from __future__ import annotations

import os

import numpy as np
import torch

from solvar_engine.contract.errors import UserError
from solvar_engine.data.mrc import MrcHeader, read_header, write_map
from solvar_engine.imaging.types import Volume

# voxels count as cubic if their edges agree to this fraction
_ANISOTROPY = 0.01


def read_volume(path: str | os.PathLike[str], pixel_size: float | None = None) -> Volume:
    """Read a cubic map of MRC mode 0, 1, 2, 6 or 12 in (z, y, x) order, whatever the order in the file.

    Parameters
    ----------
    path : path
    pixel_size : float, optional
        Angstrom, used where the header does not say.

    Returns
    -------
    Volume

    Raises
    ------
    UserError
        If the file is absent, not an MRC file, truncated, not a cube, has values that are not finite or
        voxels that are not cubic, or its pixel size is unknown.

    Examples
    --------
    >>> read_volume("mask.mrc").box_size  # doctest: +SKIP
    64
    """
    header = read_header(path)
    sections, rows, columns = header.shape
    if not sections == rows == columns:
        kind = "a stack of images or not a cube" if rows == columns else "not a cube"
        raise UserError(f"{path} is {kind} ({columns} x {rows} x {sections}): give a cubic volume.")
    if header.whole_sections < sections:
        raise UserError(f"{path} is truncated ({header.file_bytes} bytes): copy or make it again.")
    values = np.fromfile(path, dtype=header.dtype, count=sections**3, offset=header.data_offset)
    # sections, rows and columns are the axes header.axes[2], [1] and [0]
    order = [header.axes[::-1].index(axis) for axis in (3, 2, 1)]
    data = values.reshape(header.shape).transpose(order).astype(np.float32)
    if not np.isfinite(data).all():
        raise UserError(f"{path} has NaN or infinite values: make it again.")
    return Volume(torch.from_numpy(np.ascontiguousarray(data)), _pixel_size(header, path, pixel_size))


def write_volume(path: str | os.PathLike[str], volume: Volume) -> None:
    """Write a map atomically as MRC mode 2 with its pixel size; the same map gives the same bytes.

    Parameters
    ----------
    path : path
    volume : Volume
    """
    write_map(path, volume.data.detach().cpu().numpy(), volume.pixel_size)


def _pixel_size(header: MrcHeader, path: str | os.PathLike[str], fallback: float | None) -> float:
    smallest, largest = min(header.voxel_size), max(header.voxel_size)
    if smallest <= 0:
        if fallback is None:
            raise UserError(f"{path} has no pixel size in its header: set it with relion_image_handler.")
        return fallback
    if largest > smallest * (1 + _ANISOTROPY):
        sizes = " x ".join(f"{size:g}" for size in header.voxel_size)
        raise UserError(f"The voxels of {path} are not cubic ({sizes} Angstrom): correct its header.")
    return header.voxel_size[0]
