"""Orientations and shifts that the engine has refined, found or added, as Scipion's transforms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pwem.objects import Transform

from solvar_engine.contract.angles import relion_to_rotation
from solvar_engine.contract.results import OTHER_FRAME, POSE_CHANGE_COLUMNS, ROTATION_STD
from solvar_engine.contract.star import StarTable

_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")


@dataclass(frozen=True)
class RefinedPoses:
    """Orientations and shifts that were refined, found, or added by symmetry, row by row.

    Attributes
    ----------
    rotation : ndarray, shape (n, 3, 3)
        From image to volume.
    origin : ndarray, shape (n, 2)
        RELION's origins, Angstrom.
    known : dict of str to ndarray, shape (n,)
        How far they have moved, if they were refined, and how uncertain they are: columns of particles.star.
    """

    rotation: np.ndarray
    origin: np.ndarray
    known: dict[str, np.ndarray]

    def transform(self, row: int, sampling_rate: float) -> Transform:
        """Return Scipion's transform of a row, the inverse of RELION's: shifts are in the frame of the volume.

        Parameters
        ----------
        row : int
        sampling_rate : float
            Of the images, Angstrom per pixel.
        """
        matrix = np.eye(4)
        matrix[:3, :3] = self.rotation[row]
        matrix[:3, 3] = self.rotation[row][:, :2] @ self.origin[row] / sampling_rate
        return Transform(matrix)


def refined_poses_of(table: StarTable) -> RefinedPoses | None:
    """Return the poses of a table of particles; None if the engine has taken them as they were."""
    return poses_of(table) if ROTATION_STD in table or OTHER_FRAME in table else None


def poses_of(table: StarTable) -> RefinedPoses:
    """Return the poses of a table of particles."""
    numbers = table.numbers(*_ANGLES, *_ORIGINS)
    known = table.numbers(*(name for name in POSE_CHANGE_COLUMNS if name in table))
    rotation = relion_to_rotation(*(numbers[name] for name in _ANGLES))
    return RefinedPoses(rotation, np.stack([numbers[name] for name in _ORIGINS], axis=1), known)
