"""The form of the covariance analysis, and what its values mean to the engine."""

from __future__ import annotations

from typing import Any

import pyworkflow.protocol.params as params
from pyworkflow.utils import Message

from solvar_engine.contract.params import AUTO_RANK, FIRST_AUTO_RANK, AnalyzeParams, FitParams, Option, options_of
from solvar_plugin.convert.locations import path_of
from solvar_plugin.protocols.form_options import LABELS, RANK_CHOICES, help_of
from solvar_plugin.protocols.form_parts import (
    FIT,
    add_choice,
    add_computing,
    add_enum,
    add_images,
    add_mask,
    add_number,
    add_optics,
    add_particles,
    add_symmetry,
    computing_options,
    image_options,
    symmetry_of,
)

AUTOMATIC_RANK, FIXED_RANK = range(len(RANK_CHOICES))
DEFAULT_RANK = 10
AUTOMATIC_BOX = 0

ANALYZE: dict[str, Option] = {option.name: option for option in options_of(AnalyzeParams)}


def define_form(protocol: Any, form: Any) -> None:
    """Add all sections."""
    _define_input(protocol, form)
    _define_method(protocol, form)


def _define_input(protocol: Any, form: Any) -> None:
    form.addSection(label=Message.LABEL_INPUT)
    protocol._defineComputeParams(form)
    add_particles(
        form,
        "Particles of a finished homogeneous 3-D refinement, with orientations, shifts and CTF, in MRC stacks. At "
        "least 100, and 20 for each component; thousands are needed to see anything.",
    )
    add_symmetry(
        form,
        FIT["symmetry"],
        "Give the one that the refinement imposed; particles need not be expanded by it, and are recognised if they "
        "are. The output then has an item for each orientation of a particle: the first has the id of the particle, "
        "the others have new ones, and all have the attribute _solvarParticleId.\n\nWith C1, motions are sought in "
        "the whole molecule.",
    )
    add_mask(
        form,
        "inputMask",
        "mask",
        "Soft mask around everything that moves, wide enough to hold all states, with the particles' pixel size. "
        "Without it, a mask is made from the mean volume.",
    )
    add_mask(
        form,
        "inputFocusMask",
        "focus_mask",
        "Soft mask around the one region whose motions you want to see, such as a mobile domain or a subunit that is "
        "there in some particles only, wide enough for all its states, with the particles' pixel size. Motions "
        "elsewhere are then left out; the mean volume still shows the whole molecule. Without it, motions are sought "
        "everywhere.\n\nTake it in a second run, when a first one without it shows that the motion that matters is "
        "buried under larger ones.",
    )
    _define_rank(form)
    add_number(
        form,
        "boxSize",
        FIT["box"],
        f"{AUTOMATIC_BOX} is automatic. A smaller box is faster and sees coarser motions: the finest detail is two "
        "pixels of the working box.",
        params.LEVEL_NORMAL,
        default=AUTOMATIC_BOX,
    )
    form.addParam(
        "numberOfClusters",
        params.IntParam,
        default=ANALYZE["clusters"].default,
        label=LABELS["clusters"],
        help="The particles are grouped into this many k-means clusters, and the volume at the centre of each is one "
        "of the states to look at. The groups divide the latent space for looking at it; they need not be states of "
        "the molecule.",
    )
    add_optics(form)


def _define_rank(form: Any) -> None:
    add_enum(
        form,
        "rankChoice",
        LABELS["rank"],
        RANK_CHOICES,
        AUTOMATIC_RANK,
        f"_automatic_: {FIRST_AUTO_RANK} components are tried, and more as long as all are real; those are kept that "
        "explain particles which had no part in finding them better than chance does. There may be none: then the "
        "particles do not show that the molecule moves.\n"
        "_fixed_: as many as you say. Components beyond the real motions cost time and are marked as not "
        "reproducible.\n\nA large rotation of a domain needs several components.",
        important=True,
    )
    form.addParam(
        "rank",
        params.IntParam,
        default=DEFAULT_RANK,
        condition=f"rankChoice == {FIXED_RANK}",
        important=True,
        label="Fixed number",
        help="Number of components, at least 1; needs 20 particles for each. Ten to begin with: a few too many do no "
        "harm.",
    )


def _define_method(protocol: Any, form: Any) -> None:
    form.addSection(label="Method")
    if protocol.REFINES:
        form.addParam(
            "refineContrast",
            params.BooleanParam,
            default=True,
            label=LABELS["refine_contrast"],
            help=help_of(FIT["refine_contrast"]),
        )
        form.addParam(
            "stillFrame",
            params.BooleanParam,
            default=False,
            label=LABELS["still_frame"],
            help=help_of(FIT["still_frame"]) + " No image tells which part of a molecule stands still, and a "
            "refinement of all particles together lets none do so: motions become smaller, and weak ones are lost. "
            "Takes nearly twice the time.",
        )
        add_choice(
            form,
            "poseSchedule",
            FIT["pose_schedule"],
            "_newton_ is right always; the other is there to compare with the published method.",
        )
    add_choice(
        form,
        "objective",
        FIT["objective"],
        "Maximum likelihood is right nearly always. Least squares weighs the images in another way: take it to see "
        "whether a surprising component is found by both.",
    )
    add_images(form)
    add_computing(form)
    protocol._addThreads(form)


def fit_params(protocol: Any) -> FitParams:
    """Say in the engine's terms what the form says."""
    return FitParams(
        particles=str(protocol.getStarPath()),
        output=str(protocol.getRunDir().path),
        # what the form does not show does not count
        rank=AUTO_RANK if protocol.rankChoice.get() == AUTOMATIC_RANK else protocol.rank.get(),
        mask=path_of(protocol.inputMask.get()),
        focus_mask=path_of(protocol.inputFocusMask.get()),
        symmetry=symmetry_of(protocol),
        box=protocol.boxSize.get() if protocol.boxSize.get() != AUTOMATIC_BOX else None,
        objective=FIT["objective"].choices[protocol.objective.get()],
        resume=True,
        **_pose_options(protocol),
        **image_options(protocol),
        **computing_options(protocol),
    )


def _pose_options(protocol: Any) -> dict[str, Any]:
    if not protocol.REFINES:
        return {}
    return {
        "refine_poses": True,
        "refine_contrast": protocol.refineContrast.get(),
        "still_frame": protocol.stillFrame.get(),
        "pose_schedule": FIT["pose_schedule"].choices[protocol.poseSchedule.get()],
    }
