"""The frame of each state in which as much of the molecule as can be stands still.

No image tells in which frame a molecule moves: if it is turned in proportion to its state, and its poses with it, all
images stay as they are, and its factors V become V + D K, where D are the derivatives of the mean by turns and moves. A
consensus refinement turns each state to where it resembles the mean most, so that all parts move a little; a body that
stands still, and a domain that moves, is the same seen by someone on the body. It has the larger variance, but in fewer
voxels. So K is that of the least sum of log(|V + D K|^2 + noise) over the voxels, which prefers many that are still to
all that move less: a robust regression under a t distribution of few degrees of freedom, by iterated weights (Lange,
Little & Taylor, J. Am. Stat. Assoc. 84, 881 (1989)).
"""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import change_box
from solvar_engine.imaging.fourier import ft_to_volume, volume_to_ft
from solvar_engine.imaging.pose_derivatives import pose_derivatives
from solvar_engine.imaging.rotation import rotvec_to_rotation
from solvar_engine.imaging.shells import shell_count, shells_to_volume
from solvar_engine.imaging.types import Pose

_LEAST_BOX = 32  # px, that volumes are cropped to
_INSIDE = 0.2  # of the largest value of a mask, more than waves beside its edge
_LEAST_NOISE = 0.01  # of the root mean square of the factors: what stands still in a model does so nearly
_SHARP = 0.25  # of the noise, from which a voxel counts as moving: the less, the more those count that are still
_STARTS, _WIDTH = 8, 0.1  # bodies that are held still at first, and their width, of the box
_ITERATIONS, _SETTLED = 100, 1e-4
_SEED = 19


def find_drift(mean: Tensor, factors: Tensor, noise: Tensor, mask: Tensor, shell_max: int) -> Tensor:
    """Find by how much the frame is to move and turn with each latent coordinate so that most of the molecule is still.

    Parameters
    ----------
    mean : Tensor, shape (z, y, x)
    factors : Tensor, shape (r, z, y, x)
        For latent coordinates of unit variance.
    noise : Tensor, shape (r, z, y, x)
        Something like their errors, as half the difference of two half-sets.
    mask : Tensor, shape (z, y, x)
        Around the molecule.
    shell_max : int
        Up to which the factors are known.

    Returns
    -------
    Tensor, shape (6, r), float64
        K: moves, px, and turns, radians, about x, y and z; V + D K are the factors in the new frame.
    """
    box_size = mean.shape[-1]
    cropped = min(box_size, max(_LEAST_BOX, 4 * shell_max))
    coarse_mask = change_box(mask, cropped)  # which has other values than the mask
    is_inside = coarse_mask > _INSIDE * coarse_mask.max()
    inside, place = is_inside.flatten(), torch.nonzero(is_inside).double()

    def in_mask(volumes: Tensor) -> Tensor:
        return _blurred(change_box(volumes, cropped), shell_max).flatten(1)[:, inside].double()

    coarse = change_box(mean, cropped)
    columns, moving = in_mask(pose_derivatives(coarse)), in_mask(factors)
    least = _LEAST_NOISE**2 * float(moving.square().sum(dim=0).mean())
    floor = max(least, _SHARP**2 * float(in_mask(noise).square().sum(dim=0).mean()))
    length = columns.norm(dim=1).clamp_min(1e-30)[:, None]
    columns = columns / length
    density = coarse.flatten()[inside].double().clamp_min(0)
    found = [
        _stillest(start, columns, moving, floor)
        for start in _starts(columns, moving, place.to(columns), density, _WIDTH * cropped)
    ]
    best = min(found, key=lambda drift: _movement(drift, columns, moving, floor)) / length
    best[:3] *= box_size / cropped
    return best


def _blurred(volumes: Tensor, shell_max: int) -> Tensor:
    """Volumes with ever less of what lies in higher shells, without the waves that an edge there would leave."""
    box_size = volumes.shape[-1]
    shells = torch.arange(shell_count(box_size), device=volumes.device)
    weight = shells_to_volume((-0.5 * (shells / shell_max).square()).exp(), box_size)
    return ft_to_volume(volume_to_ft(volumes) * weight, box_size)


def _starts(columns: Tensor, moving: Tensor, place: Tensor, density: Tensor, width: float) -> list[Tensor]:
    """Drifts to begin with: none, and those that hold still what lies about some places within the molecule."""
    starts = [moving.new_zeros(len(columns), len(moving))]
    if not float(density.sum()) > 0:
        return starts
    generator = torch.Generator().manual_seed(_SEED)
    for centre in torch.multinomial(density.cpu(), _STARTS, replacement=True, generator=generator).tolist():
        weight = (-(place - place[centre]).square().sum(dim=1) / (2 * width**2)).exp()
        starts.append(_solved(columns, moving, weight))
    return starts


def _stillest(drift: Tensor, columns: Tensor, moving: Tensor, floor: float) -> Tensor:
    for _ in range(_ITERATIONS):
        weight = 1 / ((moving + drift.T @ columns).square().sum(dim=0) + floor)
        before, drift = drift, _solved(columns, moving, weight)
        if float((drift - before).norm()) < _SETTLED * float(drift.norm()):
            break
    return drift


def _solved(columns: Tensor, moving: Tensor, weight: Tensor) -> Tensor:
    """Drift (6, r) of least weighted squares."""
    normal = (columns * weight) @ columns.T
    return -torch.linalg.pinv(normal, hermitian=True) @ ((columns * weight) @ moving.T)


def _movement(drift: Tensor, columns: Tensor, moving: Tensor, floor: float) -> float:
    return float(((moving + drift.T @ columns).square().sum(dim=0) + floor).log().sum())


def in_still_frame(pose: Pose, drift: Tensor, z: Tensor, pixel_size: float) -> Pose:
    """Poses at which the factors V + D K show what V did at those before, to first order.

    Parameters
    ----------
    pose : Pose
        Of n particles.
    drift : Tensor, shape (6, r)
        K of :func:`find_drift`.
    z : Tensor, shape (n, r)
        Latent coordinates of unit variance.
    pixel_size : float
        Angstrom.
    """
    moved = z.double() @ drift.double().T.to(z.device)
    rotation = pose.rotation.double()
    in_plane = torch.einsum("nji,nj->ni", rotation, moved[:, :3])[:, :2]
    turned = rotvec_to_rotation(-moved[:, 3:]) @ rotation
    return Pose(turned.to(pose.rotation), (pose.shift.double() - pixel_size * in_plane).to(pose.shift))
