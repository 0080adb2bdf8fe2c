"""Phantoms: molecules made of Gaussian pseudo-atoms, with known states and state coordinates.

A phantom is drawn once and for all: its atoms come from fixed internal seeds and from the tables below, never
from the user's ``--seed``, and its coordinates are fractions of the box, so that figures compare between data
sets and between box sizes. Atom positions are (x, y, z) about the box centre (index ``box_size // 2``); every
state stays within :data:`MOLECULE_RADIUS` of it. The bodies have neither mirror nor rotational symmetry, so a
wrong hand or a wrong axis order cannot pass unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from solvar_engine.imaging.rotation import rotvec_to_rotation

MOLECULE_RADIUS = 0.38
"""No atom of any state lies further than this from the centre, in fractions of the box."""

ATOM_COUNT = 1500
ATOM_SIGMA = 1.0 / 64.0
"""Standard deviation of an atom's Gaussian, in fractions of the box: one pixel at box 64."""

HINGE_STATES = 50
HINGE_DOMAIN_ATOMS = 405
"""27 % of the atoms move."""

HINGE_AMPLITUDE_DEG = 15.0
HINGE_POINT = (0.02, 0.01, -0.01)
HINGE_AXIS = (0.35, -0.10, 1.0)
"""Across the moving domain, through the neck between it and the rest."""

ASSEMBLY_PIECE_ATOMS = (51, 72, 93, 117)
"""3.4, 4.8, 6.2 and 7.8 % of the atoms."""

ASSEMBLY_STATES = (
    ((1, 1, 1, 1), 0.24),
    ((0, 1, 1, 1), 0.18),
    ((1, 0, 1, 1), 0.15),
    ((1, 1, 0, 1), 0.12),
    ((1, 1, 1, 0), 0.10),
    ((0, 0, 1, 1), 0.09),
    ((1, 1, 0, 0), 0.07),
    ((0, 0, 0, 0), 0.05),
)
"""Eight of the sixteen combinations of the four pieces, each with its share of the particles."""


@dataclass(frozen=True)
class Phantom:
    """A molecule in a finite number of states.

    Attributes
    ----------
    name : str
        The name by which the command line asks for it.
    atoms : Tensor, shape (states, atoms, 3), float64
        Positions (x, y, z) about the box centre, in fractions of the box.
    mass : Tensor, shape (states, atoms), float64
        The sum over the voxels that each atom contributes; 0 where the atom is absent.
    coordinates : ndarray, shape (states, d), float64
        What varies between the states (d may be 0).
    population : ndarray, shape (states,), float64
        Share of the particles in each state; sums to 1.
    sigma : float
        Standard deviation of an atom's Gaussian, in fractions of the box.
    """

    name: str
    atoms: torch.Tensor
    mass: torch.Tensor
    coordinates: np.ndarray
    population: np.ndarray
    sigma: float = ATOM_SIGMA

    @property
    def n_states(self) -> int:
        """Number of states."""
        return int(self.atoms.shape[0])


