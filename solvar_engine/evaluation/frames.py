"""Bring an estimate that was found without poses into the frame of the truth: hand, rotation, place, and drift.

Images tell none of these: V(-r), seen at R times a half-turn about z, gives the same images, and so does a map that is
turned or moved as a whole. Where the molecule moves, each state may be turned and moved by itself (`gauge`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from solvar_engine.evaluation.latent_scores import states_are_discrete
from solvar_engine.evaluation.metrics import Estimate, Truth
from solvar_engine.imaging.frames import Frame, handed, in_frame
from solvar_engine.imaging.gauge import best_global_rotation
from solvar_engine.imaging.rotation import angular_distance_deg, rotation_to_rotvec, rotvec_to_rotation
from solvar_engine.imaging.types import Pose

INLIER_DEG = 20.0
"""Poses that are farther from the truth belong to another solution."""

_TRIED, _COUNTED = 200, 2000  # particles whose pose is tried for that of all, and on which it is counted
_ROUNDS = 5
_DEGREE = 3  # of the drift along the coordinates of the states


@dataclass(frozen=True)
class PosedFrame(Frame):
    """Where an estimate sits beside the truth, as its poses have it.

    Attributes
    ----------
    is_inlier : Tensor, shape (n,), bool
        Particles whose orientation, brought into the frame of the truth, is within `INLIER_DEG` of the true one.
    """

    is_inlier: Tensor


def find_frame(estimated: Pose, true: Pose, group: Tensor) -> PosedFrame:
    """Find the hand and rotation that most poses support, and the move that fits their shifts.

    Parameters
    ----------
    estimated, true : Pose
        Of n particles each.
    group : Tensor, shape (g, 3, 3)
        Point group of the estimate: orientations that it makes equal count as one.
    """
    known = true.rotation.double()
    best = (-1.0, torch.eye(3, dtype=torch.float64), False)
    counted = torch.linspace(0, len(known) - 1, min(len(known), _COUNTED)).long()
    for is_mirrored in (False, True):
        found = handed(estimated.rotation.double(), is_mirrored)
        for row in counted[torch.linspace(0, len(counted) - 1, min(len(counted), _TRIED)).long()]:
            turn = found[row] @ known[row].T
            angle, _ = _nearest(found[counted], turn @ known[counted], group)
            share = float((angle < INLIER_DEG).double().mean())
            if share > best[0]:
                best = (share, turn, is_mirrored)
    _, turn, is_mirrored = best
    found = handed(estimated.rotation.double(), is_mirrored)
    for _ in range(_ROUNDS):
        angle, mates = _nearest(found, turn @ known, group)
        near = angle < INLIER_DEG
        turn = best_global_rotation(mates[near], known[near])
    angle, mates = _nearest(found, turn @ known, group)
    near = angle < INLIER_DEG
    frame = PosedFrame(turn, torch.zeros(3, dtype=torch.float64), is_mirrored, near)
    aligned = aligned_pose(estimated, true, frame, group)
    in_plane = aligned.rotation.double().mT[near, :2].reshape(-1, 3)
    difference = (aligned.shift - true.shift).double()[near].reshape(-1, 1)
    return replace(frame, move=torch.linalg.lstsq(in_plane, difference).solution[:, 0])


def _nearest(rotation: Tensor, reference: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Angle (n,) to a reference from the nearest of the orientations that a group makes equal, and these (n, 3, 3)."""
    mates = torch.einsum("gij,njk->gnik", group.to(rotation), rotation)
    angle = torch.stack([angular_distance_deg(mate, reference) for mate in mates])
    nearest = angle.argmin(dim=0)
    rows = torch.arange(len(rotation))
    return angle[nearest, rows], mates[nearest, rows]


def aligned_pose(estimated: Pose, true: Pose, frame: Frame, group: Tensor) -> Pose:
    """Poses in the frame of the truth; of those that a group makes equal the one nearest to the truth."""
    rotation = handed(estimated.rotation.double(), frame.is_mirrored)
    _, mates = _nearest(rotation, frame.rotation @ true.rotation.double(), group)
    return frame.moved(frame.rotation.T @ mates, estimated)


def aligned_estimate(estimate: Estimate, truth: Truth, frame: Frame, group: Tensor, pixel_size: float) -> Estimate:
    """Everything of an estimate in the frame of the truth; ``pixel_size`` is that of the volumes."""
    volumes = [in_frame(volume, frame, pixel_size) for volume in (estimate.mean, *estimate.eigenvolumes)]
    eigenvolumes = np.empty_like(estimate.eigenvolumes)
    for row, volume in enumerate(volumes[1:]):
        eigenvolumes[row] = volume / max(float(np.linalg.norm(volume)), 1e-30)
    pose = aligned_pose(estimate.pose, truth.pose, frame, group)
    # the poses that it started from have a frame of their own
    return replace(estimate, mean=volumes[0], eigenvolumes=eigenvolumes, pose=pose, start_pose=None)


def comoving_truth(truth: Truth, pose: Pose, is_inlier: Tensor, pixel_size: float) -> Truth:
    """The truth, each state turned and moved to where the poses of an estimate see it.

    Turns and moves are fitted to the poses as functions of the state: cubic along each coordinate, or of each state by
    itself where states are discrete.

    Parameters
    ----------
    truth : Truth
    pose : Pose
        Of the estimate, in the frame of the truth.
    is_inlier : Tensor, shape (n,), bool
    pixel_size : float
        Of the volumes, Angstrom.
    """
    features = _state_features(truth)
    design, known = features[is_inlier], truth.pose.rotation.double()
    turns = rotation_to_rotvec(pose.rotation.double() @ known.mT)
    turn = features @ torch.linalg.lstsq(design, turns[is_inlier], driver="gelsd").solution
    rotation = rotvec_to_rotation(turn) @ known
    columns = torch.einsum("nij,nl->nijl", rotation.mT[:, :2], features).flatten(2)
    difference = (pose.shift - truth.pose.shift).double()
    drift = torch.linalg.lstsq(
        columns[is_inlier].flatten(0, 1), difference[is_inlier].reshape(-1, 1), driver="gelsd"
    ).solution
    move = features @ drift.reshape(3, -1).T
    shift = truth.pose.shift.double() + (columns @ drift)[:, :, 0]
    volumes = truth.volumes.copy()
    for state, row in zip(*np.unique(truth.state, return_index=True), strict=True):
        back = Frame(rotvec_to_rotation(-turn[row][None])[0], -move[row], False)
        volumes[state] = in_frame(truth.volumes[state], back, pixel_size)
    moved = Pose(rotation.to(truth.pose.rotation), shift.to(truth.pose.shift))
    return replace(truth, volumes=volumes, pose=moved)


def _state_features(truth: Truth) -> Tensor:
    """Functions (n, l) of the state of each particle."""
    if truth.coordinates.shape[1] == 0 or states_are_discrete(truth.coordinates, truth.state):
        return torch.from_numpy(np.eye(len(truth.volumes))[truth.state])
    spread = truth.coordinates.std(axis=0)
    scaled = (truth.coordinates - truth.coordinates.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    powers = [np.ones((len(scaled), 1)), *(scaled**power for power in range(1, _DEGREE + 1))]
    return torch.from_numpy(np.concatenate(powers, axis=1))
