"""`simulate`: write a data set whose truth is known."""

from __future__ import annotations

import logging
import math
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import prepare_output_folder, write_csv
from solvar_engine.contract.params import SIMULATED_BOX, SIMULATED_PIXEL_SIZE, SimulateParams
from solvar_engine.contract.star import StarFile, StarTable, rotation_to_relion
from solvar_engine.contract.words import counted
from solvar_engine.data.mrc import StackWriter
from solvar_engine.data.volumes import write_volume
from solvar_engine.imaging.types import Ctf, Pose, Volume
from solvar_engine.jobs.running.devices import compute_device, device_name
from solvar_engine.jobs.simulate.files import DataSetFiles
from solvar_engine.jobs.simulate.maps import read_map_molecule
from solvar_engine.simulation.additions import additions
from solvar_engine.simulation.effects import MicroscopeEffects
from solvar_engine.simulation.maps import can_project_maps
from solvar_engine.simulation.molecules import Molecule
from solvar_engine.simulation.neighbours import equivalent_diameter
from solvar_engine.simulation.noise import noise_amplitude
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
from solvar_engine.simulation.phantoms import make_phantom

logger = logging.getLogger(__name__)

PARTICLES_PER_MICROGRAPH = 100


def run(params: SimulateParams) -> None:
    """Simulate particles of a molecule and write them with their truth.

    Raises
    ------
    UserError
        If the output folder is not empty or its disk is too small, or maps cannot be used.
    """
    data_set = _DataSet.plan(params)
    mask = data_set.mask()
    files = DataSetFiles(prepare_output_folder(params.output))
    _announce(data_set, files.path)
    particles = draw_particles(
        data_set.molecule,
        params.particles,
        data_set.box_size,
        data_set.pixel_size,
        params.seed,
        contrast_std=params.contrast_std,
        rotation_error_deg=params.rotation_error,
        shift_error_px=params.shift_error,
        effects=data_set.effects,
    )
    scale = _write_images(files.stack, data_set, particles, equivalent_diameter(mask))
    _write_truth(files, data_set, particles, mask, scale)
    shutil.copyfile(files.truth.mask, files.mask)
    _write_star(files.particles, files.stack.name, data_set, particles.given_pose, particles.given_ctf)
    logger.info(
        "Wrote %d particles of %s in %s to %s",
        params.particles,
        data_set.molecule.name,
        counted(len(data_set.molecule.population), "state"),
        files.path,
    )


@dataclass(frozen=True)
class _DataSet:
    """What is to be simulated, and at what sampling."""

    params: SimulateParams
    molecule: Molecule
    box_size: int
    pixel_size: float

    @classmethod
    def plan(cls, params: SimulateParams) -> _DataSet:
        """Make the molecule, or read it."""
        if params.uses_maps:
            device = compute_device(params)
            if not can_project_maps(device):
                device = "cpu"
            maps = read_map_molecule(params.phantom, params.box, params.pixel_size, device)
            return cls(params, maps, maps.box_size, maps.pixel_size)
        molecule = make_phantom(params.phantom[0]).to(compute_device(params))
        return cls(params, molecule, params.box or SIMULATED_BOX, params.pixel_size or SIMULATED_PIXEL_SIZE)

    @property
    def effects(self) -> MicroscopeEffects:
        """What the user asks for beyond white noise."""
        names = [field.name for field in fields(MicroscopeEffects)]
        return MicroscopeEffects(**{name: getattr(self.params, name) for name in names})

    def mask(self) -> torch.Tensor:
        """Soft mask around all states.

        Raises
        ------
        UserError
            If a map shows no molecule.
        """
        try:
            return self.molecule.mask(self.box_size).cpu()
        except ValueError as error:
            raise UserError(f"--phantom: {error}: give maps that are brighter than their surroundings.") from error


