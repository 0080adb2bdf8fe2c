"""What HAX's *annotate space* loads to make volumes of a SOLVAR run; it runs in HAX's environment, so NumPy must do.

HAX makes an instance from a template of paths and all options of its own command line, and then asks for volumes.
"""

from __future__ import annotations

import os
import re

import numpy as np

_HEADER_BYTES = 1024
_FLOATS = 2  # MRC mode


class HeterogeneityProgramInterface:
    """Volumes of points of the latent space.

    Parameters
    ----------
    _path_template : str
        Path with a place for a number, such as ``decoded_map_class_{:02d}.mrc``.
    _program_loading_params : dict
        Options of the command line; `solvar_run` is the run directory.
    """

    def __init__(self, _path_template, _program_loading_params):
        self.path_template = _path_template
        self.prepare_heterogeneity_program(**_program_loading_params)

    def prepare_heterogeneity_program(self, **options):
        """Read mean and eigenvolumes of the run."""
        run = str(options["solvar_run"])
        folder = os.path.join(run, "eigenvolumes")
        names = sorted(name for name in os.listdir(folder) if re.fullmatch(r"eigenvolume_\d+\.mrc", name))
        self._header, self._mean = _read(os.path.join(run, "mean.mrc"))
        self._eigenvolumes = np.stack([_read(os.path.join(folder, name))[1] for name in names])

    def decode_state_from_latent(self, latent):
        """Write the volumes of some points, shape (k, r) or (r,), numbered from 1.

        Raises
        ------
        ValueError
            If the points have another number of coordinates than the run has components.
        """
        points = np.atleast_2d(np.asarray(latent, dtype=np.float32))
        if points.shape[1] != len(self._eigenvolumes):
            rank = len(self._eigenvolumes)
            raise ValueError(f"points have {points.shape[1]} coordinates, but the run {rank} components")
        for number, point in enumerate(points, start=1):
            volume = self._mean + np.tensordot(point, self._eigenvolumes, 1)
            _write(self.path_template.format(number), volume.astype("<f4"), self._header)


def _read(path):
    """Return header and volume (z, y, x) of an MRC file as the engine writes it: 32-bit floats, little-endian."""
    with open(path, "rb") as stream:
        header = stream.read(_HEADER_BYTES)
        width, height, depth, mode = np.frombuffer(header, "<i4", 4).tolist()
        extended = int(np.frombuffer(header, "<i4", 1, 92)[0])
        if mode != _FLOATS:
            raise ValueError(f"{path} does not hold 32-bit floats")
        stream.seek(_HEADER_BYTES + extended)
        values = np.frombuffer(stream.read(4 * width * height * depth), "<f4")
    return header, values.reshape(depth, height, width)


def _write(path, volume, header):
    """Write a volume with the header of another of the same size: smallest, largest, mean, no extension, spread."""
    changed = bytearray(header)
    changed[76:88] = np.array([volume.min(), volume.max(), volume.mean()], "<f4").tobytes()
    changed[92:96] = bytes(4)
    changed[216:220] = np.array([volume.std()], "<f4").tobytes()
    with open(path, "wb") as stream:
        stream.write(bytes(changed) + volume.tobytes())
