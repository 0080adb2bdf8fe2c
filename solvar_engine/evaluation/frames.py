"""Bring an estimate that was found without poses into the frame of the truth: hand, rotation, place, and drift.

Images tell none of these: V(-r), seen at R times a half-turn about z, gives the same images, and so does a map that is
turned or moved as a whole. Where the molecule moves, each state may be turned and moved by itself (`gauge`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter
from scipy.optimize import minimize
from torch import Tensor

from solvar_engine.evaluation.latent_scores import states_are_discrete
from solvar_engine.evaluation.metrics import Estimate, Truth
from solvar_engine.imaging.fourier import fourier_crop_volume
from solvar_engine.imaging.gauge import best_global_rotation
from solvar_engine.imaging.rotation import angular_distance_deg, rotation_to_rotvec, rotvec_to_rotation
from solvar_engine.imaging.shells import fsc
from solvar_engine.imaging.types import Pose

INLIER_DEG = 20.0
"""Poses that are farther from the truth belong to another solution."""

_TRIED, _COUNTED = 200, 2000  # particles whose pose is tried for that of all, and on which it is counted
_ROUNDS = 5
_POLISHED_BOX, _POLISH_STEPS = 48, 120
_TURN_STEP, _MOVE_STEP = 0.05, 0.5  # radians and px, of the first simplex
_DEGREE = 3  # of the drift along the coordinates of the states

_HALF_TURN = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))


@dataclass(frozen=True)
class Frame:
    """Where an estimate sits: V_true(x) = V(G (x + t)), or V(-G (x + t)) if it is mirrored.

    Attributes
    ----------
    rotation : Tensor, shape (3, 3), float64
        G.
    move : Tensor, shape (3,), float64
        t in Angstrom, (x, y, z).
    is_mirrored : bool
    is_inlier : Tensor, shape (n,), bool
        Particles whose orientation, brought into the frame of the truth, is within `INLIER_DEG` of the true one.
    """

    rotation: Tensor
    move: Tensor
    is_mirrored: bool
    is_inlier: Tensor


def find_frame(estimated: Pose, true: Pose, group: Tensor) -> Frame:
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
        found = _handed(estimated.rotation.double(), is_mirrored)
        for row in counted[torch.linspace(0, len(counted) - 1, min(len(counted), _TRIED)).long()]:
            turn = found[row] @ known[row].T
            angle, _ = _nearest(found[counted], turn @ known[counted], group)
            share = float((angle < INLIER_DEG).double().mean())
            if share > best[0]:
                best = (share, turn, is_mirrored)
    _, turn, is_mirrored = best
    found = _handed(estimated.rotation.double(), is_mirrored)
    for _ in range(_ROUNDS):
        angle, mates = _nearest(found, turn @ known, group)
        near = angle < INLIER_DEG
        turn = best_global_rotation(mates[near], known[near])
    angle, mates = _nearest(found, turn @ known, group)
    near = angle < INLIER_DEG
    frame = Frame(turn, torch.zeros(3, dtype=torch.float64), is_mirrored, near)
    aligned = aligned_pose(estimated, true, frame, group)
    in_plane = aligned.rotation.double().mT[near, :2].reshape(-1, 3)
    difference = (aligned.shift - true.shift).double()[near].reshape(-1, 1)
    return replace(frame, move=torch.linalg.lstsq(in_plane, difference).solution[:, 0])


def _handed(rotation: Tensor, is_mirrored: bool) -> Tensor:
    return rotation @ _HALF_TURN if is_mirrored else rotation


def _nearest(rotation: Tensor, reference: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Angle (n,) to a reference from the nearest of the orientations that a group makes equal, and these (n, 3, 3)."""
    mates = torch.einsum("gij,njk->gnik", group.to(rotation), rotation)
    angle = torch.stack([angular_distance_deg(mate, reference) for mate in mates])
    nearest = angle.argmin(dim=0)
    rows = torch.arange(len(rotation))
    return angle[nearest, rows], mates[nearest, rows]


