"""Read what a report shows from a run directory; what an older run lacks is left out, not an error."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import mrcfile
import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import as_text, read_csv
from solvar_engine.contract.results import NOT_REPRODUCIBLE, read_latents
from solvar_engine.contract.run import RunDir, read_record
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import read_status
from solvar_engine.reports.model import Components, RunData, Table

MAX_EIGENVOLUMES = 8
_IMAGE_COLUMNS = {
    "contrast": "solvarContrast",
    "log_likelihood": "solvarLogLikelihood",
    "outlier": "solvarOutlier",
    "rotation_change": "solvarRotationChange",
    "shift_change": "solvarShiftChange",
    "rotation_std": "solvarRotationStd",
    "shift_std": "solvarShiftStd",
}

T = TypeVar("T")


def load_run(run: RunDir) -> RunData:
    """Read a finished run.

    Parameters
    ----------
    run : RunDir
        A finished fit, analysed or not.

    Returns
    -------
    RunData
        Its eigenvalues and latents, and everything else that is there.

    Raises
    ------
    UserError
        If eigenvalues or latents are absent or damaged, or two files disagree on the number of particles or
        components.

    Examples
    --------
    >>> load_run(RunDir("run")).n_particles  # doctest: +SKIP
    10000
    """
    components = load_components(run)
    z = read_latents(run.latents).z
    _refuse_unequal(run.eigenvalues, len(components), run.latents, z.shape[1], "components")
    missing: list[str] = []

    def optional(path: Path, read: Callable[[Path], T]) -> T | None:
        if path.exists():
            return read(path)
        missing.append(path.relative_to(run.path).as_posix())
        return None

    mean = optional(run.mean, _read_volume)
    mask = optional(run.mask, _read_volume)
    eigenvolumes = []
    for component in range(1, min(z.shape[1], MAX_EIGENVOLUMES) + 1):
        eigenvolume = optional(run.eigenvolume(component), _read_volume)
        if eigenvolume is None:
            break
        eigenvolumes.append(eigenvolume[0])
    status = read_status(run.status)
    data = RunData(
        parameters=read_record(run),
        status={} if status is None else dataclasses.asdict(status),
        components=components,
        z=z,
        mean=None if mean is None else mean[0],
        mask=None if mask is None else mask[0],
        pixel_size=None if mean is None else mean[1],
        eigenvolumes=eigenvolumes,
        noise=optional(run.noise, lambda path: _read_table(path, ("group",))),
        fsc=optional(run.fsc, _read_table),
        metrics=optional(run.metrics, lambda path: _read_table(path, ("stage", "half"))),
        rank=_read_table(run.rank) if run.rank.exists() else None,
        **(optional(run.particles, _read_images) or {}),
        **_load_analysis(run, z.shape[1]),
        missing=tuple(missing),
    )
    for path, values in (
        (run.particles, data.view),
        (run.embedding, data.umap),
        (run.clusters, data.cluster),
    ):
        if values is not None:
            _refuse_unequal(path, len(values), run.latents, len(z), "particles")
    return data


def load_components(run: RunDir) -> Components:
    """Read the table of eigenvalues.

    Parameters
    ----------
    run : RunDir
        A finished fit.

    Returns
    -------
    Components
        One entry per component; numbers that the file does not have are NaN.

    Raises
    ------
    UserError
        If the file is absent or has no column ``eigenvalue``.
    """
    table = read_csv(run.eigenvalues)
    if "eigenvalue" not in table:
        raise UserError(f"{run.eigenvalues} has no column eigenvalue.")
    n_components = len(table["eigenvalue"])
    unknown = np.full(n_components, np.nan)
    label = tuple(as_text(table["label"]).tolist()) if "label" in table else ("",) * n_components

    def numbers(name: str) -> NDArray[np.float64]:
        return np.asarray(table.get(name, unknown), dtype=np.float64)

    return Components(
        eigenvalue=numbers("eigenvalue"),
        eigenvalue_in_sample=numbers("eigenvalue_in_sample"),
        fraction=numbers("fraction"),
        half_set_agreement=numbers("half_set_agreement"),
        nuisance_overlap=numbers("nuisance_overlap"),
        label=label,
        is_reproducible=np.array([NOT_REPRODUCIBLE not in text for text in label], dtype=bool),
    )


def _load_analysis(run: RunDir, n_components: int) -> dict[str, Any]:
    """Read the tables that ``analyze`` makes; empty ones (of a run without components) count as absent."""
    found: dict[str, Any] = {}
    if run.embedding.exists():
        table = read_csv(run.embedding)
        found["umap"] = np.stack([table["umap_1"], table["umap_2"]], axis=1)
    if run.clusters.exists():
        found["cluster"] = read_csv(run.clusters)["cluster"].astype(np.int64)
    if run.centres.exists() and n_components:
        table = read_csv(run.centres)
        found["centres"] = np.stack([table[f"z_{axis}"] for axis in range(1, n_components + 1)], axis=1)
    return {name: values for name, values in found.items() if len(values)}


def _read_volume(path: Path) -> tuple[NDArray[np.float32], float]:
    """Read a volume (z, y, x) and its pixel size in Angstrom."""
    try:
        with mrcfile.open(path) as mrc:
            return np.asarray(mrc.data, dtype=np.float32), float(mrc.voxel_size.x)
    except ValueError as error:
        raise UserError(f"{path} is not a readable MRC file ({error}).") from error


def _read_table(path: Path, text_columns: tuple[str, ...] = ()) -> Table:
    """Read a table of numbers with some columns of text."""
    table = read_csv(path)
    return {name: as_text(values) if name in text_columns else values for name, values in table.items()}


def _read_images(path: Path) -> dict[str, NDArray[Any]]:
    """Read what the list of particles says of each image: rot and tilt, and what the fit has added."""
    particles = StarFile.read(path).particles
    angles = particles.numbers("rlnAngleRot", "rlnAngleTilt")
    found: dict[str, NDArray[Any]] = {"view": np.stack([angles["rlnAngleRot"], angles["rlnAngleTilt"]], axis=1)}
    for field, column in _IMAGE_COLUMNS.items():
        if column in particles.columns:
            found[field] = particles.numbers(column)[column]
    if "outlier" in found:
        found["outlier"] = found["outlier"] != 0
    return found


def _refuse_unequal(path: Path, count: int, other: Path, other_count: int, what: str) -> None:
    """Stop if two files of a run speak of different numbers of things."""
    if count != other_count:
        raise UserError(
            f"{path} has {count} {what} but {other} has {other_count}: the run is damaged, fit it again."
        )
