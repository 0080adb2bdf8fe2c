"""The viewer of the covariance analysis: a form whose entries open plots, pictures and other programs."""

from __future__ import annotations

from typing import Any

import pyworkflow.protocol.params as params
from pyworkflow.viewer import DESKTOP_TKINTER, View

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import StateFolder, curves_by_stage
from solvar_engine.figures import components as component_figures
from solvar_engine.figures import images, spectra
from solvar_plugin.protocols import SolvarProtCovariance
from solvar_plugin.viewers.data.run_reader import RunReader
from solvar_plugin.viewers.windows import programs
from solvar_plugin.viewers.windows.entries import add_section, entry
from solvar_plugin.viewers.windows.latent_entries import LatentEntries
from solvar_plugin.viewers.windows.motion_entries import MotionEntries
from solvar_plugin.viewers.windows.plot_window import plot
from solvar_plugin.viewers.windows.volume_entries import VolumeEntries


class SolvarCovarianceViewer(LatentEntries, VolumeEntries, MotionEntries):
    """Shows the results of a covariance analysis, also while it is running."""

    _label = "covariance analysis viewer"
    _targets = [SolvarProtCovariance]
    _environments = [DESKTOP_TKINTER]

    # ---------------------------------------------------------------- form

    def _defineParams(self, form: Any) -> None:
        protocol = self.protocol
        self._open(RunReader(protocol.getRunDir(), protocol.getPointsPath(), StateFolder(protocol.getStatesFolder())))
        self._define_explorer(form)
        add_section(form, "Components", self._show_eigenvalues, self._show_rank)
        self._define_latent(form)
        add_section(form, "Particles", self._show_particles)
        add_section(form, "Resolution and noise", self._show_fsc, self._show_noise, self._show_progress)
        self._define_volumes(form)
        self._define_motions(form)
        add_section(form, "Report", self._show_report)
        # told here too, for where no browser comes up
        form.addParam(
            "reportPath",
            params.LabelParam,
            label=f"The report is the file {self._data.run.report.resolve()}",
            help="Open this file in a browser of your choice, or copy it: it needs no other file.",
        )

    # ---------------------------------------------------------------- components

    @entry(
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
    def _show_eigenvalues(self) -> list[View]:
        components = self._components()
        return [plot("Eigenvalues and reproducibility", (11.5, 5.6), component_figures.draw_eigenvalues, components)]

    @entry(
        "displayRank",
        "Gain of each component, beside that of decoys",
        "By how much each component raises the log-likelihood of particles that had no part in finding it, beside what "
        "components without any meaning do. An automatic number of components is chosen by this.",
    )
    def _show_rank(self) -> list[View]:
        candidates = self._data.candidates()
        return [plot("Gain of each component on held-out particles", (9, 6), component_figures.draw_gains, candidates)]

    # ---------------------------------------------------------------- particles

    @entry(
        "displayParticles",
        "Log-likelihood, contrast and outliers",
        "How well the model explains each particle, how strong the molecule is in its image, and which particles are "
        "flagged as outliers. To see where they lie in the latent space, colour it by log-likelihood or outliers.",
        important=True,
    )
    def _show_particles(self) -> list[View]:
        contrast = self._data.latents().contrast
        found = self._data.images(len(contrast))
        values = (found.log_likelihood, found.is_outlier, contrast)
        return [plot("Log-likelihood, contrast and outliers", (10.5, 5.6), images.draw_images, *values)]

    # ---------------------------------------------------------------- resolution, noise, progress

    @entry(
        "displayFsc",
        "Resolution (FSC)",
        "Fourier shell correlation of the two half-set means, and of the variability that the two halves found (the "
        "diagonal of the covariance). The resolution is read off at 0.143.",
        important=True,
    )
    def _show_fsc(self) -> list[View]:
        table = self._data.fsc()
        columns = (table["frequency"], table["fsc_mean"], table["fsc_covariance"])
        return [plot("Resolution of the mean and of the variability", (9, 6), spectra.draw_fsc, *columns)]

    @entry(
        "displayNoise",
        "Noise spectrum",
        "Variance of the noise in the images at each resolution, one line per optics group.",
    )
    def _show_noise(self) -> list[View]:
        table = self._data.noise()
        columns = (table["frequency"], table["noise_variance"], table["group"])
        return [plot("Noise spectrum", (9, 5.6), spectra.draw_noise, *columns)]

    @entry(
        "displayProgress",
        "Progress of the optimisation",
        "What the fit lowers, against time. It can be looked at while the protocol is running.",
    )
    def _show_progress(self) -> list[View]:
        metrics = self._data.metrics()
        stages = len(curves_by_stage(metrics))
        if not stages:
            raise UserError(f"No step of the optimisation is done yet. {self._data.progress()}")
        size = (max(3.2 * min(stages, 4), 7.0), 4.8 if stages <= 4 else 7.5)
        return [plot(self._data.progress(), size, spectra.draw_progress, metrics)]

    # ---------------------------------------------------------------- report

    @entry(
        "displayReport",
        "Report in the browser",
        "One page with all figures and an explanation of each, which can be sent to others as it is.",
        important=True,
    )
    def _show_report(self) -> list[View]:
        programs.open_in_browser(self._data.report())
        return []
