"""Which states are to be reconstructed: clusters, points, or frames along a trajectory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import ReconstructParams
from solvar_engine.jobs.latent_space import LatentSpace
from solvar_engine.jobs.points import read_points
from solvar_engine.latent import nearest_point, resample_polyline


@dataclass(frozen=True)
class States:
    """The states to reconstruct.

    Attributes
    ----------
    points : ndarray, shape (states, r), float64
        Their latent coordinates.
    owner : ndarray, shape (n,), int64
        State (from 0) that each particle belongs to: its cluster, or the nearest point.
    """

    points: NDArray[np.float64]
    owner: NDArray[np.int64]

    @property
    def n_particles(self) -> NDArray[np.int64]:
        """How many particles belong to each state."""
        return np.bincount(self.owner, minlength=len(self.points))


def choose_states(params: ReconstructParams, space: LatentSpace) -> States:
    """Find the latent coordinates that the options ask for.

    Raises
    ------
    UserError
        If the table of points does not fit the run, or is no path.
    """
    if params.clusters is not None:
        clusters = space.cluster(params.clusters, params.seed)
        return States(clusters.centres, clusters.labels)
    n_components = space.z.shape[1]
    if params.points is not None:
        points = read_points(params.points, n_components)
    else:
        assert params.trajectory is not None  # validate() saw to exactly one
        anchors = read_points(params.trajectory, n_components)
        try:
            points = resample_polyline(anchors, params.frames)
        except ValueError as error:
            raise UserError(f"{params.trajectory} is not a path: {error}.") from error
    return States(points, nearest_point(space.features, points[:, space.columns]))
