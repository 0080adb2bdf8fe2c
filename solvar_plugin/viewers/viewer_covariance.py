"""The viewer of the covariance analysis: a form whose entries open plots, pictures and other programs."""

from __future__ import annotations

from typing import Any, Callable

from pyworkflow.viewer import DESKTOP_TKINTER, View

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import StateFolder, curves_by_stage
from solvar_engine.figures import components as component_figures
from solvar_engine.figures import images, spectra
from solvar_plugin.protocols import SolvarProtCovariance
from solvar_plugin.viewers.data.run_reader import RunReader
from solvar_plugin.viewers.windows import programs
from solvar_plugin.viewers.windows.covariance_sections import define_form
from solvar_plugin.viewers.windows.entries import entry
from solvar_plugin.viewers.windows.form import Choices
from solvar_plugin.viewers.windows.latent_entries import LatentEntries
from solvar_plugin.viewers.windows.plot_window import plot
from solvar_plugin.viewers.windows.volume_entries import VolumeEntries, chimerax_program


class SolvarCovarianceViewer(LatentEntries, VolumeEntries):
    """Shows the results of a covariance analysis, also while it is running."""

    _label = "covariance analysis viewer"
    _targets = [SolvarProtCovariance]
    _environments = [DESKTOP_TKINTER]

    # ---------------------------------------------------------------- form

    def _defineParams(self, form: Any) -> None:
        protocol = self.protocol
        self._data = RunReader(protocol.getRunDir(), protocol.getPointsPath(), StateFolder(protocol.getStatesFolder()))
        # fixed here, because the numbers that the form gives back count these
        self._entries = self._known_volumes()
        self._component_names = self._known_components()
        choices = Choices(
            axes=self._axis_names(),
            volumes=[volume.name for volume in self._entries],
            components=self._component_names,
            leading=self._leading(),
            has_chimerax=chimerax_program() is not None,
            report=str(self._data.run.report.resolve()),
        )
        define_form(form, choices)

    def _getVisualizeDict(self) -> dict[str, Callable[..., list[View]]]:
        return {
            "displayEigenvalues": self._show_eigenvalues,
            "displayRank": self._show_rank,
            "displayLatent": self._show_latent,
            "displayHistograms": self._show_histograms,
            "displayParticles": self._show_particles,
            "displayFsc": self._show_fsc,
            "displayNoise": self._show_noise,
            "displayProgress": self._show_progress,
            "displaySlices": self._show_slices,
            "displayMontage": self._show_montage,
            "displaySurface": self._show_surface,
            "displayChimerax": self._show_chimerax,
            "displayMotion": self._show_motion,
            "displayMovie": self._show_movie,
            "displayReport": self._show_report,
        }

    # ---------------------------------------------------------------- components

    @entry
    def _show_eigenvalues(self) -> list[View]:
        components = self._components()
        return [plot("Eigenvalues and reproducibility", (11.5, 5.6), component_figures.draw_eigenvalues, components)]

    @entry
    def _show_rank(self) -> list[View]:
        candidates = self._data.candidates()
        return [plot("Gain of each component on held-out particles", (9, 6), component_figures.draw_gains, candidates)]

    # ---------------------------------------------------------------- particles

    @entry
    def _show_particles(self) -> list[View]:
        contrast = self._data.latents().contrast
        found = self._data.images(len(contrast))
        values = (found.log_likelihood, found.is_outlier, contrast)
        return [plot("Log-likelihood, contrast and outliers", (10.5, 5.6), images.draw_images, *values)]

    # ---------------------------------------------------------------- resolution, noise, progress

    @entry
    def _show_fsc(self) -> list[View]:
        table = self._data.fsc()
        columns = (table["frequency"], table["fsc_mean"], table["fsc_covariance"])
        return [plot("Resolution of the mean and of the variability", (9, 6), spectra.draw_fsc, *columns)]

    @entry
    def _show_noise(self) -> list[View]:
        table = self._data.noise()
        columns = (table["frequency"], table["noise_variance"], table["group"])
        return [plot("Noise spectrum", (9, 5.6), spectra.draw_noise, *columns)]

    @entry
    def _show_progress(self) -> list[View]:
        metrics = self._data.metrics()
        stages = len(curves_by_stage(metrics))
        if not stages:
            raise UserError(f"No step of the optimisation is done yet. {self._data.progress()}")
        size = (max(3.2 * min(stages, 4), 7.0), 4.8 if stages <= 4 else 7.5)
        return [plot(self._data.progress(), size, spectra.draw_progress, metrics)]

    # ---------------------------------------------------------------- report

    @entry
    def _show_report(self) -> list[View]:
        programs.open_in_browser(self._data.report())
        return []
