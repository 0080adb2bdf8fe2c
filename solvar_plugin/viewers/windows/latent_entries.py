"""The section of the viewer that shows where the particles lie along the components."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyworkflow.protocol.params as params
from pyworkflow.viewer import View

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import Components
from solvar_engine.figures import coordinates, histograms, latent, style
from solvar_plugin.viewers.windows.entries import RunViewer, add_button, add_choice, entry
from solvar_plugin.viewers.windows.plot_window import plot

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

_CENTRES = (
    "Number the cluster centres",
    "Marks the centres of the clusters with the numbers of the states 'cluster 1', 'cluster 2' ...",
)

NO_FIT_OF_PARTICLES = (
    "This run does not tell how well the model explains each particle: run the protocol again with this version, or "
    "colour by something else."
)


class LatentEntries(RunViewer):
    """Entries of the section 'Latent space'."""

    def _define_latent(self, form: Any, colour: int = CLUSTER, marks: tuple[str, str] = _CENTRES) -> None:
        """Add the section; `marks` are label and help of the numbered positions."""
        form.addSection(label="Latent space")
        axes, (first, second) = self._axis_names(), self._leading()
        axis_help = (
            "A component, or one of the two axes of the UMAP, a flat map on which neighbours stay neighbours. Choose "
            "the same twice for a histogram."
        )
        add_choice(form, "xAxis", "Horizontal axis", axes, axis_help, first)
        add_choice(form, "yAxis", "Vertical axis", axes, axis_help, second)
        add_choice(
            form,
            "colourBy",
            "Colour by",
            COLOURS,
            "_cluster_: the k-means groups, whose centres are among the states.\n"
            "_contrast_: how strong the molecule is in each image; 1 on average.\n"
            "_uncertainty of the coordinates_: posterior standard deviation of the coordinates shown (for the UMAP, of "
            "all reproducible components). Where it is as large as the cloud, positions mean little.\n"
            "_number of particles_: how densely the particles lie.\n"
            "_log-likelihood_: how well the model explains each image. An island of low values is junk, or a state "
            "that the components do not reach.\n"
            "_outliers_: the flagged particles on top of all others.",
            colour,
        )
        add_choice(
            form,
            "drawAs",
            "Draw as",
            DRAWINGS,
            f"Automatic: points up to {coordinates.MAX_AUTOMATIC_POINTS:,} particles, else hexagons, each of which "
            "shows the number, the commonest cluster or the median value of its particles. Of more than "
            f"{coordinates.MAX_POINTS:,} points a random choice is drawn.",
        )
        form.addParam("showCentres", params.BooleanParam, default=True, label=marks[0], help=marks[1])
        add_button(form, self._show_latent)
        add_button(form, self._show_histograms)

    def _axis_names(self) -> list[str]:
        """Axes that can be chosen."""
        umap = ["UMAP 1", "UMAP 2"] if self._data.run.embedding.exists() and self._component_names else []
        return [*self._component_names, *umap]

    @entry(
        "displayLatent",
        "Particles in latent space",
        "Every particle at its coordinates along the two axes. Separate islands are discrete states, bands and arcs "
        "are continuous motions, a round featureless cloud is a component in which particles cannot be told apart.",
        important=True,
    )
    def _show_latent(self) -> list[View]:
        components, latents = self._chosen_from(), self._data.latents()
        x, y = (self._axis(choice, components, latents.z) for choice in (self.xAxis.get(), self.yAxis.get()))
        if x.name == y.name:
            return [plot(f"Particles along {x.name}", (7.5, 5.5), histograms.draw_histograms, [x])]
        title = f"Particles along {x.name} and {y.name}"
        drawing = None if self.drawAs.get() == AUTOMATIC else DRAWINGS[self.drawAs.get()]
        coloring = self._coloring(components, latents)
        places = self._places(x, y) if self.showCentres.get() else None
        marks = self._outlier_marks(len(latents.z)) if self.colourBy.get() == OUTLIER else None
        return [plot(title, (10, 8.3), latent.draw_latent, x, y, coloring, drawing, places, marks)]

    @entry(
        "displayHistograms",
        "Histogram of every component",
        "Particles along each component, with the normal distribution of the same width.",
    )
    def _show_histograms(self) -> list[View]:
        components, z = self._components(), self._data.latents().z
        rows, columns = histograms.histograms_shape(len(components))
        size = (max(3.1 * columns, 6.5), 1.4 + 2.3 * rows)
        axes = coordinates.component_axes(components, z)
        return [plot("Particles along each component", size, histograms.draw_histograms, axes)]

    def _axis(self, choice: int, components: Components, z: np.ndarray) -> coordinates.Axis:
        """Coordinates along a chosen axis."""
        if choice < len(components):
            return coordinates.component_axis(components, z, choice)
        return coordinates.umap_axis(self._data.embedding(len(z)), choice - len(components))

    def _coloring(self, components: Components, latents: Any) -> coordinates.Coloring | None:
        """What the colours of the particles say; None for their number."""
        choice = self.colourBy.get()
        if choice == CLUSTER:
            return coordinates.Coloring(self._data.clusters(len(latents.z)), "cluster", is_category=True)
        if choice == CONTRAST:
            return coordinates.Coloring(latents.contrast, "contrast of the image")
        if choice == UNCERTAINTY:
            shown = self._shown_components(components)
            names = ", ".join(f"z{style.subscript(index + 1)}" for index in shown)
            return coordinates.Coloring(latents.uncertainty(shown), f"posterior standard deviation of {names}")
        if choice == LOG_LIKELIHOOD:
            log_likelihood = self._data.images(len(latents.z)).log_likelihood
            if log_likelihood is None:
                raise UserError(NO_FIT_OF_PARTICLES)
            return coordinates.Coloring(log_likelihood, "log-likelihood of the image")
        return None

    def _outlier_marks(self, count: int) -> coordinates.Marks:
        """Which particles are flagged."""
        is_outlier = self._data.images(count).is_outlier
        if is_outlier is None:
            raise UserError(NO_FIT_OF_PARTICLES)
        return coordinates.Marks(is_outlier, "outliers")

    def _shown_components(self, components: Components) -> list[int]:
        """0-based components on the axes; for the UMAP those that it was made from."""
        chosen = sorted({choice for choice in (self.xAxis.get(), self.yAxis.get()) if choice < len(components)})
        if chosen:
            return chosen
        return components.compared.tolist()

    def _places(self, x: coordinates.Axis, y: coordinates.Axis) -> coordinates.Places | None:
        """Positions of the cluster centres on two axes; None if there are no clusters yet."""
        choices = [self.xAxis.get(), self.yAxis.get()]
        centres = self._data.centres()
        if centres is not None and max(choices) < centres.shape[1]:
            return coordinates.Places(centres[:, choices])
        if not self._data.run.clusters.exists():
            return None
        points = np.stack([x.values, y.values], axis=1)
        return coordinates.Places(coordinates.middles_of_clusters(points, self._data.clusters(len(points))))
