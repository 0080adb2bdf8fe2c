"""``analyze``: clusters, a flat map, figures and the report of a finished run."""

from __future__ import annotations

import logging
import sys

import numpy as np
from tqdm import tqdm

from solvar_engine.contract.files import atomic_path, write_csv
from solvar_engine.contract.params import AnalyzeParams
from solvar_engine.contract.results import CLUSTERS_COLUMNS, EMBEDDING_COLUMNS, write_centres
from solvar_engine.contract.run import RunDir
from solvar_engine.jobs.latent_space import LatentSpace, open_latent_space
from solvar_engine.latent import embed_2d
from solvar_engine.reports import FIGURE_NAMES, draw_figures, load_run, paragraph, render_report

logger = logging.getLogger(__name__)

MAX_FITTED = 100_000
SECONDS_BASE, SECONDS_PER_PARTICLE = 30.0, 1.5e-3
MEMORY_BASE_MB, MEMORY_PER_PARTICLE_MB = 500.0, 0.006


def run(params: AnalyzeParams) -> None:
    """Analyse a finished run; an earlier analysis of it is replaced.

    Parameters
    ----------
    params : AnalyzeParams
        The options.

    Raises
    ------
    UserError
        If an option is out of range, the folder is not a run, or its fit is not finished.

    Examples
    --------
    >>> run(AnalyzeParams(run="run", clusters=10))  # doctest: +SKIP
    """
    params.validate()
    run_dir = RunDir(params.run)
    space = open_latent_space(run_dir)
    _announce(*space.z.shape)
    with tqdm(
        total=3 + len(FIGURE_NAMES), desc="analyze", unit="step", disable=None, leave=False
    ) as progress:
        run_dir.figures.mkdir(parents=True, exist_ok=True)
        _write_clusters(run_dir, space, params)
        progress.update()
        _write_embedding(run_dir, space, params.seed)
        progress.update()
        summary = _write_report(run_dir, params, progress)
    sys.stdout.write(f"{summary}\nReport: {run_dir.report}\nFigures: {run_dir.figures}\n")


def _announce(n_particles: int, n_components: int) -> None:
    """Say what the analysis will need; rough figures of one core."""
    n_fitted = min(n_particles, MAX_FITTED) if n_components else 0
    logger.info(
        "Analysing %d particles along %d components: about %.1f minutes on one core, %.1f GB of memory and "
        "%.0f MB of disk.",
        n_particles,
        n_components,
        (SECONDS_BASE + SECONDS_PER_PARTICLE * n_fitted) / 60,
        (MEMORY_BASE_MB + MEMORY_PER_PARTICLE_MB * n_particles) / 1000,
        10 + 40e-6 * n_particles,
    )


def _write_clusters(run_dir: RunDir, space: LatentSpace, params: AnalyzeParams) -> None:
    """Write clusters.csv and centres.csv; without components only their headers."""
    if not space.z.shape[1]:
        write_csv(run_dir.clusters, {name: [] for name in CLUSTERS_COLUMNS})
        write_centres(run_dir.centres, np.empty(0, dtype=int), np.empty((0, 0)))
        return
    clusters = space.cluster(params.clusters, params.seed)
    columns = (np.arange(len(space.z)), clusters.labels + 1)
    write_csv(run_dir.clusters, dict(zip(CLUSTERS_COLUMNS, columns, strict=True)))
    write_centres(run_dir.centres, clusters.sizes, clusters.centres)


def _write_embedding(run_dir: RunDir, space: LatentSpace, seed: int) -> None:
    """Write embedding.csv; without components only its header."""
    if not space.z.shape[1]:
        write_csv(run_dir.embedding, {name: [] for name in EMBEDDING_COLUMNS})
        return
    coordinates = embed_2d(space.features, seed=seed, max_fitted=MAX_FITTED).coordinates
    columns = (np.arange(len(coordinates)), *coordinates.T)
    write_csv(run_dir.embedding, dict(zip(EMBEDDING_COLUMNS, columns, strict=True)))


def _write_report(run_dir: RunDir, params: AnalyzeParams, progress: tqdm) -> str:
    """Write the figures and the report, and return what was found in words."""
    data = load_run(run_dir)
    for name in FIGURE_NAMES:  # a figure of an earlier analysis must not outlive its data
        (run_dir.figures / f"{name}.png").unlink(missing_ok=True)
    pictures = []
    for picture in draw_figures(data):
        with atomic_path(run_dir.figures / f"{picture.name}.png") as path:
            path.write_bytes(picture.png)
        pictures.append(picture)
        progress.update()
    folder = run_dir.path.resolve()
    page = render_report(
        data,
        pictures,
        name=f"{folder.parent.name}/{folder.name}".lstrip("/"),
        analysis={"clusters": params.clusters, "seed": params.seed},
    )
    with atomic_path(run_dir.report) as path:
        path.write_text(page, encoding="utf-8")
    return paragraph(data)
