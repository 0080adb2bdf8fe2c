"""From random spheres to a map of low resolution by semi-amortized inference of the poses, and on to a structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import LowImages, Mixture
from solvar_engine.abinitio.online_em import first_shift_std, of_one_map
from solvar_engine.abinitio.semi_amortized.auto_decoding import PAPER_DECODING, DecodingOptions, auto_decoded
from solvar_engine.abinitio.semi_amortized.auto_encoding import (
    PAPER_ENCODING,
    SIMULATIONS,
    EncodingOptions,
    Epoch,
    auto_encoded,
    named_poses,
)
from solvar_engine.abinitio.semi_amortized.encoder import INPUT_SHELL, EncoderInput, PoseEncoder
from solvar_engine.abinitio.semi_amortized.maps import HartleyMap, ImprovableMap, RunningMap
from solvar_engine.abinitio.semi_amortized.problem import Problem
from solvar_engine.abinitio.semi_amortized.training import EncoderTraining
from solvar_engine.abinitio.sgd.search import random_spheres
from solvar_engine.abinitio.structure import AbinitioOptions, Checkpoint, Report, Structure, find_structure
from solvar_engine.imaging.symmetry import symmetry_operators
from solvar_engine.imaging.types import ParticleSource
from solvar_engine.projectors.options import DEFAULT_OPTIONS, SliceOptions

EQUATIONS, ADAM = "equations", "adam"

_PER_CALL = 2_000  # images
_LOOKS, _LEAST_EPOCHS = 40_000, 3  # at images in the first phase


@dataclass(frozen=True)
class SemiAmortizedOptions:
    """How poses and map are found.

    Attributes
    ----------
    heads, width : int
        Of the encoder, see `encoder.PoseEncoder`.
    encoder_rate : float
        Of the encoder's Adam.
    map_steps : {'equations', 'adam'}
        Of the map: running normal equations, ours; or Adam on mantissa and exponent of its Hartley transform, as in the
        paper.
    map_memory : float
        Weight of a batch in the running equations.
    map_rates : tuple of two float
        Of the map's Adam in both phases.
    encoding_epochs : int or None
        Where the phases change is fixed beforehand, as in the paper; None for as many as look at 40,000 images, since
        it is the map's improvements that count.
    decoding_epochs : int
    encoding : EncodingOptions
    decoding : DecodingOptions
    """

    heads: int = 8
    width: int = 32
    encoder_rate: float = 1e-3
    map_steps: str = EQUATIONS
    map_memory: float = 0.3
    map_rates: tuple[float, float] = (0.05, 0.02)
    encoding_epochs: int | None = None
    decoding_epochs: int = 4
    encoding: EncodingOptions = field(default_factory=EncodingOptions)
    decoding: DecodingOptions = field(default_factory=DecodingOptions)

    def first_epochs(self, count: int) -> int:
        """Epochs of the first phase, for so many images.

        Examples
        --------
        >>> SemiAmortizedOptions().first_epochs(4000), SemiAmortizedOptions(encoding_epochs=7).first_epochs(4000)
        (10, 7)
        """
        if self.encoding_epochs is not None:
            return self.encoding_epochs
        return max(_LEAST_EPOCHS, round(_LOOKS / count))


PAPER = SemiAmortizedOptions(
    heads=7, encoder_rate=1e-4, map_steps=ADAM, encoding_epochs=7, decoding_epochs=13, encoding=PAPER_ENCODING,
    decoding=PAPER_DECODING,
)  # fmt: skip
"""As published for simulated images, but for the size of the encoder, which suits images of 16 px."""


def create_map(
    problem: Problem, start: Tensor, options: SemiAmortizedOptions, rate: float
) -> ImprovableMap:
    """Map to be improved.

    Parameters
    ----------
    problem : Problem
    start : Tensor, shape (z, y, x)
    options : SemiAmortizedOptions
    rate : float
        Of Adam, if it is used.

    Raises
    ------
    ValueError
        For unknown steps, or a symmetry that they cannot keep.
    """
    if options.map_steps == EQUATIONS:
        return RunningMap(problem, start, options.map_memory)
    if options.map_steps != ADAM:
        raise ValueError(f"map_steps is {options.map_steps!r}, expected {EQUATIONS!r} or {ADAM!r}")
    if len(problem.operators) > 1:
        raise ValueError(f"map_steps {ADAM!r} keep no symmetry, expected {EQUATIONS!r}")
    return HartleyMap(problem, start, rate)


def new_training(images: LowImages, options: SemiAmortizedOptions, generator: torch.Generator) -> EncoderTraining:
    """Random encoder for images, and its optimizer."""
    encoder = PoseEncoder.random(options.heads, options.width, generator).to(images.ctf.device)
    return EncoderTraining(encoder, EncoderInput.of(images), options.encoder_rate, generator)


def encoded(
    problem: Problem,
    training: EncoderTraining,
    generator: torch.Generator,
    options: SemiAmortizedOptions,
    start: Tensor,
) -> Iterator[Epoch]:
    """Yield the epochs of the first phase, from a map (z, y, x)."""
    model = create_map(problem, start, options, options.map_rates[0])
    if options.encoding.learns_from == SIMULATIONS:
        training.learn_from_simulations(problem, model.grid(), options.encoding.first_simulations)
    epochs = options.first_epochs(len(problem.images))
    yield from auto_encoded(problem, training, model, generator, options.encoding, epochs)


def decoded(
    problem: Problem,
    training: EncoderTraining,
    generator: torch.Generator,
    options: SemiAmortizedOptions,
    start: Tensor,
) -> Iterator[Epoch]:
    """Yield the epochs of the second phase, from a map (z, y, x) and the best poses that the encoder names."""
    model = create_map(problem, start, options, options.map_rates[1])
    rotation, shift_px = best_named(problem, training, model.grid(), options.encoding.local_steps)
    yield from auto_decoded(
        problem, rotation, shift_px, model, generator, options.decoding, options.decoding_epochs
    )


def best_named(
    problem: Problem, training: EncoderTraining, grid: Tensor, local_steps: int
) -> tuple[Tensor, Tensor]:
    """Best of the poses that the encoder names for each image under a map: (n, 3, 3), (n, 2)."""
    found = []
    for rows in torch.arange(len(problem.images), device=problem.images.ctf.device).split(_PER_CALL):
        rotation, shift_px, value = named_poses(problem, training, grid, rows, local_steps)
        place = torch.arange(len(rows), device=rotation.device), value.argmax(dim=1)
        found.append((rotation[place], shift_px[place]))
    rotations, shifts = zip(*found, strict=True)
    return torch.cat(rotations), torch.cat(shifts)


def find_structure_by_semi_amortized(
    source: ParticleSource,
    options: AbinitioOptions,
    report: Report,
    checkpoint: Checkpoint | None = None,
    *,
    slices: SliceOptions = DEFAULT_OPTIONS,
    semi: SemiAmortizedOptions | None = None,
    is_usable: Tensor | None = None,
    keep_encoder: Callable[[PoseEncoder], None] | None = None,
) -> Structure:
    """Find the structure that images show, starting by semi-amortized inference of their poses.

    The map of low resolution goes on as that of `find_structure` does: a global search, the verdict, and marching.

    Parameters
    ----------
    source : ParticleSource
    options : AbinitioOptions
        One class only.
    report : callable
    checkpoint : Checkpoint, optional
    slices : SliceOptions
    semi : SemiAmortizedOptions, optional
    is_usable : Tensor, optional, shape (n,), bool
    keep_encoder : callable, optional
        Is given the encoder when it has learnt.

    Raises
    ------
    ValueError
        As `find_structure`, and for several classes, unknown steps, or no epochs.
    """
    if options.classes != 1:
        raise ValueError(f"classes is {options.classes}, but semi-amortized inference finds one structure only")
    chosen = SemiAmortizedOptions() if semi is None else semi
    epochs = chosen.first_epochs(len(source)), chosen.decoding_epochs
    if min(epochs) < 1:
        raise ValueError(f"epochs of the phases are {epochs}, expected at least 1 of each")
    operators = symmetry_operators(options.symmetry)

    def low_search(images: LowImages, generator: torch.Generator, tell: Report) -> Mixture:
        shift_std_px = first_shift_std(options.shift_std_px, images.disk.box_size)
        first, last = (
            Problem.of(images, shell, shift_std_px, operators, slices)
            for shell in (min(INPUT_SHELL, images.disk.shell_max), images.disk.shell_max)
        )
        training = new_training(images, chosen, generator)
        done, total = 0, chosen.first_epochs(len(images)) + chosen.decoding_epochs
        volume = random_spheres(first.images, operators, generator, slices).to(images.ctf.device)
        phases = (first, encoded, "the network names poses"), (last, decoded, "poses go on by themselves")
        for problem, phase, what in phases:
            shell: int | None = problem.images.disk.shell_max
            for epoch in phase(problem, training, generator, chosen, volume):
                done, volume = done + 1, epoch.volume
                tell("search at low resolution", done / total, f"Epoch {done}: {what}, {_words(epoch)}", shell)
                shell = None
            if problem is first and keep_encoder is not None:
                keep_encoder(training.encoder)
        return of_one_map(volume, shift_std_px, images.disk.shell_max, operators)

    return find_structure(
        source, options, report, checkpoint, slices=slices, low_search=low_search, is_usable=is_usable
    )


def _words(epoch: Epoch) -> str:
    """How good the poses of an epoch are, and which heads named the best ones."""
    likelihood = f"log-likelihood {float(epoch.log_joint.mean()):.1f} each"
    if epoch.head is None:
        return likelihood
    share = 100 * torch.bincount(epoch.head).double() / len(epoch.head)
    return f"{likelihood}; its heads name {', '.join(f'{part:.0f}' for part in share)} % of the best"
