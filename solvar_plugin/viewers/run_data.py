"""What the viewer shows, read from the run directory: tables, latent coordinates and volumes.

Every function raises `UserError` with one sentence when a file is not there yet or damaged.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import as_text, read_csv
from solvar_engine.contract.results import Latents, read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import FAILED, FINISHED, Status, read_status, status_path
from solvar_plugin.convert.particle_results import columns_of
from solvar_plugin.convert.rank_table import RankTable, read_rank_table
from solvar_plugin.viewers.components import Components
from solvar_plugin.viewers.form import DENSITY
from solvar_plugin.viewers.volume_files import COMPONENT, MASK, Volume, VolumeEntry, read_volume


class RunData:
    """Reads one run on demand.

    Parameters
    ----------
    run : RunDir
        The engine's run directory.
    points : Path
        Table with a column ``state``: the name of each state.
    states : Path
        Folder with state_001.mrc ..., in the order of the points.

    Examples
    --------
    >>> RunData(RunDir("run"), Path("points.csv"), Path("states")).components().title(0)  # doctest: +SKIP
    'component 1'
    """

    def __init__(self, run: RunDir, points: Path, states: Path) -> None:
        self.run = run
        self._points = Path(points)
        self._states = Path(states)

    # ------------------------------------------------------------------ tables

    def components(self) -> Components:
        """Read the table of eigenvalues; numbers that it lacks are NaN."""
        table = self._table(self.run.eigenvalues, "The table of eigenvalues", {"eigenvalue"})
        count = len(table["eigenvalue"])
        unknown = np.full(count, np.nan)
        names = ("eigenvalue", "eigenvalue_in_sample", "fraction", "half_set_agreement", "nuisance_overlap")
        numbers = [np.asarray(table.get(name, unknown), dtype=np.float64) for name in names]
        label = tuple(as_text(table["label"])) if "label" in table else ("",) * count
        return Components(*numbers, label=label)

    def latents(self) -> Latents:
        """Read the latent coordinates."""
        self._require(self.run.latents, "The table of latent coordinates")
        latents = read_latents(self.run.latents)
        if not len(latents.z):
            raise UserError(f"{self.run.latents} has no particles: run the protocol again.")
        return latents

    def fit_of_particles(self, count: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Read log-likelihood and outlier flag of each particle, each shape (count,); None where the run has none."""
        self._require(self.run.particles, "The table of particles")
        columns = columns_of(StarFile.read(self.run.particles).particles)
        for values in columns:
            if values is not None:
                _refuse_other_count(self.run.particles, len(values), count)
        return columns

    def rank_table(self) -> RankTable:
        """Read what the components gain beside meaningless ones."""
        table = read_rank_table(self.run)
        if table is None or not len(table):
            self._require(self.run.rank, "The table of the gains of the components")
            raise UserError(f"{self.run.rank} has no components: run the protocol again.")
        return table

    def has_embedding(self) -> bool:
        """Whether there is a flat map of the latent space."""
        return self.run.embedding.exists()

    def embedding(self, count: int) -> np.ndarray:
        """Read the flat map of the latent space, shape (count, 2)."""
        table = self._table(self.run.embedding, "The UMAP", {"umap_1", "umap_2"})
        _refuse_other_count(self.run.embedding, len(table["umap_1"]), count)
        return np.stack([table["umap_1"], table["umap_2"]], axis=1)

    def has_clusters(self) -> bool:
        """Whether the particles have been grouped."""
        return self.run.clusters.exists()

    def clusters(self, count: int) -> np.ndarray:
        """Read the cluster of each particle, shape (count,), numbered from 1."""
        cluster = self._table(self.run.clusters, "The table of clusters", {"cluster"})["cluster"]
        _refuse_other_count(self.run.clusters, len(cluster), count)
        return cluster.astype(np.int64)

    def centres(self) -> np.ndarray | None:
        """Read the cluster centres, shape (k, r), in the units of z; None if there are none."""
        if not self.run.centres.exists():
            return None
        table = read_csv(self.run.centres)
        columns = [values for name, values in table.items() if name.startswith("z_")]
        return np.stack(columns, axis=1) if columns and len(columns[0]) else None

    def fsc(self) -> dict[str, np.ndarray]:
        """Read the Fourier shell correlations."""
        columns = {"frequency", "fsc_mean", "fsc_covariance"}
        return self._table(self.run.fsc, "The table of Fourier shell correlations", columns)

    def noise(self) -> dict[str, np.ndarray]:
        """Read the noise spectrum; the column group is text."""
        table = self._table(self.run.noise, "The noise spectrum", {"frequency", "noise_variance"})
        group = table.get("group", np.full(len(table["frequency"]), "1"))
        return {**table, "group": as_text(group)}

    def metrics(self) -> dict[str, np.ndarray]:
        """Read the progress of the optimisation; the columns stage and half are text."""
        columns = {"stage", "half", "shell_max", "objective", "seconds"}
        table = self._table(self.run.metrics, "The progress of the optimisation", columns)
        return {**table, "stage": as_text(table["stage"]), "half": as_text(table["half"])}

    def progress(self) -> str:
        """Say in one line how far the fit is."""
        status = read_status(self.run.status)
        if status is None:
            return "The fit has not begun."
        if status.state == FINISHED:
            return f"The fit has finished after {status.seconds:,.0f} seconds: {status.message}."
        if status.state == FAILED:
            return f"The fit failed: {status.message}"
        return f"The fit is at step {status.step} of {status.steps}: {status.stage}."

    # ----------------------------------------------------------------- volumes

    def basic_volumes(self) -> list[VolumeEntry]:
        """List the volumes that every run has, the mean first, and the focus mask of a run that has one."""
        focus = [VolumeEntry("focus mask", self.run.focus_mask, MASK)] if self.run.focus_mask.exists() else []
        return [
            VolumeEntry("mean map", self.run.mean, DENSITY),
            VolumeEntry("half-map 1", self.run.mean_half1, DENSITY),
            VolumeEntry("half-map 2", self.run.mean_half2, DENSITY),
            VolumeEntry("mask", self.run.mask, MASK),
            *focus,
        ]

    def volumes(self) -> list[VolumeEntry]:
        """List the volumes of the run by name, as far as its tables say what there is."""
        entries = self.basic_volumes()
        if self.run.eigenvalues.exists():
            components = self.components()
            for index in range(len(components)):
                path = self.run.eigenvolume(index + 1)
                entries.append(VolumeEntry(f"eigenvolume of {components.title(index)}", path, COMPONENT))
        for number, (path, name) in enumerate(self._states_by_name(), start=1):
            entries.append(VolumeEntry(f"state {number}: {name}", path, DENSITY))
        return entries

    def read(self, entry: VolumeEntry) -> Volume:
        """Read a volume of the list."""
        self._require(entry.path, f"The volume '{entry.name}'")
        return read_volume(entry.path)

    def mean(self) -> Volume:
        """Read the mean map."""
        return self.read(self.basic_volumes()[0])

    def eigenvolume(self, index: int) -> np.ndarray:
        """Read the eigenvolume of a component (0-based index)."""
        self._require(self.run.eigenvolume(index + 1), f"The eigenvolume of component {index + 1}")
        return read_volume(self.run.eigenvolume(index + 1)).data

    def ends_of(self, index: int) -> tuple[Path, Path] | None:
        """Volumes of the states at both ends of a component (0-based index); None if there are none yet."""
        paths = [path for path, name in self._states_by_name() if name.startswith(f"component {index + 1},")]
        return (paths[0], paths[1]) if len(paths) == 2 and all(path.exists() for path in paths) else None

    def mask(self) -> np.ndarray | None:
        """Read the mask; None if there is none yet."""
        return read_volume(self.run.mask).data if self.run.mask.exists() else None

    def report(self) -> Path:
        """Path of the report."""
        self._require(self.run.report, "The report")
        return self.run.report

    # ----------------------------------------------------------------- helpers

    def _states_by_name(self) -> list[tuple[Path, str]]:
        """Volume and name of each state, in their order; empty if there are none yet."""
        if not self._points.exists():
            return []
        names = as_text(self._table(self._points, "The table of states", {"state"})["state"])
        return [(self._states / f"state_{number:03d}.mrc", name) for number, name in enumerate(names.tolist(), start=1)]

    def _table(self, path: Path, what: str, columns: set[str]) -> dict[str, np.ndarray]:
        """Read a table that must have some columns."""
        self._require(path, what)
        table = read_csv(path)
        missing = sorted(columns - set(table))
        if missing:
            raise UserError(f"{path} has no column {', '.join(missing)}: run the protocol again.")
        return table

    def _require(self, path: Path, what: str) -> None:
        """Stop with a sentence that says why a file is not there, and when it will be."""
        if path.exists():
            return
        stages = [("fit", self.run.status)]
        if self.run.analysis in path.parents or path == self.run.report:
            stages.append(("analysis", self.run.analysis_status))
        elif self._states in path.parents:
            stages.append(("reconstruction of the states", status_path(self._states)))
        for stage, status in stages:
            sentence = _why_missing(stage, read_status(status))
            if sentence:
                raise UserError(f"{what} is not there: {sentence}")
        raise UserError(
            f"{what} is not there, although the run has finished: {path} is missing, run the protocol again."
        )


def _refuse_other_count(path: Path, found: int, expected: int) -> None:
    """Stop if a table speaks of another number of particles than the latent coordinates."""
    if found != expected:
        raise UserError(f"{path} has {found} particles, but the run has {expected}: run the protocol again.")


def _why_missing(stage: str, status: Status | None) -> str:
    """Tell why a stage of the run has not written a file; empty if the stage has finished."""
    if status is None:
        return f"the {stage} has not begun. Try again when the protocol has gone on."
    if status.state == FAILED:
        return f"the {stage} failed. {status.message}"
    if status.state != FINISHED:
        what = f" ({status.stage})" if status.stage else ""
        return f"the {stage} is at step {status.step} of {status.steps}{what}. Try again when it has gone on."
    return ""
