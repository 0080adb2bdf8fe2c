"""``reconstruct``: volumes of states of a finished run."""

from __future__ import annotations

import logging
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.contrib.logging import logging_redirect_tqdm

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import ReconstructParams
from solvar_engine.contract.results import (
    StateFolder,
    StateTable,
    read_structure,
    refuse_without_structure,
    write_owners,
    write_states,
)
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.status import StatusTracker
from solvar_engine.contract.words import counted
from solvar_engine.data.volumes import read_volume, write_volume
from solvar_engine.imaging.types import Volume
from solvar_engine.jobs.decisions import with_cautions
from solvar_engine.jobs.running.plans import require_disk
from solvar_engine.jobs.running.progress import Progress
from solvar_engine.jobs.running.tracking import has_finished_states, track_states, tracked
from solvar_engine.jobs.states.checkpoint import StateCheckpoint, StateSummary, check_finished, describe_call
from solvar_engine.jobs.states.choice import States, choose_states
from solvar_engine.jobs.states.files import write_particles_of_states
from solvar_engine.jobs.states.kernel_problem import SETUP_STEPS, KernelProblem, set_up
from solvar_engine.jobs.states.kernel_volumes import KernelState, reconstruct_state
from solvar_engine.jobs.states.latent_space import LatentSpace, open_latent_space
from solvar_engine.jobs.states.plan import plan_linear_states
from solvar_engine.reconstruction.sharpening import sharpen

logger = logging.getLogger(__name__)


def run(params: ReconstructParams) -> None:
    """Write the volumes of states, their particles, and the table of states.

    DIR/status.json says how far it is and how it ended; a folder that is refused because it is not empty is not
    touched. One that holds nothing but the status of a call that failed counts as empty. With ``resume``, kernel
    volumes that an interrupted call has finished are kept.

    Parameters
    ----------
    params : ReconstructParams
        The options; ``method`` linear: volume = mean + sum over j of z_j times eigenvolume j; kernel: by kernel
        regression from the images, with half-maps.

    Raises
    ------
    UserError
        If an option is out of range, the folder is not a finished run, the fit kept no component, the table
        of points or the particles do not fit the run, the output folder is not empty, or memory or a disk is too
        small.

    Examples
    --------
    >>> run(ReconstructParams(run="run", output="states", clusters=10))  # doctest: +SKIP
    """
    params.validate()
    output, run_dir = Path(params.output), RunDir(params.run)
    if params.resume and has_finished_states(params.output):
        _, states = _choose(params, run_dir)
        check_finished(StateFolder(output), describe_call(params, run_dir, states.points))
        logger.info("%s is finished: nothing to do", output)
        return
    with tracked(track_states(params.output, params.resume)) as status:
        space, states = _choose(params, run_dir)
        method = _kernel_states if params.method == "kernel" else _linear_states
        with logging_redirect_tqdm([logging.getLogger("solvar_engine")]):
            for caution in states.cautions:
                logger.warning(caution)
            cautions = [*method(params, run_dir, space, states, status), *states.cautions]
    made = f"{counted(len(states.points), 'volume')} and states.csv are in {output}"
    sys.stdout.write(f"{with_cautions(made, cautions)}\n")


def _choose(params: ReconstructParams, run_dir: RunDir) -> tuple[LatentSpace, States]:
    space = open_latent_space(run_dir)
    if not space.z.shape[1]:
        refuse_without_structure(run_dir)
        if read_structure(run_dir) is not None:
            raise UserError(
                f"The run in {run_dir.path} found a structure, but sought no motions: start `fit --refine-poses` with"
                f" {run_dir.particles}."
            )
        raise UserError(f"The fit in {run_dir.path} kept no component: its only state is {run_dir.mean}.")
    return space, choose_states(params, run_dir, space)


