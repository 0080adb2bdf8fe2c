"""The viewer of particles with latent coordinates: where they lie, also those of a subset."""

from __future__ import annotations

from typing import Any

import numpy as np
from pwem.objects import SetOfParticlesFlex
from pyworkflow.viewer import DESKTOP_TKINTER, View, Viewer

from solvar_engine.contract.errors import UserError
from solvar_engine.figures import coordinates, histograms, latent, style
from solvar_plugin.constants import FLEX_PROGRAM
from solvar_plugin.protocols.protocol_from_run import run_of
from solvar_plugin.viewers.windows.explorer import start_explorer
from solvar_plugin.viewers.windows.plot_window import plot


class _ViewerOfParticles(Viewer):
    """Base of the viewers of particles that this plugin made; Scipion offers them beside its own viewer."""

    _environments = [DESKTOP_TKINTER]

    @classmethod
    def can_handle_this_instance(cls, instance: Any) -> bool:
        """Whether the particles come from this plugin."""
        return instance.getFlexInfo().getProgName() == FLEX_PROGRAM


class SolvarExplorerViewer(_ViewerOfParticles):
    """Opens the explorer of the run that particles come from."""

    _name = "SOLVAR explorer"
    _targets = [SetOfParticlesFlex]

    def _visualize(self, obj: Any, **kwargs: Any) -> list[View]:
        try:
            start_explorer(run_of(obj))
        except UserError as error:
            return [self.errorMessage(str(error), "SOLVAR")]
        return []


class SolvarParticlesViewer(_ViewerOfParticles):
    """Plots the latent coordinates of particles."""

    _name = "SOLVAR latent space"
    _targets = [SetOfParticlesFlex]

    def _visualize(self, obj: Any, **kwargs: Any) -> list[View]:
        try:
            z, contrast = read_coordinates(obj)
        except UserError as error:
            return [self.errorMessage(str(error), "SOLVAR")]
        axes = [
            coordinates.Axis(z[:, index], name, f"z{style.subscript(index + 1)}, coordinate along {name}")
            for index, name in enumerate(f"component {number}" for number in range(1, z.shape[1] + 1))
        ]
        title = f"{len(z):,} particles of {obj.getObjLabel() or obj.getNameId() or 'the set'}"
        if len(axes) == 1:
            return [plot(title, (7.5, 5.5), histograms.draw_histograms, axes)]
        drawing = coordinates.choose_drawing(len(z))
        coloring = coordinates.Coloring(contrast, "contrast of the image") if drawing == coordinates.POINTS else None
        return [plot(title, (10, 8.3), latent.draw_latent, axes[0], axes[1], coloring, drawing)]


def read_coordinates(particles: Any) -> tuple[np.ndarray, np.ndarray]:
    """Read the latent coordinates of a set in one go, since item by item takes minutes for large sets.

    Returns
    -------
    z : ndarray, shape (n, r)
        r at least 1.
    contrast : ndarray, shape (n,)

    Raises
    ------
    UserError
        If the particles have no coordinates.
    """
    if not particles.getSize():
        raise UserError("The set has no particles.")
    # with the id, no two rows are alike
    rows = particles.getUniqueValues(["id", "_zFlex", "_solvarContrast"])
    texts = rows["_zFlex"]
    if not all(texts):
        raise UserError("The particles have no latent coordinates: no reproducible variability was found.")
    z = np.array(",".join(texts).split(","), dtype=float).reshape(len(texts), -1)
    return z, np.array(rows["_solvarContrast"], dtype=float)
