"""The viewer of the covariance analysis: a form whose entries open plots, pictures and other programs."""

from __future__ import annotations

from typing import Any, Callable

from pyworkflow.viewer import DESKTOP_TKINTER, View

from solvar_engine.contract.errors import UserError
from solvar_plugin.protocols import SolvarProtCovariance
from solvar_plugin.viewers import component_plots, curves, programs, quality
from solvar_plugin.viewers.covariance_sections import define_form
from solvar_plugin.viewers.entries import entry
from solvar_plugin.viewers.form import Choices
from solvar_plugin.viewers.latent_entries import LatentEntries
from solvar_plugin.viewers.run_data import RunData
from solvar_plugin.viewers.volume_entries import VolumeEntries, chimerax_program
from solvar_plugin.viewers.windows import plot


class SolvarCovarianceViewer(LatentEntries, VolumeEntries):
    """Shows the results of a covariance analysis, also while it is running."""

    _label = "covariance analysis viewer"
    _targets = [SolvarProtCovariance]
    _environments = [DESKTOP_TKINTER]

    # ---------------------------------------------------------------- form

    def _defineParams(self, form: Any) -> None:
        protocol = self.protocol
        self._data = RunData(protocol.getRunDir(), protocol.getPointsPath(), protocol.getStatesFolder())
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
        return [plot("Eigenvalues and reproducibility", (11.5, 5.6), component_plots.draw_eigenvalues, components)]

    @entry
    def _show_rank(self) -> list[View]:
        table = self._data.rank_table()
        return [plot("Gain of each component on held-out particles", (9, 6), quality.draw_rank, table)]

    # ---------------------------------------------------------------- particles

    @entry
    def _show_particles(self) -> list[View]:
        contrast = self._data.latents().contrast
        log_likelihood, is_outlier = self._data.fit_of_particles(len(contrast))
        values = (log_likelihood, is_outlier, contrast)
        return [plot("Log-likelihood, contrast and outliers", (10.5, 5.6), quality.draw_particles, *values)]

    # ---------------------------------------------------------------- resolution, noise, progress

    @entry
    def _show_fsc(self) -> list[View]:
        table = self._data.fsc()
        columns = (table["frequency"], table["fsc_mean"], table["fsc_covariance"])
        return [plot("Resolution of the mean and of the variability", (9, 6), curves.draw_fsc, *columns)]

    @entry
    def _show_noise(self) -> list[View]:
        table = self._data.noise()
        columns = (table["frequency"], table["noise_variance"], table["group"])
        return [plot("Noise spectrum", (9, 5.6), curves.draw_noise, *columns)]

    @entry
    def _show_progress(self) -> list[View]:
        metrics = self._data.metrics()
        stages = len(curves.curves_by_stage(metrics))
        if not stages:
            raise UserError(f"No step of the optimisation is done yet. {self._data.progress()}")
        size = (max(3.2 * min(stages, 4), 7.0), 4.8 if stages <= 4 else 7.5)
        return [plot(self._data.progress(), size, curves.draw_progress, metrics)]

    # ---------------------------------------------------------------- report

    @entry
    def _show_report(self) -> list[View]:
        programs.open_in_browser(self._data.report())
        return []
