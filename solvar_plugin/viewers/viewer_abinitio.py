"""The viewer of the ab-initio model: what was found, and how the search got there."""

from __future__ import annotations

from typing import Any

from pyworkflow.viewer import DESKTOP_TKINTER, View

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import StateFolder, read_structure
from solvar_engine.contract.run import read_record
from solvar_engine.figures import images, poses, spectra, structure
from solvar_plugin.protocols import SolvarProtAbinitio
from solvar_plugin.viewers.data.run_reader import RunReader
from solvar_plugin.viewers.windows import programs
from solvar_plugin.viewers.windows.entries import add_section, entry
from solvar_plugin.viewers.windows.plot_window import plot
from solvar_plugin.viewers.windows.volume_entries import VolumeEntries

NO_STRUCTURE = "The search found no structure, so there is nothing to show here; the report says why."


class SolvarAbinitioViewer(VolumeEntries):
    """Shows the results of an ab-initio model, also while it is running."""

    _label = "ab-initio model viewer"
    _targets = [SolvarProtAbinitio]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form: Any) -> None:
        protocol = self.protocol
        self._open(RunReader(protocol.getRunDir(), protocol.getPointsPath(), StateFolder(protocol.getStatesFolder())))
        self._define_explorer(form)
        add_section(form, "Particles", self._show_directions, self._show_particles, self._show_classes)
        add_section(form, "Resolution", self._show_fsc, self._show_search)
        self._define_volumes(form)
        add_section(form, "Report", self._show_report)

    @entry(
        "displayDirections",
        "Distribution of orientations",
        "From which directions the molecule is seen, by the orientations that were found.",
        important=True,
    )
    def _show_directions(self) -> list[View]:
        view = self._found_images().view
        return [plot("Distribution of orientations", (8, 5.4), poses.draw_directions, {"": view})]

    @entry(
        "displayParticles",
        "Log-likelihood, contrast and outliers",
        "How well the structure explains each particle, how strong it is in its image, and which images show none.",
    )
    def _show_particles(self) -> list[View]:
        found = self._found_images()
        values = (found.log_likelihood, found.is_outlier, found.contrast)
        return [plot("Log-likelihood, contrast and outliers", (10.5, 5.6), images.draw_images, *values)]

    @entry("displayClasses", "Structures", "How many particles each of several structures has, and their resolutions.")
    def _show_classes(self) -> list[View]:
        self._found_images()
        found = read_structure(self._data.run)
        if found is None or len(found.populations) < 2:
            raise UserError("One structure was sought: there are no others to compare it with.")
        return [plot("Structures", (8, 5), structure.draw_classes, found)]

    @entry(
        "displayFsc",
        "Resolution (FSC)",
        "Fourier shell correlation of the half-maps. They share the search for orientations, which flatters it: a pose "
        "and contrast refinement tells what is real.",
        important=True,
    )
    def _show_fsc(self) -> list[View]:
        self._found_images()
        table = self._data.fsc()
        columns = (table["frequency"], table["fsc_mean"], table["fsc_covariance"])
        return [plot("Resolution", (9, 6), spectra.draw_fsc, *columns)]

    @entry(
        "displaySearch",
        "Resolution over time",
        "The detail that the search has reached, against time. It can be looked at while the protocol is running.",
    )
    def _show_search(self) -> list[View]:
        metrics = self._data.metrics()
        resolved = read_record(self._data.run)["resolved"]
        extent = resolved["box"] * resolved["pixel_size"]
        return [plot(self._data.progress(), (8, 5), structure.draw_search, metrics, extent)]

    @entry(
        "displayReport",
        "Report in the browser",
        "One page with all figures and an explanation of each, which can be sent to others as it is.",
        important=True,
    )
    def _show_report(self) -> list[View]:
        programs.open_in_browser(self._data.report())
        return []

    def _found_images(self) -> Any:
        """What is known of each image of a search that found a structure."""
        self._data.latents()  # says why, if the search has not finished
        found = read_structure(self._data.run)
        if found is not None and not found.found:
            raise UserError(NO_STRUCTURE)
        return self._data.images()
