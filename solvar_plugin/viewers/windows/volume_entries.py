"""The sections of the viewer that show volumes and what moves in them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from pwem.viewers.viewer_chimera import Chimera
from pyworkflow.viewer import View

from solvar_engine.contract.errors import UserError
from solvar_engine.figures import slices
from solvar_plugin import Plugin
from solvar_plugin.viewers.data.volume_files import COMPONENT, MASK, VolumeEntry
from solvar_plugin.viewers.plots import motion_plots, surface_plots
from solvar_plugin.viewers.plots.surface_levels import automatic_level
from solvar_plugin.viewers.windows import programs
from solvar_plugin.viewers.windows.entries import RunViewer, entry
from solvar_plugin.viewers.windows.plot_window import plot

MILLISECONDS_PER_FRAME = 110
EDGE_OF_MASK = 0.5


class VolumeEntries(RunViewer):
    """Entries of the sections 'Volumes' and 'Motions'.

    Attributes
    ----------
    _entries : list of VolumeEntry
        As the form offers them, fixed when it was opened.
    """

    _entries: list[VolumeEntry]

    def _known_volumes(self) -> list[VolumeEntry]:
        """Volumes that can be chosen, as far as the run goes."""
        try:
            return self._data.volumes()
        except UserError:
            return self._data.basic_volumes()

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
        program = chimerax_program()
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

    @entry
    def _show_motion(self) -> list[View]:
        name, mean, change = self._motion()
        extent, level = self.motionExtent.get(), self.motionLevel.get()
        options = (mean.data, change, mean.pixel_size, extent, level, self._data.mask())
        return [plot(_title(name, "both ends of the motion"), (12, 8.8), motion_plots.draw_motion, *options)]

    @entry
    def _show_movie(self) -> list[View]:
        name, mean, change = self._motion()
        extent, level = self.motionExtent.get(), self.motionLevel.get()
        position, frames = motion_plots.movie_frames(mean.data, change, extent, level, self._data.mask())
        path = self._file(f"component_{self.motionComponent.get() + 1:03d}.gif")
        motion_plots.write_gif(path, frames, MILLISECONDS_PER_FRAME)
        options = (position, frames, MILLISECONDS_PER_FRAME, f"Saved for your slides as {path}")
        return [plot(_title(name, "movie of the motion"), (12, 5.4), motion_plots.draw_movie, *options)]

    def _motion(self) -> tuple[str, Any, np.ndarray]:
        """Name of the chosen component, the mean, and what one standard deviation along the component changes."""
        components = self._chosen_from()
        index = self.motionComponent.get()
        change = self._data.eigenvolume(index) * components.deviation(index)
        return components.title(index), self._data.mean(), change


def chimerax_program() -> str | None:
    """Path of the ChimeraX program, if it is installed."""
    return programs.find_chimerax([os.environ.get("CHIMERA_HOME"), Chimera.getHome()])


def _title(name: str, what: str) -> str:
    """Title of a picture: what of which volume."""
    return f"{name[0].upper()}{name[1:]}: {what}"
