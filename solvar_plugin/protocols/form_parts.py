"""Parts of forms that several protocols share: particles, masks, options of the engine."""

from __future__ import annotations

import os
from typing import Any, Mapping, Sequence

import pyworkflow.protocol.params as params

from solvar_engine.contract.params import ALL_GPUS, FitParams, Option, options_of
from solvar_plugin.protocols.form_options import LABELS, choices_of, help_of

FIT: dict[str, Option] = {option.name: option for option in options_of(FitParams)}
"""The options of the fit, by name."""

NUFFT = "nufft"
"""The projector that does not interpolate."""


def add_particles(form: Any, text: str, **details: Any) -> None:
    """Add the particles, of a 3-D refinement unless other details say otherwise; `text` says what they are for."""
    form.addParam(
        "inputParticles",
        params.PointerParam,
        pointerClass="SetOfParticles",
        important=True,
        label="Input particles",
        help=text,
        **{"pointerCondition": "hasAlignmentProj", **details},
    )


def add_mask(form: Any, name: str, option: str, text: str) -> None:
    """Add a mask that may be left out."""
    form.addParam(
        name, params.PointerParam, pointerClass="VolumeMask", allowsNull=True, label=LABELS[option], help=text
    )


def add_optics(form: Any, which: str = "particles", **details: Any) -> None:
    """Add the file that knows the optics groups, which Scipion's import forgets; `which` says of which particles."""
    form.addParam(
        "opticsStar",
        params.FileParam,
        default="",
        expertLevel=params.LEVEL_ADVANCED,
        label="STAR file for the optics",
        help=f"Only for {which} of several optics groups that were imported from RELION: the STAR file that was "
        "imported. The import gives all particles one voltage, spherical aberration and amplitude contrast and "
        "forgets their groups, with their beam tilts, higher aberrations and magnification matrices; with this file "
        "they are found again, image by image.",
        **details,
    )


def add_number(
    form: Any, name: str, option: Option, advice: str = "", level: int = params.LEVEL_ADVANCED, **details: Any
) -> None:
    """Add an option of the engine that is a whole number; `advice` follows its help."""
    form.addParam(
        name,
        params.IntParam,
        **{"default": option.default, "label": LABELS[option.name], **details},
        expertLevel=level,
        help=_with_advice(option, advice),
    )


def add_symmetry(form: Any, option: Option, advice: str) -> None:
    """Add the point group; `advice` follows the help of the command's option."""
    form.addParam(
        "symmetry",
        params.StringParam,
        default=option.default,
        label=LABELS["symmetry"],
        help=_with_advice(option, advice),
    )


def symmetry_of(protocol: Any) -> str:
    """Return in the engine's terms what `add_symmetry` has asked."""
    return (protocol.symmetry.get() or "").strip()


def add_choice(form: Any, name: str, option: Option, advice: str = "", level: int = params.LEVEL_ADVANCED) -> None:
    """Add an option of the engine that has choices; `advice` follows its help."""
    add_enum(
        form, name, LABELS[option.name], choices_of(option), option.choices.index(option.default),
        _with_advice(option, advice), level,
    )  # fmt: skip


def add_enum(
    form: Any,
    name: str,
    label: str,
    choices: Sequence[str],
    default: int,
    text: str,
    level: int = params.LEVEL_NORMAL,
    **details: Any,
) -> None:
    """Add a list to choose one from."""
    form.addParam(
        name,
        params.EnumParam,
        choices=list(choices),
        default=default,
        display=params.EnumParam.DISPLAY_COMBO,
        expertLevel=level,
        label=label,
        help=text,
        **details,
    )


