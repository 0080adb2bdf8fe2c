"""The viewer of the pose and contrast refinement: that of the covariance analysis, and what has changed."""

from __future__ import annotations

from typing import Any

from pyworkflow.viewer import View

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import read_images
from solvar_engine.figures import poses
from solvar_plugin.protocols import SolvarProtRefine
from solvar_plugin.viewers.viewer_covariance import SolvarCovarianceViewer
from solvar_plugin.viewers.windows.entries import add_section, entry
from solvar_plugin.viewers.windows.plot_window import plot


class SolvarRefineViewer(SolvarCovarianceViewer):
    """Shows the results of a pose and contrast refinement, also while it is running."""

    _label = "pose and contrast refinement viewer"
    _targets = [SolvarProtRefine]

    def _define_explorer(self, form: Any) -> None:
        super()._define_explorer(form)
        add_section(form, "Poses", self._show_pose_changes, self._show_directions)

    @entry(
        "displayPoseChanges",
        "Changes of orientations and shifts",
        "How far orientations and shifts are from those of the input, beside how uncertain they are.",
        important=True,
    )
    def _show_pose_changes(self) -> list[View]:
        self._data.latents()  # says why, if the fit has not finished
        changes = self._data.images().pose_changes
        if changes is None:
            raise UserError(f"{self._data.run.particles} does not tell how poses have changed: run the protocol again.")
        return [plot("Changes of orientations and shifts", (11, 5.4), poses.draw_pose_changes, changes)]

    @entry(
        "displayDirections",
        "Distribution of orientations",
        "From which directions the molecule was seen, in the input and after the refinement.",
    )
    def _show_directions(self) -> list[View]:
        self._data.latents()
        paths = {"input": self.protocol.getStarPath(), "refined": self._data.run.particles}
        views = {title: read_images(path).view for title, path in paths.items()}
        return [plot("Distribution of orientations", (12, 5.4), poses.draw_directions, views)]
