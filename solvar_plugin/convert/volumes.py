"""The volumes of the engine's run directory as Scipion's objects."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from pwem.objects import Volume
from pyworkflow.object import Float, Integer, String

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import (
    EXTRAPOLATED,
    StateFolder,
    read_centres,
    read_components,
    read_named_points,
    read_states,
    write_points,
)
from solvar_engine.contract.run import RunDir
from solvar_plugin.convert.attributes import csv_list

STANDARD_DEVIATIONS = 2.0
"""How far from the mean, along a component, its two states are."""


def mean_volume(run: RunDir) -> Volume:
    """Return the mean with its half-maps."""
    volume = volume_of(run.mean)
    volume.setHalfMaps([str(run.mean_half1), str(run.mean_half2)])
    return volume


def eigenvolumes(run: RunDir) -> list[Volume]:
    """Return the eigenvolumes with what is known of their components."""
    components = read_components(run.eigenvalues)
    volumes = []
    for row, label in enumerate(components.label):
        volume = volume_of(run.eigenvolume(row + 1))
        volume.setObjLabel(f"component {row + 1}")
        volume._solvarComponent = Integer(row + 1)
        volume._solvarEigenvalue = Float(float(components.eigenvalue[row]))
        volume._solvarFraction = Float(float(components.fraction[row]))
        volume._solvarAgreement = Float(float(components.half_set_agreement[row]))
        volume._solvarLabel = String(label)
        volumes.append(volume)
    return volumes


def write_points_to_look_at(run: RunDir, path: Path) -> int:
    """Write the table of the states to look at: both sides of the mean along each component, and the cluster centres.

    Returns
    -------
    int
        Number of states, 0 if the run has no components.
    """
    components = read_components(run.eigenvalues)
    rank = len(components)
    if not rank:
        return 0
    names: list[str] = []
    points: list[np.ndarray] = []
    for index in range(rank):
        reach = STANDARD_DEVIATIONS * components.deviation(index)
        for sign, word in ((-1, "-"), (1, "+")):
            names.append(f"component {index + 1}, {word}{STANDARD_DEVIATIONS:g} sd")
            # adding 0 turns -0 into 0
            points.append(sign * reach * np.eye(rank)[index] + 0.0)
    centres = read_centres(run.centres)
    names += [f"cluster {number}" for number in range(1, len(centres) + 1)]
    write_points(path, np.array([*points, *centres]), names)
    return len(names)


def states(path: Path, folder: StateFolder) -> list[Volume]:
    """Return the volumes of the states of a table of points, with names, coordinates and numbers of particles."""
    names, points = read_named_points(path)
    table = read_states(folder)
    volumes = []
    for row, name in enumerate(names):
        name += f" ({EXTRAPOLATED})" if table.is_extrapolated[row] else ""
        volume = volume_of(folder.volume(row + 1))
        volume.setObjLabel(name)
        volume._solvarState = String(name)
        volume._solvarParticles = Integer(int(table.images_used[row]))
        volume._zFlex = csv_list(points[row])
        volumes.append(volume)
    return volumes


def pixel_size_of(path: Path) -> float:
    """Return the pixel size in the header of an MRC file, Angstrom."""
    import mrcfile

    with mrcfile.open(path, header_only=True) as file:
        return float(file.voxel_size.x)


def volume_of(path: Path) -> Volume:
    """Return a volume with the pixel size of its file.

    Raises
    ------
    UserError
        If the file does not exist.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: run the protocol again.")
    volume = Volume()
    volume.setFileName(os.fspath(path))
    volume.setSamplingRate(pixel_size_of(path))
    return volume
