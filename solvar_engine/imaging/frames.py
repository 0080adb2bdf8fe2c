"""How one map lies in the frame of another: images tell neither hand nor turn nor place of what is made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import pi
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import grid_sample

from solvar_engine.imaging.fourier import fourier_crop_volume
from solvar_engine.imaging.rotation import rotation_to_rotvec, rotvec_to_rotation
from solvar_engine.imaging.shells import fsc
from solvar_engine.imaging.so3_grid import rotations_for_spacing, super_fibonacci
from solvar_engine.imaging.types import Pose

_POLISHED_BOX, _POLISH_STEPS = 48, 140
_TURN_STEP, _MOVE_STEP = 0.05, 0.5  # radians and px, of the first simplex
_SEARCHED_BOX, _SEARCH_STEPS, _SPACING_DEG, _POLISHED = 16, 70, 15.0, 4  # of the search; so many are polished
_OUTSIDE = 0.02  # of a mask whose frequencies were cut
_DENSE = 0.3  # of the largest value, of voxels that the centre is found by
_CHUNK = 200  # turns that are sampled at once

_HALF_TURN = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))


@dataclass(frozen=True)
class Frame:
    """Where a map V sits beside a reference: V_reference(x) = V(G (x + t)), or V(-G (x + t)) if it is mirrored.

    Attributes
    ----------
    rotation : Tensor, shape (3, 3), float64
        G.
    move : Tensor, shape (3,), float64
        t in Angstrom, (x, y, z).
    is_mirrored : bool
    """

    rotation: Tensor
    move: Tensor
    is_mirrored: bool

    @staticmethod
    def same() -> Frame:
        """That of the reference itself."""
        return Frame(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), False)

    def rotations(self, rotation: Tensor) -> Tensor:
        """Orientations (n, 3, 3) that V is seen at, in the frame of the reference."""
        return self.rotation.T @ handed(rotation.double(), self.is_mirrored)

    def posed(self, pose: Pose) -> Pose:
        """Poses that V is seen at, in the frame of the reference."""
        return self.moved(self.rotations(pose.rotation), pose)

    def then(self, other: Frame) -> Frame:
        """Frame by which `posed` gives what it gives by this one, and by another one after that."""
        move = other.rotation.T @ self.move
        return Frame(
            self.rotation @ other.rotation,
            other.move + (-move if other.is_mirrored else move),
            self.is_mirrored != other.is_mirrored,
        )

    def moved(self, rotation: Tensor, pose: Pose) -> Pose:
        """The same with orientations (n, 3, 3) that are in the frame of the reference already."""
        shift = pose.shift.double() - rotation.mT[:, :2] @ self.move
        return Pose(rotation.to(pose.rotation), shift.to(pose.shift))


SomeFrame = TypeVar("SomeFrame", bound=Frame)


def handed(rotation: Tensor, is_mirrored: bool) -> Tensor:
    """Orientations (n, 3, 3), or those at which the mirrored map V(-x) gives the same images."""
    return rotation @ _HALF_TURN.to(rotation) if is_mirrored else rotation


def in_frame(volume: NDArray[np.floating], frame: Frame, pixel_size: float) -> NDArray[np.float32]:
    """Map (z, y, x) in the frame of the reference, by cubic splines; pixel_size is its own, Angstrom."""
    everywhere = _voxels(volume.shape[-1]).reshape(-1, 3).numpy()
    return _resampled(spline_filter(volume, order=3), everywhere, frame, pixel_size).reshape(volume.shape)


def _resampled(
    spline: NDArray[np.floating], voxels: NDArray[np.int64], frame: Frame, pixel_size: float
) -> NDArray[np.float32]:
    """The same at some voxels (n, 3), (x, y, z) from the middle, of the spline coefficients (z, y, x) of V."""
    matrix = (-1.0 if frame.is_mirrored else 1.0) * frame.rotation.numpy()
    place = (voxels + frame.move.numpy() / pixel_size) @ matrix.T + spline.shape[-1] // 2
    values = map_coordinates(spline, place[:, ::-1].T, order=3, prefilter=False, mode="constant")
    return values.astype(np.float32)


def polished(
    frame: SomeFrame, volume: NDArray[np.floating], reference: NDArray[np.floating], mask: NDArray[np.floating],
    pixel_size: float,
) -> SomeFrame:
    """Turn and move a frame a little to where the maps agree best: the sum of their FSC, all shells alike.

    Parameters
    ----------
    frame : Frame
    volume, reference, mask : ndarray, shape (z, y, x)
    pixel_size : float
        Angstrom.
    """
    return _polished(frame, volume, reference, mask, pixel_size, _POLISHED_BOX, _POLISH_STEPS)[0]


def _polished(
    frame: SomeFrame, volume: NDArray[np.floating], reference: NDArray[np.floating], mask: NDArray[np.floating],
    pixel_size: float, most: int, steps: int,
) -> tuple[SomeFrame, float]:
    """The same on a box of a size at most, with so many evaluations, and the sum."""
    box_size = min(volume.shape[-1], most)
    ratio = volume.shape[-1] / box_size
    cropped, target = (_cropped(part, box_size) for part in (volume, reference))
    inside = _cropped(mask, box_size)
    inside[inside < _OUTSIDE] = 0.0
    spline, size = spline_filter(cropped.numpy(), order=3), pixel_size * ratio
    is_compared = inside > 0
    voxels, moved = _voxels(box_size)[is_compared].numpy(), torch.zeros_like(target)

    def at(step: NDArray[np.float64]) -> SomeFrame:
        turn = rotvec_to_rotation(torch.from_numpy(step[None, :3]))[0]
        return replace(frame, rotation=frame.rotation @ turn, move=frame.move + torch.from_numpy(step[3:]) * size)

    def cost(step: NDArray[np.float64]) -> float:
        moved[is_compared] = torch.from_numpy(_resampled(spline, voxels, at(step), size))
        return -float(fsc(moved, target, inside)[1:].sum())

    first = np.vstack([np.zeros(6), np.diag([_TURN_STEP] * 3 + [_MOVE_STEP] * 3)])
    options = {"maxfev": steps, "initial_simplex": first, "xatol": 1e-3, "fatol": 1e-3}
    found = minimize(cost, np.zeros(6), method="Nelder-Mead", options=options)
    return at(found.x), -float(found.fun)


def best_frame(
    volume: NDArray[np.floating], reference: NDArray[np.floating], mask: NDArray[np.floating], pixel_size: float,
    largest_turn: float = pi,
) -> Frame:
    """Find the hand, turn and move by which two maps of one molecule agree best.

    Their centres of density are laid on each other, all turns of 15 degrees are tried at low resolution with either
    hand, and the best few are polished.

    Parameters
    ----------
    volume, reference, mask : ndarray, shape (z, y, x)
    pixel_size : float
        Angstrom.
    largest_turn : float
        Radians. Below a half turn, only turns of the same hand are tried, up to this one.
    """
    box_size = min(volume.shape[-1], _SEARCHED_BOX)
    size = pixel_size * volume.shape[-1] / box_size
    cropped, target = (_cropped(part * mask, box_size) for part in (volume, reference))
    is_compared = _cropped(mask, box_size) > _OUTSIDE
    own, place = _centre(cropped), _centre(target)
    turns, hands = super_fibonacci(rotations_for_spacing(_SPACING_DEG)), [False, True]
    if largest_turn < pi:
        turns, hands = turns[rotation_to_rotvec(turns).norm(dim=1) <= largest_turn], [False]
    offset = _voxels(box_size)[is_compared] - place  # from the centre of the reference
    tried = []
    for is_mirrored in hands:
        sign = -1.0 if is_mirrored else 1.0
        values = torch.cat([_sampled(cropped, sign * turn, offset, own) for turn in turns.float().split(_CHUNK)])
        score = values @ target[is_compared] / values.norm(dim=1).clamp_min(1e-30)
        for number in score.topk(_POLISHED).indices.tolist():
            turn = turns[number].double()
            # V(sign G (x + t)) has its centre where G (x + t) is that of V, signed
            move = sign * turn.T @ own.double() - place.double()
            tried.append((float(score[number]), Frame(turn, move * size, is_mirrored)))
    tried = sorted(tried, key=lambda one: -one[0])[:_POLISHED]
    few = [_polished(one, volume, reference, mask, pixel_size, _SEARCHED_BOX, _SEARCH_STEPS) for _, one in tried]
    return polished(max(few, key=lambda pair: pair[1])[0], volume, reference, mask, pixel_size)


def _cropped(volume: NDArray[np.floating], box_size: int) -> Tensor:
    return fourier_crop_volume(torch.from_numpy(np.ascontiguousarray(volume)).float(), box_size)


def _centre(volume: Tensor) -> Tensor:
    """Centre (3,) of the dense voxels, px from the middle, (x, y, z)."""
    dense = (volume - _DENSE * volume.max()).clamp_min(0)
    return (dense[..., None] * _voxels(len(volume))).sum(dim=(0, 1, 2)) / dense.sum()


def _voxels(box_size: int) -> Tensor:
    """(x, y, z) of each voxel from the middle, px, shape (z, y, x, 3)."""
    return torch.stack(torch.meshgrid(*[torch.arange(box_size) - box_size // 2] * 3, indexing="ij"), dim=-1).flip(-1)


def _sampled(volume: Tensor, matrix: Tensor, offset: Tensor, centre: Tensor) -> Tensor:
    """Values (m, voxels) of a map at M x + centre, for matrices (m, 3, 3) and places x (voxels, 3), (x, y, z), px."""
    size = len(volume)
    place = torch.einsum("mij,vj->mvi", matrix, offset) + centre
    scaled = 2 * (place + size // 2) / (size - 1) - 1
    of_maps = volume.expand(len(matrix), 1, size, size, size)
    return grid_sample(of_maps, scaled[:, None, None], align_corners=True)[:, 0, 0, 0]
