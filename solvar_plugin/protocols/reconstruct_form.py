"""The form of the volume reconstruction, and what its values mean to the engine."""

from __future__ import annotations

from typing import Any

import pyworkflow.protocol.params as params
from pyworkflow.utils import Message

from solvar_engine.contract.params import Option, ReconstructParams, options_of
from solvar_plugin.convert.numbers import whole_numbers
from solvar_plugin.protocols.form_options import LABELS
from solvar_plugin.protocols.form_parts import (
    add_bad_images,
    add_enum,
    add_image_storage,
    add_number,
    add_optics,
    image_storage_options,
    resource_options,
)
from solvar_plugin.protocols.latent_places import add_clusters, add_points, add_selection
from solvar_plugin.protocols.protocol_from_run import add_analysed_particles

CLUSTERS, MIXTURE, POINTS, TRAJECTORY, BETWEEN = range(5)
STATES = (
    "clusters",
    "Gaussian mixture",
    "points",
    "trajectory through points",
    "trajectory between clusters",
)
AUTOMATIC_BOX = 0
NO_SHARPENING, FITTED, GIVEN = range(3)
SHARPENING = ("none", "automatic", "by a B-factor")

POINTS_LABEL = "Points"
BETWEEN_LABEL = "Clusters on the way"
NUMBER_LABEL = "Number of states"

RECONSTRUCT: dict[str, Option] = {option.name: option for option in options_of(ReconstructParams)}
KERNEL = RECONSTRUCT["method"].choices.index("kernel")
DENSE = RECONSTRUCT["path"].choices.index("density")
_METHODS = ("from the images (kernel regression)", "mean plus eigenvolumes (linear)")
_PATHS = ("through where particles are dense", "straight")

RECONSTRUCT_LABELS = {
    **{name: LABELS[name] for name in ("seed", "skip_bad_images", "cache_mb", "scratch", "threads")},
    "clusters": NUMBER_LABEL,
    "mixture": NUMBER_LABEL,
    "points": POINTS_LABEL,
    "trajectory": POINTS_LABEL,
    "between": BETWEEN_LABEL,
    "frames": "Number of volumes",
    "path": "Path",
    "allow_extrapolation": "Allow extrapolation",
    "b_factor": "Sharpening",
    "particles": "Particles at full size (optional)",
    "box": "Box of the volumes (px)",
}
"""What the form calls the engine's options."""

_BY_KERNEL = f"method == {KERNEL}"
_HAS_NUMBER = f"states in [{CLUSTERS}, {MIXTURE}]"
_HAS_POINTS = f"states in [{POINTS}, {TRAJECTORY}]"
_HAS_PATH = f"states in [{TRAJECTORY}, {BETWEEN}]"


def define_form(protocol: Any, form: Any) -> None:
    """Add all sections."""
    form.addSection(label=Message.LABEL_INPUT)
    protocol._defineComputeParams(form)
    add_analysed_particles(form, "The volumes are made from all particles of the run that they belong to.")
    _define_states(form)
    _define_method(form)
    form.addSection(label="Volumes")
    _define_volumes(form)
    add_number(form, "seed", RECONSTRUCT["seed"], "Clusters, mixture and path start from it.")
    protocol._addThreads(form)


def _define_states(form: Any) -> None:
    add_enum(
        form,
        "states",
        "States",
        STATES,
        CLUSTERS,
        "_clusters_: one volume for each of some k-means clusters.\n"
        "_Gaussian mixture_: one volume for each of some Gaussians fitted to the particles, whose sizes and shapes may "
        "differ, unlike those of clusters.\n"
        "_points_: volumes at points of your choice.\n"
        "_trajectory through points_, _between clusters_: a series of volumes along a path, for a movie of a "
        "continuous motion.",
        important=True,
    )
    form.addParam(
        "numberOfStates",
        params.IntParam,
        default=5,
        condition=_HAS_NUMBER,
        validators=[params.GE(1, "should be at least 1")],
        label=NUMBER_LABEL,
        help="Number of clusters or Gaussians. With the number and the seed of the analysis, the clusters are those of "
        "its viewer.",
    )
    add_points(
        form,
        "points",
        POINTS_LABEL,
        "A trajectory goes through them in this order. Leave it empty to take them from the explorer or a table.",
        _HAS_POINTS,
    )
    add_selection(
        form, "pointsSelection", "Used if no points are written above: points, or the points of a path.", _HAS_POINTS
    )
    form.addParam(
        "pointsFile",
        params.FileParam,
        default="",
        condition=_HAS_POINTS,
        label="Table of points",
        help="Used if no points are written and no selection is named above: a file of comma-separated values with the "
        "columns z_1, z_2 and so on, such as analysis/centres.csv in the folder of the run.",
    )
    form.addParam(
        "allowExtrapolation",
        params.BooleanParam,
        default=RECONSTRUCT["allow_extrapolation"].default,
        condition=_HAS_POINTS,
        expertLevel=params.LEVEL_ADVANCED,
        label=RECONSTRUCT_LABELS["allow_extrapolation"],
        help="With No, points that are far from all particles are refused: a volume there looks like any other, but no "
        "image shows it. With Yes, such states are made and named 'extrapolated'.",
    )
    add_clusters(
        form,
        "between",
        BETWEEN_LABEL,
        "1 2",
        "Numbers of at least two clusters of the analysis, in the order in which the path visits their centres.",
        f"states == {BETWEEN}",
    )
    form.addParam(
        "frames",
        params.IntParam,
        default=RECONSTRUCT["frames"].default,
        condition=_HAS_PATH,
        label=RECONSTRUCT_LABELS["frames"],
        help="Along the whole path, both ends included.",
    )
    add_enum(
        form, "route", RECONSTRUCT_LABELS["path"], _PATHS, DENSE,
        "The straight line may lead through places where there are no particles, and so no states of the molecule.",
        params.LEVEL_ADVANCED, condition=_HAS_PATH,
    )  # fmt: skip


