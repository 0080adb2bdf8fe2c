"""The form of the viewer: which entries there are, and what their help says."""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

import pyworkflow.protocol.params as params

from solvar_plugin.viewers import latent, programs, slices

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
DRAWINGS = ("automatic", latent.POINTS, latent.HEXAGONS)
NONE_YET = "none yet"

MAX_SLICES = 48
MIN_EXTENT, MAX_EXTENT = 0.1, 5.0

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


def define_form(form: Any, choices: Choices) -> None:
    """Add all entries to a form of Scipion; those named display... open something."""
    _define_components(form)
    define_latent(form, choices)
    _define_particles(form)
    _define_quality(form)
    define_volumes(form, choices)
    _define_motions(form, choices)
    _define_report(form, choices)


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


def _define_components(form: Any) -> None:
    form.addSection(label="Components")
    add_button(
        form,
        "displayEigenvalues",
        "Eigenvalues and reproducibility",
        "How much the density varies along each component: measured on held-out particles (bars; the honest number) "
        "and on those that it was computed from (circles). Beside it: how far two independent halves of the particles "
        "agree on each component, and how much of it looks like mere changes of contrast or errors of orientation and "
        "position.\n\nHatched components are not to be interpreted as motions:\n"
        "_not reproducible_: the other half of the particles does not show it.\n"
        "_overfit_: much larger on the particles that it was computed from than on others.\n"
        "_nuisance_: it looks like changes of contrast or errors of the orientations.",
        important=True,
    )
    add_button(
        form,
        "displayRank",
        "Gain of each component, beside that of decoys",
        "By how much each component raises the log-likelihood of particles that had no part in finding it, beside what "
        "components without any meaning do. An automatic number of components is chosen by this.",
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
        f"Automatic: points up to {latent.MAX_AUTOMATIC_POINTS:,} particles, else hexagons, each of which shows the "
        "number, the commonest cluster or the median value of its particles. Of more than "
        f"{latent.MAX_POINTS:,} points a random choice is drawn.",
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


def _define_particles(form: Any) -> None:
    form.addSection(label="Particles")
    add_button(
        form,
        "displayParticles",
        "Log-likelihood, contrast and outliers",
        "How well the model explains each particle, how strong the molecule is in its image, and which particles are "
        "flagged as outliers. To see where they lie in the latent space, colour it by log-likelihood or outliers.",
        important=True,
    )


def _define_quality(form: Any) -> None:
    form.addSection(label="Resolution and noise")
    add_button(
        form,
        "displayFsc",
        "Resolution (FSC)",
        "Fourier shell correlation of the two half-set means, and of the variability that the two halves found (the "
        "diagonal of the covariance). The resolution is read off at 0.143.",
        important=True,
    )
    add_button(
        form,
        "displayNoise",
        "Noise spectrum",
        "Variance of the noise in the images at each resolution, one line per optics group.",
    )
    add_button(
        form,
        "displayProgress",
        "Progress of the optimisation",
        "What the fit lowers, against time. It can be looked at while the protocol is running.",
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
        choices=list(slices.AXES),
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


def _define_motions(form: Any, choices: Choices) -> None:
    form.addSection(label="Motions")
    add_choice(
        form,
        "motionComponent",
        "Component",
        choices.components,
        "The component along which the molecule is shown. One with a remark in brackets must not be interpreted as a "
        "motion.",
        choices.leading[0],
    )
    form.addParam(
        "motionExtent",
        params.FloatParam,
        default=2.0,
        validators=[params.Range(MIN_EXTENT, MAX_EXTENT, f"should be a number from {MIN_EXTENT:g} to {MAX_EXTENT:g}")],
        label="Extent (standard deviations)",
        help="How far to go from the mean to either side, in standard deviations of the particles along the component. "
        "Most particles lie within 2.",
    )
    add_level(form, "motionLevel", "Density at which the surfaces of all states are drawn.")
    add_button(
        form,
        "displayMotion",
        "Both ends of the motion",
        "Surfaces of the mean minus and plus the extent along the component, alone and over each other, and the mean "
        "coloured by what changes, from three directions.",
        important=True,
    )
    add_button(
        form,
        "displayMovie",
        "Movie of the motion",
        "Plays the motion from one end to the other and back, and saves it as an animated GIF for slides; where is "
        "written below the pictures. It takes some seconds to make.",
    )


def _define_report(form: Any, choices: Choices) -> None:
    form.addSection(label="Report")
    add_button(
        form,
        "displayReport",
        "Report in the browser",
        "One page with all figures and an explanation of each, which can be sent to others as it is.",
        important=True,
    )
    # told here too, for where no browser comes up
    form.addParam(
        "reportPath",
        params.LabelParam,
        label=f"The report is the file {choices.report}",
        help="Open this file in a browser of your choice, or copy it: it needs no other file.",
    )
