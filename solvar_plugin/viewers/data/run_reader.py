"""What the viewers show of a run: tables, latent coordinates and volumes.

Every function raises `UserError` with one sentence when a file is not there yet or damaged.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import (
    Candidates,
    Components,
    ImageResults,
    Latents,
    StateFolder,
    read_candidates,
    read_centres,
    read_clusters,
    read_components,
    read_embedding,
    read_fsc,
    read_images,
    read_latents,
    read_metrics,
    read_named_points,
    read_noise,
)
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.status import FAILED, FINISHED, Status, read_status, status_path
from solvar_plugin.viewers.data.volume_files import COMPONENT, DENSITY, MASK, Volume, VolumeEntry, read_volume


class RunReader:
    """Reads one run on demand.

    Parameters
    ----------
    run : RunDir
        The engine's run directory.
    points : Path
        Table with a column ``state``: the name of each state.
    states : StateFolder
        Of the volumes, in the order of the points.

    Examples
    --------
    >>> states = StateFolder(Path("states"))
    >>> RunReader(RunDir("run"), Path("points.csv"), states).components().title(0)  # doctest: +SKIP
    'component 1'
    """

    def __init__(self, run: RunDir, points: Path, states: StateFolder) -> None:
        self.run = run
        self._points = Path(points)
        self._states = states

    # ------------------------------------------------------------------ tables

    def components(self) -> Components:
        """Read the table of eigenvalues; numbers that it lacks are NaN."""
        return read_components(self._there(self.run.eigenvalues, "The table of eigenvalues"))

    def latents(self) -> Latents:
        """Read the latent coordinates."""
        latents = read_latents(self._there(self.run.latents, "The table of latent coordinates"))
        if not len(latents.z):
            raise UserError(f"{self.run.latents} has no particles: run the protocol again.")
        return latents

    def images(self, count: int | None = None) -> ImageResults:
        """Read what the run tells of each particle, of which there are ``count``."""
        images = read_images(self._there(self.run.particles, "The table of particles"))
        for values in (images.contrast, images.log_likelihood):
            if values is not None and count is not None:
                _refuse_other_count(self.run.particles, len(values), count)
        return images

    def candidates(self) -> Candidates:
        """Read what the components gain beside meaningless ones."""
        candidates = read_candidates(self._there(self.run.rank, "The table of the gains of the components"))
        if not len(candidates):
            raise UserError(f"{self.run.rank} has no components: run the protocol again.")
        return candidates

    def embedding(self, count: int) -> np.ndarray:
        """Read the flat map of the latent space, shape (count, 2)."""
        embedding = read_embedding(self._there(self.run.embedding, "The UMAP"))
        _refuse_other_count(self.run.embedding, len(embedding), count)
        return embedding

    def clusters(self, count: int) -> np.ndarray:
        """Read the cluster of each particle, shape (count,), numbered from 1."""
        cluster = read_clusters(self._there(self.run.clusters, "The table of clusters"))
        _refuse_other_count(self.run.clusters, len(cluster), count)
        return cluster

    def centres(self) -> np.ndarray | None:
        """Read the cluster centres, shape (k, r), in the units of z; None if there are none."""
        centres = read_centres(self.run.centres) if self.run.centres.exists() else None
        return centres if centres is not None and len(centres) else None

    def fsc(self) -> dict[str, np.ndarray]:
        """Read the Fourier shell correlations."""
        return read_fsc(self._there(self.run.fsc, "The table of Fourier shell correlations"))

    def noise(self) -> dict[str, np.ndarray]:
        """Read the noise spectrum."""
        return read_noise(self._there(self.run.noise, "The noise spectrum"))

    def metrics(self) -> dict[str, np.ndarray]:
        """Read the progress of the optimisation."""
        return read_metrics(self._there(self.run.metrics, "The progress of the optimisation"))

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
        return read_volume(self._there(entry.path, f"The volume '{entry.name}'"))

    def mean(self) -> Volume:
        """Read the mean map."""
        return self.read(self.basic_volumes()[0])

    def eigenvolume(self, index: int) -> np.ndarray:
        """Read the eigenvolume of a component (0-based index)."""
        path = self._there(self.run.eigenvolume(index + 1), f"The eigenvolume of component {index + 1}")
        return read_volume(path).data

    def ends_of(self, index: int) -> tuple[Path, Path] | None:
        """Volumes of the states at both ends of a component (0-based index); None if there are none yet."""
        paths = [path for path, name in self._states_by_name() if name.startswith(f"component {index + 1},")]
        return (paths[0], paths[1]) if len(paths) == 2 and all(path.exists() for path in paths) else None

    def mask(self) -> np.ndarray | None:
        """Read the mask; None if there is none yet."""
        return read_volume(self.run.mask).data if self.run.mask.exists() else None

    def report(self) -> Path:
        """Path of the report."""
        return self._there(self.run.report, "The report")

    # ----------------------------------------------------------------- helpers

    def _states_by_name(self) -> list[tuple[Path, str]]:
        """Volume and name of each state, in their order; empty if there are none yet."""
        if not self._points.exists():
            return []
        names, _ = read_named_points(self._points)
        return [(self._states.volume(number), name) for number, name in enumerate(names, start=1)]

    def _there(self, path: Path, what: str) -> Path:
        """Return a path that is there; stop with a sentence that says why it is not, and when it will be."""
        if path.exists():
            return path
        stages = [("fit", self.run.status)]
        if self.run.analysis in path.parents or path == self.run.report:
            stages.append(("analysis", self.run.analysis_status))
        elif self._states.path in path.parents:
            stages.append(("reconstruction of the states", status_path(self._states.path)))
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
