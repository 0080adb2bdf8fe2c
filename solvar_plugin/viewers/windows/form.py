"""What the forms of several viewers share: the sections of the latent space and of the volumes."""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

import pyworkflow.protocol.params as params

from solvar_engine.figures import coordinates
from solvar_engine.figures.slices import AXES
from solvar_plugin.viewers.windows import programs

CLUSTER, CONTRAST, UNCERTAINTY, DENSITY, LOG_LIKELIHOOD, OUTLIER = range(6)
COLOURS = (
    "cluster",
    "contrast",
    "uncertainty of the coordinates",
    "number of particles",
    "log-likelihood",
    "outliers",
)
AUTOMATIC = 0
DRAWINGS = ("automatic", coordinates.POINTS, coordinates.HEXAGONS)
NONE_YET = "none yet"

MAX_SLICES = 48

_CENTRES = (
    "Number the cluster centres",
    "Marks the centres of the clusters with the numbers of the states 'cluster 1', 'cluster 2' ...",
)


class Choices(NamedTuple):
    """What the form offers, which depends on how far the run is.

    Attributes
    ----------
    axes, volumes, components : sequence of str
        Names to choose from.
    leading : (int, int)
        Positions of the two components that are shown first.
    has_chimerax : bool
        Whether ChimeraX is installed.
    report : str
        Where the report is, or will be.
    """

    axes: Sequence[str]
    volumes: Sequence[str]
    components: Sequence[str]
    leading: tuple[int, int]
    has_chimerax: bool
    report: str


def add_button(form: Any, name: str, label: str, text: str, important: bool = False) -> None:
    """Add an entry that opens something."""
    form.addParam(name, params.LabelParam, label=label, help=text, important=important)


def add_choice(form: Any, name: str, label: str, choices: Sequence[str], text: str, default: int = 0) -> None:
    """Add an entry with one of several names; without any, it says so."""
    form.addParam(
        name,
        params.EnumParam,
        choices=list(choices) or [NONE_YET],
        default=default,
        display=params.EnumParam.DISPLAY_COMBO,
        label=label,
        help=text,
    )


def add_level(form: Any, name: str, text: str) -> None:
    """Add an entry for the level of a surface."""
    form.addParam(
        name,
        params.FloatParam,
        default=None,
        allowsNull=True,
        label="Surface level (empty: automatic)",
        help=f"{text} If it is empty, the level is chosen from the densities within the mask. The level in use is "
        "written below each picture.",
    )


def define_latent(
    form: Any, choices: Choices, colour: int = CLUSTER, marks: tuple[str, str] = _CENTRES
) -> None:
    """Add the section of the latent space; `marks` are label and help of the numbered positions."""
    form.addSection(label="Latent space")
    axis_help = (
        "A component, or one of the two axes of the UMAP, a flat map on which neighbours stay neighbours. Choose the "
        "same twice for a histogram."
    )
    add_choice(form, "xAxis", "Horizontal axis", choices.axes, axis_help, choices.leading[0])
    add_choice(form, "yAxis", "Vertical axis", choices.axes, axis_help, choices.leading[1])
    add_choice(
        form,
        "colourBy",
        "Colour by",
        COLOURS,
        "_cluster_: the k-means groups, whose centres are among the states.\n"
        "_contrast_: how strong the molecule is in each image; 1 on average.\n"
        "_uncertainty of the coordinates_: posterior standard deviation of the coordinates shown (for the UMAP, of all "
        "reproducible components). Where it is as large as the cloud, positions mean little.\n"
        "_number of particles_: how densely the particles lie.\n"
        "_log-likelihood_: how well the model explains each image. An island of low values is junk, or a state that "
        "the components do not reach.\n"
        "_outliers_: the flagged particles on top of all others.",
        colour,
    )
    add_choice(
        form,
        "drawAs",
        "Draw as",
        DRAWINGS,
        f"Automatic: points up to {coordinates.MAX_AUTOMATIC_POINTS:,} particles, else hexagons, each of which shows "
        "the number, the commonest cluster or the median value of its particles. Of more than "
        f"{coordinates.MAX_POINTS:,} points a random choice is drawn.",
    )
    form.addParam(
        "showCentres",
        params.BooleanParam,
        default=True,
        label=marks[0],
        help=marks[1],
    )
    add_button(
        form,
        "displayLatent",
        "Particles in latent space",
        "Every particle at its coordinates along the two axes. Separate islands are discrete states, bands and arcs "
        "are continuous motions, a round featureless cloud is a component in which particles cannot be told apart.",
        important=True,
    )
    add_button(
        form,
        "displayHistograms",
        "Histogram of every component",
        "Particles along each component, with the normal distribution of the same width.",
    )


def define_volumes(form: Any, choices: Choices) -> None:
    """Add the section of the volumes."""
    form.addSection(label="Volumes")
    add_choice(
        form,
        "volumeChoice",
        "Volume",
        choices.volumes,
        "The mean map, its half-maps, the mask, an eigenvolume (what is added to the mean along a component), or one "
        "of the states. Volumes of a running protocol appear when this window is opened again.",
    )
    add_button(
        form,
        "displaySlices",
        "Central slices and projections",
        "Slices through the centre of the box across z, y and x, and the sums along these axes.",
    )
    line = form.addLine(
        "Montage",
        help="Which axis the slices lie across, and how many are shown side by side over the range of the mask, "
        f"1 to {MAX_SLICES}.",
    )
    line.addParam(
        "montageAxis",
        params.EnumParam,
        choices=list(AXES),
        default=0,
        display=params.EnumParam.DISPLAY_COMBO,
        label="across",
    )
    line.addParam(
        "montageCount",
        params.IntParam,
        default=20,
        validators=[params.Range(1, MAX_SLICES, f"should be a number of slices from 1 to {MAX_SLICES}")],
        label="slices",
    )
    add_button(form, "displayMontage", "Montage of slices", "Many slices side by side, as chosen above.")
    add_level(form, "volumeLevel", "Density at which the surface of the volume is drawn.")
    add_button(
        form,
        "displaySurface",
        "Surface from three directions",
        "A picture of the surface, made without any other program. For an eigenvolume: red is density that appears and "
        "blue density that disappears as the coordinate grows, with the mean as a pale veil.",
        important=True,
    )
    advice = "" if choices.has_chimerax else f"\n\n{programs.CHIMERAX_ADVICE}"
    add_button(
        form,
        "displayChimerax",
        "Open in ChimeraX" + ("" if choices.has_chimerax else " (not found, see help)"),
        "Starts ChimeraX with the chosen volume at the same level. For an eigenvolume: the mean coloured by it, and "
        f"both ends of the motion.{advice}",
    )
