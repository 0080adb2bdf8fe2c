"""A set of particles as the STAR file that the engine reads."""

from __future__ import annotations

import filecmp
import os
from pathlib import Path
from typing import Any, Iterator, Sequence

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import atomic_path
from solvar_engine.contract.star import StarFile, StarTable, rotation_to_relion
from solvar_engine.contract.words import counted
from solvar_plugin.convert.locations import image_name
from solvar_plugin.convert.optics import Optics, read_optics

ID_COLUMN = "rlnImageId"
_POSE_COLUMNS = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
_CTF_COLUMNS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift")
# extra attributes that imports keep, and that the engine reads
_NUMBER_ATTRIBUTES = ("rlnCtfBfactor", "rlnCtfScalefactor", "rlnRandomSubset")
_DETERMINANT_TOLERANCE = 1e-3


def enabled_items(particles: Any) -> Iterator[Any]:
    """Yield the particles that the user has not disabled, by ascending id.

    The object is the same one every time, filled anew.
    """
    return (particle for particle in particles.iterItems() if particle.isEnabled())


def rows_of_particles(table: StarTable) -> dict[int, list[int]]:
    """Return the rows of a run by the id of their particle: one, or with symmetry one for each equal orientation."""
    rows: dict[int, list[int]] = {}
    for row, identity in enumerate(table.integers(ID_COLUMN).tolist()):
        rows.setdefault(identity, []).append(row)
    return rows


def item_ids(table: StarTable) -> np.ndarray:
    """Return the id of the item that each row of a run is in sets of Scipion, shape (n,).

    The first row of a particle has the particle's id; those that symmetry has added have ids beyond all of these.
    """
    ids = table.integers(ID_COLUMN).copy()
    added = [row for rows in rows_of_particles(table).values() for row in rows[1:]]
    ids[added] = ids.max(initial=0) + 1 + np.arange(len(added))
    return ids


def write_particles(
    particles: Any,
    path: Path,
    original_optics: Path | None = None,
    ids: Sequence[int] | None = None,
    with_poses: bool = True,
) -> bool:
    """Write a set of particles as a STAR file of RELION 3.1; the images stay where they are.

    Parameters
    ----------
    particles : SetOfParticles
        With CTF, and with projection alignment.
    path : Path
        The file. If it is there with the same content, it is not touched.
    original_optics : Path, optional
        STAR file that knows the optics groups.
    ids : sequence of int, optional
        Write the particles with these ids, in this order, as the images of a run whose orientations are known:
        particles may then lack them.
    with_poses : bool
        Without, orientations and shifts are left out, if there are any.

    Returns
    -------
    bool
        Whether the file is new or has changed.

    Raises
    ------
    UserError
        If a particle lacks what is needed, or is not there; its id is named.
    """
    rows = _Rows(particles.getSize(), read_optics(particles, original_optics))
    wanted = None if ids is None else set(ids)
    for particle in enabled_items(particles):
        if wanted is None or particle.getObjId() in wanted:
            rows.add(particle, needs_alignment=with_poses, has_known_orientation=wanted is not None)
    if ids is not None:
        rows.arrange(ids)
    columns = rows.columns(particles.getSamplingRate())
    if not with_poses:
        columns = {name: values for name, values in columns.items() if name not in _POSE_COLUMNS}
    star = StarFile((rows.optics.table(), StarTable.create("particles", columns)))
    return _write_if_changed(star, path)