def _define_method(form: Any) -> None:
    add_enum(
        form,
        "method",
        "Method",
        _METHODS,
        KERNEL,
        "_from the images_: every volume is reconstructed from the particles near its state, how near being chosen "
        "place by place with half-sets. It has half-maps, local filtering and a local resolution, and shows the finest "
        "detail.\n"
        "_mean plus eigenvolumes_: takes seconds, shows the motions of the components only, and has no half-maps.",
    )
    form.addParam(
        "fullParticles",
        params.PointerParam,
        pointerClass="SetOfParticles",
        allowsNull=True,
        condition=_BY_KERNEL,
        label=RECONSTRUCT_LABELS["particles"],
        help="The same particles, with the same ids, with larger images of the same extent: those before "
        "down-sampling. They need a CTF; orientations are those of the run. Without them, the images that the run has "
        "analysed are used.",
    )
    add_optics(form, "particles at full size", condition=_BY_KERNEL)


def _define_volumes(form: Any) -> None:
    add_number(
        form,
        "boxSize",
        RECONSTRUCT["box"],
        f"{AUTOMATIC_BOX} is automatic.",
        params.LEVEL_NORMAL,
        default=AUTOMATIC_BOX,
        label=RECONSTRUCT_LABELS["box"],
        condition=_BY_KERNEL,
    )
    add_enum(
        form,
        "sharpening",
        RECONSTRUCT_LABELS["b_factor"],
        SHARPENING,
        NO_SHARPENING,
        "_none_: the volumes are filtered to their local resolution only.\n"
        "_automatic_: by a B-factor fitted to the half-maps between 10 Angstrom and the resolution, the same for all "
        "states. It needs a resolution well beyond 10 Angstrom.\n"
        "_by a B-factor_: one that you know.\n\nHalf-maps are never sharpened.",
        condition=_BY_KERNEL,
    )
    form.addParam(
        "bFactor",
        params.FloatParam,
        default=-100.0,
        condition=f"{_BY_KERNEL} and sharpening == {GIVEN}",
        label="B-factor (Å²)",
        help="Negative to sharpen.",
    )
    add_bad_images(form, RECONSTRUCT, condition=_BY_KERNEL)
    add_image_storage(form, RECONSTRUCT, condition=_BY_KERNEL)


def reconstruct_params(protocol: Any) -> ReconstructParams:
    """Say in the engine's terms what the form says.

    Raises
    ------
    UserError
        If the clusters on the way are no numbers.
    """
    by_kernel = protocol.method.get() == KERNEL
    return ReconstructParams(
        run=str(protocol.getRunDir().path),
        output=str(protocol.getStatesFolder()),
        method=RECONSTRUCT["method"].choices[protocol.method.get()],
        **resource_options(protocol),
        **_state_options(protocol),
        **(_kernel_options(protocol) if by_kernel else {}),
    )


def _state_options(protocol: Any) -> dict[str, Any]:
    """Return what the form says about the states; what it does not show does not count."""
    states = protocol.states.get()
    options: dict[str, Any] = {}
    if states == CLUSTERS:
        options["clusters"] = protocol.numberOfStates.get()
    elif states == MIXTURE:
        options["mixture"] = protocol.numberOfStates.get()
    elif states == POINTS:
        options["points"] = str(protocol.getPointsPath())
    elif states == TRAJECTORY:
        options["trajectory"] = str(protocol.getPointsPath())
    else:
        options["between"] = tuple(whole_numbers(protocol.between.get(), BETWEEN_LABEL))
    if states in (POINTS, TRAJECTORY):
        options["allow_extrapolation"] = protocol.allowExtrapolation.get()
    if states in (TRAJECTORY, BETWEEN):
        options.update(frames=protocol.frames.get(), path=RECONSTRUCT["path"].choices[protocol.route.get()])
    return options


def _kernel_options(protocol: Any) -> dict[str, Any]:
    sharpening = ("none", "auto", f"{protocol.bFactor.get():g}")[protocol.sharpening.get()]
    return {
        "b_factor": sharpening,
        "particles": None if protocol.fullParticles.get() is None else str(protocol.getFullStarPath()),
        "box": protocol.boxSize.get() if protocol.boxSize.get() != AUTOMATIC_BOX else None,
        "resume": True,
        "skip_bad_images": protocol.skipBadImages.get(),
        **image_storage_options(protocol),
    }
