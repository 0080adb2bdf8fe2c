"""What no images can determine of their poses: where a map sits in its frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.imaging.rotation import rotation_to_rotvec, rotvec_to_rotation
from solvar_engine.imaging.types import Pose


def best_global_rotation(rotation: Tensor, reference: Tensor) -> Tensor:
    """Rotation G (3, 3) that minimises sum_i ||R_i - G R_reference,i||^2 for rotations (n, 3, 3).

    This is an orthogonal Procrustes problem, without reflections.
    """
    left, _, right = torch.linalg.svd(torch.einsum("nij,nkj->ik", rotation, reference))
    sign = torch.ones(3, dtype=left.dtype, device=left.device)
    sign[2] = torch.sign(torch.det(left @ right))
    return left @ torch.diag(sign) @ right


@dataclass(frozen=True)
class StatePosterior:
    """What n images tell of the coordinates z of their states, and of the poses with them.

    Attributes
    ----------
    mean : Tensor, shape (n, r)
    covariance : Tensor, shape (n, r, r)
        With the pose integrated out.
    with_turn : Tensor, shape (n, 3, r)
        Covariance of the rotation vector, in the frame of the image and radians, with z.
    with_shift : Tensor, shape (n, 2, r)
        Covariance of the shift, in the units of `Pose`, with z.
    """

    mean: Tensor
    covariance: Tensor
    with_turn: Tensor
    with_shift: Tensor

    @staticmethod
    def certain(z: Tensor) -> StatePosterior:
        """Coordinates (n, r) that are known."""
        count, rank = z.shape
        return StatePosterior(
            z, z.new_zeros(count, rank, rank), z.new_zeros(count, 3, rank), z.new_zeros(count, 2, rank)
        )


def without_global_shift(difference: Tensor, rotation: Tensor, states: StatePosterior | None = None) -> Tensor:
    """Subtract from differences of shifts what moving the whole map explains best.

    Parameters
    ----------
    difference : Tensor, shape (n, 2)
    rotation : Tensor, shape (n, 3, 3)
    states : StatePosterior, optional
        The map may also move in proportion to each coordinate.

    Returns
    -------
    Tensor, shape (n, 2)
    """
    in_plane = rotation.transpose(1, 2)[:, :2]  # (R^T t)_xy for each particle
    design = torch.einsum("nij,nl->nijl", in_plane, _with_constant(states, rotation))
    normal = torch.einsum("nijl,nikm->jlkm", design, design)
    moment = torch.einsum("nijl,ni->jl", design, difference)
    if states is not None:
        normal[:, 1:, :, 1:] += torch.einsum("nij,nik,nlm->jlkm", in_plane, in_plane, states.covariance.to(in_plane))
        moment[:, 1:] += torch.einsum("nij,nil->jl", in_plane, states.with_shift.to(in_plane))
    size = moment.numel()
    drift = torch.linalg.pinv(normal.reshape(size, size), hermitian=True) @ moment.reshape(size)
    return difference - design.flatten(2) @ drift


def in_frame_of(pose: Pose, reference: Pose, states: StatePosterior | None = None) -> Pose:
    """Turn and move a set of poses as a whole to where other poses of the same particles see the map.

    Turning a map by G turns every orientation R into G R; moving it by t moves every image by the first two components
    of R^T t. Both are fitted by least squares and removed. Where a molecule moves, its frame is free in each state:
    turning it in proportion to a latent coordinate adds to that factor the derivative of the mean by the turn, and no
    image notices to first order. So a frame that drifts with the latents is brought back as well, from which errors of
    the reference that have nothing to do with the state are not mistaken for drift.

    An image that leaves pose and state open errs in both together, which looks like a drift of its own; the second
    moments of the posterior take that out of the regression, as in expectation maximisation.

    Parameters
    ----------
    pose, reference : Pose
        Of n particles each.
    states : StatePosterior, optional
        At ``pose``.

    Examples
    --------
    >>> pose = Pose(torch.eye(3)[None], torch.zeros(1, 2))
    >>> in_frame_of(Pose(pose.rotation, pose.shift + 1.0), pose).shift.tolist()
    [[0.0, 0.0]]
    """
    rotation, known = pose.rotation.double(), reference.rotation.double()
    rotation = best_global_rotation(rotation, known).T @ rotation
    design = _with_constant(states, rotation)
    turn = rotation_to_rotvec(rotation @ known.mT)
    normal, moment = design.T @ design, design.T @ turn
    if states is not None:
        normal[1:, 1:] += states.covariance.sum(dim=0, dtype=normal.dtype)
        moment[1:] += torch.einsum("nij,njl->li", rotation, states.with_turn.to(rotation))
    drift = design @ (torch.linalg.pinv(normal, hermitian=True) @ moment)
    rotation = rotvec_to_rotation(-drift) @ rotation
    shift = without_global_shift(pose.shift.double() - reference.shift.double(), rotation, states)
    return Pose(rotation.to(pose.rotation), (reference.shift.double() + shift).to(pose.shift))


def _with_constant(states: StatePosterior | None, rotation: Tensor) -> Tensor:
    """Columns of one and the coordinates, shape (n, 1 + r)."""
    one = rotation.new_ones(rotation.shape[0], 1)
    return one if states is None else torch.cat((one, states.mean.to(one)), dim=1)
