"""What the page needs of a run: columns of numbers about each particle, the volumes, and what to call all that."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import file_digest, printable
from solvar_engine.contract.results import (
    Components,
    Latents,
    StateFolder,
    image_results,
    read_clusters,
    read_components,
    read_embedding,
    read_latents,
    read_states,
    refuse_without_structure,
)
from solvar_engine.contract.run import RunDir, require_finished
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.contract.words import counted
from solvar_engine.explorer.volumes import MAX_COMPONENTS, Basis

logger = logging.getLogger(__name__)

_LABELS = {
    "umap_1": "UMAP 1",
    "umap_2": "UMAP 2",
    "contrast": "contrast",
    "log_likelihood": "log-likelihood",
    "defocus": "defocus (Å)",
    "micrograph": "micrograph number",
    "outlier": "outlier",
    "cluster": "cluster",
    "rotation_change": "change of orientation (°)",
    "shift_change": "change of shift (Å)",
    "uncertainty": "uncertainty of z",
}
"""Every column that a run may have besides z_1, z_2 and so on, in the order of the page."""

CATEGORIES = frozenset({"cluster", "outlier"})


@dataclass(frozen=True)
class ExploredRun:
    """A run as the page shows it.

    Attributes
    ----------
    run : RunDir
    star : StarFile
        Its particles.
    latents_sha256 : str
        Of its latents.npz, to which selections are tied.
    columns : dict of str to ndarray, shape (n,), float32
        Numbers about each particle; NaN where unknown.
    components : Components
    basis : Basis
    notes : tuple of str
        What is missing, in sentences for the user.
    states : StateFolder or None
        Volumes of `reconstruct`.
    state_points : ndarray, shape (k, r)
        Where these are.
    rows : ndarray of int, shape (shown,), or None
        Of the run's particles those that `columns` holds; None for all.
    """

    run: RunDir
    star: StarFile
    latents_sha256: str
    columns: dict[str, NDArray[np.float32]]
    components: Components
    basis: Basis
    notes: tuple[str, ...] = ()
    states: StateFolder | None = None
    state_points: NDArray[np.float64] | None = None
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.star.particles)

    @property
    def rank(self) -> int:
        """Number of components."""
        return len(self.components)

    def thinned(self, count: int, seed: int) -> ExploredRun:
        """Return at most `count` of the particles, drawn at random."""
        if len(self) <= count:
            return self
        rows = np.sort(np.random.default_rng(seed).permutation(len(self))[:count])
        note = f"A random {count:,} of the {len(self):,} particles are drawn."
        columns = {name: values[rows] for name, values in self.columns.items()}
        return replace(self, columns=columns, rows=rows, notes=(*self.notes, note))

    def meta(self, form: str) -> dict[str, Any]:
        """Describe all that for the page; `form` is that of the packed volumes."""
        folder, basis, mean = self.run.path.resolve(), self.basis, self.basis.volumes[0]
        z = [self.columns[f"z_{number}"] for number in range(1, self.rank + 1)]
        known = [values[~np.isnan(values)] for values in z]
        points = self.state_points
        return {
            "name": printable("/".join(part for part in (folder.parent.name, folder.name) if part)),
            "particles": len(self),
            "drawn": len(self) if self.rows is None else len(self.rows),
            "rank": self.rank,
            "volumes": len(basis.volumes) - 1,
            "compared": self.components.compared.tolist(),
            "labels": list(self.components.label),
            "deviation": [float(values.std()) if len(values) else 0.0 for values in known],
            "median": [float(np.median(values)) if len(values) else 0.0 for values in known],
            "columns": [
                {"name": name, "label": _label(name, self.components), "category": name in CATEGORIES}
                for name in self.columns
            ],
            "dims": basis.dims,
            "start": basis.start[::-1],
            "box": basis.box_size,
            "pixelSize": basis.pixel_size,
            "form": form,
            "scale": basis.scale.tolist(),
            "level": float(mean.mean() + 3 * mean.std()),
            "highest": float(mean.max()),
            "hasFocus": basis.focus_mask is not None,
            "states": [] if points is None else points.tolist(),
            "notes": [printable(note) for note in self.notes],
        }

    def focus(self) -> bytes:
        """Return the focus mask, (z, y, x), one byte each, 0 to 255; nothing if the run has none."""
        mask = self.basis.focus_mask
        return b"" if mask is None else np.round(np.clip(mask, 0, 1) * 255).astype(np.uint8).tobytes()

    def state(self, number: int) -> bytes:
        """Return the volume of a state, numbered from 1, on the grid of the basis, float16.

        Raises
        ------
        UserError
            If there is none.
        """
        if self.states is None or self.state_points is None or not 1 <= number <= len(self.state_points):
            raise UserError(f"There is no volume of a state {number}.")
        return self.basis.matched(self.states.volume(number)).tobytes()


def _label(name: str, components: Components) -> str:
    return components.title(int(name[2:]) - 1) if name.startswith("z_") else _LABELS[name]


def load_run(path: str, states: str | None = None) -> ExploredRun:
    """Read what the page needs of a finished run; what it lacks is said in `notes`.

    Parameters
    ----------
    path : str
        The run.
    states : str, optional
        Folder of `reconstruct`.

    Raises
    ------
    UserError
        If the folder is no finished run, or its files are damaged or do not belong together.
    """
    run = RunDir(path)
    require_finished(run)
    refuse_without_structure(run)
    digest, latents = file_digest(run.latents), read_latents(run.latents)
    components, star = read_components(run.eigenvalues), StarFile.read(run.particles)
    if latents.z.shape != (len(star.particles), len(components)):
        raise UserError(
            f"{run.latents} has {latents.z.shape[0]} particles and {latents.z.shape[1]} components, but there are "
            f"{len(star.particles)} particles and {len(components)} eigenvalues: the run is damaged, fit it again."
        )
    columns, notes = _columns(run, latents, components, star.particles)
    basis = Basis.read(run, min(len(components), MAX_COMPONENTS))
    if basis.volumes.shape[0] <= len(components):
        notes.append(f"Only the first {MAX_COMPONENTS} of {len(components)} components move the molecule.")
    folder = None if states is None else StateFolder(RunDir(states).path)
    points = None if folder is None else _state_points(folder, len(components))
    return ExploredRun(run, star, digest, columns, components, basis, tuple(notes), folder, points)


def _columns(
    run: RunDir, latents: Latents, components: Components, table: StarTable
) -> tuple[dict[str, NDArray[np.float32]], list[str]]:
    """Return the columns that there are, and sentences about those that are missing."""
    notes, n_particles = [], len(table)
    lost = int((~np.isfinite(latents.z).all(axis=1)).sum())
    if lost:
        notes.append(f"{counted(lost, 'particle has', 'particles have')} no coordinates: not drawn.")
    if not len(components):
        notes.append("The fit found no reproducible variability: the molecule is shown as its mean.")
    elif not components.is_reproducible.any():
        notes.append("No component is reproducible: what moves is mostly noise.")
    found: dict[str, NDArray[Any]] = {f"z_{axis}": values for axis, values in enumerate(latents.z.T, start=1)}
    for name, values in _of_analysis(run, n_particles, notes).items():
        found[name] = values
    found.update(_of_images(table))
    found.setdefault("contrast", latents.contrast)
    if len(components):
        try:
            found["uncertainty"] = latents.uncertainty(components.compared.tolist())
        except UserError:
            notes.append("The uncertainty of some particles is infinite, so none is shown.")
    order = [*(name for name in found if name.startswith("z_")), *(name for name in _LABELS if name in found)]
    return {name: _finite(found[name]) for name in order}, notes


def _finite(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return numbers as float32, with NaN for infinite ones: they have no place on a plane."""
    single = values.astype(np.float32)
    single[~np.isfinite(single)] = np.nan
    return single