class _Rows:
    """Collects the values of the particles, in arrays where they are numbers."""

    def __init__(self, capacity: int, optics: Optics) -> None:
        self.optics = optics
        self._names: list[str] = []
        self._micrographs: list[str] = []
        self._ids = np.zeros(capacity, dtype=np.int64)
        self._groups = np.zeros(capacity, dtype=np.int64)
        self._matrices = np.zeros((capacity, 4, 4))
        self._ctf = np.zeros((capacity, len(_CTF_COLUMNS)))
        self._attributes: dict[str, np.ndarray] = {}

    def add(self, particle: Any, needs_alignment: bool = True, has_known_orientation: bool = False) -> None:
        row = len(self._names)
        if row == 0:
            kept = [name for name in _NUMBER_ATTRIBUTES if particle.hasAttribute(f"_{name}")]
            self._attributes = {name: np.zeros(len(self._ids)) for name in kept}
        self._ids[row] = particle.getObjId()
        self._groups[row] = self.optics.group_of(particle)
        needs_none = not needs_alignment or (has_known_orientation and particle.getTransform() is None)
        self._matrices[row] = np.eye(4) if needs_none else _alignment(particle)
        self._ctf[row] = _ctf(particle)
        for name, values in self._attributes.items():
            values[row] = _attribute(particle, name)
        self._micrographs.append(_micrograph(particle))
        self._names.append(image_name(particle))

    def arrange(self, ids: Sequence[int]) -> None:
        """Bring the rows into the order of `ids`, all of which must be there."""
        place = {int(identity): row for row, identity in enumerate(self._ids[: len(self._names)])}
        missing = [identity for identity in ids if identity not in place]
        if missing:
            absent = counted(len(missing), "particle of the run is", "particles of the run are")
            raise UserError(
                f"{absent} not in the other set, such as the one with id {missing[0]}: "
                "give a set with the same particles, with the same ids."
            )
        order = np.array([place[identity] for identity in ids], dtype=np.int64)
        self._names = [self._names[row] for row in order]
        self._micrographs = [self._micrographs[row] for row in order]
        arrays = (self._ids, self._groups, self._matrices, self._ctf)
        self._ids, self._groups, self._matrices, self._ctf = (values[order] for values in arrays)
        self._attributes = {name: values[order] for name, values in self._attributes.items()}

    def columns(self, sampling_rate: float) -> dict[str, Any]:
        """Return the columns of the particle table; `sampling_rate` in Angstrom per pixel."""
        count = len(self._names)
        # Scipion stores the inverse of RELION's transform: rotations from image to volume, and shifts in that frame
        rotation, translation = self._matrices[:count, :3, :3], self._matrices[:count, :3, 3]
        origin = np.einsum("nji,nj->ni", rotation, translation) * sampling_rate
        rot, tilt, psi = rotation_to_relion(rotation)
        columns: dict[str, Any] = {
            "rlnImageName": self._names,
            ID_COLUMN: self._ids[:count],
            "rlnOpticsGroup": self._groups[:count],
            "rlnAngleRot": rot,
            "rlnAngleTilt": tilt,
            "rlnAnglePsi": psi,
            "rlnOriginXAngst": origin[:, 0],
            "rlnOriginYAngst": origin[:, 1],
            **dict(zip(_CTF_COLUMNS, self._ctf[:count].T)),
        }
        if any(self._micrographs):
            columns["rlnMicrographName"] = [name or "unknown" for name in self._micrographs]
        for name, values in self._attributes.items():
            is_whole = name == "rlnRandomSubset"
            columns[name] = values[:count].astype(np.int64) if is_whole else values[:count]
        return columns


def _alignment(particle: Any) -> np.ndarray:
    transform = particle.getTransform()
    if transform is None:
        raise UserError(f"Particle {particle.getObjId()} has no orientation: give particles of a 3-D refinement.")
    matrix = np.asarray(transform.getMatrix(), dtype=np.float64)
    determinant = np.linalg.det(matrix[:3, :3])
    if abs(determinant - 1) > _DETERMINANT_TOLERANCE:
        what = "is mirrored" if determinant < 0 else "has an orientation that is not a rotation"
        raise UserError(f"Particle {particle.getObjId()} {what}: give particles of a 3-D refinement, not mirrored.")
    return matrix


def _ctf(particle: Any) -> list[float]:
    ctf = particle.getCTF() if particle.hasCTF() else None
    values = [] if ctf is None else [ctf.getDefocusU(), ctf.getDefocusV(), ctf.getDefocusAngle()]
    if not values or any(value is None for value in values):
        raise UserError(f"Particle {particle.getObjId()} has no CTF: assign one to every particle.")
    phase_shift = ctf.getPhaseShift() if ctf.hasPhaseShift() else None
    return [*map(float, values), float(phase_shift or 0.0)]


def _attribute(particle: Any, name: str) -> float:
    value = particle.getAttributeValue(f"_{name}", None)
    if value is None:
        raise UserError(
            f"Particle {particle.getObjId()} has no {name}, though others have: import the particles again."
        )
    return float(value)


def _micrograph(particle: Any) -> str:
    coordinate = particle.getCoordinate() if particle.hasCoordinate() else None
    return (coordinate.getMicName() or "") if coordinate is not None else ""


def _write_if_changed(star: StarFile, path: Path) -> bool:
    """Write a file unless it is there already, so that its time says when it last changed."""
    candidate = path.with_name(f"new_{path.name}")
    try:
        star.write(candidate)
        if path.is_file() and filecmp.cmp(candidate, path, shallow=False):
            return False
        with atomic_path(path) as temporary:
            os.replace(candidate, temporary)
        return True
    finally:
        if candidate.exists():
            candidate.unlink()
