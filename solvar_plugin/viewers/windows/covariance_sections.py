"""The form of the viewer of a covariance analysis: which entries there are, and what their help says."""

from __future__ import annotations

from typing import Any

import pyworkflow.protocol.params as params

from solvar_plugin.viewers.windows.form import Choices, add_button, add_choice, add_level, define_latent, define_volumes

MIN_EXTENT, MAX_EXTENT = 0.1, 5.0


def define_form(form: Any, choices: Choices) -> None:
    """Add all entries to a form of Scipion; those named display... open something."""
    _define_components(form)
    define_latent(form, choices)
    _define_particles(form)
    _define_quality(form)
    define_volumes(form, choices)
    _define_motions(form, choices)
    _define_report(form, choices)


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
