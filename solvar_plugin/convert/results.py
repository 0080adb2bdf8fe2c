"""The engine's run directory as Scipion's sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Sequence

import numpy as np
from pwem.objects import ParticleFlex, Volume
from pyworkflow.object import CsvList, Float, Integer, String

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import as_text, read_csv, write_csv
from solvar_engine.contract.results import read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_plugin.constants import FLEX_PROGRAM
from solvar_plugin.convert.particles import ID_COLUMN, enabled_items

STATE_COLUMN = "state"
"""Column of points.csv that names each state."""

STANDARD_DEVIATIONS = 2.0
"""How far from the mean, along a component, its two states are."""


def fill_particles(output: Any, particles: Any, run: RunDir) -> None:
    """Append a copy of every particle with its latent coordinates; ids, CTF and all other attributes stay.

    Parameters
    ----------
    output : SetOfParticlesFlex
        Empty, with the information of `particles` copied.
    particles : SetOfParticles
        The input of the run.
    run : RunDir
        Finished. Rows are found by the id of the particle, never by their order.

    Raises
    ------
    UserError
        If the run does not know a particle, because the set has changed since.
    """
    latents = read_latents(run.latents)
    ids = StarFile.read(run.particles).particles.integers(ID_COLUMN)
    row_of_id: dict[int, int] = {int(identity): row for row, identity in enumerate(ids)}
    upper = np.triu_indices(latents.z.shape[1])
    for particle in enabled_items(particles):
        row = row_of_id.get(particle.getObjId())
        if row is None:
            raise UserError(
                f"Particle {particle.getObjId()} is not in {run.particles}: the input has changed, run the protocol "
                "again."
            )
        item = ParticleFlex(progName=FLEX_PROGRAM)
        item.copyInfo(particle)
        item.setObjId(particle.getObjId())
        # in case the input is flexible already: its copy brings the name of its program along
        item.getFlexInfo().setProgName(FLEX_PROGRAM)
        item.setZFlex([float(value) for value in latents.z[row]])
        item._solvarPrecision = csv_list(latents.precision[row][upper])
        item._solvarContrast = Float(float(latents.contrast[row]))
        output.append(item)


def precision_matrix(item: Any) -> np.ndarray:
    """Return the posterior precision of an item that `fill_particles` made.

    Returns
    -------
    ndarray, shape (r, r), float64
    """
    values = np.array([float(value) for value in item._solvarPrecision], dtype=np.float64)
    rank = int((np.sqrt(8 * len(values) + 1) - 1) / 2)
    matrix = np.zeros((rank, rank))
    matrix[np.triu_indices(rank)] = values
    return matrix + np.triu(matrix, 1).T


def mean_volume(run: RunDir) -> Volume:
    """Return the mean with its half-maps."""
    volume = _volume(run.mean)
    volume.setHalfMaps([str(run.mean_half1), str(run.mean_half2)])
    return volume


def eigenvolumes(run: RunDir) -> list[Volume]:
    """Return the eigenvolumes with what is known of their components."""
    table = read_csv(run.eigenvalues)
    labels = as_text(table["label"]).tolist()
    volumes = []
    for row, component in enumerate(table["component"].astype(int).tolist()):
        volume = _volume(run.eigenvolume(component))
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
        volume = _volume(folder / f"state_{row + 1:03d}.mrc")
        volume.setObjLabel(name)
        volume._solvarState = String(name)
        volume._solvarParticles = Integer(int(used[row]))
        volume._zFlex = csv_list([table[axis][row] for axis in axes])
        volumes.append(volume)
    return volumes


def csv_list(values: Sequence[float]) -> CsvList:
    """Return numbers as Scipion stores several of them in one attribute; seven digits, as float32 has."""
    numbers = CsvList(pType=float)
    for value in values:
        numbers.append(float(f"{float(value):.7g}"))
    return numbers


def pixel_size_of(path: Path) -> float:
    """Return the pixel size in the header of an MRC file, Angstrom."""
    import mrcfile

    with mrcfile.open(path, header_only=True) as file:
        return float(file.voxel_size.x)


def _volume(path: Path) -> Volume:
    if not path.is_file():
        raise UserError(f"{path} does not exist: run the protocol again.")
    volume = Volume()
    volume.setFileName(os.fspath(path))
    volume.setSamplingRate(pixel_size_of(path))
    return volume
