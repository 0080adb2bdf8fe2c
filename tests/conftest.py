"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.data.mrc import StackWriter

if not torch.cuda.is_available():
    # Triton's interpreter stands in for a card; Triton must know before it is imported, wherever that happens first.
    os.environ["TRITON_INTERPRET"] = "1"

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def one_thread_beside_other_workers() -> None:
    """Let the libraries compute on one thread where pytest-xdist runs tests beside each other."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import numba

        numba.set_num_threads(1)
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real maps and metadata, beside the repository or named by SOLVAR_TEST_DATA."""
    folder = Path(os.environ.get("SOLVAR_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}")
    return folder


def _with(columns: dict[str, Any], changes: Mapping[str, Any] | None) -> dict[str, Any]:
    merged = {**columns, **(changes or {})}
    return {name: values for name, values in merged.items() if values is not None}


def _write_particles(
    folder: Path,
    images: np.ndarray | None = None,
    *,
    pixel_size: float = 3.0,
    stack_name: str = "particles.mrcs",
    particles: Mapping[str, Any] | None = None,
    optics: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """Write particles.mrcs and a RELION 3.1 particles.star into a folder; return the path of the STAR file.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    images : ndarray, shape (n, y, x), optional
        White noise, 6 images of 16 px, if not given.
    pixel_size : float
        Angstrom.
    stack_name : str
        File name of the stack, as written into the STAR file.
    particles, optics : mapping of column name to values, optional
        Replace or add columns; None takes a column away.
    seed : int
        Of images and of all metadata.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    images = random.normal(size=(6, 16, 16)).astype(np.float32) if images is None else images
    count = len(images)
    with StackWriter(folder / stack_name, pixel_size) as stack:
        stack.append(images)
    optics_columns = {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.1],
        "rlnImagePixelSize": [pixel_size],
        "rlnImageSize": [images.shape[-1]],
        "rlnImageDimensionality": [2],
    }
    particle_columns = {
        "rlnImageName": [f"{number:06d}@{stack_name}" for number in range(1, count + 1)],
        "rlnOpticsGroup": np.ones(count, dtype=int),
        "rlnDefocusU": random.uniform(10_000, 25_000, count),
        "rlnDefocusV": random.uniform(10_000, 25_000, count),
        "rlnDefocusAngle": random.uniform(0, 180, count),
        "rlnAngleRot": random.uniform(-180, 180, count),
        "rlnAngleTilt": random.uniform(0, 180, count),
        "rlnAnglePsi": random.uniform(-180, 180, count),
        "rlnOriginXAngst": random.normal(0, 4, count),
        "rlnOriginYAngst": random.normal(0, 4, count),
    }
    tables = [
        StarTable.create("optics", _with(optics_columns, optics)),
        StarTable.create("particles", _with(particle_columns, particles)),
    ]
    path = folder / "particles.star"
    StarFile(tuple(tables)).write(path)
    return path


@pytest.fixture
def write_particles() -> Callable[..., Path]:
    """The function that writes a small particle set; see its docstring for the arguments."""
    return _write_particles
