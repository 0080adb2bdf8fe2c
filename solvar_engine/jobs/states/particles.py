"""Particles for the volumes of states: images of the run or of another stack, with what the run knows of each."""

from __future__ import annotations

import dataclasses
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import ReconstructParams
from solvar_engine.contract.results import (
    GREY_SCALE,
    HALF_SET,
    OTHER_FRAME,
    OUTLIER,
    Latents,
    read_latents,
    read_noise,
    read_noise_ratio,
)
from solvar_engine.contract.run import RunDir, changed_inputs, read_record
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.contract.words import counted
from solvar_engine.data.cryosparc.lists import read_list
from solvar_engine.data.faults import BadImages
from solvar_engine.data.metadata import ParticleMetadata, read_metadata
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.pixel_faults import sentences_of
from solvar_engine.data.preprocess import prepare_particles
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.data.symmetry import expanded
from solvar_engine.imaging.rotation import angular_distance_deg
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.fit.inputs import HalfSplit, split_halves
from solvar_engine.jobs.states.matching import ParticleList, match_rows, moved_images

logger = logging.getLogger(__name__)

_OTHER_ORIENTATIONS = 10.0  # degrees
_OTHER_DEFOCUS = 500.0  # Angstrom, median; another program's estimate, or a refined one, differs by less
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
        List that was fitted.
    passthrough : Path or None
        `.cs` file that was given with it.
    root : str or None
        Folder that its stack paths start from, if one was given.
    has_refined_poses : bool
        The fit has changed the poses.
    may_lack_images : bool
        Images that could not be used were left out of the fit.
    symmetry : str
        Point group by which the particles were expanded.
    changed_inputs : tuple of Path
        Files that are no more what they were when they were fitted.
    """

    star: StarFile
    metadata: ParticleMetadata
    latents: Latents
    halves: tuple[Tensor, Tensor]
    is_outlier: NDArray[np.bool_]
    stack_path: Path
    passthrough: Path | None
    root: str | None
    has_refined_poses: bool
    may_lack_images: bool
    symmetry: str
    changed_inputs: tuple[Path, ...]


def outliers_of(table: StarTable) -> NDArray[np.bool_]:
    """Return which particles of a run's table are flagged as outliers, shape (n,); none of a run that flags none."""
    if OUTLIER not in table:
        return np.zeros(len(table), dtype=bool)
    return table.integers(OUTLIER) != 0


def read_run_particles(run: RunDir) -> RunParticles:
    """Read the particles of a run and the half-sets that its fit made.

    Raises
    ------
    UserError
        If a file is absent or damaged.
    """
    record = read_record(run)
    options, folder = record["options"], Path(record["folder"])
    star = StarFile.read(run.particles)
    metadata = read_metadata(star)
    if HALF_SET in star.particles:
        number = star.particles.integers(HALF_SET)
        halves = torch.from_numpy(np.flatnonzero(number == 1)), torch.from_numpy(np.flatnonzero(number == 2))
    else:  # a run of an earlier version
        split = HalfSplit(str(run.particles), len(metadata.group), metadata.random_subset)
        halves = split_halves(split, options["seed"])
    is_outlier = outliers_of(star.particles)
    if is_outlier.any():
        outliers = counted(int(is_outlier.sum()), "particle is an outlier", "particles are outliers")
        logger.info("%s and left out", outliers)
    first, second = (half[~torch.from_numpy(is_outlier)[half]] for half in halves)
    root = options["root"] and str(folder / options["root"])
    path = Path(os.path.abspath(folder / options["particles"]))
    passthrough = folder / options["passthrough"] if options.get("passthrough") else None
    lacks_images = len(halves[0]) + len(halves[1]) < len(is_outlier)
    has_other_poses = bool(options.get("refine_poses")) or OTHER_FRAME in star.particles
    return RunParticles(
        star, metadata, read_latents(run.latents), (first, second), is_outlier, path, passthrough, root,
        has_other_poses, lacks_images, options.get("symmetry", "C1"), tuple(changed_inputs(run)),
    )  # fmt: skip


def open_stack(
    params: ReconstructParams, particles: RunParticles
) -> tuple[ParticleStack, NDArray[np.int64], list[str]]:
    """Open the images, with the poses of the run.

    Returns
    -------
    stack : ParticleStack
        In the order of its own file, with further rows of particles that the run has more often.
    row : ndarray of int64, shape (particles of the run,)
        Row of the stack for each particle of the run.
    cautions : list of str
        What is doubtful of the list, in sentences without full stop.

    Raises
    ------
    UserError
        If the file does not hold the particles of the run.
    """
    if params.particles is None:
        stack = ParticleStack.from_star(
            particles.stack_path, params.root or particles.root, params.skip_bad_images or particles.may_lack_images,
            passthrough=particles.passthrough,
        )
    else:
        stack = ParticleStack.from_star(
            params.particles, params.root, params.skip_bad_images, passthrough=params.passthrough
        )
    stack = expanded(stack, particles.symmetry)
    known = _list_of(particles.star, particles.metadata)
    stack, row = _each_row_once(stack, match_rows(known, _list_of(stack.star, stack.metadata)))
    pose = particles.metadata.pose
    shift, cautions = stack.pose.shift.clone(), []
    if params.particles is None:
        shift[row] = pose.shift
    else:
        compared = (particles, stack, row)
        cautions = [*stack.cautions, *_compare_orientations(*compared), *_compare_defocus(*compared)]
        given = _list_of(stack.star, stack.metadata)
        moved = moved_images(_nearer((known, _as_fitted(particles)), given, row), given, row)
        shift[row] = pose.shift + torch.from_numpy(moved).float()
    rotation = stack.pose.rotation.clone()
    rotation[row] = pose.rotation
    metadata = dataclasses.replace(stack.metadata, pose=Pose(rotation, shift))
    return dataclasses.replace(stack, metadata=metadata), row, cautions


