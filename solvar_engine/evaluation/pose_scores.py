"""Errors of poses and contrasts against the truth, with what no data can determine removed first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvar_engine.imaging.gauge import best_global_rotation, without_global_shift
from solvar_engine.imaging.rotation import angular_distance_deg
from solvar_engine.imaging.types import Pose


def pose_errors(estimated: Pose, true: Pose, pixel_size: float) -> tuple[float, float]:
    """Mean rotation and shift error after removing the best global rotation and the best global 3-D shift.

    A map may sit anywhere in its frame: turning it by G turns every orientation R into G R, moving it by t
    moves every image by the first two components of R^T t. Both are fitted by least squares and removed.

    Parameters
    ----------
    estimated, true : Pose
        Of n particles each.
    pixel_size : float
        Angstrom per pixel in which the shift error is counted.

    Returns
    -------
    rotation_error_deg : float
        Mean angle of the residual rotations.
    shift_error_px : float
        Mean length of the residual in-plane shifts.

    Raises
    ------
    ValueError
        If there are no particles or their numbers differ.

    Examples
    --------
    >>> pose = Pose(torch.eye(3)[None], torch.zeros(1, 2))
    >>> pose_errors(pose, pose, 1.0)
    (0.0, 0.0)
    """
    if len(estimated) != len(true) or len(true) == 0:
        raise ValueError(f"{len(estimated)} estimated poses cannot be compared with {len(true)} true ones")
    rotation, true_rotation = estimated.rotation.double(), true.rotation.double()
    aligned = best_global_rotation(rotation, true_rotation) @ true_rotation
    angle_deg = angular_distance_deg(rotation, aligned)
    shift = without_global_shift(estimated.shift.double() - true.shift.double(), true_rotation)
    return float(angle_deg.mean()), float(shift.norm(dim=1).mean()) / pixel_size


def contrast_r2(estimated: NDArray[np.floating], true: NDArray[np.floating]) -> float | None:
    """Squared correlation of estimated and true contrasts (n,); None if either is constant."""
    if np.ptp(estimated) < 1e-6 or np.ptp(true) < 1e-6:
        return None
    return float(np.corrcoef(estimated, true)[0, 1] ** 2)
