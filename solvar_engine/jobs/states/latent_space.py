"""The latent space of a finished run, and which of its components distances are measured in."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import Components, read_components, read_latents
from solvar_engine.contract.run import RunDir, require_finished
from solvar_engine.contract.words import counted
from solvar_engine.latent import Clusters, kmeans_clusters, mixture_clusters

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LatentSpace:
    """Where the particles of a run lie.

    Attributes
    ----------
    z : ndarray, shape (n, r), float32
        Latent coordinates.
    components : Components
        The table of eigenvalues, r rows.
    columns : ndarray of int
        The columns of z (0-based) in which particles are compared: the reproducible components, or all where
        none is. The others hold noise, which would blur groups and neighbourhoods.
    """

    z: NDArray[np.float32]
    components: Components
    columns: NDArray[np.intp]

    @property
    def features(self) -> NDArray[np.float32]:
        """The compared coordinates, shape (n, columns)."""
        return self.z[:, self.columns]

    def cluster(self, n_clusters: int, seed: int) -> Clusters:
        """Group the particles by k-means; the same numbers for every command."""
        return kmeans_clusters(self.z, n_clusters, seed=seed, columns=self.columns)

    def cluster_by_mixture(self, n_clusters: int, seed: int) -> Clusters:
        """Group the particles by a mixture of Gaussians."""
        return mixture_clusters(self.z, n_clusters, seed=seed, columns=self.columns)


def open_latent_space(run: RunDir) -> LatentSpace:
    """Read the latents of a finished run.

    Returns
    -------
    LatentSpace
        With r = 0 if the fit kept no component.

    Raises
    ------
    UserError
        If the folder is no run, its fit is not finished, or its files do not belong together.

    Examples
    --------
    >>> open_latent_space(RunDir("run")).z.shape  # doctest: +SKIP
    (10000, 6)
    """
    require_finished(run)
    components = read_components(run.eigenvalues)
    z = read_latents(run.latents).z
    if z.shape[1] != len(components):
        raise UserError(
            f"{run.eigenvalues} has {counted(len(components), 'component')} but {run.latents} has {z.shape[1]}: "
            "the run is damaged, fit it again."
        )
    is_bad = ~np.isfinite(z).all(axis=1)
    if is_bad.any():
        raise UserError(
            f"{run.latents} holds a value that is not a number for particle {int(is_bad.argmax()) + 1}: "
            "the run is damaged, fit it again."
        )
    columns = components.compared
    if len(components) and not components.is_reproducible.any():
        logger.warning("No component is reproducible: clusters and map mostly show noise.")
    elif len(columns) < len(components):
        logger.info(
            "Particles are compared in the reproducible components only: %s.",
            ", ".join(str(column + 1) for column in columns),
        )
    return LatentSpace(z, components, columns)
