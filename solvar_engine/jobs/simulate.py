"""`simulate`: write a data set whose truth is known."""

from __future__ import annotations

import logging
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import prepare_output_folder, write_csv
from solvar_engine.contract.params import SimulateParams
from solvar_engine.contract.star import StarFile, StarTable, rotation_to_relion
from solvar_engine.data.mrc import StackWriter
from solvar_engine.data.volumes import write_volume
from solvar_engine.imaging.types import Pose, Volume
from solvar_engine.jobs.simulated_files import DataSetFiles, TruthFiles
from solvar_engine.simulation.masks import union_mask
from solvar_engine.simulation.particles import (
    AMPLITUDE_CONTRAST,
    CS,
    KEPT_BYTES,
    VOLTAGE,
    ImageModel,
    SimulatedParticles,
    draw_particles,
    noisy_images,
    signal_variance,
)
from solvar_engine.simulation.phantoms import Phantom, make_phantom
from solvar_engine.simulation.projections import atom_band, atom_volume

logger = logging.getLogger(__name__)

PARTICLES_PER_MICROGRAPH = 100


def run(params: SimulateParams) -> None:
    """Simulate particles of a phantom and write them with their truth.

    Parameters
    ----------
    params : SimulateParams

    Raises
    ------
    UserError
        If the output folder is not empty or its disk is too small.
    """
    phantom = make_phantom(params.phantom)
    files = DataSetFiles(prepare_output_folder(params.output))
    _announce(params, phantom, files.path)
    particles = draw_particles(
        phantom,
        params.particles,
        params.box,
        params.pixel_size,
        params.seed,
        contrast_std=params.contrast_std,
        rotation_error_deg=params.rotation_error,
        shift_error_px=params.shift_error,
    )
    scale = _write_images(files.stack, ImageModel(phantom, particles, params.box, params.pixel_size), params)
    _write_truth(files.truth, phantom, particles, scale, params)
    shutil.copyfile(files.truth.mask, files.mask)
    _write_star(files.particles, files.stack.name, particles, particles.given_pose, params)
    logger.info(
        "Wrote %d particles of %s in %d states to %s",
        params.particles,
        phantom.name,
        phantom.n_states,
        files.path,
    )


def _announce(params: SimulateParams, phantom: Phantom, folder: Path) -> None:
    """State what the run needs, and refuse a disk that is too small."""
    voxels, band = params.box**3, atom_band(params.box, phantom.sigma)
    values = params.particles * params.box**2 + (phantom.n_states + 4) * voxels
    disk = 4.0 * values + 600.0 * params.particles  # and the tables
    signal = 4.0 * math.pi * band**2  # half a disk of complex numbers
    memory = 300e6 + 40.0 * voxels + 1000.0 * params.particles + min(signal * params.particles, KEPT_BYTES)
    # sines and sums over all atoms, then transforms and noise; constants measured on one core
    passes = 1.0 + max(0.0, 1.0 - KEPT_BYTES / (signal * params.particles))
    waves = phantom.atoms.shape[1] * (band + 1)
    seconds = params.particles * (passes * 3e-8 * waves + 1e-7 * params.box**2) / torch.get_num_threads()
    seconds += phantom.n_states * (0.03 + 1e-7 * voxels)
    logger.info(
        "Simulating %d images of %d px: expecting about %.0f s, %.0f MB of memory and %.0f MB of disk",
        params.particles,
        params.box,
        seconds,
        memory / 1e6,
        disk / 1e6,
    )
    free = shutil.disk_usage(folder).free
    if free < disk:
        raise UserError(
            f"The data set needs {disk / 1e6:.0f} MB, but only {free / 1e6:.0f} MB are free in {folder}:"
            " simulate fewer particles or choose another disk for --output."
        )


def _write_images(path: Path, model: ImageModel, params: SimulateParams) -> float:
    """Write the stack; return the mass of an atom, by which the volumes are to be multiplied."""
    with tqdm(total=2 * params.particles, desc="images", unit="", disable=None) as bar:
        scale = float(np.sqrt(params.snr / signal_variance(model, bar.update)))
        with StackWriter(path, params.pixel_size) as stack:
            for images in noisy_images(model, scale, params.seed):
                stack.append(images)
                bar.update(len(images))
    return scale


def _write_truth(
    files: TruthFiles, phantom: Phantom, particles: SimulatedParticles, scale: float, params: SimulateParams
) -> None:
    """Write volumes, mean, mask, states and true poses."""
    files.volumes.mkdir(parents=True)
    share = np.bincount(particles.state.numpy(), minlength=phantom.n_states) / len(particles)
    mean = torch.zeros(params.box, params.box, params.box, dtype=torch.float64)
    for state in tqdm(range(phantom.n_states), desc="volumes", unit="", disable=None):
        volume = scale * atom_volume(phantom.atoms[state], phantom.mass[state], params.box, phantom.sigma)
        mean += share[state] * volume.double()
        write_volume(files.volume(state + 1), Volume(volume, params.pixel_size))
    write_volume(files.mean, Volume(mean.float(), params.pixel_size))
    write_volume(files.mask, Volume(union_mask(phantom, params.box), params.pixel_size))
    coordinates = phantom.coordinates[particles.state.numpy()]
    columns = {
        "particle": np.arange(len(particles)),
        "state": particles.state.numpy() + 1,
        "contrast": particles.contrast.numpy(),
        **{f"coordinate_{axis + 1}": column for axis, column in enumerate(coordinates.T)},
    }
    write_csv(files.states, columns)
    _write_star(files.particles, DataSetFiles(params.output).stack.name, particles, particles.pose, params)


def _write_star(
    path: Path, stack_name: str, particles: SimulatedParticles, pose: Pose, params: SimulateParams
) -> None:
    """Write the particles with one set of poses as RELION 3.1 does.

    Both lists name images alike, so that they can be joined; the one in ``truth`` is read with ``--root``.
    """
    optics = StarTable.create(
        "optics",
        {
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnOpticsGroup": [1],
            "rlnVoltage": [VOLTAGE],
            "rlnSphericalAberration": [CS],
            "rlnAmplitudeContrast": [AMPLITUDE_CONTRAST],
            "rlnImagePixelSize": [params.pixel_size],
            "rlnImageSize": [params.box],
            "rlnImageDimensionality": [2],
        },
    )
    rows = range(len(particles))
    rot, tilt, psi = rotation_to_relion(pose.rotation.numpy())
    columns: dict[str, Any] = {
        "rlnImageName": [f"{row + 1:06d}@{stack_name}" for row in rows],
        "rlnMicrographName": [f"micrograph_{row // PARTICLES_PER_MICROGRAPH + 1:05d}.mrc" for row in rows],
        "rlnOpticsGroup": np.ones(len(particles), dtype=np.int64),
        "rlnAngleRot": rot,
        "rlnAngleTilt": tilt,
        "rlnAnglePsi": psi,
        "rlnOriginXAngst": pose.shift[:, 0].numpy(),
        "rlnOriginYAngst": pose.shift[:, 1].numpy(),
        "rlnDefocusU": particles.ctf.defocus_u.numpy(),
        "rlnDefocusV": particles.ctf.defocus_v.numpy(),
        "rlnDefocusAngle": particles.ctf.defocus_angle.numpy(),
    }
    StarFile((optics, StarTable.create("particles", columns))).write(path)
