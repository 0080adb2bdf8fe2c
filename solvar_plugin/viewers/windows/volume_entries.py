"""The section of the viewers that shows volumes."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pyworkflow.protocol.params as params
from pwem.viewers.viewer_chimera import Chimera
from pyworkflow.viewer import View

from solvar_engine.contract.errors import UserError
from solvar_engine.figures import slices
from solvar_plugin import Plugin
from solvar_plugin.viewers.data.volume_files import COMPONENT, MASK, VolumeEntry
from solvar_plugin.viewers.plots import surface_plots
from solvar_plugin.viewers.plots.surface_levels import automatic_level
from solvar_plugin.viewers.windows import programs
from solvar_plugin.viewers.windows.entries import RunViewer, add_button, add_choice, add_level, entry
from solvar_plugin.viewers.windows.plot_window import plot

EDGE_OF_MASK = 0.5
MAX_SLICES = 48


class VolumeEntries(RunViewer):
    """Entries of the section 'Volumes'.

    Attributes
    ----------
    _entries : list of VolumeEntry
        As the form offers them, fixed when it was opened.
    """

    _entries: list[VolumeEntry]

    def _define_volumes(self, form: Any) -> None:
        """Add the section of the volumes."""
        form.addSection(label="Volumes")
        self._entries = self._known_volumes()
        add_choice(
            form,
            "volumeChoice",
            "Volume",
            [volume.name for volume in self._entries],
            "The mean map, its half-maps, the mask, an eigenvolume (what is added to the mean along a component), or "
            "one of the states. Volumes of a running protocol appear when this window is opened again.",
        )
        add_button(form, self._show_slices)
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
        add_button(form, self._show_montage)
        add_level(form, "volumeLevel", "Density at which the surface of the volume is drawn.")
        add_button(form, self._show_surface)
        if chimerax_program() is not None:
            add_button(form, self._show_chimerax)
        else:
            advice = f"{self._show_chimerax.button['help']}\n\n{programs.CHIMERAX_ADVICE}"
            add_button(form, self._show_chimerax, label="Open in ChimeraX (not found, see help)", help=advice)

    def _known_volumes(self) -> list[VolumeEntry]:
        """Volumes that can be chosen, as far as the run goes."""
        try:
            return self._data.volumes()
        except UserError:
            return self._data.basic_volumes()

    @entry(
        "displaySlices",
        "Central slices and projections",
        "Slices through the centre of the box across z, y and x, and the sums along these axes.",
    )
    def _show_slices(self) -> list[View]:
        chosen = self._entry()
        volume = self._data.read(chosen)
        mask = None if chosen.kind == MASK else self._data.mask()
        options = (volume.data, volume.pixel_size, mask, chosen.kind == COMPONENT)
        return [plot(title_of(chosen.name, "central slices and sums"), (11.5, 8.4), slices.draw_slices, *options)]

    @entry("displayMontage", "Montage of slices", "Many slices side by side, as chosen above.")
    def _show_montage(self) -> list[View]:
        chosen = self._entry()
        volume = self._data.read(chosen)
        axis, count = slices.AXES[self.montageAxis.get()], self.montageCount.get()
        rows, columns = slices.montage_shape(count)
        size = (min(max(2.1 * columns + 1.4, 6.5), 13), min(max(2.1 * rows + 0.8, 5), 8.7))
        options = (volume.data, volume.pixel_size, axis, count, self._data.mask(), chosen.kind == COMPONENT)
        return [plot(title_of(chosen.name, f"slices across {axis}"), size, slices.draw_montage, *options)]

    @entry(
        "displaySurface",
        "Surface from three directions",
        "A picture of the surface, made without any other program. For an eigenvolume: red is density that appears and "
        "blue density that disappears as the coordinate grows, with the mean as a pale veil.",
        important=True,
    )
    def _show_surface(self) -> list[View]:
        chosen = self._entry()
        volume, level = self._data.read(chosen), self.volumeLevel.get()
        title, size = title_of(chosen.name, "surface"), (13, 5.4)
        if chosen.kind == COMPONENT:
            options = (volume.data, self._data.mean().data, volume.pixel_size, level, self._data.mask())
            return [plot(title, size, surface_plots.draw_component, *options)]
        if chosen.kind == MASK and level is None:
            level = EDGE_OF_MASK
        options = (volume.data, volume.pixel_size, level, self._data.mask())
        return [plot(title, size, surface_plots.draw_surface, *options)]

    @entry(
        "displayChimerax",
        "Open in ChimeraX",
        "Starts ChimeraX with the chosen volume at the same level. For an eigenvolume: the mean coloured by it, and "
        "both ends of the motion.",
    )
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


def chimerax_program() -> str | None:
    """Path of the ChimeraX program, if it is installed."""
    return programs.find_chimerax([os.environ.get("CHIMERA_HOME"), Chimera.getHome()])


def title_of(name: str, what: str) -> str:
    """Title of a picture: what of which volume."""
    return f"{name[0].upper()}{name[1:]}: {what}"