def _kernel_states(
    params: ReconstructParams, run_dir: RunDir, space: LatentSpace, states: States, status: StatusTracker
) -> list[str]:
    count, files = len(states.points), StateFolder(Path(params.output))
    done = StateCheckpoint.open(files, describe_call(params, run_dir, states.points))
    if done.states:
        logger.info("%d of %d states are finished and kept", len(done.states), count)
    with closing(Progress(status, count + SETUP_STEPS)) as progress:
        problem = set_up(params, run_dir, space, count - len(done.states), files.path, progress)
        done.save()
        write_particles_of_states(files, run_dir, problem.stack, problem.row, states, problem.is_outlier)
        _write_owners(files, states, problem.is_outlier)
        progress.to(SETUP_STEPS + len(done.states))
        for number in range(len(done.states) + 1, count + 1):
            progress.stage(f"state {number} of {count}")
            state = reconstruct_state(problem, states.points[number - 1])
            _write_state(files, number, state, problem)
            done.add(StateSummary(state.images_used, state.resolution, state.b_factor))
            used_images = counted(state.images_used, "image")
            logger.info("State %d: %.1f Angstrom from %s", number, state.resolution, used_images)
            progress.advance()
        cautions = (*problem.cautions, *states.cautions)
        done.finish(files, cautions)  # volumes that were sharpened must not be taken for such that were not
        resolution = [state.resolution for state in done.states]
        _sharpen(params, files, [state.b_factor for state in done.states], float(np.median(resolution)))
        used = np.array([state.images_used for state in done.states])
        write_states(files, StateTable(states.points, used, np.array(resolution), states.is_extrapolated))
        made = f"{counted(count, 'volume')} at {min(resolution):.1f} to {max(resolution):.1f} Angstrom"
        progress.finish(with_cautions(made, cautions))
    return list(problem.cautions)


def _write_state(files: StateFolder, number: int, state: KernelState, problem: KernelProblem) -> None:
    scale = problem.scale
    scale.write(files.volume(number), state.volume)
    scale.write(files.half(number, 1), state.half1)
    scale.write(files.half(number, 2), state.half2)
    scale.write(files.local_resolution(number), state.local_resolution, scale=1.0)


def _sharpen(params: ReconstructParams, files: StateFolder, fitted: list[float | None], resolution: float) -> None:
    """Sharpen all volumes alike, up to one resolution: states must not differ by their sharpening."""
    b_factor = params.fixed_b_factor
    if params.b_factor == "auto":
        known = [value for value in fitted if value is not None]
        if not known:
            logger.warning("No B-factor: there is too little between 10 Angstrom and the resolution to fit one to.")
        else:
            b_factor = float(np.median(known))
            logger.info("B-factor %.0f Angstrom^2, the median over the states", b_factor)
    if b_factor is not None:
        for number in range(1, len(fitted) + 1):
            volume = read_volume(files.volume(number))
            sharp = sharpen(volume.data, b_factor, volume.pixel_size, resolution)
            write_volume(files.volume(number), Volume(sharp, volume.pixel_size))


def _linear_states(
    params: ReconstructParams, run_dir: RunDir, space: LatentSpace, states: States, status: StatusTracker
) -> list[str]:
    files = StateFolder(Path(params.output))
    mean, eigenvolumes = _read_model(run_dir, space.z.shape[1])
    plan = plan_linear_states(mean.box_size, len(eigenvolumes), len(states.points), len(space.z))
    logger.info(
        "%s of %d voxels a side: %.0f MB of memory, %.0f MB of disk, a few seconds.",
        counted(len(states.points), "volume"),
        mean.box_size,
        plan.memory_bytes / 1e6,
        plan.disk_bytes / 1e6,
    )
    require_disk(plan, files.path, files.path, "reconstruction")
    with closing(Progress(status, len(states.points))) as progress:
        progress.stage("volumes")
        for number, point in enumerate(states.points, start=1):
            write_volume(files.volume(number), linear_state(mean, eigenvolumes, point))
            progress.advance()
        _write_owners(files, states, states.is_outlier)
        # a linear state has no half-maps of its own, and so no resolution
        unknown = np.full(len(states.points), np.nan)
        write_states(files, StateTable(states.points, states.n_particles, unknown, states.is_extrapolated))
        progress.finish(with_cautions(counted(len(states.points), "volume"), states.cautions))
    return []


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


def _write_owners(files: StateFolder, states: States, is_outlier: NDArray[np.bool_]) -> None:
    """Write which state each particle of the run belongs to; outliers, shape (n,), belong to none."""
    rows = np.flatnonzero(~is_outlier)
    write_owners(files, rows, states.owner[rows] + 1)