def add_images(form: Any) -> None:
    """Add how the images are compared with volumes."""
    add_choice(
        form,
        "projector",
        FIT["projector"],
        "_trilinear_ is right nearly always. _nearest_ is the fastest and coarsest, for a first look. Take _nufft_ to "
        "make sure that a weak component is no artefact of interpolation, or for a final result where time does not "
        "matter.",
    )
    add_number(
        form,
        "oversampling",
        FIT["oversampling"],
        "2 is right nearly always; 3 or 4 need much more memory and are for boxes that the molecule fills nearly to "
        "the edge.",
        condition=f"projector != {FIT['projector'].choices.index(NUFFT)}",
    )
    add_choice(
        form,
        "invertContrast",
        FIT["invert_contrast"],
        "Say it if the engine finds out wrongly, which the mean volume shows: the molecule is then a hole.",
        params.LEVEL_NORMAL,
    )
    add_choice(
        form,
        "oneFrame",
        FIT["one_frame"],
        "Refinements differ in hand, turn and place; the report says if particles of two were joined. Particles that "
        "are sorted by state look like that, too, where all that they show moves as a whole. So what differs by a "
        "small turn is left as it is, unless you say _yes_. Say _no_ if the program is wrong.",
    )
    add_bad_images(form, FIT)


def add_bad_images(form: Any, options: Mapping[str, Option], **details: Any) -> None:
    """Add whether images that cannot be used are left out, for a command with these options."""
    form.addParam(
        "skipBadImages",
        params.BooleanParam,
        default=False,
        expertLevel=params.LEVEL_ADVANCED,
        label=LABELS["skip_bad_images"],
        help=_with_advice(
            options["skip_bad_images"],
            "With No, the protocol stops and says which images they are. Look at them first: many of them tell that "
            "something went wrong when the particles were extracted.",
        ),
        **details,
    )


def image_options(protocol: Any) -> dict[str, Any]:
    """Return in the engine's terms what `add_images` has asked."""
    projector = FIT["projector"].choices[protocol.projector.get()]
    return {
        "projector": projector,
        # what the form does not show does not count
        "oversampling": FIT["oversampling"].default if projector == NUFFT else protocol.oversampling.get(),
        "invert_contrast": FIT["invert_contrast"].choices[protocol.invertContrast.get()],
        "one_frame": FIT["one_frame"].choices[protocol.oneFrame.get()],
        "skip_bad_images": protocol.skipBadImages.get(),
    }


def add_computing(form: Any) -> None:
    """Add where random numbers start and where images are kept."""
    add_number(form, "seed", FIT["seed"], "Another seed shows how far a result depends on chance.")
    add_image_storage(form, FIT)


def add_image_storage(form: Any, options: Mapping[str, Option], **details: Any) -> None:
    """Add where images are kept, for a command with these options."""
    add_number(form, "cacheMb", options["cache_mb"], **details)
    form.addParam(
        "scratchFolder",
        params.FolderParam,
        default="",
        expertLevel=params.LEVEL_ADVANCED,
        label=LABELS["scratch"],
        help=help_of(options["scratch"]) + " A fast local disk is best.",
        **details,
    )


def computing_options(protocol: Any) -> dict[str, Any]:
    """Return in the engine's terms what `add_computing` and the head of the form have asked."""
    options = {**image_storage_options(protocol), **resource_options(protocol)}
    if protocol.useGpu.get():
        options.update(device="auto", gpus=ALL_GPUS)  # of those that Scipion shows to the engine
    return options


def image_storage_options(protocol: Any) -> dict[str, Any]:
    """Return in the engine's terms what `add_image_storage` has asked."""
    return {
        # paths of images count from the project's folder, where protocols run
        "root": os.path.curdir,
        "cache_mb": protocol.cacheMb.get(),
        "scratch": protocol.scratchFolder.get() or None,
    }


def resource_options(protocol: Any) -> dict[str, Any]:
    """Return in the engine's terms the seed, and what the head of the form has asked."""
    return {
        "threads": protocol.numberOfThreads.get(),
        "device": "cuda" if protocol.useGpu.get() else "cpu",
        "seed": protocol.seed.get(),
    }


def _with_advice(option: Option, advice: str) -> str:
    return help_of(option) + (f"\n\n{advice}" if advice else "")
