"""`select`: some particles of a run as a STAR file."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import SelectParams
from solvar_engine.contract.results import image_results, read_clusters, read_components, read_latents
from solvar_engine.contract.results.reach import read_reach
from solvar_engine.contract.run import RunDir, refuse_file_of_a_run, require_finished
from solvar_engine.contract.selections import PARTICLES, read_selection
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.contract.words import counted
from solvar_engine.data.cryosparc.results import write_subset
from solvar_engine.latent.distances import marginal_precision, squared_distances

logger = logging.getLogger(__name__)


def run(params: SelectParams) -> None:
    """Write the particles that are asked for, in the order of the run, with all columns of its particles.star.

    Beside it, a run of cryoSPARC's particles gets a `.cs` and a `.csg` file of the same name.

    Parameters
    ----------
    params : SelectParams

    Raises
    ------
    UserError
        If the run is not finished, has no such selection, clusters or point, or nothing is left.
    """
    params.validate()
    run_dir = RunDir(params.run)
    require_finished(run_dir)
    output = Path(params.output)
    for path in (output, output.with_suffix(".cs"), output.with_suffix(".csg")):
        refuse_file_of_a_run(run_dir, str(path))
    star = StarFile.read(run_dir.particles)
    table = star.particles
    rows = _rows(run_dir, params, _eligible(table, params.no_outliers))
    if not len(rows):
        raise UserError(f"No particle of {run_dir.path} is left: select in another way.")
    star.replace(table, table.only(rows.tolist())).write(output)
    write_subset(run_dir.particles_cs, rows, output.with_suffix(".cs"))
    logger.info("Wrote %d of %d particles to %s", len(rows), len(table), params.output)


def _eligible(table: StarTable, no_outliers: bool) -> NDArray[np.bool_]:
    is_outlier = image_results(table).is_outlier if no_outliers else None
    return np.ones(len(table), dtype=bool) if is_outlier is None else ~is_outlier


def _rows(run: RunDir, params: SelectParams, eligible: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the rows that are selected, ascending."""
    if params.name is not None:
        rows = np.unique(read_selection(run, params.name, (PARTICLES,), particles=len(eligible)).values)
        return rows[eligible[rows]]
    if params.clusters is not None:
        return np.flatnonzero(_in_clusters(run, params.cluster_numbers(), len(eligible)) & eligible)
    latents, components = read_latents(run.latents), read_components(run.eigenvalues)
    point = np.array(params.near)
    if len(point) != len(components):
        has = counted(len(components), "component")
        raise UserError(f"--near has {counted(len(point), 'coordinate')}, but {run.path} has {has}.")
    columns, rows = components.compared, np.flatnonzero(eligible & np.isfinite(latents.z).all(axis=1))
    precision = marginal_precision(latents.precision[rows], columns)
    beyond = read_reach(run).beyond(point[None], columns, ["--near"])
    if beyond:
        logger.warning("%s: those that are selected are not of that state", beyond)
    distance = squared_distances(latents.z[rows][:, columns], precision, point[columns])
    return np.sort(rows[np.argsort(distance, kind="stable")[: params.number]])


def _in_clusters(run: RunDir, numbers: list[int], count: int) -> NDArray[np.bool_]:
    if not run.clusters.exists():
        raise UserError(f"{run.path} has no clusters yet: run `analyze` first.")
    cluster = read_clusters(run.clusters)
    if len(cluster) != count:
        raise UserError(f"{run.clusters} has {len(cluster)} particles, but the run has {count}: run `analyze` again.")
    for number in numbers:
        if number < 1 or not (cluster == number).any():
            raise UserError(f"{run.clusters} has no cluster {number}: its clusters are 1 to {cluster.max(initial=0)}.")
    return np.isin(cluster, numbers)
