"""Particles for the volumes of states: images of the run or of another stack, with what the run knows of each."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_csv
from solvar_engine.contract.params import ReconstructParams
from solvar_engine.contract.results import Latents, read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.data.metadata import ParticleMetadata, read_metadata
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.preprocess import prepare_particles
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.decisions import HALF_SET_COLUMN
from solvar_engine.jobs.fit.inputs import HalfSplit, split_halves

logger = logging.getLogger(__name__)

_OUTLIER = "solvarOutlier"
_PLACE_COLUMNS = ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY")
_EXTENT_TOLERANCE = 0.02


@dataclass(frozen=True)
class RunParticles:
    """What a run knows of its particles.

    Attributes
    ----------
    star : StarFile
        With refined poses.
    metadata : ParticleMetadata
    latents : Latents
    halves : tuple of two Tensors, int64
        Rows of each half-set, outliers left out.
    is_outlier : ndarray of bool, shape (n,)
    stack_path : Path
        STAR file that was fitted.
    root : str or None
        Folder that its stack paths start from, if one was given.
    """

    star: StarFile
    metadata: ParticleMetadata
    latents: Latents
    halves: tuple[Tensor, Tensor]
    is_outlier: NDArray[np.bool_]
    stack_path: Path
    root: str | None


def outliers_of(table: StarTable) -> NDArray[np.bool_]:
    """Return which particles of a run's table are flagged as outliers, shape (n,); none of a run that flags none."""
    if _OUTLIER not in table:
        return np.zeros(len(table), dtype=bool)
    return table.integers(_OUTLIER) != 0


def read_run_particles(run: RunDir) -> RunParticles:
    """Read the particles of a run and the half-sets that its fit made.

    Raises
    ------
    UserError
        If a file is absent or damaged.
    """
    record = run.read_record()
    options, folder = record["options"], Path(record["folder"])
    star = StarFile.read(run.particles)
    metadata = read_metadata(star)
    if HALF_SET_COLUMN in star.particles:
        number = star.particles.integers(HALF_SET_COLUMN)
        halves = torch.from_numpy(np.flatnonzero(number == 1)), torch.from_numpy(np.flatnonzero(number == 2))
    else:  # a run of an earlier version
        split = HalfSplit(str(run.particles), len(metadata.group), metadata.random_subset)
        halves = split_halves(split, options["seed"])
    is_outlier = outliers_of(star.particles)
    if is_outlier.any():
        logger.info("%d particles are outliers and left out", int(is_outlier.sum()))
    first, second = (half[~torch.from_numpy(is_outlier)[half]] for half in halves)
    root = options["root"] and str(folder / options["root"])
    path = folder / options["particles"]
    return RunParticles(star, metadata, read_latents(run.latents), (first, second), is_outlier, path, root)


def open_stack(params: ReconstructParams, particles: RunParticles) -> tuple[ParticleStack, NDArray[np.int64]]:
    """Open the images, with the poses of the run.

    Returns
    -------
    stack : ParticleStack
        In the order of its own file.
    row : ndarray of int64, shape (particles of the run,)
        Row of the stack for each particle of the run.

    Raises
    ------
    UserError
        If the file does not hold the particles of the run.
    """
    if params.particles is None:
        stack = ParticleStack.from_star(particles.stack_path, params.root or particles.root)
    else:
        stack = ParticleStack.from_star(params.particles, params.root)
    row = match_rows(particles.star.particles, stack.star.particles)
    rotation, shift = stack.pose.rotation.clone(), stack.pose.shift.clone()
    rotation[row], shift[row] = particles.metadata.pose.rotation, particles.metadata.pose.shift
    metadata = dataclasses.replace(stack.metadata, pose=Pose(rotation, shift))
    return dataclasses.replace(stack, metadata=metadata), row


def match_rows(known: StarTable, other: StarTable) -> NDArray[np.int64]:
    """Find each particle of one table in another.

    By image name, else by micrograph and coordinates, else by row if both have as many rows.

    Parameters
    ----------
    known, other : StarTable

    Returns
    -------
    ndarray of int64, shape (rows of known,)
        Row of ``other``.

    Raises
    ------
    UserError
        If a particle is not found.
    """
    for columns in (("rlnImageName",), _PLACE_COLUMNS):
        if all(column in table for table in (known, other) for column in columns):
            wanted, given = (_keys(table, columns) for table in (known, other))
            place = {key: row for row, key in enumerate(given)}
            rows = [place.get(key, -1) for key in wanted]
            if min(rows) >= 0 and len(set(rows)) == len(rows):
                return np.array(rows, dtype=np.int64)
    if len(known) == len(other):
        logger.info("Particles of %s are taken in the order of the rows of %s", other.source, known.source)
        return np.arange(len(known), dtype=np.int64)
    raise UserError(
        f"{other.source} has {len(other)} particles and {known.source} has {len(known)}, and neither image names nor"
        " micrographs with coordinates tell which is which: give the same particles in the same order."
    )


def _keys(table: StarTable, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    return list(zip(*(table.text(column) for column in columns), strict=True))


def prepare(
    params: ReconstructParams, run: RunDir, stack: ParticleStack, row: NDArray[np.int64], contrast: NDArray[np.float32],
    box_size: int, scratch: Path | None,
) -> PreparedParticles:
    """Read the images at the box of the volumes, whitened by the noise of the run where it was measured at that box.

    Parameters
    ----------
    params : ReconstructParams
    run : RunDir
    stack : ParticleStack
    row : ndarray of int64
        Row of the stack for each particle of the run.
    contrast : ndarray, shape (particles of the run,)
    box_size : int
    scratch : Path or None
        Folder for the scratch file; None keeps the images in memory.

    Returns
    -------
    PreparedParticles
    """
    prepared = prepare_particles(stack, box_size, scratch=scratch)
    noise = read_csv(run.noise)["noise_variance"]
    if params.particles is None and noise.size == prepared.noise_variance.numel():
        measured = torch.from_numpy(noise.reshape(prepared.noise_variance.shape))
        prepared = prepared.with_noise(measured / prepared.grey_unit**2)
    # what the images were scaled by is part of the contrast that the run has written
    relative = torch.ones(len(stack))
    relative[row] = torch.as_tensor(contrast).float() * prepared.image_scale[row]
    return prepared.with_contrast(relative / relative[row].mean())


def check_extent(stack: ParticleStack, box_size: int, pixel_size: float, mean: Path) -> None:
    """Refuse images of another extent than the volumes of the run.

    Raises
    ------
    UserError
        If they differ by more than 2 %.
    """
    extent, known = stack.box_size * stack.pixel_size, box_size * pixel_size
    if abs(extent / known - 1) > _EXTENT_TOLERANCE:
        raise UserError(
            f"The images of {stack.path} are {extent:.1f} Angstrom wide, but {mean} is {known:.1f}: give particles of"
            " the same extent, only sampled finer."
        )
