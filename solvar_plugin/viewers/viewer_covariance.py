"""The viewer of the covariance analysis: a form whose entries open plots, pictures and other programs."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy as np
import pyworkflow.utils as pwutils
from pwem.viewers import EmProtocolViewer
from pwem.viewers.viewer_chimera import Chimera
from pyworkflow.viewer import DESKTOP_TKINTER, View

from solvar_engine.contract.errors import UserError
from solvar_plugin import Plugin
from solvar_plugin.protocols import SolvarProtCovariance
from solvar_plugin.protocols.summaries import NO_VARIABILITY
from solvar_plugin.viewers import curves, latent, programs, quality, slices, style, surface_plots
from solvar_plugin.viewers.form import (
    AUTOMATIC,
    CLUSTER,
    CONTRAST,
    DRAWINGS,
    LOG_LIKELIHOOD,
    OUTLIER,
    UNCERTAINTY,
    Choices,
    define_form,
)
from solvar_plugin.viewers.run_data import COMPONENT, MASK, Components, RunData, VolumeEntry
from solvar_plugin.viewers.surfaces import automatic_level
from solvar_plugin.viewers.windows import plot

MILLISECONDS_PER_FRAME = 110
EDGE_OF_MASK = 0.5

NO_FIT_OF_PARTICLES = (
    "This run does not tell how well the model explains each particle: run the protocol again with this version, or "
    "colour by something else."
)
RUN_HAS_CHANGED = "The run has gone on since this window was opened: close it and open it again."


def entry(method: Callable[[Any], list[View]]) -> Callable[..., list[View]]:
    """Make an entry of the form from a method that returns views: what cannot be shown becomes a message."""

    @wraps(method)
    def wrapper(self: Any, paramName: str | None = None) -> list[View]:
        try:
            with _busy(self.getTkRoot()):
                return method(self)
        except (UserError, OSError) as error:
            return [self.errorMessage(str(error), "SOLVAR")]

    return wrapper


@contextmanager
def _busy(window: Any) -> Iterator[None]:
    """Show the clock as the cursor of a Tk window, if there is one."""
    if window is None:
        yield
        return
    window.config(cursor="watch")
    window.update_idletasks()
    try:
        yield
    finally:
        window.config(cursor="")


class SolvarCovarianceViewer(EmProtocolViewer):
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
            has_chimerax=_chimerax() is not None,
            report=str(self._data.run.report.resolve()),
        )
        define_form(form, choices)

    def _known_volumes(self) -> list[VolumeEntry]:
        """Volumes that can be chosen, as far as the run goes."""
        try:
            return self._data.volumes()
        except UserError:
            return self._data.basic_volumes()

    def _known_components(self) -> list[str]:
        """Names of the components, as far as the run goes."""
        try:
            components = self._data.components()
        except UserError:
            return []
        return [components.title(index) for index in range(len(components))]

    def _leading(self) -> tuple[int, int]:
        """Positions of the two components that are shown first: those without a label before the others."""
        if len(self._component_names) < 2:
            return 0, 0
        labels = self._data.components().label
        first, second = sorted(sorted(range(len(labels)), key=lambda index: bool(labels[index]))[:2])
        return first, second

    def _axis_names(self) -> list[str]:
        """Axes that can be chosen."""
        umap = ["UMAP 1", "UMAP 2"] if self._data.has_embedding() and self._component_names else []
        return [*self._component_names, *umap]

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

    # ---------------------------------------------------------------- components, latent space

    @entry
    def _show_eigenvalues(self) -> list[View]:
        components = self._components()
        return [plot("Eigenvalues and reproducibility", (11.5, 5.6), curves.draw_eigenvalues, components)]

    @entry
    def _show_rank(self) -> list[View]:
        return [
            plot("Gain of each component on held-out particles", (9, 6), quality.draw_rank, self._data.rank_table())
        ]

    @entry
    def _show_latent(self) -> list[View]:
        components, latents = self._chosen_from(), self._data.latents()
        x, y = (self._axis(choice, components, latents.z) for choice in (self.xAxis.get(), self.yAxis.get()))
        if x.name == y.name:
            return [plot(f"Particles along {x.name}", (7.5, 5.5), latent.draw_histograms, [x])]
        title = f"Particles along {x.name} and {y.name}"
        drawing = None if self.drawAs.get() == AUTOMATIC else DRAWINGS[self.drawAs.get()]
        coloring = self._coloring(components, latents)
        centres = self._centres(x, y) if self.showCentres.get() else None
        marks = self._outlier_marks(len(latents.z)) if self.colourBy.get() == OUTLIER else None
        return [plot(title, (10, 8.3), latent.draw_latent, x, y, coloring, drawing, centres, marks)]

    @entry
    def _show_histograms(self) -> list[View]:
        components, z = self._components(), self._data.latents().z
        rows, columns = latent.histograms_shape(len(components))
        size = (max(3.1 * columns, 6.5), 1.4 + 2.3 * rows)
        axes = [latent.component_axis(components, z, index) for index in range(len(components))]
        return [plot("Particles along each component", size, latent.draw_histograms, axes)]

    def _components(self) -> Components:
        """Components of the run, of which there must be one."""
        components = self._data.components()
        if not len(components):
            raise UserError(NO_VARIABILITY)
        return components

    def _chosen_from(self) -> Components:
        """Components of the run, which must be those that the form offers."""
        components = self._components()
        if self._component_names != self._known_components():
            raise UserError(RUN_HAS_CHANGED)
        return components

    def _axis(self, choice: int, components: Components, z: np.ndarray) -> latent.Axis:
        """Coordinates along a chosen axis."""
        if choice < len(components):
            return latent.component_axis(components, z, choice)
        return latent.umap_axis(self._data.embedding(len(z)), choice - len(components))

    def _coloring(self, components: Components, latents: Any) -> latent.Coloring | None:
        """What the colours of the particles say; None for their number."""
        choice = self.colourBy.get()
        if choice == CLUSTER:
            return latent.Coloring(self._data.clusters(len(latents.z)), "cluster", is_category=True)
        if choice == CONTRAST:
            return latent.Coloring(latents.contrast, "contrast of the image")
        if choice == UNCERTAINTY:
            shown = self._shown_components(components)
            names = ", ".join(f"z{style.subscript(index + 1)}" for index in shown)
            values = latent.uncertainty(latents.precision, shown)
            return latent.Coloring(values, f"posterior standard deviation of {names}")
        if choice == LOG_LIKELIHOOD:
            log_likelihood, _ = self._data.fit_of_particles(len(latents.z))
            if log_likelihood is None:
                raise UserError(NO_FIT_OF_PARTICLES)
            return latent.Coloring(log_likelihood, "log-likelihood of the image")
        return None

    def _outlier_marks(self, count: int) -> latent.Marks:
        """Which particles are flagged."""
        _, is_outlier = self._data.fit_of_particles(count)
        if is_outlier is None:
            raise UserError(NO_FIT_OF_PARTICLES)
        return latent.Marks(is_outlier, "outliers")

    def _shown_components(self, components: Components) -> list[int]:
        """0-based components on the axes; for the UMAP those that it was made from."""
        chosen = sorted({choice for choice in (self.xAxis.get(), self.yAxis.get()) if choice < len(components)})
        if chosen:
            return chosen
        return np.flatnonzero(components.is_reproducible).tolist() or list(range(len(components)))

    def _centres(self, x: latent.Axis, y: latent.Axis) -> np.ndarray | None:
        """Positions of the cluster centres on two axes; None if there are no clusters yet."""
        choices = [self.xAxis.get(), self.yAxis.get()]
        centres = self._data.centres()
        if centres is not None and max(choices) < centres.shape[1]:
            return centres[:, choices]
        if not self._data.has_clusters():
            return None
        points = np.stack([x.values, y.values], axis=1)
        return latent.middles_of_clusters(points, self._data.clusters(len(points)))

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

    # ---------------------------------------------------------------- volumes

    @entry
    def _show_slices(self) -> list[View]:
        chosen = self._entry()
        volume = self._data.read(chosen)
        mask = None if chosen.kind == MASK else self._data.mask()
        options = (volume.data, volume.pixel_size, mask, chosen.kind == COMPONENT)
        return [plot(_title(chosen.name, "central slices and sums"), (11.5, 8.4), slices.draw_slices, *options)]

    @entry
    def _show_montage(self) -> list[View]:
        chosen = self._entry()
        volume = self._data.read(chosen)
        axis, count = slices.AXES[self.montageAxis.get()], self.montageCount.get()
        rows, columns = slices.montage_shape(count)
        size = (min(max(2.1 * columns + 1.4, 6.5), 13), min(max(2.1 * rows + 0.8, 5), 8.7))
        options = (volume.data, volume.pixel_size, axis, count, self._data.mask(), chosen.kind == COMPONENT)
        return [plot(_title(chosen.name, f"slices across {axis}"), size, slices.draw_montage, *options)]

    @entry
    def _show_surface(self) -> list[View]:
        chosen = self._entry()
        volume, level = self._data.read(chosen), self.volumeLevel.get()
        title, size = _title(chosen.name, "surface"), (13, 5.4)
        if chosen.kind == COMPONENT:
            options = (volume.data, self._data.mean().data, volume.pixel_size, level, self._data.mask())
            return [plot(title, size, surface_plots.draw_component, *options)]
        if chosen.kind == MASK and level is None:
            level = EDGE_OF_MASK
        options = (volume.data, volume.pixel_size, level, self._data.mask())
        return [plot(title, size, surface_plots.draw_surface, *options)]

    @entry
    def _show_chimerax(self) -> list[View]:
        program = _chimerax()
        if program is None:
            return [self.infoMessage(programs.CHIMERAX_ADVICE, "SOLVAR")]
        chosen, level = self._entry(), self.volumeLevel.get()
        volume = self._data.read(chosen).data
        script = self._file("chimerax.cxc")
        if chosen.kind == COMPONENT:
            limit = max(float(np.percentile(np.abs(volume), 99.8)), 1e-12)
            ends = self._data.ends_of(self.volumeChoice.get() - len(self._data.basic_volumes()))
            level = automatic_level(self._data.mean().data, self._data.mask())
            programs.component_script(script, self._data.run.mean, chosen.path, level, limit, ends)
        else:
            automatic = EDGE_OF_MASK if chosen.kind == MASK else automatic_level(volume, self._data.mask())
            programs.volume_script(script, chosen.path, automatic if level is None else level)
        programs.start_chimerax(program, script, Plugin.getEnviron())
        return []

    def _entry(self) -> VolumeEntry:
        """The chosen volume."""
        return self._entries[self.volumeChoice.get()]

    def _file(self, name: str) -> Path:
        """Path of a file that the viewer makes, beside the results of the protocol."""
        folder = self.protocol._getExtraPath("viewer")
        pwutils.makePath(folder)
        return Path(folder).resolve() / name

    # ---------------------------------------------------------------- motions

    @entry
    def _show_motion(self) -> list[View]:
        name, mean, change = self._motion()
        extent, level = self.motionExtent.get(), self.motionLevel.get()
        options = (mean.data, change, mean.pixel_size, extent, level, self._data.mask())
        return [plot(_title(name, "both ends of the motion"), (12, 8.8), surface_plots.draw_motion, *options)]

    @entry
    def _show_movie(self) -> list[View]:
        name, mean, change = self._motion()
        extent, level = self.motionExtent.get(), self.motionLevel.get()
        position, frames = surface_plots.movie_frames(mean.data, change, extent, level, self._data.mask())
        path = self._file(f"component_{self.motionComponent.get() + 1:03d}.gif")
        surface_plots.write_gif(path, frames, MILLISECONDS_PER_FRAME)
        options = (position, frames, MILLISECONDS_PER_FRAME, f"Saved for your slides as {path}")
        return [plot(_title(name, "movie of the motion"), (12, 5.4), surface_plots.draw_movie, *options)]

    def _motion(self) -> tuple[str, Any, np.ndarray]:
        """Name of the chosen component, the mean, and what one standard deviation along the component changes."""
        components = self._chosen_from()
        index = self.motionComponent.get()
        change = self._data.eigenvolume(index) * components.deviation(index)
        return components.title(index), self._data.mean(), change

    # ---------------------------------------------------------------- report

    @entry
    def _show_report(self) -> list[View]:
        programs.open_in_browser(self._data.report())
        return []


def _chimerax() -> str | None:
    """Path of the ChimeraX program, if it is installed."""
    return programs.find_chimerax([os.environ.get("CHIMERA_HOME"), Chimera.getHome()])


def _title(name: str, what: str) -> str:
    """Title of a picture: what of which volume."""
    return f"{name[0].upper()}{name[1:]}: {what}"
