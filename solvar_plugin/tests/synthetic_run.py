"""A finished run made of numbers, for tests of what reads one: no engine is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import mrcfile
import numpy as np

from solvar_engine.contract import results
from solvar_engine.contract.files import write_csv
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.contract.status import FINISHED, Status, status_path, write_status
from solvar_plugin.tests.stand_in_engine import write_rank_table

PIXEL_SIZE = 3.5
SHELLS_UNTIL_ZERO = 8.0
"""The FSC of the mean falls linearly from 1 to 0 over so many shells."""


def blob(box: int, centre: Sequence[float], width: float) -> np.ndarray:
    """Gaussian of height 1 about a centre (z, y, x), in voxels from the middle of the box."""
    line = np.arange(box) - box // 2
    z, y, x = np.meshgrid(line, line, line, indexing="ij")
    square = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
    return np.exp(-square / (2 * width**2)).astype(np.float32)


def molecule(box: int, shift: float = 0.0) -> np.ndarray:
    """A body with an arm that moves along x by a shift in voxels."""
    return blob(box, (-0.1 * box, 0, 0), 0.12 * box) + blob(box, (0.15 * box, 0.1 * box, shift), 0.07 * box)


def write_volume(path: Path, data: np.ndarray) -> None:
    """Write an MRC file with the pixel size of the run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(data.astype(np.float32))
        file.voxel_size = PIXEL_SIZE


def write_run(
    folder: Path,
    labels: Sequence[str] = ("", results.NUISANCE, results.NOT_REPRODUCIBLE),
    particles: int = 300,
    box: int = 20,
    groups: Sequence[str] = ("opticsGroup1",),
    clusters: int = 3,
    contrast_spread: float = 0.2,
    outliers: int = 5,
    has_rank_table: bool = True,
) -> RunDir:
    """Write what a covariance analysis leaves: the run directory, the table of states and their volumes.

    Parameters
    ----------
    folder : Path
        Gets run/, points.csv and states/, as the extra folder of the protocol has them.
    labels : sequence of str
        Of the components; their number is the rank, 0 allowed.
    particles, box, clusters : int
        How many, and voxels.
    groups : sequence of str
        Optics groups of the noise table.
    contrast_spread : float
        Standard deviation of the contrast.
    outliers : int
        How many particles are flagged, the first ones; -1: a run of an earlier version, which does not tell.
    has_rank_table : bool
        Whether the run tells what its components gain; those of earlier versions do not.

    Returns
    -------
    RunDir
    """
    run, rank = RunDir(folder / "run"), len(labels)
    run.analysis.mkdir(parents=True, exist_ok=True)
    eigenvalues = 9.0 / 4.0 ** np.arange(rank)
    _write_fit(run, labels, eigenvalues, groups)
    _write_volumes(run, rank, box)
    random = np.random.default_rng(3)
    z = random.normal(size=(particles, rank)) * np.sqrt(eigenvalues)
    precision = np.tile(np.eye(rank) * 4.0, (particles, 1, 1))
    contrast = 1 + contrast_spread * random.normal(size=particles)
    results.write_latents(run.latents, results.Latents(z, precision, contrast))
    _write_particles(run, particles, outliers)
    if has_rank_table:
        write_rank_table(run, rank)
    centres = _write_analysis(run, z, clusters)
    if rank:
        _write_states(folder, run, eigenvalues, centres, box)
    return run


def _write_fit(run: RunDir, labels: Sequence[str], eigenvalues: np.ndarray, groups: Sequence[str]) -> None:
    """Write the status and the tables of the fit."""
    rank = len(labels)
    write_status(run.status, Status("fit", FINISHED, "finished", 9, 9, "all is well", seconds=12.0))
    results.write_eigenvalues(
        run.eigenvalues,
        {
            "component": np.arange(1, rank + 1),
            "eigenvalue": eigenvalues,
            "eigenvalue_in_sample": 1.1 * eigenvalues,
            "fraction": eigenvalues / eigenvalues.sum() if rank else [],
            "half_set_agreement": np.linspace(0.95, 0.5, rank),
            "nuisance_overlap": np.linspace(0.1, 0.7, rank),
            "label": list(labels),
        },
    )
    shell = np.arange(10)
    frequency = shell / (20 * PIXEL_SIZE)
    fsc = np.clip(1 - shell / SHELLS_UNTIL_ZERO, 0, 1)
    results.write_fsc(
        run.fsc, {"shell": shell, "frequency": frequency, "fsc_mean": fsc, "fsc_covariance": np.full(10, np.nan)}
    )
    results.write_noise(
        run.noise,
        {
            "shell": np.tile(shell, len(groups)),
            "frequency": np.tile(frequency, len(groups)),
            "noise_variance": np.concatenate([1 + index + 0.1 * shell for index in range(len(groups))]),
            "group": np.repeat(groups, len(shell)),
        },
    )
    if run.metrics.exists():
        run.metrics.unlink()
    for iteration in range(1, 4):
        for half in (1, 2):
            row = {"iteration": iteration, "stage": "half-sets", "half": half, "shell_max": 5}
            results.append_metrics(run.metrics, {**row, "objective": 10 / iteration + half, "seconds": 1.5 * iteration})
    results.append_metrics(run.metrics, {"iteration": 4, "stage": "all particles", "objective": 3.0, "seconds": 7.0})


