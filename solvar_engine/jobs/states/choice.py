"""Which states are to be reconstructed: clusters, points, or frames along a trajectory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import ReconstructParams
from solvar_engine.contract.results import Reach, read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.words import counted
from solvar_engine.jobs.states.latent_space import LatentSpace
from solvar_engine.jobs.states.points import read_points
from solvar_engine.latent import dense_path, nearest_point, resample_polyline
from solvar_engine.latent.distances import marginal_precision


@dataclass(frozen=True)
class States:
    """The states to reconstruct.

    Attributes
    ----------
    points : ndarray, shape (states, r), float64
        Their latent coordinates.
    owner : ndarray, shape (n,), int64
        State (from 0) that each particle belongs to: its cluster, or the nearest point. Meaningless for outliers.
    is_extrapolated : ndarray of bool, shape (states,)
        States that are far from all particles.
    is_outlier : ndarray of bool, shape (n,)
        Particles that count for none.
    """

    points: NDArray[np.float64]
    owner: NDArray[np.int64]
    is_extrapolated: NDArray[np.bool_]
    is_outlier: NDArray[np.bool_]

    @property
    def n_particles(self) -> NDArray[np.int64]:
        """How many particles belong to each state."""
        return np.bincount(self.owner[~self.is_outlier], minlength=len(self.points))

    @property
    def cautions(self) -> list[str]:
        """What is doubtful of them, in sentences without full stop."""
        numbers = [str(number) for number in np.flatnonzero(self.is_extrapolated) + 1]
        named = f"state{'s' if len(numbers) > 1 else ''} {', '.join(numbers)} of {len(self.points)}"
        return [f"Far from all particles, and so extrapolated: {named}"] if numbers else []


def choose_states(params: ReconstructParams, run: RunDir, space: LatentSpace) -> States:
    """Find the latent coordinates that the options ask for.

    Raises
    ------
    UserError
        If the table of points does not fit the run, or is no path, or a point is far from all particles and the
        options do not allow that.
    """
    clusters, is_outlier = None, space.is_outlier
    reach = Reach.of(read_latents(run.latents), is_outlier)
    if params.clusters is not None:
        clusters = space.cluster(params.clusters, params.seed)
    if params.mixture is not None:
        clusters = space.cluster_by_mixture(params.mixture, params.seed)
    # volumes from the images depend on the compared coordinates only
    columns = space.columns if params.method == "kernel" else np.arange(space.z.shape[1])
    if clusters is not None:
        points, owner = clusters.centres, clusters.labels
    else:
        if params.points is not None:
            points = _points_of_user(params, params.points, reach, columns)
        else:
            points = _trajectory(params, run, space, reach, columns)
        owner = nearest_point(space.features, points[:, space.columns])
    is_extrapolated = reach.excess(points, columns) > 1
    return States(points, owner, is_extrapolated, is_outlier)


def _points_of_user(
    params: ReconstructParams, path: str, reach: Reach, columns: NDArray[np.intp]
) -> NDArray[np.float64]:
    points = read_points(path, reach.z.shape[1])
    if not params.allow_extrapolation:
        reach.refuse_beyond(points, columns, [f"Row {number} of {path}" for number in range(1, len(points) + 1)])
    return points


def _trajectory(
    params: ReconstructParams, run: RunDir, space: LatentSpace, reach: Reach, columns: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Points along the path that the options describe; places between its corners may be empty."""
    if params.trajectory is None:
        name, anchors = str(run.centres), _cluster_centres(params, run, space)
    else:
        name, anchors = params.trajectory, _points_of_user(params, params.trajectory, reach, columns)
    try:
        points = resample_polyline(anchors, params.frames)
        if params.path == "density":
            # other components are not compared: they change evenly along the path
            precision = marginal_precision(read_latents(run.latents).precision[~space.is_outlier], space.columns)
            features = space.features[~space.is_outlier]
            points[:, space.columns] = dense_path(
                anchors[:, space.columns], features, precision, params.frames, seed=params.seed
            )
    except ValueError as error:
        raise UserError(f"{name} is not a path: {error}.") from error
    return points


def _cluster_centres(params: ReconstructParams, run: RunDir, space: LatentSpace) -> NDArray[np.float64]:
    assert params.between is not None  # validate() saw to exactly one kind of states
    if not run.centres.exists():
        raise UserError(f"--between takes the clusters of `analyze`, but {run.centres} does not exist: run it first.")
    centres = read_points(run.centres, space.z.shape[1])
    for cluster in params.between:
        if cluster > len(centres):
            raise UserError(f"--between is {cluster}, but {run.centres} has {counted(len(centres), 'cluster')}.")
    return centres[np.array(params.between) - 1]
