"""What no images can determine of their poses: where a map sits in its frame."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.imaging.rotation import rotation_to_rotvec, rotvec_to_rotation
from solvar_engine.imaging.types import Pose


def best_global_rotation(rotation: Tensor, reference: Tensor) -> Tensor:
    """Rotation G that minimises sum_i ||R_i - G R_reference,i||^2 (orthogonal Procrustes, without reflections).

    Parameters
    ----------
    rotation, reference : Tensor, shape (n, 3, 3)

    Returns
    -------
    Tensor, shape (3, 3)
    """
    left, _, right = torch.linalg.svd(torch.einsum("nij,nkj->ik", rotation, reference))
    sign = torch.ones(3, dtype=left.dtype)
    sign[2] = torch.sign(torch.det(left @ right))
    return left @ torch.diag(sign) @ right


def without_global_shift(difference: Tensor, rotation: Tensor, latents: Tensor | None = None) -> Tensor:
    """Subtract from differences of shifts what moving the whole map explains best.

    Parameters
    ----------
    difference : Tensor, shape (n, 2)
    rotation : Tensor, shape (n, 3, 3)
    latents : Tensor, shape (n, r), optional
        The map may also move in proportion to each of them.

    Returns
    -------
    Tensor, shape (n, 2)
    """
    in_plane = rotation.transpose(1, 2)[:, :2]  # (R^T t)_xy for each particle
    design = torch.einsum("nij,nl->nijl", in_plane, _with_constant(latents, rotation)).flatten(2)
    normal = torch.einsum("nij,nik->jk", design, design)
    moment = torch.einsum("nij,ni->j", design, difference)
    return difference - design @ (torch.linalg.pinv(normal, hermitian=True) @ moment)


def in_frame_of(pose: Pose, reference: Pose, latents: Tensor | None = None) -> Pose:
    """Turn and move a set of poses as a whole to where other poses of the same particles see the map.

    Turning a map by G turns every orientation R into G R; moving it by t moves every image by the first two components
    of R^T t. Both are fitted by least squares and removed. Where a molecule moves, its frame is free in each state:
    turning it in proportion to a latent coordinate adds to that factor the derivative of the mean by the turn, and no
    image notices to first order. So a frame that drifts with the latents is brought back as well, from which errors of
    the reference that have nothing to do with the state are not mistaken for drift.

    Parameters
    ----------
    pose, reference : Pose
        Of n particles each.
    latents : Tensor, shape (n, r), optional
        Posterior means of the coordinates of the state, at ``pose``.

    Returns
    -------
    Pose

    Examples
    --------
    >>> pose = Pose(torch.eye(3)[None], torch.zeros(1, 2))
    >>> in_frame_of(Pose(pose.rotation, pose.shift + 1.0), pose).shift.tolist()
    [[0.0, 0.0]]
    """
    rotation, known = pose.rotation.double(), reference.rotation.double()
    rotation = best_global_rotation(rotation, known).T @ rotation
    design = _with_constant(latents, rotation)
    turn = rotation_to_rotvec(rotation @ known.mT)
    drift = design @ (torch.linalg.pinv(design.T @ design, hermitian=True) @ (design.T @ turn))
    rotation = rotvec_to_rotation(-drift) @ rotation
    shift = without_global_shift(pose.shift.double() - reference.shift.double(), rotation, latents)
    return Pose(rotation.to(pose.rotation), (reference.shift.double() + shift).to(pose.shift))


def _with_constant(latents: Tensor | None, rotation: Tensor) -> Tensor:
    """Columns of one and the latents, shape (n, 1 + r)."""
    one = rotation.new_ones(rotation.shape[0], 1)
    return one if latents is None else torch.cat((one, latents.to(one)), dim=1)
