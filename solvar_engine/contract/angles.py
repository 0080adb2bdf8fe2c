"""RELION's Euler angles and rotation matrices, for programs without the engine's libraries."""

from __future__ import annotations

import numpy as np


def relion_to_rotation(angle_rot: np.ndarray, angle_tilt: np.ndarray, angle_psi: np.ndarray) -> np.ndarray:
    """Turn RELION's Euler angles into rotations from image to volume, Rz(rot) Ry(tilt) Rz(psi).

    Parameters
    ----------
    angle_rot, angle_tilt, angle_psi : ndarray, shape (n,)
        Degrees.

    Returns
    -------
    ndarray, shape (n, 3, 3), float64
        Left-multiplies xyz columns; the transpose of the matrix A of RELION's documentation.

    Examples
    --------
    >>> relion_to_rotation(*np.zeros((3, 1)))[0].diagonal()
    array([1., 1., 1.])
    """
    angles = (angle_rot, angle_tilt, angle_psi)
    rot, tilt, psi = (np.deg2rad(np.asarray(angle, dtype=np.float64)) for angle in angles)
    return _rotation_about_z(rot) @ _rotation_about_y(tilt) @ _rotation_about_z(psi)


def rotation_to_relion(rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn rotations from image to volume into RELION's Euler angles.

    Parameters
    ----------
    rotation : ndarray, shape (n, 3, 3)

    Returns
    -------
    angle_rot, angle_tilt, angle_psi : ndarray, shape (n,), float64
        Degrees; tilt from 0 to 180, the others from -180 to 180. Where the tilt is 0 or 180, rot is 0.

    Examples
    --------
    >>> rotation = relion_to_rotation(*np.array([[10.0], [20.0], [30.0]]))
    >>> np.round(np.concatenate(rotation_to_relion(rotation)), 9)
    array([10., 20., 30.])
    """
    matrix = np.asarray(rotation, dtype=np.float64)
    rot = np.arctan2(matrix[:, 1, 2], matrix[:, 0, 2])
    tilt = np.arctan2(np.hypot(matrix[:, 0, 2], matrix[:, 1, 2]), matrix[:, 2, 2])
    # psi from what remains after rot is taken off: near the poles, where rot is ill-determined, it makes up
    # for the error of rot, which an expression symmetric in rot and psi would not
    middle_row = np.cos(rot)[:, None] * matrix[:, 1] - np.sin(rot)[:, None] * matrix[:, 0]
    psi = np.arctan2(middle_row[:, 0], middle_row[:, 1])
    return np.rad2deg(rot), np.rad2deg(tilt), np.rad2deg(psi)


def _rotation_about_z(angle_rad: np.ndarray) -> np.ndarray:
    matrix = np.zeros((*angle_rad.shape, 3, 3))
    matrix[..., 0, 0] = matrix[..., 1, 1] = np.cos(angle_rad)
    matrix[..., 1, 0] = np.sin(angle_rad)
    matrix[..., 0, 1] = -matrix[..., 1, 0]
    matrix[..., 2, 2] = 1
    return matrix


def _rotation_about_y(angle_rad: np.ndarray) -> np.ndarray:
    matrix = np.zeros((*angle_rad.shape, 3, 3))
    matrix[..., 0, 0] = matrix[..., 2, 2] = np.cos(angle_rad)
    matrix[..., 0, 2] = np.sin(angle_rad)
    matrix[..., 2, 0] = -matrix[..., 0, 2]
    matrix[..., 1, 1] = 1
    return matrix
