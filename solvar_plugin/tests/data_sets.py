"""Small data sets that the tests make themselves, and how they get into a Scipion project."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from pwem.protocols import ProtImportParticles

from solvar_engine.contract.star import StarFile, StarTable
from solvar_plugin import Plugin

VOLTAGES = (300.0, 200.0)
SPHERICAL_ABERRATIONS = (2.7, 1.4)
AMPLITUDE_CONTRASTS = (0.1, 0.07)
PIXEL_SIZE = 2.5


def run_engine(*arguments: Any, cwd: Any = None) -> str:
    """Run a command of the installed engine, and return what it says; an error of it is an error of the test."""
    words = " ".join(shlex.quote(str(argument)) for argument in arguments)
    command = f"{Plugin.getActivation()}{Plugin.getEngineProgram()} {words}"
    done = subprocess.run(
        command, shell=True, cwd=cwd, env=Plugin.getEnviron(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def simulate(folder: Path, **options: Any) -> Path:
    """Simulate particles with the engine, and return the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    run_engine("simulate", "--output", folder, *words)
    return folder


def two_optics_groups(folder: Path, count: int = 40, box: int = 16, seed: int = 1) -> Path:
    """Write particles of two microscopes with phase plates, in two stacks of the same name, and return the STAR file.

    The images are noise: this is about metadata.
    """
    shutil.rmtree(folder, ignore_errors=True)
    random = np.random.default_rng(seed)
    half = count // 2
    names = ("first", "second")
    for name in names:
        (folder / name).mkdir(parents=True)
        with mrcfile.new(folder / name / "particles.mrcs") as file:
            file.set_data(random.normal(size=(half, box, box)).astype(np.float32))
            file.voxel_size = PIXEL_SIZE
    rows = range(count)
    defocus = random.uniform(8000, 20000, count)
    particles = StarTable.create(
        "particles",
        {
            "rlnImageName": [f"{row % half + 1:06d}@{names[row // half]}/particles.mrcs" for row in rows],
            "rlnMicrographName": [f"micrographs/m{row // 10:03d}.mrc" for row in rows],
            "rlnCoordinateX": random.uniform(100, 3000, count),
            "rlnCoordinateY": random.uniform(100, 3000, count),
            "rlnOpticsGroup": [1 if row < half else 2 for row in rows],
            "rlnAngleRot": random.uniform(-180, 180, count),
            "rlnAngleTilt": random.uniform(0, 180, count),
            "rlnAnglePsi": random.uniform(-180, 180, count),
            "rlnOriginXAngst": random.normal(size=count) * 3,
            "rlnOriginYAngst": random.normal(size=count) * 3,
            "rlnDefocusU": defocus + random.uniform(-300, 300, count),
            "rlnDefocusV": defocus,
            "rlnDefocusAngle": random.uniform(0, 180, count),
            "rlnPhaseShift": random.uniform(30, 120, count),
            "rlnRandomSubset": random.integers(1, 3, count),
        },
    )
    optics = StarTable.create(
        "optics",
        {
            "rlnOpticsGroupName": ["krios", "talos"],
            "rlnOpticsGroup": [1, 2],
            "rlnVoltage": VOLTAGES,
            "rlnSphericalAberration": SPHERICAL_ABERRATIONS,
            "rlnAmplitudeContrast": AMPLITUDE_CONTRASTS,
            "rlnImagePixelSize": [PIXEL_SIZE, PIXEL_SIZE],
            "rlnImageSize": [box, box],
            "rlnImageDimensionality": [2, 2],
        },
    )
    path = folder / "particles.star"
    StarFile((optics, particles)).write(path)
    return path


def import_particles(test: Any, star: Path, pixel_size: float, label: str = "import", **options: Any) -> Any:
    """Import a STAR file into the project of a test, as a user does, and return the protocol."""
    protocol = test.newProtocol(
        ProtImportParticles,
        importFrom=ProtImportParticles.IMPORT_FROM_RELION,
        starFile=os.path.abspath(star),
        samplingRate=pixel_size,
        magnification=50000,
        **{"haveDataBeenPhaseFlipped": False, **options},
    )
    protocol.setObjLabel(label)
    test.launchProtocol(protocol)
    return protocol
