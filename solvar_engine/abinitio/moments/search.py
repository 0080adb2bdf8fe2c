"""From the moments of all images to a map of low resolution, from which expectation maximisation goes on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import LowImages, far_in_power, low_batches, low_box
from solvar_engine.abinitio.moments.basis import BallBasis
from solvar_engine.abinitio.moments.recovery import RecoveryOptions, recovered, sampling_error
from solvar_engine.abinitio.moments.steerable import PADDING, moments_of
from solvar_engine.abinitio.online_em import LEVELS
from solvar_engine.abinitio.structure import AbinitioOptions, Checkpoint, Report, Structure, find_structure
from solvar_engine.imaging.symmetry import symmetry_operators
from solvar_engine.imaging.types import ParticleSource
from solvar_engine.projectors.options import DEFAULT_OPTIONS, SliceOptions

_RADIUS = 0.36  # of the ball that holds the map, over the box
_SHIFT_STD = 0.04  # of the box, where it is not known
_READING = 0.5  # of the work
_EXPLAINED, _LEAST_MISFIT = 1.5, 0.1  # uniform views without junk leave some 5 %, or what sampling makes


def map_of_moments(
    source: ParticleSource,
    index: Tensor,
    options: AbinitioOptions,
    recovery: RecoveryOptions,
    generator: torch.Generator,
    report: Report,
) -> Tensor:
    """Map (z, y, x), float32, of low resolution that has the moments of images, which are read once.

    Views are taken for uniform in the plane, and otherwise as the options say.

    Parameters
    ----------
    source : ParticleSource
        Of a bright molecule; its images are where they are on disk.
    index : Tensor, shape (n,)
        Particles that count; of these, images of a power far beyond that of the others do not.
    options : AbinitioOptions
    recovery : RecoveryOptions
    generator : torch.Generator
    report : callable
    """
    shell = min(LEVELS[-1].shell, max(LEVELS[0].shell, source.disk.shell_max - PADDING))
    shell = shell if options.max_shell is None else min(shell, options.max_shell)
    padded = min(shell + PADDING, source.disk.shell_max)
    data = moments_of(_reported(source, index, padded, report), shell)
    report("search at low resolution", _READING, f"Moments of {data.count} images were taken in one pass")
    box_size = low_box(source.disk.prefix(shell))
    basis = BallBasis.create(box_size, _RADIUS * box_size, shell)
    shift_std = _SHIFT_STD if options.shift_std_px is None else options.shift_std_px / source.box_size
    best = None
    operators = symmetry_operators(options.symmetry)
    for number, found in enumerate(recovered(data, basis, shift_std, recovery, generator, operators)):
        report(
            "search at low resolution",
            _READING + (1 - _READING) * (number + 1) / recovery.starts,
            f"Start {number + 1}: moments agree to {100 * found.first_error:.1f} and {100 * found.second_error:.1f} %",
        )
        if best is None or found.objective < best.objective:
            best = found
    if best is None:
        raise ValueError(f"starts is {recovery.starts}, expected at least 1")
    sentence = sentence_of_misfit(best.second_error, sampling_error(data))
    if sentence:
        report("search at low resolution", 1, sentence, is_caution=True)
    return basis.volume(best.coefficients)


def sentence_of_misfit(error: float, sampling_error: float) -> str:
    """Sentence on a second moment that is fitted worse than sampling explains; empty if it is not.

    Parameters
    ----------
    error, sampling_error : float
        Relative errors of the second moment: of the fit from the images, and of the images.
    """
    if error < max(_EXPLAINED * sampling_error, _LEAST_MISFIT):
        return ""
    return (
        f"no map fits the second moment of the images better than to {100 * error:.0f} %, of which their number and"
        f" noise explain {100 * sampling_error:.0f} %: views are far from uniform, or many images show something else;"
        " compare with --method em"
    )


def _reported(source: ParticleSource, index: Tensor, shell: int, report: Report) -> Iterator[LowImages]:
    done = 0
    for rows, images in low_batches(source, index, shell):
        yield images[~far_in_power(images.power())]
        done += len(rows)
        report("search at low resolution", _READING * done / len(index), "")


def find_structure_by_moments(
    source: ParticleSource,
    options: AbinitioOptions,
    report: Report,
    checkpoint: Checkpoint | None = None,
    *,
    slices: SliceOptions = DEFAULT_OPTIONS,
    recovery: RecoveryOptions | None = None,
    is_usable: Tensor | None = None,
) -> Structure:
    """Find the structure that images show, starting from a map of their moments.

    Online expectation maximisation goes on from that map as `find_structure` does from a random one.

    Parameters
    ----------
    source : ParticleSource
    options : AbinitioOptions
        One class only.
    report : callable
    checkpoint : Checkpoint, optional
    slices : SliceOptions
    recovery : RecoveryOptions, optional
    is_usable : Tensor, optional, shape (n,), bool

    Raises
    ------
    ValueError
        As `find_structure`, and for several classes or no start.
    """
    if options.classes != 1:
        raise ValueError(f"classes is {options.classes}, but moments tell of one structure only")
    chosen = RecoveryOptions(fits_shifts=options.shift_std_px is None) if recovery is None else recovery

    def first_map(bright: ParticleSource, index: Tensor, generator: torch.Generator, tell: Report) -> Tensor:
        return map_of_moments(bright, index, options, chosen, generator, tell)

    return find_structure(
        source, options, report, checkpoint, slices=slices, first_map=first_map, is_usable=is_usable
    )
