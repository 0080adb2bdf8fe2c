"""The viewer of the volume reconstruction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyworkflow.viewer import DESKTOP_TKINTER, View

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.run import RunDir
from solvar_engine.figures import coordinates, slices, states
from solvar_plugin.protocols import SolvarProtReconstruct
from solvar_plugin.protocols.reconstruct_form import BETWEEN, KERNEL, TRAJECTORY
from solvar_plugin.viewers.data.state_reader import StateReader
from solvar_plugin.viewers.plots.surface_plots import draw_state_surfaces
from solvar_plugin.viewers.windows.entries import add_button, add_choice, add_level, entry
from solvar_plugin.viewers.windows.latent_entries import DENSITY, LatentEntries
from solvar_plugin.viewers.windows.plot_window import plot
from solvar_plugin.viewers.windows.volume_entries import VolumeEntries

_MARKS = ("Number the states", "Marks where the states lie with their numbers; those along a trajectory are joined.")


class SolvarReconstructViewer(LatentEntries, VolumeEntries):
    """Shows the volumes of states, how good they are, and where in the latent space they lie."""

    _label = "volume reconstruction viewer"
    _targets = [SolvarProtReconstruct]
    _environments = [DESKTOP_TKINTER]

    _data: StateReader

    # ---------------------------------------------------------------- form

    def _defineParams(self, form: Any) -> None:
        protocol = self.protocol
        self._open(StateReader(_run_of(protocol), protocol.getStates(), protocol.getStateKind()))
        self._define_explorer(form)
        form.addSection(label="States")
        add_choice(form, "statesAxis", "Direction", slices.AXES, "Which axis slices lie across and surfaces are seen "
                   "along.")  # fmt: skip
        add_level(form, "statesLevel", "Density at which the surfaces of all states are drawn.")
        for show in (self._show_state_surfaces, self._show_state_slices, self._show_state_table, self._show_state_fsc):
            add_button(form, show)
        self._define_latent(form, DENSITY, _MARKS)
        self._define_volumes(form)

    def _states_to_explore(self) -> Path | None:
        table = self.protocol.getStates().table
        return table.parent if self.protocol.method.get() == KERNEL and table.exists() else None

    # ---------------------------------------------------------------- states

    @entry(
        "displayStateSurfaces",
        "Surfaces of all states",
        "Pictures of the surfaces side by side, from the same direction and at the same level.",
        important=True,
    )
    def _show_state_surfaces(self) -> list[View]:
        volumes, names = self._states()
        options = (self._pixel_size(), self._axis_of_states(), self.statesLevel.get(), self._data.mask())
        return [plot("Surfaces of all states", _size(len(names)), draw_state_surfaces, volumes, names,
                     *options)]  # fmt: skip

    @entry("displayStateSlices", "Central slices of all states", "Side by side, in the same greys.")
    def _show_state_slices(self) -> list[View]:
        volumes, names = self._states()
        options = (self._pixel_size(), self._axis_of_states())
        return [plot("Central slices of all states", _size(len(names)), states.draw_state_slices, volumes, names,
                     *options)]  # fmt: skip

    @entry(
        "displayStateTable",
        "Images and resolution of each state",
        "How many images each volume was made from, and its resolution by the half-maps.",
        important=True,
    )
    def _show_state_table(self) -> list[View]:
        table = self._data.table()
        size = (10.5, min(2.2 + 0.36 * len(table), 8.5))
        return [plot("Images and resolution", size, states.draw_state_table, table, self._data.names(),
                     self._pixel_size())]  # fmt: skip

    @entry(
        "displayStateFsc",
        "Correlation of half-maps (FSC)",
        "Fourier shell correlation of the two half-maps of every state inside the mask of the run.",
    )
    def _show_state_fsc(self) -> list[View]:
        curves = self._data.half_correlations()
        return [plot("Correlation of half-maps", (10.5, 6), states.draw_state_fsc, *curves, self._data.names())]

    def _states(self) -> tuple[list[Any], list[str]]:
        """The first volumes, as many as pictures fit into a window, and their names."""
        names = self._data.names()[: states.MAX_PICTURES]
        return [self._data.state(number) for number in range(1, len(names) + 1)], names

    def _pixel_size(self) -> float:
        return self._data.read(self._data.volumes()[0]).pixel_size

    def _axis_of_states(self) -> str:
        return slices.AXES[self.statesAxis.get()]

    # ---------------------------------------------------------------- latent space

    def _places(self, x: coordinates.Axis, y: coordinates.Axis) -> coordinates.Places | None:
        """Where the states lie on two components."""
        choices = [self.xAxis.get(), self.yAxis.get()]
        points = self._data.table().points
        if max(choices) >= points.shape[1]:
            return None  # nothing is known of places on a UMAP
        is_path = self.protocol.states.get() in (TRAJECTORY, BETWEEN)
        return coordinates.Places(points[:, choices], f"the states ({self._data.kind}s)", is_path)


def _run_of(protocol: Any) -> RunDir:
    """Return the run; one that is not there if it is gone, whose entries then say so."""
    try:
        return protocol.getRunDir()
    except UserError:
        return RunDir(Path(protocol._getExtraPath("run")))


def _size(count: int) -> tuple[float, float]:
    """Size of a window with pictures of so many states, inches of 100 pixels."""
    rows, columns = states.grid_of(count)
    return min(max(2.5 * columns, 6.5), 13.0), min(2.7 * rows + 1.0, 8.5)
