"""Point groups: rotation operators under which a map stays the same, in RELION's settings of the axes."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from solvar_engine.imaging.rotation import rotvec_to_rotation
from solvar_engine.imaging.sampling import sample_of

_GOLDEN = (1 + math.sqrt(5)) / 2
_LARGEST = 60  # operators of a group: those of I
_POINTS = 400  # of the sphere, that asymmetric units are tried around
_SAMPLED_VOXELS = 50_000  # on which these are compared
_NO_POWER = 1e-4  # of the largest
_NAMES = "C1, C2, ..., D2, D3, ..., T, O, I or I1 to I4"

Axis = tuple[float, tuple[float, float, float]]


def symmetry_operators(name: str) -> Tensor:
    """Rotations of a point group, the identity first.

    The axes lie as in RELION: the n-fold one of C n and D n along z, a two-fold one of D n along x; a three-fold one of
    T along z; four-fold ones of O along x, y and z. I1 has two-fold axes along x, y and z and a five-fold one in the xz
    plane nearest x, I2 is that turned by 90 degrees about z; I3 and I4 have a five-fold axis along z. I stands for I2.

    Parameters
    ----------
    name : str
        In upper or lower case.

    Returns
    -------
    Tensor, shape (g, 3, 3), float64
        V(g x) = V(x): a slice at rotation R equals that at g R.

    Raises
    ------
    ValueError
        If there is no such group, or it has more than 60 operators.

    Examples
    --------
    >>> [len(symmetry_operators(name)) for name in ("C1", "C3", "d2", "T", "O", "I")]
    [1, 3, 4, 12, 24, 60]
    """
    return _closed(torch.stack([_about(*axis) for axis in _generators(name.strip().upper())]))


def asymmetric_unit(density: Tensor, operators: Tensor, edge: float) -> Tensor:
    """Make a soft mask of a part of space of which the operators make all others, cut where there is least density.

    The part is what lies nearer to a point than to those that are equal to it. Of many such points that one is taken
    whose planes pass through the least power of the density.

    Parameters
    ----------
    density : Tensor, shape (z, y, x)
        Symmetric.
    operators : Tensor, shape (g, 3, 3)
        The identity first.
    edge : float
        Half the width of the soft edge, px.

    Returns
    -------
    Tensor, shape (z, y, x), float32
        From 0 to 1, one half on the planes; those of all parts add up to about 1.
    """
    box_size = density.shape[-1]
    axis = torch.arange(box_size, dtype=torch.float64) - box_size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    place, power = torch.stack((x, y, z), dim=-1).reshape(-1, 3), density.cpu().double().square().reshape(-1)
    kept = sample_of(torch.nonzero(power > _NO_POWER * power.max()).flatten(), _SAMPLED_VOXELS)
    points = _points_of_the_sphere(_POINTS)
    apart = (points[:, None] - torch.einsum("gij,pj->pgi", operators[1:], points)).norm(dim=2).amin(dim=1)
    points = points[apart > 0.5 * apart.max()]
    cut = [
        float(power[kept][_distance_inside(place[kept], point, operators).abs() < edge].sum()) for point in points
    ]
    inside = _distance_inside(place, points[int(torch.tensor(cut).argmin())], operators)
    mask = 0.5 + 0.5 * torch.sin(torch.pi / 2 * (inside / edge).clamp(-1, 1))
    return mask.reshape(density.shape).float()


def _distance_inside(place: Tensor, point: Tensor, operators: Tensor) -> Tensor:
    """Distance of places (n, 3) from the nearest plane between a point and an equal one; negative on the other side."""
    distance = place.new_full((len(place),), torch.inf)
    for normal in point - operators[1:] @ point:  # one by one: all of a large group at once would take much memory
        distance = torch.minimum(distance, place @ (normal / normal.norm()))
    return distance


def _points_of_the_sphere(count: int) -> Tensor:
    """Points (count, 3) on the unit sphere, spread evenly: Fibonacci's spiral."""
    number = torch.arange(count, dtype=torch.float64) + 0.5
    height, angle = 1 - 2 * number / count, 2 * torch.pi * number / _GOLDEN
    radius = (1 - height**2).sqrt()
    return torch.stack((radius * torch.cos(angle), radius * torch.sin(angle), height), dim=1)


def _generators(name: str) -> list[Axis]:
    z = (0.0, 0.0, 1.0)
    match = re.fullmatch(r"([CD])([1-9]\d{0,2})", name)
    if match:
        order, is_dihedral = int(match[2]), match[1] == "D"
        if order * (1 + is_dihedral) > _LARGEST:
            raise ValueError(f"symmetry is {name!r}, but groups have at most {_LARGEST} operators")
        return [(order, z), (2, (1.0, 0.0, 0.0))] if is_dihedral else [(order, z)]
    icosahedral = [(2.0, z), (5.0, (_GOLDEN, 1.0, 0.0)), (3.0, (1.0, 1.0, 1.0))]
    if name == "T":
        return [(3, z), (2, (0.0, math.sqrt(2.0), 1.0))]
    if name == "O":
        return [(3, (1.0, 1.0, 1.0)), (4, z)]
    if name == "I1":
        return [(2, z), (5, (_GOLDEN, 0.0, -1.0)), (3, (1.0, 1.0, 1.0))]
    if name in ("I", "I2"):
        return icosahedral
    if name in ("I3", "I4"):
        # a five-fold axis of I2 in the xz plane is brought to z
        angle = math.atan(1 / _GOLDEN) * (-1 if name == "I3" else 1)
        turn = rotvec_to_rotation(torch.tensor([[0.0, angle, 0.0]], dtype=torch.float64))[0]
        turned = [(order, (turn @ torch.tensor(axis, dtype=torch.float64)).tolist()) for order, axis in icosahedral]
        return [(order, (x, y, z)) for order, (x, y, z) in turned]
    raise ValueError(f"symmetry is {name!r}, expected {_NAMES}")


def _about(order: float, axis: tuple[float, float, float]) -> Tensor:
    """Rotation about an axis by a full turn over its order."""
    direction = torch.tensor(axis, dtype=torch.float64)
    return rotvec_to_rotation((direction * (2 * math.pi / order / direction.norm()))[None])[0]


def _closed(generators: Tensor) -> Tensor:
    """All products of rotations, the identity first."""
    found = [torch.eye(3, dtype=torch.float64)]
    for operator in found:  # grows while it is gone through
        for product in generators @ operator:
            if all(float((product - known).abs().max()) > 1e-6 for known in found):
                found.append(product)
        if len(found) > _LARGEST:
            raise ValueError(f"the generators make more than {_LARGEST} operators")
    return torch.stack(found)
