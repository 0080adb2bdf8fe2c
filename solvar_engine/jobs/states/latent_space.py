"""The latent space of a finished run, and which of its components distances are measured in."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import Components, read_components, read_latents
from solvar_engine.contract.run import RunDir, require_finished
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.words import counted
from solvar_engine.jobs.states.particles import outliers_of
from solvar_engine.latent import NO_CLUSTER, Clusters, kmeans_clusters, mixture_clusters

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
    is_outlier : ndarray of bool, shape (n,)
        Particles that count for nothing: what their images show is not the molecule.
    """

    z: NDArray[np.float32]
    components: Components
    columns: NDArray[np.intp]
    is_outlier: NDArray[np.bool_]

    @property
    def features(self) -> NDArray[np.float32]:
        """The compared coordinates, shape (n, columns)."""
        return self.z[:, self.columns]

    def cluster(self, n_clusters: int, seed: int) -> Clusters:
        """Group the particles by k-means, outliers in no cluster; the same numbers for every command."""
        return self._without_outliers(kmeans_clusters(self._used, n_clusters, seed=seed, columns=self.columns))

    def cluster_by_mixture(self, n_clusters: int, seed: int) -> Clusters:
        """Group the particles by a mixture of Gaussians, outliers in none."""
        return self._without_outliers(mixture_clusters(self._used, n_clusters, seed=seed, columns=self.columns))

    @property
    def _used(self) -> NDArray[np.float32]:
        return self.z[~self.is_outlier]

    def _without_outliers(self, clusters: Clusters) -> Clusters:
        """Clusters of those that are no outliers, with labels of all."""
        labels = np.full(len(self.z), NO_CLUSTER, dtype=np.int64)
        labels[~self.is_outlier] = clusters.labels
        return replace(clusters, labels=labels)


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
    is_outlier = outliers_of(StarFile.read(run.particles).particles)
    if len(is_outlier) != len(z):
        raise UserError(
            f"{run.particles} has {counted(len(is_outlier), 'particle')} but {run.latents} has {len(z)}: the run is"
            " damaged, fit it again."
        )
    if is_outlier.all():
        raise UserError(f"All particles of {run.path} are outliers: look at the images, and fit again.")
    return LatentSpace(z, components, columns, is_outlier)