def _of_analysis(run: RunDir, n_particles: int, notes: list[str]) -> dict[str, NDArray[Any]]:
    """Clusters and flat map of `analyze`, where they are of as many particles."""
    found: dict[str, NDArray[Any]] = {}
    if not run.clusters.exists() or not run.embedding.exists():
        notes.append("The run has not been analysed: there are no clusters and no UMAP.")
        return found
    embedding, clusters = read_embedding(run.embedding), read_clusters(run.clusters)
    if len(embedding) == len(clusters) == n_particles:
        found.update(umap_1=embedding[:, 0], umap_2=embedding[:, 1], cluster=clusters)
    elif len(embedding) or len(clusters):
        notes.append("Clusters and UMAP are of another number of particles: run `analyze` again.")
    return found


def _of_images(table: StarTable) -> dict[str, NDArray[Any]]:
    """What particles.star says of each image."""
    images, found = image_results(table), {}
    if images.contrast is not None:
        found["contrast"] = images.contrast
    if images.log_likelihood is not None:
        found["log_likelihood"] = images.log_likelihood
    if images.is_outlier is not None:
        found["outlier"] = images.is_outlier
    if images.pose_changes is not None:
        found.update(rotation_change=images.pose_changes.rotation, shift_change=images.pose_changes.shift)
    if "rlnDefocusU" in table and "rlnDefocusV" in table:
        defocus = table.numbers("rlnDefocusU", "rlnDefocusV")
        found["defocus"] = (defocus["rlnDefocusU"] + defocus["rlnDefocusV"]) / 2
    if "rlnMicrographName" in table:
        numbers: dict[str, int] = {}
        found["micrograph"] = np.array(
            [numbers.setdefault(name, len(numbers) + 1) for name in table.cells("rlnMicrographName")]
        )
    return found


def _state_points(folder: StateFolder, rank: int) -> NDArray[np.float64]:
    points: NDArray[np.float64] = read_states(folder).points
    if points.shape[1] != rank:
        raise UserError(
            f"{folder.table} has states in {counted(points.shape[1], 'component')}, but the run has {rank}: give the "
            "folder of states of this run."
        )
    if not np.isfinite(points).all():
        raise UserError(f"{folder.table} has coordinates that are not numbers: make the states again.")
    return points