def _announce(data_set: _DataSet, folder: Path) -> None:
    """State what the run needs, and refuse a disk that is too small."""
    box_size, particles, states = data_set.box_size, data_set.params.particles, len(data_set.molecule.population)
    voxels, cost = box_size**3, data_set.molecule.cost(box_size)
    disk = 4.0 * (particles * box_size**2 + (states + 4) * voxels) + 600.0 * particles  # and the tables
    signal = 4.0 * math.pi * data_set.molecule.band(box_size) ** 2  # half a disk of complex numbers
    memory = 250e6 + cost.memory_bytes + 40.0 * voxels + 1000.0 * particles + min(signal * particles, KEPT_BYTES)
    # the images, then transforms and noise; constants measured on one core
    passes = 1.0 + max(0.0, 1.0 - KEPT_BYTES / (signal * particles))
    passes += 4.0 * data_set.effects.neighbours + data_set.effects.junk  # fields of neighbours have four times the area
    on_cpu = data_set.molecule.device.type == "cpu"
    seconds = particles * (passes * cost.seconds_per_image * on_cpu + 1e-7 * box_size**2) / torch.get_num_threads()
    seconds += states * (0.03 + 1e-7 * voxels)
    logger.info("Computing on %s", device_name(str(data_set.molecule.device)))
    logger.info(
        "Simulating %d images of %d px: expecting about %.0f s, %.0f MB of memory and %.0f MB of disk",
        particles,
        box_size,
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


def _write_images(path: Path, data_set: _DataSet, particles: SimulatedParticles, diameter: float) -> float:
    """Write the stack; return the unit of the molecule, by which the volumes are to be multiplied."""
    params, effects = data_set.params, data_set.effects
    model = ImageModel(data_set.molecule, particles, data_set.box_size, data_set.pixel_size)
    amplitude = None
    if effects.coloured_noise:
        amplitude = noise_amplitude(effects.coloured_noise, data_set.box_size, data_set.pixel_size)
        amplitude = amplitude.to(data_set.molecule.device)
    with tqdm(total=2 * params.particles, desc="images", unit="", disable=None) as bar:
        scale = float(np.sqrt(params.snr / signal_variance(model, bar.update)))
        added = additions(model, effects, scale, params.snr, diameter, params.seed)
        with StackWriter(path, data_set.pixel_size) as stack:
            for images in noisy_images(model, scale, params.seed, added, amplitude):
                stack.append(images)
                bar.update(len(images))
    return scale


def _write_truth(
    files: DataSetFiles, data_set: _DataSet, particles: SimulatedParticles, mask: torch.Tensor, scale: float
) -> None:
    """Write volumes, mean, mask, states and true poses."""
    molecule, box_size, pixel_size, truth = data_set.molecule, data_set.box_size, data_set.pixel_size, files.truth
    truth.volumes.mkdir(parents=True)
    shown = particles.state[~particles.is_junk].numpy()
    share = np.bincount(shown, minlength=len(molecule.population)) / len(shown)
    mean = torch.zeros(box_size, box_size, box_size, dtype=torch.float64)
    for state in tqdm(range(len(share)), desc="volumes", unit="", disable=None):
        volume = (scale * molecule.volume(state, box_size)).cpu()
        mean += share[state] * volume.double()
        write_volume(truth.volume(state + 1), Volume(volume, pixel_size))
    write_volume(truth.mean, Volume(mean.float(), pixel_size))
    write_volume(truth.mask, Volume(mask, pixel_size))
    coordinates = molecule.coordinates[particles.state.numpy()]
    columns = {
        "particle": np.arange(len(particles)),
        "state": particles.state.numpy() + 1,
        "contrast": particles.contrast.numpy(),
        **{f"coordinate_{axis + 1}": column for axis, column in enumerate(coordinates.T)},
    }
    if data_set.effects.junk:
        columns["junk"] = particles.is_junk.numpy().astype(np.int64)
    write_csv(truth.states, columns)
    _write_star(truth.particles, files.stack.name, data_set, particles.pose, particles.ctf)


def _write_star(
    path: Path, stack_name: str, data_set: _DataSet, pose: Pose, ctf: Ctf
) -> None:
    """Write the particles with one set of poses and defoci as RELION 3.1 does.

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
            "rlnImagePixelSize": [data_set.pixel_size],
            "rlnImageSize": [data_set.box_size],
            "rlnImageDimensionality": [2],
        },
    )
    rows = range(len(pose))
    rot, tilt, psi = rotation_to_relion(pose.rotation.numpy())
    columns: dict[str, Any] = {
        "rlnImageName": [f"{row + 1:06d}@{stack_name}" for row in rows],
        "rlnMicrographName": [f"micrograph_{row // PARTICLES_PER_MICROGRAPH + 1:05d}.mrc" for row in rows],
        "rlnOpticsGroup": np.ones(len(pose), dtype=np.int64),
        "rlnAngleRot": rot,
        "rlnAngleTilt": tilt,
        "rlnAnglePsi": psi,
        "rlnOriginXAngst": pose.shift[:, 0].numpy(),
        "rlnOriginYAngst": pose.shift[:, 1].numpy(),
        "rlnDefocusU": ctf.defocus_u.numpy(),
        "rlnDefocusV": ctf.defocus_v.numpy(),
        "rlnDefocusAngle": ctf.defocus_angle.numpy(),
    }
    StarFile((optics, StarTable.create("particles", columns))).write(path)
