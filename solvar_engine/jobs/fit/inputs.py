"""Everything `fit` checks and decides before the long work begins."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import (
    DEFAULT_WORKING_BOX,
    MIN_PARTICLES,
    MIN_PARTICLES_PER_COMPONENT,
    FitParams,
)
from solvar_engine.contract.words import counted
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.symmetry import expanded
from solvar_engine.data.volumes import read_volume
from solvar_engine.imaging.fourier import fourier_crop_volume
from solvar_engine.jobs.fit.families import Families, families_of

logger = logging.getLogger(__name__)

_PIXEL_SIZE_TOLERANCE = 0.01
_SMALLEST_HALF = 0.1  # of the particles
_LEAST_PEAK = 0.5  # of a mask
_LEAST_OVERLAP = 0.1  # of a focus mask with the mask; a resampled mask has ripples of a few percent beside it


@dataclass(frozen=True)
class FitInputs:
    """What a fit starts from, checked.

    Attributes
    ----------
    files : list of str
        That were read, images aside.
    stack : ParticleStack
    box_size : int
        Working box, px.
    mask, focus_mask : Tensor or None, shape (z, y, x), float32
        Of the user, at the working box.
    halves : tuple of two Tensors, int64
        Rows of each half-set, ascending.
    families : Families
        Rows that show one particle; each is in one half-set.
    other_frame : Tensor or None, shape (n,), int64
        Number of the frame that the list has each pose in, 0 that of most, into which the others were brought; None
        where all are in one.
    """

    files: list[str]
    stack: ParticleStack
    box_size: int
    mask: Tensor | None
    focus_mask: Tensor | None
    halves: tuple[Tensor, Tensor]
    families: Families
    other_frame: Tensor | None = None


def read_inputs(params: FitParams) -> FitInputs:
    """Read and check all but the images.

    Raises
    ------
    UserError
        For anything wrong with the files, or an option that does not fit them.
    """
    stack = open_particles(params)
    box_size = working_box(params.box, stack)
    mask = None if params.mask is None else read_mask(params.mask, stack, box_size)
    focus_mask = None if params.focus_mask is None else read_focus_mask(params.focus_mask, stack, box_size)
    if mask is not None:
        focus(mask, focus_mask, params.focus_mask)  # refused now rather than after the images are read
    families = find_families(stack, params.symmetry)
    halves = split_halves(HalfSplit(str(stack.path), len(stack), stack.random_subset, families), params.seed)
    if params.scratch is not None:
        scratch_folder(params.scratch)
    files = [str(path) for path in (*stack.files, params.mask, params.focus_mask) if path is not None]
    return FitInputs(files, stack, box_size, mask, focus_mask, halves, families)


def open_particles(params: FitParams) -> ParticleStack:
    """Read the STAR file, check that it holds enough particles for the rank, and expand it by the symmetry.

    Raises
    ------
    UserError
        For anything wrong with the file, a symmetry that it does not fit, or too few particles.
    """
    stack = ParticleStack.from_star(
        params.particles, params.root, params.skip_bad_images, passthrough=params.passthrough
    )
    count = len(stack)
    if count < MIN_PARTICLES:
        raise UserError(
            f"{params.particles} has {counted(count, 'particle')}, but a fit needs at least {MIN_PARTICLES}: give more"
            " particles."
        )
    rank = params.components_for(count)
    if count < MIN_PARTICLES_PER_COMPONENT * rank:
        raise UserError(
            f"--rank is {rank}, but {count} particles support at most "
            f"{counted(count // MIN_PARTICLES_PER_COMPONENT, 'component')} ({MIN_PARTICLES_PER_COMPONENT} particles "
            "each): lower --rank or give more particles."
        )
    return expanded(stack, params.symmetry)


def working_box(asked: int | None, stack: ParticleStack, default: int = DEFAULT_WORKING_BOX) -> int:
    """Box to which images are cropped: as asked for with --box, or the default one, if they are larger.

    Raises
    ------
    UserError
        If the box asked for is larger than the images.
    """
    if asked is None:
        return min(stack.box_size, default)
    if asked > stack.box_size:
        raise UserError(f"--box is {asked}, but the images have {stack.box_size} px: give at most {stack.box_size}.")
    return asked


def read_mask(path: str, stack: ParticleStack, box_size: int) -> Tensor:
    """Read a mask and bring it to the working box.

    A mask of the images' pixel size but another box is padded or cropped about its centre, one of the images' extent
    but another sampling is resampled; either is said.

    Parameters
    ----------
    path : str
    stack : ParticleStack
    box_size : int
        Working box, px.

    Returns
    -------
    Tensor, shape (z, y, x), float32, between 0 and 1

    Raises
    ------
    UserError
        If it is not a cube, fits neither the images' pixel size nor their extent, or is no mask.
    """
    mask = read_volume(path, pixel_size=stack.pixel_size)
    data = mask.data
    extent = stack.box_size * stack.pixel_size
    same_sampling = abs(mask.pixel_size / stack.pixel_size - 1) < _PIXEL_SIZE_TOLERANCE
    same_extent = abs(mask.box_size * mask.pixel_size / extent - 1) < _PIXEL_SIZE_TOLERANCE
    if not same_sampling and not same_extent:
        raise UserError(
            f"The mask {path} has {mask.box_size} px of {mask.pixel_size:g} Angstrom, but the images have "
            f"{stack.box_size} px of {stack.pixel_size:g} Angstrom: give a mask of the same pixel size."
        )
    if float(data.min()) < -0.01 or float(data.max()) > 1.01 or float(data.max()) <= 0:
        raise UserError(
            f"The mask {path} has values from {float(data.min()):.3g} to {float(data.max()):.3g}: "
            "a mask lies between 0 and 1 and is not empty."
        )
    if float(data.max()) < _LEAST_PEAK:
        raise UserError(
            f"The mask {path} is {float(data.max()):.3g} at most, and so would be all densities: scale it to 1 inside."
        )
    if mask.box_size != stack.box_size:
        how = "padded or cropped" if same_sampling else "resampled"
        logger.info(
            "The mask %s has %d px, the images %d px: it is %s", path, mask.box_size, stack.box_size, how
        )
    if same_sampling and not same_extent:
        data = _recentre(data, stack.box_size)
    resampled = fourier_crop_volume(data, box_size).clamp(0, 1)
    if float(resampled.max()) <= 0:
        raise UserError(f"The mask {path} is empty inside the box of the images: give a mask around the molecule.")
    return resampled


def read_focus_mask(path: str, stack: ParticleStack, box_size: int) -> Tensor:
    """Read a focus mask as `read_mask` reads a mask; its sentences begin with the option.

    Raises
    ------
    UserError
        As `read_mask`.
    """
    try:
        return read_mask(path, stack, box_size)
    except UserError as error:
        raise UserError(f"--focus-mask: {error}") from error


def focus(mask: Tensor, focus_mask: Tensor | None, path: str | None) -> Tensor:
    """Confine a mask to the focus mask: the soft product of both, or the mask itself where there is no focus mask.

    Parameters
    ----------
    mask : Tensor, shape (z, y, x)
    focus_mask : Tensor or None, same shape
    path : str or None
        Of the focus mask, for the error.

    Returns
    -------
    Tensor, shape (z, y, x)

    Raises
    ------
    UserError
        If nothing is left.
    """
    if focus_mask is None:
        return mask
    product = mask * focus_mask
    if float(product.max()) < _LEAST_OVERLAP * float(mask.max() * focus_mask.max()):
        raise UserError(
            f"--focus-mask: The mask {path} is empty inside the mask of the molecule: give a focus mask around a part "
            "of the molecule."
        )
    return product


def _recentre(data: Tensor, box_size: int) -> Tensor:
    """Pad with zeros or crop about the centre."""
    result = data.new_zeros((box_size,) * 3)
    common = min(box_size, data.shape[-1])
    source = slice(data.shape[-1] // 2 - common // 2, data.shape[-1] // 2 - common // 2 + common)
    target = slice(box_size // 2 - common // 2, box_size // 2 - common // 2 + common)
    result[target, target, target] = data[source, source, source]
    return result


@dataclass(frozen=True)
class HalfSplit:
    """What decides how particles are divided into halves.

    Attributes
    ----------
    path : str
        File of the particles, for the error.
    count : int
        Number of particles.
    random_subset : Tensor or None, shape (count,)
        Half-set (1 or 2) of each, if the file names it.
    families : Families or None
        Rows that show one particle, which no half shares with the other; None stands for as many as rows.
    """

    path: str
    count: int
    random_subset: Tensor | None
    families: Families | None = None


def split_halves(particles: HalfSplit, seed: int) -> tuple[Tensor, Tensor]:
    """Divide the particles into the two halves of the refinement (rlnRandomSubset), or at random if it names none.

    All rows of a family go to one half; where the file parts them, it is mended, and that is said.

    Returns
    -------
    tuple of two Tensors, int64
        Rows of each half, ascending.

    Raises
    ------
    UserError
        If the file's halves are not two of comparable size, or nearly all rows show one particle.
    """
    if particles.random_subset is not None:
        subset = _mended_subset(particles, particles.random_subset.numpy(), seed)
        halves = tuple(torch.from_numpy(np.flatnonzero(subset == number)) for number in (1, 2))
        smaller = min(half.shape[0] for half in halves)
        if sum(half.shape[0] for half in halves) != particles.count or smaller < _SMALLEST_HALF * particles.count:
            raise UserError(
                f"Column rlnRandomSubset of {particles.path} has {halves[0].shape[0]} particles in subset 1 and "
                f"{halves[1].shape[0]} in subset 2 of {particles.count}: give both halves of the refinement, or remove "
                "the column."
            )
        logger.info("Half-sets as in rlnRandomSubset: %d and %d particles", *(half.shape[0] for half in halves))
        return halves[0], halves[1]
    generator = np.random.default_rng(np.random.SeedSequence([seed, 100]))
    label = np.arange(particles.count) if particles.families is None else particles.families.label
    label = np.unique(label, return_inverse=True)[1].reshape(-1)
    order = generator.permutation(int(label.max()) + 1)
    size = np.bincount(label)[order]
    # whole families, as long as the first half stays within the middle
    in_first = order[np.cumsum(size) <= particles.count // 2]
    is_first = np.isin(label, in_first)
    first, second = (torch.from_numpy(np.flatnonzero(part)) for part in (is_first, ~is_first))
    if min(len(first), len(second)) < _SMALLEST_HALF * particles.count:
        raise UserError(
            f"Too many rows of {particles.path} show one particle, so that no two independent halves can be made: give"
            " every particle once."
        )
    return first, second


def _mended_subset(particles: HalfSplit, subset: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Half-set (1 or 2) of each row, with all rows of a family in one, shape (count,)."""
    if particles.families is None:
        return subset
    label = np.unique(particles.families.label, return_inverse=True)[1].reshape(-1)
    size = np.bincount(label)
    in_first = np.bincount(label, weights=subset == 1)
    parted = np.flatnonzero((in_first > 0) & (in_first < size))
    if not len(parted):
        return subset
    half_of_family = np.where(in_first > 0, 1, 2)
    is_parted = np.isin(label, parted)
    totals = [int(((subset == number) & ~is_parted).sum()) for number in (1, 2)]
    generator = np.random.default_rng(np.random.SeedSequence([seed, 100]))
    for family in generator.permutation(parted):
        smaller = int(totals[1] < totals[0])
        half_of_family[family] = smaller + 1
        totals[smaller] += int(size[family])
    mended = np.where(is_parted, half_of_family[label], subset)
    # what was found of these rows is a warning already, of which this is a part
    logger.info(
        "rlnRandomSubset of %s parts the rows of %s: %s moved to the other half-set",
        particles.path,
        counted(len(parted), "particle"),
        counted(int((mended != subset).sum()), "row is", "rows are"),
    )
    return mended


