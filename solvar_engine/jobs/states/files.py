"""The particles of each state, as files of `reconstruct`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.results import StateFolder
from solvar_engine.contract.run import RunDir
from solvar_engine.data.cryosparc.results import write_subset
from solvar_engine.data.particles import ParticleStack
from solvar_engine.jobs.states.choice import States


def write_particles_of_states(
    files: StateFolder, run: RunDir, stack: ParticleStack, row: NDArray[np.int64], states: States,
    is_outlier: NDArray[np.bool_],
) -> None:
    """Write the particles that belong to each state, with the poses of the run and all columns of their file.

    Those of a run of cryoSPARC's particles also as part of its particles.cs.

    Parameters
    ----------
    files : StateFolder
    run : RunDir
    stack : ParticleStack
        With the poses of the run.
    row : ndarray of int64, shape (particles of the run,)
        Row of the stack for each particle of the run.
    states : States
    is_outlier : ndarray of bool, shape (particles of the run,)
        Left out.
    """
    table = stack.star.particles
    columns: dict[str, Any] = {**stack.pose_columns(stack.pose)}
    posed = table.with_columns(columns)
    for state in range(len(states.points)):
        owned = np.flatnonzero((states.owner == state) & ~is_outlier)
        members = np.sort(row[owned])
        part = dataclasses.replace(posed, rows=[posed.rows[member] for member in members])
        stack.star.replace(table, part).write(files.particles(state + 1))
        write_subset(run.particles_cs, owned, files.particles(state + 1).with_suffix(".cs"))
