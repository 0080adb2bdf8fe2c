"""Files of `reconstruct`: their names, and the particles of each state."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.files import write_csv
from solvar_engine.data.metadata import pose_columns
from solvar_engine.data.particles import ParticleStack
from solvar_engine.jobs.states.choice import States


@dataclass(frozen=True)
class StateFiles:
    """Names of the files of states, numbered from 1.

    Attributes
    ----------
    folder : Path
    """

    folder: Path

    @property
    def table(self) -> Path:
        """Coordinates, images and resolution of every state."""
        return self.folder / "states.csv"

    @property
    def owners(self) -> Path:
        """State of every particle: row of the run's particles.star, from 0, and number of the state, from 1."""
        return self.folder / "particles.csv"

    @property
    def checkpoint(self) -> Path:
        """What `--resume` needs; gone when all is done."""
        return self.folder / "checkpoint.json"

    @property
    def call(self) -> Path:
        """What finished states were made from, for `--resume` to compare with."""
        return self.folder / "call.json"

    @property
    def bad_images(self) -> Path:
        """Table of the images that could not be used; only if there are several."""
        return self.folder / "bad_images.csv"

    def volume(self, state: int) -> Path:
        """Volume of a state, filtered."""
        return self.folder / f"state_{state:03d}.mrc"

    def half(self, state: int, half: int) -> Path:
        """Half-map of a state, not filtered."""
        return self.folder / f"state_{state:03d}_half{half}.mrc"

    def local_resolution(self, state: int) -> Path:
        """Local resolution of a state, Angstrom."""
        return self.folder / f"state_{state:03d}_locres.mrc"

    def particles(self, state: int) -> Path:
        """Particles of a state."""
        return self.folder / f"state_{state:03d}_particles.star"


def write_owners(files: StateFiles, states: States, is_outlier: NDArray[np.bool_]) -> None:
    """Write which state each particle of the run belongs to; outliers, shape (n,), belong to none."""
    rows = np.flatnonzero(~is_outlier)
    write_csv(files.owners, {"row": rows, "state": states.owner[rows] + 1})


def write_particles_of_states(
    files: StateFiles, stack: ParticleStack, row: NDArray[np.int64], states: States, is_outlier: NDArray[np.bool_]
) -> None:
    """Write the particles that belong to each state, with the poses of the run and all columns of their file.

    Parameters
    ----------
    files : StateFiles
    stack : ParticleStack
        With the poses of the run.
    row : ndarray of int64, shape (particles of the run,)
        Row of the stack for each particle of the run.
    states : States
    is_outlier : ndarray of bool, shape (particles of the run,)
        Left out.
    """
    sizes = np.array(stack.pixel_sizes)[stack.group.numpy()]
    table = stack.star.particles
    columns: dict[str, Any] = {**pose_columns(stack.pose, stack.star, sizes)}
    posed = table.with_columns(columns)
    for state in range(len(states.points)):
        members = np.sort(row[(states.owner == state) & ~is_outlier])
        part = dataclasses.replace(posed, rows=[posed.rows[member] for member in members])
        stack.star.replace(table, part).write(files.particles(state + 1))