@dataclass(frozen=True)
class _Ellipsoid:
    """A solid ellipsoid: centre and semi-axes in fractions of the box, turned by a rotation vector (deg)."""

    centre: tuple[float, float, float]
    semi_axes: tuple[float, float, float]
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Which of the points (n, 3) lie inside: (n,) bool."""
        local = (points - np.array(self.centre)) @ _rotation_about(self.turn)
        return ((local / np.array(self.semi_axes)) ** 2).sum(axis=1) < 1.0


_HINGE_BODY = (
    _Ellipsoid((-0.02, -0.17, 0.00), (0.21, 0.13, 0.15), (10, 20, 25)),
    _Ellipsoid((-0.17, -0.08, 0.09), (0.11, 0.15, 0.10), (0, 30, 0)),
    _Ellipsoid((0.18, -0.16, -0.10), (0.12, 0.10, 0.10), (40, 0, 0)),
    _Ellipsoid((0.06, -0.10, 0.14), (0.09, 0.10, 0.13), (0, 0, 30)),
    _Ellipsoid((-0.16, -0.16, -0.14), (0.09, 0.12, 0.09), (25, 0, -20)),
    _Ellipsoid((0.00, -0.03, -0.02), (0.09, 0.09, 0.09)),
)
_HINGE_DOMAIN = (
    _Ellipsoid((0.05, 0.15, 0.00), (0.11, 0.15, 0.12), (0, 0, -15)),
    _Ellipsoid((0.13, 0.22, 0.08), (0.10, 0.08, 0.09), (20, 0, 0)),
    _Ellipsoid((-0.04, 0.24, -0.08), (0.07, 0.09, 0.10), (0, 35, 0)),
)

_ASSEMBLY_CORE = (
    _Ellipsoid((0.00, 0.00, 0.00), (0.22, 0.16, 0.19), (15, 0, 30)),
    _Ellipsoid((-0.16, 0.10, 0.07), (0.12, 0.11, 0.14), (0, 25, 0)),
    _Ellipsoid((0.12, -0.15, -0.08), (0.13, 0.10, 0.12), (30, 0, 0)),
    _Ellipsoid((0.05, 0.12, -0.17), (0.10, 0.12, 0.08), (0, 0, 40)),
)
_ASSEMBLY_PIECES = (
    (_Ellipsoid((-0.10, -0.23, 0.13), (0.08, 0.06, 0.07), (0, 0, 25)),),
    (_Ellipsoid((0.23, 0.15, 0.08), (0.07, 0.10, 0.08), (0, 20, 10)),),
    (
        _Ellipsoid((0.06, 0.00, 0.25), (0.10, 0.07, 0.08), (0, 30, 0)),
        _Ellipsoid((0.14, -0.07, 0.21), (0.06, 0.09, 0.06)),
    ),
    (
        _Ellipsoid((-0.20, -0.04, -0.19), (0.09, 0.12, 0.08), (20, 0, 30)),
        _Ellipsoid((-0.24, -0.16, -0.10), (0.06, 0.06, 0.09)),
    ),
)


def make_phantom(name: str) -> Phantom:
    """Build the phantom of this name; the result is the same on every call.

    Parameters
    ----------
    name : str
        One of :func:`phantom_names`.

    Returns
    -------
    Phantom

    Raises
    ------
    ValueError
        If there is no phantom of this name.

    Examples
    --------
    >>> make_phantom("hinge").n_states
    50
    """
    if name not in _BUILDERS:
        raise ValueError(f"phantom {name!r} does not exist: choose one of {', '.join(phantom_names())}")
    return _BUILDERS[name]()


def phantom_names() -> tuple[str, ...]:
    """Names of the phantoms that can be built."""
    return tuple(_BUILDERS)


def hinge_phantom() -> Phantom:
    """Build the hinge: 27 % of the atoms turn by (2t - 1) x 15 degrees about their neck, t = 0 ... 1.

    Returns
    -------
    Phantom
        50 equally populated states; the one coordinate is t.
    """
    body, domain = _hinge_atoms()
    progress = np.linspace(0.0, 1.0, HINGE_STATES)
    axis = np.array(HINGE_AXIS) / np.linalg.norm(HINGE_AXIS)
    states = []
    for t in progress:
        turn = _rotation_about(tuple((2.0 * t - 1.0) * HINGE_AMPLITUDE_DEG * axis))
        moved = (domain - np.array(HINGE_POINT)) @ turn.T + np.array(HINGE_POINT)
        states.append(np.concatenate([body, moved]))
    population = np.full(HINGE_STATES, 1.0 / HINGE_STATES)
    return _phantom("hinge", np.stack(states), None, progress[:, None], population)


def assembly_phantom() -> Phantom:
    """Build the assembly: four pieces of 3 to 8 % of the atoms each are present or absent.

    Returns
    -------
    Phantom
        Eight unequally populated states; the four coordinates say which pieces are present (0 or 1).
    """
    rng = np.random.default_rng(20)
    pieces = [
        _fill(rng, shape, count) for shape, count in zip(_ASSEMBLY_PIECES, ASSEMBLY_PIECE_ATOMS, strict=True)
    ]
    core_count = ATOM_COUNT - sum(ASSEMBLY_PIECE_ATOMS)
    outside = tuple(ellipsoid for shape in _ASSEMBLY_PIECES for ellipsoid in shape)
    core = _fill(rng, _ASSEMBLY_CORE, core_count, outside=outside)
    piece_of_atom = np.repeat(np.arange(5), [core_count, *ASSEMBLY_PIECE_ATOMS])
    presence = np.array([state for state, _ in ASSEMBLY_STATES], dtype=np.float64)
    mass = np.concatenate([np.ones((len(presence), 1)), presence], axis=1)[:, piece_of_atom]
    atoms = np.repeat(np.concatenate([core, *pieces])[None], len(presence), axis=0)
    population = np.array([share for _, share in ASSEMBLY_STATES])
    return _phantom("assembly", atoms, mass, presence, population)


def static_phantom() -> Phantom:
    """Build the molecule of the hinge at t = 1/2, which does not move: one state and no coordinate."""
    atoms = np.concatenate(_hinge_atoms())[None]
    return _phantom("static", atoms, None, np.zeros((1, 0)), np.ones(1))


_BUILDERS: dict[str, Callable[[], Phantom]] = {
    "hinge": hinge_phantom,
    "assembly": assembly_phantom,
    "static": static_phantom,
}


def _hinge_atoms() -> tuple[np.ndarray, np.ndarray]:
    """Atoms of the resting body (1095, 3) and of the moving domain (405, 3) at t = 1/2."""
    rng = np.random.default_rng(10)
    domain = _fill(rng, _HINGE_DOMAIN, HINGE_DOMAIN_ATOMS)
    body = _fill(rng, _HINGE_BODY, ATOM_COUNT - HINGE_DOMAIN_ATOMS, outside=_HINGE_DOMAIN)
    return body, domain


def _phantom(
    name: str, atoms: np.ndarray, mass: np.ndarray | None, coordinates: np.ndarray, population: np.ndarray
) -> Phantom:
    """Wrap the arrays of the states, with all atoms present unless `mass` says otherwise."""
    if mass is None:
        mass = np.ones(atoms.shape[:2])
    return Phantom(name, torch.from_numpy(atoms), torch.from_numpy(mass), coordinates, population)


def _fill(
    rng: np.random.Generator,
    shape: tuple[_Ellipsoid, ...],
    count: int,
    outside: tuple[_Ellipsoid, ...] = (),
) -> np.ndarray:
    """Draw `count` points (count, 3) uniformly in the union of `shape`, leaving out the union `outside`.

    Only ``Generator.random`` is used: of all of NumPy's streams it is the one least likely ever to change.
    """
    kept = np.zeros((0, 3))
    while len(kept) < count:
        points = (2.0 * rng.random((20 * count, 3)) - 1.0) * MOLECULE_RADIUS
        kept = np.concatenate([kept, points[_in_union(points, shape) & ~_in_union(points, outside)]])
    return kept[:count]


def _in_union(points: np.ndarray, shape: tuple[_Ellipsoid, ...]) -> np.ndarray:
    """Which of the points (n, 3) lie in at least one of the ellipsoids: (n,) bool."""
    inside = np.zeros(len(points), dtype=bool)
    for ellipsoid in shape:
        inside |= ellipsoid.contains(points)
    return inside


def _rotation_about(degrees: tuple[float, ...]) -> np.ndarray:
    """Rotation matrix (3, 3), float64, of a rotation vector in degrees."""
    return rotvec_to_rotation(torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))).numpy()
