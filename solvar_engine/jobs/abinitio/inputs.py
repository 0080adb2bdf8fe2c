"""Everything `abinitio` checks and decides before the long work begins."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from solvar_engine.abinitio.structure import AbinitioOptions
from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import DEFAULT_ABINITIO_BOX, MIN_PARTICLES, AbinitioParams
from solvar_engine.contract.words import counted
from solvar_engine.data.particles import ParticleStack
from solvar_engine.imaging.fourier import nyquist_shell
from solvar_engine.imaging.symmetry import symmetry_operators
from solvar_engine.jobs.fit.inputs import HalfSplit, find_families, scratch_folder, split_halves, working_box

_LEAST_SHELLS = 6  # that show a structure
_WIDEST_SHIFT = 1 / 6  # standard deviation over the width of the images: beyond, particles are cut off


@dataclass(frozen=True)
class AbinitioInputs:
    """What the search starts from, checked.

    Attributes
    ----------
    stack : ParticleStack
        Without poses.
    box_size : int
        Working box, px.
    halves : tuple of two Tensors, int64
        Rows of each half-set, ascending.
    options : AbinitioOptions
        In px and shells of the working box.
    group : Tensor, shape (g, 3, 3)
        Rotations of the point group.
    """

    stack: ParticleStack
    box_size: int
    halves: tuple[Tensor, Tensor]
    options: AbinitioOptions
    group: Tensor


def read_inputs(params: AbinitioParams) -> AbinitioInputs:
    """Read and check all but the images.

    Raises
    ------
    UserError
        For anything wrong with the file, or an option that does not fit it.
    """
    stack = ParticleStack.from_star(
        params.particles, params.root, params.skip_bad_images, with_poses=False, passthrough=params.passthrough
    )
    if len(stack) < MIN_PARTICLES * params.classes:
        raise UserError(
            f"{params.particles} has {counted(len(stack), 'particle')}, but {counted(params.classes, 'structure')}"
            f" cannot be found from fewer than {MIN_PARTICLES * params.classes}, and take a few thousand: give more"
            " particles."
        )
    try:
        group = symmetry_operators(params.symmetry)
    except ValueError as error:
        raise UserError(f"--symmetry: {error}.") from error
    extent = stack.box_size * stack.pixel_size
    box_size = _box(params, stack)
    if params.scratch is not None:
        scratch_folder(params.scratch)
    families = find_families(stack)
    halves = split_halves(HalfSplit(str(stack.path), len(stack), stack.random_subset, families), params.seed)
    shell, shift = None, None
    if params.max_resolution is not None:
        shell = min(int(extent / params.max_resolution), nyquist_shell(box_size))
    if params.shift_std is not None:
        if params.shift_std > _WIDEST_SHIFT * extent:
            raise UserError(
                f"--shift-std is {params.shift_std:g} Angstrom, but the images of {stack.path} are {extent:.0f}"
                f" Angstrom wide: give at most {_WIDEST_SHIFT * extent:.0f}, or larger images."
            )
        shift = params.shift_std * box_size / extent
    options = AbinitioOptions(shell, shift, params.symmetry, params.classes, params.seed, params.flip_hand)
    return AbinitioInputs(stack, box_size, halves, options, group)


def _box(params: AbinitioParams, stack: ParticleStack) -> int:
    """Working box, large enough for the resolution asked for.

    Raises
    ------
    UserError
        If the images cannot have that resolution, or it shows no structure.
    """
    extent, asked = stack.box_size * stack.pixel_size, params.max_resolution
    default = DEFAULT_ABINITIO_BOX
    if asked is not None:
        coarsest = extent / _LEAST_SHELLS
        if not 2 * stack.pixel_size <= asked <= coarsest:
            raise UserError(
                f"--max-resolution is {asked:g} Angstrom, but images of {stack.box_size} px of {stack.pixel_size:g}"
                f" Angstrom show structures at {2 * stack.pixel_size:.3g} to {coarsest:.3g} Angstrom: give a value"
                " between these."
            )
        default = max(default, 2 * math.ceil(extent / asked))
    box_size = working_box(params.box, stack, default)
    if asked is not None and asked < 2 * extent / box_size:
        raise UserError(
            f"--box {box_size} holds nothing finer than {2 * extent / box_size:.3g} Angstrom, but --max-resolution is"
            f" {asked:g}: leave one of them out."
        )
    return box_size
