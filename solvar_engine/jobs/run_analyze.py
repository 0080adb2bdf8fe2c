"""``analyze``: clusters, a flat map, figures and the report of a finished run."""

from __future__ import annotations

import logging
import sys
from contextlib import closing

import numpy as np

from solvar_engine.contract.files import atomic_path, printable
from solvar_engine.contract.params import AnalyzeParams
from solvar_engine.contract.results import write_centres, write_clusters, write_embedding
from solvar_engine.contract.run import FIGURE_NAMES, RunDir
from solvar_engine.contract.words import counted
from solvar_engine.jobs.running.progress import Progress
from solvar_engine.jobs.running.tracking import track_analysis, tracked
from solvar_engine.jobs.states.latent_space import LatentSpace, open_latent_space
from solvar_engine.latent import embed_2d
from solvar_engine.reports import draw_figures, load_run, paragraph, render_report

logger = logging.getLogger(__name__)

MAX_FITTED = 100_000
SECONDS_BASE, SECONDS_PER_PARTICLE = 30.0, 1.5e-3
MEMORY_BASE_MB, MEMORY_PER_PARTICLE_MB = 500.0, 0.006


def run(params: AnalyzeParams) -> None:
    """Analyse a finished run; an earlier analysis of it is replaced.

    RUN/analysis/status.json says how far it is and how it ended; a folder that is not a finished run gets none.

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
    with tracked(track_analysis(run_dir)) as status:
        space = open_latent_space(run_dir)
        _announce(*space.z.shape)
        with closing(Progress(status, 3 + len(FIGURE_NAMES))) as progress:
            run_dir.figures.mkdir(parents=True, exist_ok=True)
            progress.stage("clusters")
            _write_clusters(run_dir, space, params)
            progress.advance()
            progress.stage("map")
            _write_embedding(run_dir, space, params.seed)
            progress.advance()
            progress.stage("figures")
            summary = _write_report(run_dir, params, progress)
            progress.finish(_count(*space.z.shape))
    sys.stdout.write(f"{summary}\nReport: {run_dir.report}\nFigures: {run_dir.figures}\n")


def _count(n_particles: int, n_components: int) -> str:
    return f"analysed {n_particles} particles along {counted(n_components, 'component')}"


def _announce(n_particles: int, n_components: int) -> None:
    """Say what the analysis will need; rough figures of one core."""
    n_fitted = min(n_particles, MAX_FITTED) if n_components else 0
    logger.info(
        "Analysing %d particles along %s: about %.1f minutes on one core, %.1f GB of memory and "
        "%.0f MB of disk.",
        n_particles,
        counted(n_components, "component"),
        (SECONDS_BASE + SECONDS_PER_PARTICLE * n_fitted) / 60,
        (MEMORY_BASE_MB + MEMORY_PER_PARTICLE_MB * n_particles) / 1000,
        10 + 40e-6 * n_particles,
    )


def _write_clusters(run_dir: RunDir, space: LatentSpace, params: AnalyzeParams) -> None:
    """Write clusters.csv and centres.csv; without components only their headers."""
    if not space.z.shape[1]:
        write_clusters(run_dir.clusters, np.empty(0, dtype=int))
        write_centres(run_dir.centres, np.empty(0, dtype=int), np.empty((0, 0)))
        return
    clusters = space.cluster(params.clusters, params.seed)
    write_clusters(run_dir.clusters, clusters.labels + 1)
    write_centres(run_dir.centres, clusters.sizes, clusters.centres)


def _write_embedding(run_dir: RunDir, space: LatentSpace, seed: int) -> None:
    """Write embedding.csv; without components only its header."""
    if not space.z.shape[1]:
        write_embedding(run_dir.embedding, np.empty((0, 2)))
        return
    write_embedding(run_dir.embedding, embed_2d(space.features, seed=seed, max_fitted=MAX_FITTED))


def _write_report(run_dir: RunDir, params: AnalyzeParams, progress: Progress) -> str:
    """Write the figures and the report, and return what was found in words."""
    data = load_run(run_dir)
    for name in FIGURE_NAMES:  # a figure of an earlier analysis must not outlive its data
        run_dir.figure(name).unlink(missing_ok=True)
    pictures = []
    for picture in draw_figures(data):
        with atomic_path(run_dir.figure(picture.name)) as path:
            path.write_bytes(picture.png)
        pictures.append(picture)
        progress.advance()
    folder = run_dir.path.resolve()
    page = render_report(
        data,
        pictures,
        name=f"{folder.parent.name}/{folder.name}".lstrip("/"),
        analysis={"clusters": params.clusters, "seed": params.seed},
    )
    with atomic_path(run_dir.report) as path:
        path.write_text(printable(page), encoding="utf-8")
    return paragraph(data)
