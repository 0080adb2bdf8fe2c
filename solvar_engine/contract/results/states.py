"""The folder of `reconstruct`: names of its files, and its tables; and tables of points that name states."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import numpy as np

from solvar_engine.contract.files import FileIn, write_csv
from solvar_engine.contract.results.tables import COORDINATE_PREFIX, coordinate_columns, coordinates_of, read_columns

STATE, ROW, IMAGES_USED, RESOLUTION = "state", "row", "images_used", "resolution"


@dataclass(frozen=True)
class StateFolder:
    """Names of the files of states, which are numbered from 1."""

    path: Path

    table = FileIn("states.csv", "Coordinates, images and resolution of every state")
    owners = FileIn("particles.csv", "Row of every particle in the run, from 0, and number of its state, from 1")
    checkpoint = FileIn("checkpoint.json", "What `--resume` needs; gone when all is done")
    call = FileIn("call.json", "What finished states were made from, for `--resume` to compare with")
    bad_images = FileIn("bad_images.csv", "Table of the images that could not be used; only if there are several")

    def volume(self, state: int) -> Path:
        """Volume of a state, filtered."""
        return self.path / f"state_{state:03d}.mrc"

    def half(self, state: int, half: int) -> Path:
        """Half-map 1 or 2 of a state, not filtered; only of the kernel method."""
        return self.path / f"state_{state:03d}_half{half}.mrc"

    def local_resolution(self, state: int) -> Path:
        """Local resolution of a state, Angstrom; only of the kernel method."""
        return self.path / f"state_{state:03d}_locres.mrc"

    def particles(self, state: int) -> Path:
        """Particles of a state; only of the kernel method."""
        return self.path / f"state_{state:03d}_particles.star"


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


def write_states(folder: StateFolder, states: StateTable) -> None:
    """Write the table of states."""
    number = np.arange(1, len(states) + 1)
    columns = {IMAGES_USED: states.images_used, RESOLUTION: states.resolution}
    write_csv(folder.table, {STATE: number, **coordinate_columns(states.points), **columns})


def read_states(folder: StateFolder) -> StateTable:
    """Read the table of states.

    Raises
    ------
    UserError
        If it is absent or damaged.
    """
    table = read_columns(folder.table, (STATE, f"{COORDINATE_PREFIX}1", IMAGES_USED))
    resolution = table.get(RESOLUTION, np.full(len(table[STATE]), np.nan))
    return StateTable(coordinates_of(table), table[IMAGES_USED].astype(np.int64), resolution)


def write_owners(folder: StateFolder, rows: np.ndarray, state: np.ndarray) -> None:
    """Write the rows of particles, from 0, and the number of the state, from 1, that each belongs to."""
    write_csv(folder.owners, {ROW: rows, STATE: state})


def read_owners(folder: StateFolder) -> tuple[np.ndarray, np.ndarray]:
    """Read which particles (rows of the run) belong to a state, and to which; both shape (m,), int."""
    table = read_columns(folder.owners, (ROW, STATE))
    return table[ROW].astype(np.int64), table[STATE].astype(np.int64)


def write_points(path: str | os.PathLike[str], points: np.ndarray, names: Sequence[str] = ()) -> None:
    """Write points of the latent space, shape (k, r), for `reconstruct`, and what each state is called."""
    write_csv(path, {**({STATE: names} if names else {}), **coordinate_columns(points)})


def read_named_points(path: str | os.PathLike[str]) -> tuple[list[str], np.ndarray]:
    """Read a table of points that names its states; names, and points of shape (k, r)."""
    table = read_columns(path, (STATE,), text=(STATE,))
    return table[STATE].tolist(), coordinates_of(table)
