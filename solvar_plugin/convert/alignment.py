"""Orientations and shifts that the engine has refined, as Scipion's transforms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pwem.objects import Transform

from solvar_engine.contract.angles import relion_to_rotation
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile, StarTable

CHANGE_COLUMNS = ("solvarRotationChange", "solvarShiftChange", "solvarRotationStd", "solvarShiftStd")
"""Columns of a run's particles.star whose poses were refined."""

_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")


@dataclass(frozen=True)
class PoseChanges:
    """How far poses were changed by their refinement, and how uncertain they are.

    Attributes
    ----------
    rotation, rotation_std : ndarray, shape (n,)
        Degrees.
    shift, shift_std : ndarray, shape (n,)
        Angstrom.
    """

    rotation: np.ndarray
    shift: np.ndarray
    rotation_std: np.ndarray
    shift_std: np.ndarray

    def __len__(self) -> int:
        return len(self.rotation)


@dataclass(frozen=True)
class RefinedPoses:
    """Refined orientations and shifts, row by row.

    Attributes
    ----------
    rotation : ndarray, shape (n, 3, 3)
        From image to volume.
    origin : ndarray, shape (n, 2)
        RELION's origins, Angstrom.
    changes : PoseChanges
    """

    rotation: np.ndarray
    origin: np.ndarray
    changes: PoseChanges

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


def pose_changes_of(table: StarTable) -> PoseChanges | None:
    """Return how far the poses of a table were changed; None if they were not refined."""
    if not all(name in table for name in CHANGE_COLUMNS):
        return None
    numbers = table.numbers(*CHANGE_COLUMNS)
    return PoseChanges(*(numbers[name] for name in CHANGE_COLUMNS))


def refined_poses_of(table: StarTable) -> RefinedPoses | None:
    """Return the refined poses of a table; None if they were not refined."""
    changes = pose_changes_of(table)
    if changes is None:
        return None
    numbers = table.numbers(*_ANGLES, *_ORIGINS)
    rotation = relion_to_rotation(*(numbers[name] for name in _ANGLES))
    return RefinedPoses(rotation, np.stack([numbers[name] for name in _ORIGINS], axis=1), changes)


def read_pose_changes(run: RunDir) -> PoseChanges | None:
    """Read how far the poses of a run were changed; None if they were not refined.

    Raises
    ------
    UserError
        If the table of particles is absent or damaged.
    """
    return pose_changes_of(StarFile.read(run.particles).particles)