def _write_particles(run: RunDir, count: int, outliers: int) -> None:
    """Write the table of particles, with a log-likelihood for each unless the run is of an earlier version."""
    rows = range(1, count + 1)
    columns = {"rlnImageName": [f"{row}@particles.mrcs" for row in rows], "rlnImageId": rows}
    if outliers >= 0:
        flags = (np.arange(count) < outliers).astype(int)
        log_likelihood = np.random.default_rng(5).normal(size=count) * 20 - 300 - 400 * flags
        columns.update(solvarLogLikelihood=log_likelihood, solvarOutlier=flags)
    StarFile((StarTable.create("particles", columns),)).write(run.particles)


def _write_volumes(run: RunDir, rank: int, box: int) -> None:
    """Write the mean, its halves, the mask and the eigenvolumes, the first of which moves the arm along x."""
    mean = molecule(box)
    write_volume(run.mean, mean)
    noise = np.random.default_rng(4).normal(size=mean.shape) * 0.02
    write_volume(run.mean_half1, mean + noise)
    write_volume(run.mean_half2, mean - noise)
    write_volume(run.mask, np.clip(5 * mean, 0, 1))
    for component in range(1, rank + 1):
        change = molecule(box, 1.0) - molecule(box, -1.0) if component == 1 else blob(box, (0, 0, component), 2.0)
        write_volume(run.eigenvolume(component), change / np.linalg.norm(change))


def _write_analysis(run: RunDir, z: np.ndarray, clusters: int) -> np.ndarray:
    """Write clusters, centres, UMAP and report; return the centres, shape (k, r)."""
    count, rank = z.shape
    order = np.argsort(np.argsort(z[:, 0])) if rank else np.arange(count)
    cluster = 1 + order * clusters // count
    centres = np.stack([z[cluster == number].mean(axis=0) for number in range(1, clusters + 1)])
    sizes = np.bincount(cluster, minlength=clusters + 1)[1:]
    rows = np.arange(count)
    if not rank:
        # as the engine does, which then has nothing to group
        rows, cluster, sizes, centres = rows[:0], cluster[:0], sizes[:0], centres[:0]
    angle = np.linspace(0, 2 * np.pi, len(rows))
    write_csv(run.clusters, {"row": rows, "cluster": cluster})
    results.write_centres(run.centres, sizes, centres)
    write_csv(run.embedding, {"row": rows, "umap_1": np.cos(angle), "umap_2": np.sin(angle)})
    run.report.write_text("<html><body>A report.</body></html>", encoding="utf-8")
    write_status(run.analysis_status, Status("analyze", FINISHED))
    return centres


def _write_states(folder: Path, run: RunDir, eigenvalues: np.ndarray, centres: np.ndarray, box: int) -> None:
    """Write the table of states and their volumes."""
    rank = len(eigenvalues)
    names, points = [], []
    for component, eigenvalue in enumerate(eigenvalues, start=1):
        for sign, word in ((-1, "-"), (1, "+")):
            names.append(f"component {component}, {word}2 sd")
            points.append(sign * 2 * np.sqrt(eigenvalue) * np.eye(rank)[component - 1])
    names += [f"cluster {number}" for number in range(1, len(centres) + 1)]
    table = np.array([*points, *centres])
    write_csv(folder / "points.csv", {"state": names, **{f"z_{axis + 1}": table[:, axis] for axis in range(rank)}})
    for number in range(1, len(names) + 1):
        write_volume(folder / "states" / f"state_{number:03d}.mrc", molecule(box, 0.2 * number))
    write_status(status_path(folder / "states"), Status("reconstruct", FINISHED))
