"""What a run says of each image: the columns that it adds to particles.star."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from solvar_engine.contract.star import StarFile, StarTable

CONTRAST, CONTRAST_STD = "solvarContrast", "solvarContrastStd"
LOG_LIKELIHOOD, OUTLIER = "solvarLogLikelihood", "solvarOutlier"
HALF_SET = "solvarHalfSet"
"""Half-set of the fit, 1 or 2; 0 for images that could not be used."""
GREY_SCALE = "solvarGreyScale"
"""Of the signal, where parts of a set differ: relative to the largest part, negative for the other sign."""
OTHER_FRAME = "solvarOtherFrame"
"""Frame that the list had the pose in, where parts of a set differ: 0 that of most, into which the others came."""
POSE_CHANGE_COLUMNS = ("solvarRotationChange", "solvarShiftChange", "solvarRotationStd", "solvarShiftStd")
"""Of runs whose poses were refined: degrees and Angstrom, in the order of the fields of `PoseChanges`."""

IMAGE_COLUMNS = (
    CONTRAST, CONTRAST_STD, LOG_LIKELIHOOD, OUTLIER, HALF_SET, GREY_SCALE, OTHER_FRAME, *POSE_CHANGE_COLUMNS,
)  # fmt: skip
"""All that runs add: those of an earlier run in a list are not of the one that reads it."""

ROTATION_STD, SHIFT_STD = POSE_CHANGE_COLUMNS[2:]
CLASS_NUMBER, RANDOM_SUBSET = "rlnClassNumber", "rlnRandomSubset"
"""Of runs that found the poses: class, from 1, and the half-set as other programs know it."""

_VIEW = ("rlnAngleRot", "rlnAngleTilt")


@dataclass(frozen=True)
class PoseChanges:
    """How far refined poses are from the given ones, and how uncertain they are.

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
class ImageResults:
    """What is known of each image; None where the table does not tell, as in runs of earlier versions.

    Attributes
    ----------
    view : ndarray, shape (n, 2), or None
        RELION's rot and tilt, degrees.
    contrast, log_likelihood : ndarray, shape (n,), or None
        Scale of the signal, 1 on average, and how well the model explains the image.
    is_outlier : ndarray of bool, shape (n,), or None
        Images that were left out of the estimates.
    pose_changes : PoseChanges or None
        None if poses were not refined.
    """

    view: np.ndarray | None = None
    contrast: np.ndarray | None = None
    log_likelihood: np.ndarray | None = None
    is_outlier: np.ndarray | None = None
    pose_changes: PoseChanges | None = None


def image_results(table: StarTable) -> ImageResults:
    """Return what a table of particles says of each image."""
    known = (*_VIEW, CONTRAST, LOG_LIKELIHOOD, OUTLIER, *POSE_CHANGE_COLUMNS)
    numbers = table.numbers(*(name for name in known if name in table))
    flags = numbers.get(OUTLIER)
    changes = [numbers[name] for name in POSE_CHANGE_COLUMNS if name in numbers]
    return ImageResults(
        np.stack([numbers[name] for name in _VIEW], axis=1) if all(name in numbers for name in _VIEW) else None,
        numbers.get(CONTRAST),
        numbers.get(LOG_LIKELIHOOD),
        None if flags is None else flags != 0,
        PoseChanges(*changes) if len(changes) == len(POSE_CHANGE_COLUMNS) else None,
    )


def read_images(path: str | os.PathLike[str]) -> ImageResults:
    """Read what a STAR file of particles says of each image.

    Raises
    ------
    UserError
        If the file is absent or damaged.
    """
    return image_results(StarFile.read(path).particles)
