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
from solvar_engine.contract.results import (
    ImageResults,
    read_candidates,
    read_centres,
    read_clusters,
    read_components,
    read_embedding,
    read_fsc,
    read_images,
    read_latents,
    read_metrics,
    read_noise,
)
from solvar_engine.contract.run import RunDir, read_record
from solvar_engine.contract.status import read_status
from solvar_engine.reports.model import ReportData

MAX_EIGENVOLUMES = 8

T = TypeVar("T")


def load_run(run: RunDir) -> ReportData:
    """Read a finished run.

    Returns
    -------
    ReportData
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
    components = read_components(run.eigenvalues)
    z = read_latents(run.latents).z
    _refuse_unequal(run.eigenvalues, len(components), run.latents, z.shape[1], "components")
    missing: list[str] = []

    def optional(path: Path, read: Callable[[Path], T]) -> T | None:
        if path.exists():
            return read(path)
        missing.append(path.relative_to(run.path).as_posix())
        return None

    mean, mask = optional(run.mean, _read_volume), optional(run.mask, _read_volume)
    eigenvolumes = []
    for component in range(1, min(z.shape[1], MAX_EIGENVOLUMES) + 1):
        eigenvolume = optional(run.eigenvolume(component), _read_volume)
        if eigenvolume is None:
            break
        eigenvolumes.append(eigenvolume[0])
    status = read_status(run.status)
    data = ReportData(
        parameters=read_record(run),
        status={} if status is None else dataclasses.asdict(status),
        components=components,
        z=z,
        mean=None if mean is None else mean[0],
        mask=None if mask is None else mask[0],
        pixel_size=None if mean is None else mean[1],
        eigenvolumes=eigenvolumes,
        noise=optional(run.noise, read_noise),
        fsc=optional(run.fsc, read_fsc),
        metrics=optional(run.metrics, read_metrics),
        candidates=read_candidates(run.rank) if run.rank.exists() else None,
        embedding=_analysed(run.embedding, read_embedding),
        cluster=_analysed(run.clusters, read_clusters),
        centres=_analysed(run.centres, read_centres),
        images=optional(run.particles, read_images) or ImageResults(),
        missing=tuple(missing),
    )
    for path, values in (
        (run.particles, data.images.view),
        (run.particles, data.images.contrast),
        (run.embedding, data.embedding),
        (run.clusters, data.cluster),
    ):
        if values is not None:
            _refuse_unequal(path, len(values), run.latents, len(z), "particles")
    return data


def _analysed(path: Path, read: Callable[[Path], NDArray[Any]]) -> NDArray[Any] | None:
    """Read a table of ``analyze``; an empty one (of a run without components) counts as absent."""
    found = read(path) if path.exists() else None
    return found if found is not None and len(found) else None


def _read_volume(path: Path) -> tuple[NDArray[np.float32], float]:
    """Read a volume (z, y, x) and its pixel size in Angstrom."""
    try:
        with mrcfile.open(path) as mrc:
            return np.asarray(mrc.data, dtype=np.float32), float(mrc.voxel_size.x)
    except ValueError as error:
        raise UserError(f"{path} is not a readable MRC file ({error}).") from error


def _refuse_unequal(path: Path, count: int, other: Path, other_count: int, what: str) -> None:
    """Stop if two files of a run speak of different numbers of things."""
    if count != other_count:
        raise UserError(
            f"{path} has {count} {what} but {other} has {other_count}: the run is damaged, fit it again."
        )
