"""The section of the viewer that shows what moves along a component."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyworkflow.protocol.params as params
from pyworkflow.viewer import View

from solvar_plugin.viewers.plots import motion_plots
from solvar_plugin.viewers.windows.entries import RunViewer, add_button, add_choice, add_level, entry
from solvar_plugin.viewers.windows.plot_window import plot
from solvar_plugin.viewers.windows.volume_entries import title_of

MILLISECONDS_PER_FRAME = 110
EXTENTS = (0.1, 5.0)
"""Least and largest distance of a state from the mean, standard deviations."""


class MotionEntries(RunViewer):
    """Entries of the section 'Motions'."""

    def _define_motions(self, form: Any) -> None:
        """Add the section."""
        form.addSection(label="Motions")
        add_choice(
            form,
            "motionComponent",
            "Component",
            self._component_names,
            "The component along which the molecule is shown. One with a remark in brackets must not be interpreted as "
            "a motion.",
            self._leading()[0],
        )
        form.addParam(
            "motionExtent",
            params.FloatParam,
            default=2.0,
            validators=[params.Range(*EXTENTS, f"should be a number from {EXTENTS[0]:g} to {EXTENTS[1]:g}")],
            label="Extent (standard deviations)",
            help="How far to go from the mean to either side, in standard deviations of the particles along the "
            "component. Most particles lie within 2.",
        )
        add_level(form, "motionLevel", "Density at which the surfaces of all states are drawn.")
        add_button(form, self._show_motion)
        add_button(form, self._show_movie)

    @entry(
        "displayMotion",
        "Both ends of the motion",
        "Surfaces of the mean minus and plus the extent along the component, alone and over each other, and the mean "
        "coloured by what changes, from three directions.",
        important=True,
    )
    def _show_motion(self) -> list[View]:
        name, mean, change = self._motion()
        extent, level = self.motionExtent.get(), self.motionLevel.get()
        options = (mean.data, change, mean.pixel_size, extent, level, self._data.mask())
        return [plot(title_of(name, "both ends of the motion"), (12, 8.8), motion_plots.draw_motion, *options)]

    @entry(
        "displayMovie",
        "Movie of the motion",
        "Plays the motion from one end to the other and back, and saves it as an animated GIF for slides; where is "
        "written below the pictures. It takes some seconds to make.",
    )
    def _show_movie(self) -> list[View]:
        name, mean, change = self._motion()
        extent, level = self.motionExtent.get(), self.motionLevel.get()
        position, frames = motion_plots.movie_frames(mean.data, change, extent, level, self._data.mask())
        path = self._file(f"component_{self.motionComponent.get() + 1:03d}.gif")
        motion_plots.write_gif(path, frames, MILLISECONDS_PER_FRAME)
        options = (position, frames, MILLISECONDS_PER_FRAME, f"Saved for your slides as {path}")
        return [plot(title_of(name, "movie of the motion"), (12, 5.4), motion_plots.draw_movie, *options)]

    def _motion(self) -> tuple[str, Any, np.ndarray]:
        """Name of the chosen component, the mean, and what one standard deviation along the component changes."""
        components = self._chosen_from()
        index = self.motionComponent.get()
        change = self._data.eigenvolume(index) * components.deviation(index)
        return components.title(index), self._data.mean(), change