def aligned_pose(estimated: Pose, true: Pose, frame: Frame, group: Tensor) -> Pose:
    """Poses in the frame of the truth; of those that a group makes equal the one nearest to the truth."""
    rotation = _handed(estimated.rotation.double(), frame.is_mirrored)
    _, mates = _nearest(rotation, frame.rotation @ true.rotation.double(), group)
    rotation = frame.rotation.T @ mates
    shift = estimated.shift.double() - rotation.mT[:, :2] @ frame.move
    return Pose(rotation.to(estimated.rotation), shift.to(estimated.shift))


def aligned_volume(volume: NDArray[np.floating], frame: Frame, pixel_size: float) -> NDArray[np.float32]:
    """Map (z, y, x) in the frame of the truth, by cubic splines; pixel_size is its own, Angstrom."""
    sign = -1.0 if frame.is_mirrored else 1.0
    return _resampled(spline_filter(volume, order=3), sign * frame.rotation.numpy(), frame.move.numpy() / pixel_size)


def _resampled(
    spline: NDArray[np.floating], matrix: NDArray[np.float64], move_px: NDArray[np.float64]
) -> NDArray[np.float32]:
    """V(M (x + t)), with M (3, 3) and t (3,) in px, both of (x, y, z); of the spline coefficients (z, y, x) of V."""
    size = spline.shape[-1]
    z, y, x = np.indices(spline.shape) - size // 2
    place = (np.stack([x, y, z], axis=-1).reshape(-1, 3) + move_px) @ matrix.T
    values = map_coordinates(spline, place[:, ::-1].T + size // 2, order=3, prefilter=False, mode="constant")
    return values.reshape(spline.shape).astype(np.float32)


def polished(
    frame: Frame, volume: NDArray[np.floating], true: NDArray[np.floating], mask: NDArray[np.floating],
    pixel_size: float,
) -> Frame:
    """Turn and move a frame a little to where the maps agree best: the sum of their FSC, all shells alike.

    Parameters
    ----------
    frame : Frame
        As the poses have it.
    volume, true, mask : ndarray, shape (z, y, x)
    pixel_size : float
        Angstrom.
    """
    box_size = min(volume.shape[-1], _POLISHED_BOX)
    ratio = volume.shape[-1] / box_size
    cropped, target, inside = (
        fourier_crop_volume(torch.from_numpy(np.ascontiguousarray(part)).float(), box_size)
        for part in (volume, true, mask)
    )
    spline, size = spline_filter(cropped.numpy(), order=3), pixel_size * ratio

    def at(steps: NDArray[np.float64]) -> Frame:
        turn = rotvec_to_rotation(torch.from_numpy(steps[None, :3]))[0]
        return replace(frame, rotation=frame.rotation @ turn, move=frame.move + torch.from_numpy(steps[3:]) * size)

    def cost(steps: NDArray[np.float64]) -> float:
        moved = at(steps)
        sign = -1.0 if frame.is_mirrored else 1.0
        turned = _resampled(spline, sign * moved.rotation.numpy(), moved.move.numpy() / size)
        return -float(fsc(torch.from_numpy(turned), target, inside)[1:].sum())

    first = np.vstack([np.zeros(6), np.diag([_TURN_STEP] * 3 + [_MOVE_STEP] * 3)])
    options = {"maxfev": _POLISH_STEPS, "initial_simplex": first, "xatol": 1e-3, "fatol": 1e-3}
    return at(minimize(cost, np.zeros(6), method="Nelder-Mead", options=options).x)


def aligned_estimate(estimate: Estimate, truth: Truth, frame: Frame, group: Tensor, pixel_size: float) -> Estimate:
    """Everything of an estimate in the frame of the truth; ``pixel_size`` is that of the volumes."""
    volumes = [aligned_volume(volume, frame, pixel_size) for volume in (estimate.mean, *estimate.eigenvolumes)]
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
        back = rotvec_to_rotation(-turn[row][None])[0].numpy()
        spline = spline_filter(truth.volumes[state], order=3)
        volumes[state] = _resampled(spline, back, -move[row].numpy() / pixel_size)
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
