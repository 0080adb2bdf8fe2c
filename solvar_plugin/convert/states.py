"""The volumes of states that the engine reconstructed, and the particles of each, as Scipion's objects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

import numpy as np
from pwem.objects import Class3D, Particle, Volume
from pyworkflow.object import Float, Integer, String

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_csv
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_plugin.convert.attributes import csv_list
from solvar_plugin.convert.particle_results import FLEX_ATTRIBUTES
from solvar_plugin.convert.particles import ID_COLUMN, enabled_items
from solvar_plugin.convert.volumes import volume_of


@dataclass(frozen=True)
class StateFolder:
    """The folder of `reconstruct`.

    Attributes
    ----------
    path : Path
    """

    path: Path

    @property
    def table(self) -> Path:
        """Coordinates, images and resolution of every state."""
        return self.path / "states.csv"

    def volume(self, state: int) -> Path:
        """Volume of a state, numbered from 1."""
        return self.path / f"state_{state:03d}.mrc"

    def half(self, state: int, half: int) -> Path:
        """Half-map 1 or 2 of a state; only of the kernel method."""
        return self.path / f"state_{state:03d}_half{half}.mrc"

    def local_resolution(self, state: int) -> Path:
        """Map of the local resolution of a state, Angstrom; only of the kernel method."""
        return self.path / f"state_{state:03d}_locres.mrc"

    @property
    def checkpoint(self) -> Path:
        """List of the finished states of a reconstruction that was interrupted."""
        return self.path / "checkpoint.json"

    @property
    def owners(self) -> Path:
        """State of every particle: row of the run's particles, from 0, and number of the state, from 1."""
        return self.path / "particles.csv"


@dataclass(frozen=True)
class StateTable:
    """What states.csv says.

    Attributes
    ----------
    points : ndarray, shape (states, r)
        Latent coordinates.
    images_used : ndarray of int, shape (states,)
        Images that a volume was made from; of the linear method, particles that are nearest to the state.
    resolution : ndarray, shape (states,)
        Angstrom; NaN where unknown.
    """

    points: np.ndarray
    images_used: np.ndarray
    resolution: np.ndarray

    def __len__(self) -> int:
        return len(self.points)


def is_limit(resolution: float, pixel_size: float) -> bool:
    """Whether a resolution is the finest that pixels of a size can hold; both in Angstrom."""
    return resolution < 2.001 * pixel_size


def read_states(folder: StateFolder) -> StateTable:
    """Read the table of states.

    Raises
    ------
    UserError
        If it is absent or damaged.
    """
    if not folder.table.exists():
        raise UserError(f"{folder.table} does not exist: let the protocol come to its end, or run it again.")
    table = read_csv(folder.table)
    axes = [name for name in table if name.startswith("z_")]
    missing = sorted({"state", "images_used"} - set(table)) + ([] if axes else ["z_1"])
    if missing:
        raise UserError(f"{folder.table} has no column {', '.join(missing)}: run the protocol again.")
    unknown = np.full(len(table["state"]), np.nan)
    resolution = table.get("resolution", unknown)
    if resolution.dtype.kind not in "fiu":
        resolution = unknown  # empty cells only
    points = np.stack([np.asarray(table[name], dtype=np.float64) for name in axes], axis=1)
    return StateTable(points, table["images_used"].astype(np.int64), np.asarray(resolution, dtype=np.float64))


def state_volumes(folder: StateFolder, kind: str) -> list[Volume]:
    """Return the volumes of the states with their half-maps, if they have any.

    Parameters
    ----------
    folder : StateFolder
    kind : str
        What a state is, such as ``cluster``: the volumes are called cluster 1, cluster 2 ...
    """
    table = read_states(folder)
    volumes = []
    for number in range(1, len(table) + 1):
        volume = volume_of(folder.volume(number))
        name = f"{kind} {number}"
        volume.setObjLabel(name)
        halves = [folder.half(number, half) for half in (1, 2)]
        if all(path.exists() for path in halves):
            volume.setHalfMaps([str(path) for path in halves])
        volume._solvarState = String(name)
        volume._solvarParticles = Integer(int(table.images_used[number - 1]))
        resolution = float(table.resolution[number - 1])
        volume._solvarResolution = Float(resolution if math.isfinite(resolution) else None)
        volume._zFlex = csv_list(table.points[number - 1])
        volumes.append(volume)
    return volumes


def local_resolutions(folder: StateFolder, kind: str) -> list[Volume]:
    """Return the maps of local resolution, Angstrom; none if the method makes none."""
    count = len(read_states(folder))
    paths = [folder.local_resolution(number) for number in range(1, count + 1)]
    if not all(path.exists() for path in paths):
        return []
    volumes = []
    for number, path in enumerate(paths, start=1):
        volume = volume_of(path)
        volume.setObjLabel(f"local resolution of {kind} {number}")
        volume._solvarState = String(f"{kind} {number}")
        volumes.append(volume)
    return volumes


def state_of_particles(folder: StateFolder, run: RunDir) -> dict[int, int]:
    """Return the state (from 1) of every particle of a run that belongs to one, by its id; outliers belong to none.

    Raises
    ------
    UserError
        If the table of particles is absent, or not of this run.
    """
    if not folder.owners.exists():
        raise UserError(f"{folder.owners} does not exist: run the protocol again.")
    table = read_csv(folder.owners)
    rows, states = (np.asarray(table[name], dtype=np.int64) for name in ("row", "state"))
    ids = StarFile.read(run.particles).particles.integers(ID_COLUMN)
    if rows.max(initial=-1) >= len(ids):
        raise UserError(f"{folder.owners} has other particles than {run.particles}: run the protocol again.")
    return dict(zip(ids[rows].tolist(), states.tolist()))


def fill_classes(output: Any, images: Any, owner: dict[int, int], volumes: list[Volume], alignment: Any = None) -> None:
    """Append one class for each state that has particles, with its volume as the representative.

    Parameters
    ----------
    output : SetOfClasses3D
        Empty.
    images : SetOfParticles
        The particles of the classes.
    owner : dict
        State (from 1) of each particle, by its id.
    volumes : list of Volume
        Of the states.
    alignment : callable, optional
        Gives the transform of a particle by its id; without it, particles keep theirs.
    """
    classes: dict[int, Class3D] = {}
    for particle in enabled_items(images):
        state = owner.get(particle.getObjId())
        if state is None:
            continue
        if state not in classes:
            classes[state] = _new_class(output, images, volumes[state - 1], state)
        item = Particle()
        item.copy(particle, ignoreAttrs=FLEX_ATTRIBUTES)
        item.setClassId(state)
        if alignment is not None:
            item.setTransform(alignment(particle.getObjId()))
        classes[state].append(item)
    for one in _by_number(classes):
        output.update(one)


def _new_class(output: Any, images: Any, volume: Volume, number: int) -> Class3D:
    one = Class3D(objId=number)
    one.setAcquisition(images.getAcquisition())
    one.setSamplingRate(images.getSamplingRate())
    one.setAlignmentProj()
    one.setHasCTF(images.hasCTF())
    one.setObjLabel(volume.getObjLabel())
    one.setRepresentative(volume.clone())
    output.append(one)
    return one


def _by_number(classes: dict[int, Class3D]) -> Iterator[Class3D]:
    return (classes[number] for number in sorted(classes))
