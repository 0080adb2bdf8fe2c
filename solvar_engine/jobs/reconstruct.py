"""``reconstruct``: volumes of states of a finished run."""

from __future__ import annotations

import logging
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import write_csv
from solvar_engine.contract.params import ReconstructParams
from solvar_engine.contract.run import RunDir
from solvar_engine.data.volumes import read_volume, write_volume
from solvar_engine.imaging.types import Volume
from solvar_engine.jobs.latent_space import LatentSpace, open_latent_space
from solvar_engine.jobs.points import read_points
from solvar_engine.jobs.progress import Progress
from solvar_engine.jobs.tracking import track_states, tracked
from solvar_engine.latent import nearest_point, resample_polyline

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class States:
    """The states to reconstruct.

    Attributes
    ----------
    points : ndarray, shape (states, r), float64
        Their latent coordinates.
    n_particles : ndarray, shape (states,), int
        How many particles belong to each: the members of a cluster, or those nearest to the point.
    """

    points: NDArray[np.float64]
    n_particles: NDArray[np.int64]


def run(params: ReconstructParams) -> None:
    """Write one volume per state, and the table of states.

    DIR/status.json says how far it is and how it ended; a folder that is refused because it is not empty is not
    touched. One that holds nothing but the status of a call that failed counts as empty.

    Parameters
    ----------
    params : ReconstructParams
        The options; ``method`` linear: volume = mean + sum over j of z_j times eigenvolume j.

    Raises
    ------
    UserError
        If an option is out of range, the folder is not a finished run, the fit kept no component, the table
        of points does not fit the run, or the output folder is not empty.

    Examples
    --------
    >>> run(ReconstructParams(run="run", output="states", clusters=10))  # doctest: +SKIP
    """
    params.validate()
    output = Path(params.output)
    with tracked(track_states(params.output)) as status:
        run_dir = RunDir(params.run)
        space = open_latent_space(run_dir)
        if not space.z.shape[1]:
            raise UserError(f"The fit in {run_dir.path} kept no component: its only state is {run_dir.mean}.")
        states = _choose_states(params, space)
        mean, eigenvolumes = _read_model(run_dir, space.z.shape[1])
        _announce(len(states.points), len(eigenvolumes), mean)
        with closing(Progress(status, len(states.points))) as progress:
            progress.stage("volumes")
            for number, point in enumerate(states.points, start=1):
                write_volume(output / f"state_{number:03d}.mrc", linear_state(mean, eigenvolumes, point))
                progress.advance()
            _write_table(output / "states.csv", states)
            progress.finish(f"{len(states.points)} volumes")
    sys.stdout.write(f"{len(states.points)} volumes and states.csv are in {output}\n")


def _announce(n_states: int, n_components: int, mean: Volume) -> None:
    """Say what the volumes will need."""
    logger.info(
        "%d volumes of %d voxels a side: %.0f MB of memory, %.0f MB of disk, a few seconds.",
        n_states,
        mean.box_size,
        (n_components + 3) * mean.data.numel() * 4 / 1e6,
        n_states * mean.data.numel() * 4 / 1e6,
    )


def linear_state(mean: Volume, eigenvolumes: torch.Tensor, point: NDArray[np.floating]) -> Volume:
    """Return the volume at a point of the latent space, mean + sum_j z_j u_j.

    Parameters
    ----------
    mean : Volume
        The mean, (z, y, x).
    eigenvolumes : Tensor, shape (r, z, y, x), float32
        Unit-norm eigenvolumes.
    point : ndarray, shape (r,)
        Latent coordinates.

    Returns
    -------
    Volume
        Of the mean's box and pixel size.

    Examples
    --------
    >>> mean = Volume(torch.zeros(4, 4, 4), 3.0)
    >>> linear_state(mean, torch.ones(1, 4, 4, 4), np.array([2.0])).data.max()
    tensor(2.)
    """
    coordinates = torch.as_tensor(point, dtype=torch.float32)
    return Volume(mean.data + torch.tensordot(coordinates, eigenvolumes, dims=1), mean.pixel_size)


def _choose_states(params: ReconstructParams, space: LatentSpace) -> States:
    """Find the latent coordinates that the options ask for."""
    if params.clusters is not None:
        clusters = space.cluster(params.clusters, params.seed)
        return States(clusters.centres, clusters.sizes)
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
    owner = nearest_point(space.features, points[:, space.columns])
    return States(points, np.bincount(owner, minlength=len(points)))


def _read_model(run_dir: RunDir, n_components: int) -> tuple[Volume, torch.Tensor]:
    """Read the mean and all eigenvolumes, (r, z, y, x)."""
    mean = read_volume(run_dir.mean)
    eigenvolumes = torch.empty((n_components, *mean.data.shape), dtype=torch.float32)
    for index in range(n_components):
        path = run_dir.eigenvolume(index + 1)
        eigenvolume = read_volume(path).data
        if eigenvolume.shape != mean.data.shape:
            raise UserError(f"{path} and {run_dir.mean} differ in box: the run is damaged, fit it again.")
        eigenvolumes[index] = eigenvolume
    return mean, eigenvolumes


def _write_table(path: Path, states: States) -> None:
    """Write states.csv; the resolution is blank, since a linear state has no half-maps of its own."""
    coordinates = {f"z_{axis}": column for axis, column in enumerate(states.points.T, start=1)}
    write_csv(
        path,
        {
            "state": np.arange(1, len(states.points) + 1),
            **coordinates,
            "images_used": states.n_particles,
            "resolution": [None] * len(states.points),
        },
    )
