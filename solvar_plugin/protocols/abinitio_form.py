"""The form of the ab-initio model, and what its values mean to the engine."""

from __future__ import annotations

from typing import Any

import pyworkflow.protocol.params as params
from pyworkflow.utils import Message

from solvar_engine.contract.params import MIN_PARTICLES, AbinitioParams, Option, options_of
from solvar_engine.contract.params.abinitio import EM, MOMENTS, SEMI_AMORTIZED, SGD
from solvar_plugin.protocols.form_options import LABELS, help_of
from solvar_plugin.protocols.form_parts import (
    add_bad_images,
    add_choice,
    add_computing,
    add_number,
    add_optics,
    add_particles,
    add_symmetry,
    image_storage_options,
    symmetry_of,
)

ABINITIO: dict[str, Option] = {option.name: option for option in options_of(AbinitioParams)}
"""The options of the engine's command, by name."""

SEARCHES = {
    EM: "online expectation maximisation",
    SGD: "stochastic gradient descent",
    MOMENTS: "online expectation maximisation from a map of the images' moments",
    SEMI_AMORTIZED: "semi-amortized inference of the poses",
}
"""What the methods do, by name."""

AUTOMATIC = 0
"""Box and finest detail that the engine chooses."""

ESTIMATED = -1.0
"""Spread of the shifts that the engine estimates."""


def define_form(protocol: Any, form: Any) -> None:
    """Add all sections."""
    form.addSection(label=Message.LABEL_INPUT)
    add_particles(
        form,
        "Particles with CTF, in MRC stacks; a few thousand, after 2-D classification. They need no orientations: those "
        "that they have are ignored.",
        pointerCondition=None,
    )
    add_symmetry(
        form, ABINITIO["symmetry"], "If you do not know it, leave C1: the structure shows it, and is found without it."
    )
    add_number(
        form,
        "numberOfStructures",
        ABINITIO["classes"],
        "For sets that hold different molecules, or one with and without a partner. Motions of one molecule are better "
        "found afterwards, by a pose and contrast refinement.",
        params.LEVEL_NORMAL,
    )
    _add_real(
        form,
        "shiftStd",
        "shift_std",
        ESTIMATED,
        f"{ESTIMATED:g} is estimated. A value that is too small loses particles, one that is too large time. The wand "
        "suggests values.",
    )
    _add_real(
        form,
        "maxResolution",
        "max_resolution",
        float(AUTOMATIC),
        f"{AUTOMATIC} is automatic. 10 to 15 Å are enough to go on with a refinement.",
    )
    add_number(
        form,
        "boxSize",
        ABINITIO["box"],
        f"{AUTOMATIC} is automatic.",
        default=AUTOMATIC,
    )
    _add_switch(
        form, "flipHand", "flip_hand", "Say Yes if helices of the result are left-handed, and run the protocol again."
    )
    add_choice(form, "method", ABINITIO["method"], "Try another one if the first finds no structure.")
    add_optics(form)
    add_bad_images(form, ABINITIO)
    add_computing(form)
    protocol._addThreads(form)


def _add_real(form: Any, name: str, option: str, default: float, advice: str) -> None:
    form.addParam(
        name,
        params.FloatParam,
        default=default,
        expertLevel=params.LEVEL_NORMAL,
        label=LABELS[option],
        help=f"{help_of(ABINITIO[option])}\n\n{advice}",
    )


def _add_switch(form: Any, name: str, option: str, advice: str) -> None:
    form.addParam(
        name,
        params.BooleanParam,
        default=False,
        label=LABELS[option],
        help=f"{help_of(ABINITIO[option])}\n\n{advice}",
    )


def abinitio_params(protocol: Any) -> AbinitioParams:
    """Say in the engine's terms what the form says."""
    return AbinitioParams(
        particles=str(protocol.getStarPath()),
        output=str(protocol.getRunDir().path),
        method=ABINITIO["method"].choices[protocol.method.get()],
        max_resolution=_unless(protocol.maxResolution.get(), AUTOMATIC),
        shift_std=_unless(protocol.shiftStd.get(), ESTIMATED),
        symmetry=symmetry_of(protocol),
        classes=protocol.numberOfStructures.get(),
        flip_hand=protocol.flipHand.get(),
        box=_unless(protocol.boxSize.get(), AUTOMATIC),
        skip_bad_images=protocol.skipBadImages.get(),
        seed=protocol.seed.get(),
        threads=protocol.numberOfThreads.get(),
        device="cpu",
        resume=True,
        **image_storage_options(protocol),
    )


def _unless(value: Any, automatic: float) -> Any:
    return None if value == automatic else value


def size_problems(n_particles: int, image_size: int, pixel_size: float, command: AbinitioParams) -> list[str]:
    """Return how number and size of the images contradict the options.

    Parameters
    ----------
    n_particles : int
    image_size : int
        Box of the images, px.
    pixel_size : float
        Angstrom.
    command : AbinitioParams
        With values in range.
    """
    needed, problems = MIN_PARTICLES * command.classes, []
    if n_particles < needed:
        problems.append(
            f"There are {n_particles} particles, but at least {needed} are needed, and a few thousand to see anything: "
            "give more particles."
        )
    if command.box is not None and command.box > image_size:
        problems.append(
            f"'{LABELS['box']}' is {command.box}, but the images have {image_size} px: give at most {image_size}, or 0 "
            "for automatic."
        )
    finest = 2 * pixel_size
    if command.max_resolution is not None and command.max_resolution < finest:
        problems.append(
            f"'{LABELS['max_resolution']}' is {command.max_resolution:g} Å, but pixels of {pixel_size:.3g} Å show "
            f"nothing finer than {finest:.3g} Å: give at least that, or 0 for automatic."
        )
    return problems