def refuse_small_half(path: str, halves: tuple[Tensor, Tensor]) -> None:
    """Refuse halves of which one has lost nearly all of its images.

    Raises
    ------
    UserError
        The text says how many are left.
    """
    left = [len(half) for half in halves]
    if min(left) < _SMALLEST_HALF * sum(left):
        raise UserError(
            f"Without the images that cannot be used, the half-sets of {path} have {left[0]} and {left[1]} images:"
            " extract them again, or remove the column rlnRandomSubset."
        )


def find_families(stack: ParticleStack, symmetry: str = "C1") -> Families:
    """Find rows that show one particle, and say so unless they are those of the symmetry."""
    families = families_of(stack)
    if families.reasons and symmetry.upper() == "C1":
        logger.warning(families.sentence(str(stack.path)))
    return families


def with_families(inputs: FitInputs, families: Families, seed: int) -> FitInputs:
    """Divide the particles anew, now that more is known of which rows show one particle."""
    if len(families.reasons) == len(inputs.families.reasons):
        return inputs
    stack = inputs.stack
    logger.warning(families.sentence(str(stack.path)))
    halves = split_halves(HalfSplit(str(stack.path), len(stack), stack.random_subset, families), seed)
    return replace(inputs, halves=halves, families=families)


def scratch_folder(path: str) -> Path:
    """Folder that the user wants the scratch file in.

    Raises
    ------
    UserError
        If it does not exist.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"The scratch folder {folder} does not exist: create it or leave --scratch out.")
    return folder