def _each_row_once(
    stack: ParticleStack, row: NDArray[np.int64]
) -> tuple[ParticleStack, NDArray[np.int64]]:
    """Give rows of a stack that are found several times (n,) further ones, since each has a pose of its own.

    Returns
    -------
    stack : ParticleStack
        With further rows at the end.
    row : ndarray of int64, shape (n,)
        Row of it, each one once.
    """
    again = np.setdiff1d(np.arange(len(row)), np.unique(row, return_index=True)[1])
    if not len(again):
        return stack, row
    repeated, count = stack.taken(np.concatenate([np.arange(len(stack)), row[again]])), len(stack)
    row = row.copy()
    row[again] = np.arange(count, count + len(again))
    return repeated, row


def _list_of(star: StarFile, metadata: ParticleMetadata) -> ParticleList:
    return ParticleList(star, metadata.pose.shift.double().numpy(), metadata.pixel_sizes[0])


def _nearer(lists: tuple[ParticleList, ...], given: ParticleList, row: NDArray[np.int64]) -> ParticleList:
    """The one of some lists from whose origins those of another differ less: images are of that list, or moved."""
    return min(lists, key=lambda one: float(np.linalg.norm(given.shift[row] - one.shift, axis=1).mean()))


def _as_fitted(particles: RunParticles) -> ParticleList:
    """The list with the origins that it came with: those of the run may have been refined."""
    known = _list_of(particles.star, particles.metadata)
    if not particles.has_refined_poses:
        return known
    if not particles.stack_path.exists() or particles.stack_path in particles.changed_inputs:
        raise UserError(
            f"{particles.stack_path} is gone or has changed since it was fitted, so that nothing tells how its images"
            " are centred compared with those of --particles: put it back, or leave --particles out."
        )
    shift = read_metadata(read_list(particles.stack_path, particles.passthrough).star).pose.shift.double().numpy()
    # rows of symmetry follow each other
    return dataclasses.replace(known, shift=np.repeat(shift, len(known.shift) // len(shift), axis=0))


def _compare_orientations(particles: RunParticles, stack: ParticleStack, row: NDArray[np.int64]) -> list[str]:
    """Say if the orientations of another list are not those of the run, which are used."""
    angle = angular_distance_deg(particles.metadata.pose.rotation, stack.pose.rotation[row]).median()
    if not float(angle) > _OTHER_ORIENTATIONS:
        return []
    caution = (
        f"Orientations of {stack.path} differ from those of the run by {float(angle):.0f} degrees (median), which are"
        " used: does the list belong to it?"
    )
    logger.warning(caution)
    return [caution]


def _compare_defocus(particles: RunParticles, stack: ParticleStack, row: NDArray[np.int64]) -> list[str]:
    """Say if the transfer functions of another list, which are used, are not those of the fit."""
    fitted, given = particles.metadata.ctf, stack.ctf[torch.from_numpy(row)]
    mean = 0.5 * (fitted.defocus_u + fitted.defocus_v - given.defocus_u - given.defocus_v)
    difference = float(mean.abs().median())
    if not difference > _OTHER_DEFOCUS:
        return []
    caution = (
        f"The defocus in {stack.path}, which is used, differs from that in the run by {difference:.0f} Angstrom"
        " (median): which is right?"
    )
    logger.warning(caution)
    return [caution]


def prepare(
    params: ReconstructParams, run: RunDir, stack: ParticleStack, row: NDArray[np.int64], contrast: NDArray[np.float32],
    box_size: int, scratch: Path | None, bad_images: BadImages, device: str,
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
    bad_images : BadImages
    device : str

    Returns
    -------
    PreparedParticles
    """
    prepared = prepare_particles(stack, box_size, scratch=scratch, bad_images=bad_images, device=device, shared=False)
    for sentence in sentences_of(prepared, stack.path):
        logger.warning(sentence)
    noise = read_noise(run.noise)["noise_variance"]
    if params.particles is None and noise.size == prepared.noise_variance.numel():
        measured = torch.from_numpy(noise.reshape(prepared.noise_variance.shape))
        prepared = prepared.with_noise(measured / prepared.grey_unit**2, _noise_ratio(run, prepared))
    # what the images were scaled by is part of the contrast that the run has written
    relative = torch.ones(len(stack))
    relative[row] = torch.as_tensor(contrast).float() * prepared.image_scale[row]
    return prepared.with_contrast(relative / relative[row].mean())


def _noise_ratio(run: RunDir, prepared: PreparedParticles) -> Tensor | None:
    """Noise of micrographs as the fit measured it, if they are the same."""
    if prepared.micrographs is None or not run.noise_ratio.exists():
        return None
    micrograph, ratio = read_noise_ratio(run.noise_ratio)
    same = np.array_equal(micrograph, prepared.micrographs.micrograph.numpy())
    return torch.from_numpy(ratio) if same and ratio.shape[1] == prepared.noise_variance.shape[1] else None


def grey_scales_of(table: StarTable, row: NDArray[np.int64], count: int) -> Tensor | None:
    """Scale of the signal in each of ``count`` images, as the fit found it; None if it is one in all."""
    if GREY_SCALE not in table:
        return None
    scale = torch.ones(count)
    scale[row] = torch.from_numpy(table.numbers(GREY_SCALE)[GREY_SCALE]).float()
    return scale


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
