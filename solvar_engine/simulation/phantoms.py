"""Phantoms: molecules made of Gaussian pseudo-atoms, with known states and state coordinates.

A phantom is drawn once and for all: its atoms come from fixed internal seeds and from the tables below, never
from the user's ``--seed``, and its coordinates are fractions of the box, so that figures compare between data
sets and between box sizes. Atom positions are (x, y, z) about the box centre (index ``box_size // 2``); every
state stays within :data:`MOLECULE_RADIUS` of it. The bodies have neither mirror nor rotational symmetry, so a
wrong hand or a wrong axis order cannot pass unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.imaging.rotation import rotvec_to_rotation
from solvar_engine.simulation.masks import atom_mask
from solvar_engine.simulation.molecules import Cost
from solvar_engine.simulation.projections import atom_band, atom_volume, project_atoms

MOLECULE_RADIUS = 0.38
"""No atom of any state lies further than this from the centre, in fractions of the box."""

_BATCH_BYTES = 24e6
"""Temporary arrays of the images that are projected together, small enough to be reused."""

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

RANDOM_STATES = 100
"""States of the linker, the mixture and the flexible molecule, all equally populated."""

CONTAMINANT_STATES = 20
"""Different molecules that may be found in place of the one that is simulated."""

LINKER_ATOMS = (850, 100, 550)
"""Of the resting body, of the linker and of the body at its end."""

LINKER_AMPLITUDES_DEG = (20.0, 40.0)
"""Largest turn about either hinge."""

LINKER_HINGES = (
    ((-0.02, -0.04, 0.01), (0.25, -0.10, 1.00)),
    ((0.03, 0.08, 0.00), (1.00, 0.20, -0.15)),
)
"""Point and axis of the hinge between the resting body and the linker, and of that between linker and other body."""

FLEXIBLE_MODES = 6
FLEXIBLE_RMS = (0.0130, 0.0114, 0.0100, 0.0087, 0.0076, 0.0066)
"""Root mean square displacement of the atoms by one standard deviation of each mode, in fractions of the box."""

FLEXIBLE_WAVES = 6
FLEXIBLE_FREQUENCY = 1.0
"""Plane waves that make up a displacement field, and their largest frequency, in cycles per box."""


@dataclass(frozen=True)
class Phantom:
    """A molecule of Gaussian pseudo-atoms; see :class:`~.molecules.Molecule`.

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

    @property
    def device(self) -> torch.device:
        """See :attr:`~.molecules.Molecule.device`."""
        return self.atoms.device

    def to(self, device: torch.device | str) -> Phantom:
        """Same molecule on a device."""
        return replace(self, atoms=self.atoms.to(device), mass=self.mass.to(device))

    def band(self, box_size: int) -> int:
        """See :meth:`~.molecules.Molecule.band`."""
        return atom_band(box_size, self.sigma)

    def project(self, state: torch.Tensor, rotation: torch.Tensor, disk: HalfDisk) -> torch.Tensor:
        """See :meth:`~.molecules.Molecule.project`."""
        return project_atoms(self.atoms[state], self.mass[state], rotation, disk, self.sigma)

    def project_padded(
        self, state: torch.Tensor, rotation: torch.Tensor, disk: HalfDisk, factor: int
    ) -> torch.Tensor:
        """See :meth:`~.molecules.Molecule.project_padded`."""
        return project_atoms(
            self.atoms[state] / factor, self.mass[state], rotation, disk, self.sigma / factor
        )

    def volume(self, state: int, box_size: int) -> torch.Tensor:
        """See :meth:`~.molecules.Molecule.volume`."""
        return atom_volume(self.atoms[state], self.mass[state], box_size, self.sigma)

    def mask(self, box_size: int) -> torch.Tensor:
        """See :meth:`~.molecules.Molecule.mask`."""
        return atom_mask(self.atoms[self.mass > 0].cpu(), self.sigma, box_size)

    def images_per_batch(self, disk: HalfDisk) -> int:
        """See :meth:`~.molecules.Molecule.images_per_batch`."""
        waves = 4 * 2 * (disk.shell_max + 1) * self.atoms.shape[1]
        per_image = 4 * (2 * waves + 4 * disk.box_size**2)
        return max(1, int(_BATCH_BYTES // per_image))

    def cost(self, box_size: int) -> Cost:
        """See :meth:`~.molecules.Molecule.cost`; sines and sums over all atoms, measured on one core."""
        return Cost(3e-8 * self.atoms.shape[1] * (self.band(box_size) + 1), 2 * _BATCH_BYTES)


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

_LINKER_BODY = (
    _Ellipsoid((-0.03, -0.19, 0.01), (0.19, 0.12, 0.14), (0, 15, 20)),
    _Ellipsoid((-0.16, -0.12, -0.10), (0.10, 0.13, 0.11), (25, 0, 0)),
    _Ellipsoid((0.14, -0.20, 0.10), (0.12, 0.09, 0.10), (0, 30, 0)),
    _Ellipsoid((-0.02, -0.10, 0.09), (0.09, 0.08, 0.10)),
)
_LINKER_ROD = (_Ellipsoid((0.005, 0.02, 0.005), (0.035, 0.085, 0.035), (0, 0, -22)),)
_LINKER_OTHER_BODY = (
    _Ellipsoid((0.04, 0.17, 0.00), (0.09, 0.10, 0.12), (0, 0, 20)),
    _Ellipsoid((0.11, 0.20, 0.06), (0.09, 0.07, 0.07), (0, 25, 0)),
    _Ellipsoid((-0.03, 0.20, -0.06), (0.07, 0.06, 0.09), (30, 0, 0)),
)

_FLEXIBLE_BODY = (
    _Ellipsoid((0.00, -0.14, 0.02), (0.16, 0.13, 0.12), (20, 0, 15)),
    _Ellipsoid((-0.10, 0.05, -0.04), (0.10, 0.17, 0.09), (0, 0, 25)),
    _Ellipsoid((0.13, 0.02, 0.09), (0.09, 0.16, 0.10), (0, 20, -20)),
    _Ellipsoid((0.02, 0.19, 0.00), (0.17, 0.09, 0.10), (0, 30, 0)),
    _Ellipsoid((0.05, -0.10, -0.16), (0.08, 0.10, 0.12), (15, 0, 0)),
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

    50 equally populated states; the one coordinate is t.
    """
    body, domain = _hinge_atoms()
    progress = np.linspace(0.0, 1.0, HINGE_STATES)
    states = []
    for t in progress:
        moved = _turn_about(domain, HINGE_POINT, HINGE_AXIS, (2.0 * t - 1.0) * HINGE_AMPLITUDE_DEG)
        states.append(np.concatenate([body, moved]))
    return _phantom("hinge", np.stack(states), None, progress[:, None], _equal_shares(HINGE_STATES))


def linker_phantom() -> Phantom:
    """Build the linker: two bodies joined by a linker that turns at both of its ends.

    The linker carries the other body as it turns about the first hinge, by up to 20 degrees; that body turns about
    the second one, by up to 40 degrees. Both angles are drawn uniformly and independently.

    100 equally populated states; the two coordinates are the angles, degrees.
    """
    rng = np.random.default_rng(30)
    counts = LINKER_ATOMS
    other = _fill(rng, _LINKER_OTHER_BODY, counts[2])
    body = _fill(rng, _LINKER_BODY, counts[0], outside=_LINKER_OTHER_BODY)
    rod = _fill(rng, _LINKER_ROD, counts[1], outside=_LINKER_BODY + _LINKER_OTHER_BODY)
    angles = (2.0 * rng.random((RANDOM_STATES, 2)) - 1.0) * np.array(LINKER_AMPLITUDES_DEG)
    first, second = LINKER_HINGES
    states = []
    for first_deg, second_deg in angles:
        carried = np.concatenate([rod, _turn_about(other, *second, second_deg)])
        states.append(np.concatenate([body, _turn_about(carried, *first, first_deg)]))
    return _phantom("linker", np.stack(states), None, angles, _equal_shares(RANDOM_STATES))


def assembly_phantom() -> Phantom:
    """Build the assembly: four pieces of 3 to 8 % of the atoms each are present or absent.

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


def mixture_phantom() -> Phantom:
    """Build the mixture: a hundred different globules of equal mass, each about its own centre of mass.

    100 equally populated states without a coordinate: none lies between two others.
    """
    return _globules("mixture", np.random.default_rng(40), RANDOM_STATES)


def contaminant_phantom() -> Phantom:
    """Build what is no part of any phantom: globules like those of the mixture, but other ones.

    20 equally populated states without a coordinate.
    """
    return _globules("contaminant", np.random.default_rng(60), CONTAMINANT_STATES)


def flexible_phantom() -> Phantom:
    """Build the flexible molecule: smooth random fields displace its atoms, in six modes.

    Each mode is a sum of transverse plane waves longer than the box, which bend and twist but do not compress. None
    moves or turns the molecule as a whole, and over the atoms all are orthogonal. Coefficients are drawn uniformly and
    independently, with variance 1.

    100 equally populated states; the six coordinates are the coefficients of the modes.
    """
    rng = np.random.default_rng(50)
    rest = _fill(rng, _FLEXIBLE_BODY, ATOM_COUNT)
    modes = _displacement_modes(rng, rest)
    coefficients = np.sqrt(3.0) * (2.0 * rng.random((RANDOM_STATES, FLEXIBLE_MODES)) - 1.0)
    states = rest + np.tensordot(coefficients, modes, axes=1)
    return _phantom("flexible", states, None, coefficients, _equal_shares(RANDOM_STATES))


def static_phantom() -> Phantom:
    """Build the molecule of the hinge at t = 1/2, which does not move: one state and no coordinate."""
    atoms = np.concatenate(_hinge_atoms())[None]
    return _phantom("static", atoms, None, np.zeros((1, 0)), np.ones(1))


_BUILDERS: dict[str, Callable[[], Phantom]] = {
    "hinge": hinge_phantom,
    "linker": linker_phantom,
    "assembly": assembly_phantom,
    "mixture": mixture_phantom,
    "flexible": flexible_phantom,
    "static": static_phantom,
}


def _hinge_atoms() -> tuple[np.ndarray, np.ndarray]:
    """Atoms of the resting body (1095, 3) and of the moving domain (405, 3) at t = 1/2."""
    rng = np.random.default_rng(10)
    domain = _fill(rng, _HINGE_DOMAIN, HINGE_DOMAIN_ATOMS)
    body = _fill(rng, _HINGE_BODY, ATOM_COUNT - HINGE_DOMAIN_ATOMS, outside=_HINGE_DOMAIN)
    return body, domain


def _globules(name: str, rng: np.random.Generator, count: int) -> Phantom:
    """Draw globules of equal mass, each about its own centre of mass, as equally populated states."""
    globules = [_fit_into_radius(_fill(rng, _random_globule(rng), ATOM_COUNT)) for _ in range(count)]
    return _phantom(name, np.stack(globules), None, np.zeros((count, 0)), _equal_shares(count))


def _random_globule(rng: np.random.Generator) -> tuple[_Ellipsoid, ...]:
    """Draw a short chain of ellipsoids, each overlapping the one before."""
    count = 3 + int(4 * rng.random())
    ellipsoids = []
    centre = np.zeros(3)
    for _ in range(count):
        semi_axes = 0.07 + 0.09 * rng.random(3)
        turn = 360.0 * rng.random(3) - 180.0
        ellipsoids.append(_Ellipsoid(_triple(centre), _triple(semi_axes), _triple(turn)))
        step = _random_direction(rng) * (0.10 + 0.08 * rng.random())
        # back towards the origin where the chain would leave the region that is filled
        centre = centre + step if np.linalg.norm(centre + step) < 0.25 else centre - step
    return tuple(ellipsoids)


def _fit_into_radius(atoms: np.ndarray) -> np.ndarray:
    """Move the centre of mass of atoms (n, 3) to the origin, and shrink what reaches too far."""
    centred = atoms - atoms.mean(axis=0)
    return centred * min(1.0, MOLECULE_RADIUS / np.linalg.norm(centred, axis=1).max())


def _displacement_modes(rng: np.random.Generator, atoms: np.ndarray) -> np.ndarray:
    """Draw smooth displacements of atoms (n, 3) in orthogonal modes without a rigid motion: (modes, n, 3)."""
    taken = [part.ravel() for part in _rigid_motions(atoms)]
    modes = []
    for rms in FLEXIBLE_RMS:
        field = _smooth_field(rng, atoms).ravel()
        basis = np.stack(taken, axis=1)
        field = field - basis @ np.linalg.lstsq(basis, field, rcond=None)[0]
        taken.append(field)
        modes.append(field.reshape(-1, 3) * rms / np.sqrt((field**2).sum() / len(atoms)))
    return np.stack(modes)


def _rigid_motions(atoms: np.ndarray) -> np.ndarray:
    """Displacements (6, n, 3) of atoms (n, 3) by small shifts along, and turns about, x, y and z."""
    unit = np.eye(3)
    shifts = [np.broadcast_to(axis, atoms.shape) for axis in unit]
    return np.stack([*shifts, *(np.cross(axis, atoms) for axis in unit)])


def _smooth_field(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """Evaluate a sum of random long transverse plane waves at points (n, 3): vectors (n, 3)."""
    field = np.zeros(points.shape)
    for _ in range(FLEXIBLE_WAVES):
        direction = _random_direction(rng)
        phase = 2.0 * np.pi * (FLEXIBLE_FREQUENCY * rng.random() * points @ direction + rng.random())
        field += np.sin(phase)[:, None] * np.cross(direction, _random_direction(rng))
    return field


def _random_direction(rng: np.random.Generator) -> np.ndarray:
    """Draw a unit vector (3,), uniformly: its z and its longitude are uniform."""
    height, turn = rng.random(2)
    z, longitude = 2.0 * height - 1.0, 2.0 * np.pi * turn
    radius = np.sqrt(1.0 - z**2)
    return np.array([radius * np.cos(longitude), radius * np.sin(longitude), z])


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z


def _equal_shares(states: int) -> np.ndarray:
    return np.full(states, 1.0 / states)


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


def _turn_about(
    atoms: np.ndarray, point: tuple[float, ...], axis: tuple[float, ...], degrees: float
) -> np.ndarray:
    """Turn atoms (n, 3) rigidly about an axis of any length through a point."""
    turn = _rotation_about(tuple(degrees * np.array(axis) / np.linalg.norm(axis)))
    return (atoms - np.array(point)) @ turn.T + np.array(point)


def _rotation_about(degrees: tuple[float, ...]) -> np.ndarray:
    """Rotation matrix (3, 3), float64, of a rotation vector in degrees."""
    return rotvec_to_rotation(torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))).numpy()
