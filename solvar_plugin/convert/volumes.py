"""The volumes of the engine's run directory as Scipion's objects."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from pwem.objects import Volume
from pyworkflow.object import Float, Integer, String

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import as_text, read_csv, write_csv
from solvar_engine.contract.run import RunDir
from solvar_plugin.convert.attributes import csv_list

STATE_COLUMN = "state"
"""Column of points.csv that names each state."""

STANDARD_DEVIATIONS = 2.0
"""How far from the mean, along a component, its two states are."""


def mean_volume(run: RunDir) -> Volume:
    """Return the mean with its half-maps."""
    volume = volume_of(run.mean)
    volume.setHalfMaps([str(run.mean_half1), str(run.mean_half2)])
    return volume


def eigenvolumes(run: RunDir) -> list[Volume]:
    """Return the eigenvolumes with what is known of their components."""
    table = read_csv(run.eigenvalues)
    labels = as_text(table["label"]).tolist()
    volumes = []
    for row, component in enumerate(table["component"].astype(int).tolist()):
        volume = volume_of(run.eigenvolume(component))
        volume.setObjLabel(f"component {component}")
        volume._solvarComponent = Integer(component)
        volume._solvarEigenvalue = Float(float(table["eigenvalue"][row]))
        volume._solvarFraction = Float(float(table["fraction"][row]))
        volume._solvarAgreement = Float(float(table["half_set_agreement"][row]))
        volume._solvarLabel = String(labels[row])
        volumes.append(volume)
    return volumes


def write_points(run: RunDir, path: Path) -> int:
    """Write the table of the states to look at: both sides of the mean along each component, and the cluster centres.

    Returns
    -------
    int
        Number of states, 0 if the run has no components.
    """
    eigenvalues = read_csv(run.eigenvalues)["eigenvalue"]
    rank = len(eigenvalues)
    if not rank:
        return 0
    names: list[str] = []
    points: list[np.ndarray] = []
    for component, eigenvalue in enumerate(eigenvalues.tolist(), start=1):
        reach = STANDARD_DEVIATIONS * np.sqrt(max(eigenvalue, 0.0))
        for sign, word in ((-1, "-"), (1, "+")):
            names.append(f"component {component}, {word}{STANDARD_DEVIATIONS:g} sd")
            # adding 0 turns -0 into 0
            points.append(sign * reach * np.eye(rank)[component - 1] + 0.0)
    centres = read_csv(run.centres)
    coordinates = np.stack([centres[f"z_{axis}"] for axis in range(1, rank + 1)], axis=1)
    names += [f"cluster {int(number)}" for number in centres["cluster"]]
    points += list(coordinates)
    table = np.array(points)
    write_csv(path, {STATE_COLUMN: names, **{f"z_{axis}": table[:, axis - 1] for axis in range(1, rank + 1)}})
    return len(names)


def states(points: Path, folder: Path) -> list[Volume]:
    """Return the volumes of the states with their names, coordinates and numbers of particles."""
    table = read_csv(points)
    used = read_csv(folder / "states.csv")["images_used"]
    axes = [name for name in table if name.startswith("z_")]
    volumes = []
    for row, name in enumerate(table[STATE_COLUMN].tolist()):
        volume = volume_of(folder / f"state_{row + 1:03d}.mrc")
        volume.setObjLabel(name)
        volume._solvarState = String(name)
        volume._solvarParticles = Integer(int(used[row]))
        volume._zFlex = csv_list([table[axis][row] for axis in axes])
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
