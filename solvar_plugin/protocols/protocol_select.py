"""Selection of particles by what a covariance analysis has found out about them."""

from __future__ import annotations

from typing import Any

import numpy as np
from pwem.objects import SetOfParticlesFlex
from pyworkflow import BETA

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import read_components, read_reach
from solvar_engine.contract.selections import PARTICLES, read_selection
from solvar_engine.contract.words import counted
from solvar_plugin.convert.particle_results import ParticleResults
from solvar_plugin.convert.particles import enabled_items
from solvar_plugin.convert.selection import cluster_centre, distances_from, in_clusters, nearest
from solvar_plugin.protocols import select_form as form_of
from solvar_plugin.protocols.latent_places import clusters_of, coordinates_of
from solvar_plugin.protocols.protocol_from_run import SolvarProtFromRun

OUTPUT = "outputParticles"


class SolvarProtSelectParticles(SolvarProtFromRun):
    """Selects particles by what a covariance analysis has found out about them.

    By cluster: those of some clusters of the analysis, whose numbers the latent-space plots of its viewer show.

    By distance: those nearest to a point of the latent space, which is a particle, the centre of a cluster, or
    coordinates. Distances count how well each particle is placed: they are measured with the precision of its own
    coordinates, in the reproducible components only.

    By a selection of the explorer: those that were picked and named there.

    By outlier flag: without the particles that no state of the molecule explains, or only those.

    The selected particles keep their ids, orientations, latent coordinates and everything else. A set of one state is
    the start of a refinement of that state.
    """

    _label = "select particles"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT: SetOfParticlesFlex}

    def _defineParams(self, form) -> None:
        form_of.define_form(form)

    # ---------------------------------------------------------------- steps

    def _insertAllSteps(self) -> None:
        self._insertFunctionStep(self.createOutputStep, *self._inputSignature(), self._choice(), needsGPU=False)

    def _inputSignature(self) -> list[str]:
        signature = super()._inputSignature()
        if self.way.get() == form_of.BY_SELECTION:  # may have been made anew under the same name
            table = self.getRunDir().selection_table((self.selection.get() or "").strip())
            signature.append(str(table.stat().st_mtime_ns if table.exists() else None))
        return signature

    def createOutputStep(self, *arguments: str) -> None:
        """Give Scipion the particles that are selected."""
        source = self.inputParticles.get()
        ids = self._selectedIds()
        if not ids:
            raise UserError(f"No particle is left ({self._choice()}): select in another way.")
        output = type(source).create(self._getPath())
        output.copyInfo(source)
        output.setHasCTF(source.hasCTF())  # what copyInfo leaves out
        for particle in enabled_items(source):
            if particle.getObjId() in ids:
                output.append(particle)
        self._replaceOutputs({OUTPUT: output})

    def _selectedIds(self) -> set[int]:
        """Return the ids of the particles of the input that are selected."""
        found = ParticleResults.read(self.getRunDir())
        ids = np.array([particle.getObjId() for particle in enabled_items(self.inputParticles.get())], dtype=np.int64)
        rows = np.array([found.row_of_id.get(identity, -1) for identity in ids.tolist()], dtype=np.int64)
        if len(rows) and rows.min() < 0:
            raise UserError(
                f"Particle {ids[rows.argmin()]} is not in {found.run.particles}: the covariance analysis has been run "
                "again with other particles, choose its new output."
            )
        is_good = np.ones(len(ids), dtype=bool) if found.is_outlier is None else ~found.is_outlier[rows]
        way = self.way.get()
        if way == form_of.BY_FLAG:
            return set(ids[is_good if self.flag.get() == form_of.GOOD else ~is_good].tolist())
        if way == form_of.BY_SELECTION:
            name, count = (self.selection.get() or "").strip(), len(found.latents.z)
            chosen = read_selection(found.run, name, (PARTICLES,), particles=count).values
            return set(ids[np.isin(rows, chosen)].tolist())
        if self.leaveOutliersOut.get():
            ids, rows = ids[is_good], rows[is_good]
        if way == form_of.BY_CLUSTER:
            numbers = clusters_of(found.run, self.clusters.get(), form_of.CLUSTERS_LABEL)
            chosen = in_clusters(found.run, numbers, len(found.latents.z))[rows]
        else:
            latents, columns = found.latents, read_components(found.run.eigenvalues).compared
            distance = distances_from(self._target(found), latents.z[rows], latents.precision[rows], columns)
            chosen = nearest(distance, self._count(len(rows)))
        return set(ids[chosen].tolist())

    def _target(self, found: ParticleResults) -> np.ndarray:
        """Return the point from which distances are measured, shape (r,)."""
        if self.point.get() == form_of.AT_CENTRE:
            return cluster_centre(found.run, self.cluster.get())
        if self.point.get() == form_of.AT_COORDINATES:
            return coordinates_of(found.run, self.coordinates.get(), form_of.COORDINATES_LABEL)[0]
        row = found.row_of_id.get(self.particleId.get())
        if row is None:
            raise UserError(f"There is no particle {self.particleId.get()} in {found.run.particles}: give another id.")
        return np.asarray(found.latents.z[row], dtype=np.float64)

    def _count(self, available: int) -> int:
        """Return how many nearest particles to take."""
        if self.amount.get() == form_of.BY_NUMBER:
            return self.number.get()
        return max(1, round(available * self.percent.get() / 100))

    # ---------------------------------------------------------------- what Scipion asks

    def _validate(self) -> list[str]:
        problems = self._inputProblems()
        if problems or self.inputParticles.get() is None:
            return problems
        try:
            self._checkChoice()
        except UserError as error:
            return [str(error)]
        return []

    def _checkChoice(self) -> None:
        """Refuse clusters, points and numbers that the run does not have."""
        run = self.getRunDir()
        if self.way.get() == form_of.BY_CLUSTER:
            clusters_of(run, self.clusters.get(), form_of.CLUSTERS_LABEL)
        if self.way.get() == form_of.BY_SELECTION:
            read_selection(run, (self.selection.get() or "").strip(), (PARTICLES,))
        if self.way.get() == form_of.BY_DISTANCE:
            if self.point.get() == form_of.AT_CENTRE:
                cluster_centre(run, self.cluster.get())
            elif self.point.get() == form_of.AT_COORDINATES:
                coordinates_of(run, self.coordinates.get(), form_of.COORDINATES_LABEL)

    def _warnings(self) -> list[str]:
        is_point = self.way.get() == form_of.BY_DISTANCE and self.point.get() == form_of.AT_COORDINATES
        if not is_point or self._validate() or self.inputParticles.get() is None:
            return []
        run, label = self.getRunDir(), form_of.COORDINATES_LABEL
        points = coordinates_of(run, self.coordinates.get(), label)[:1]
        found = read_reach(run).beyond(points, read_components(run.eigenvalues).compared, [f"The point of '{label}'"])
        return [f"{found}: the nearest ones are selected all the same."] if found else []

    def _choice(self) -> str:
        """Say what is selected."""
        if self.way.get() == form_of.BY_FLAG:
            return form_of.FLAGS[self.flag.get()]
        if self.way.get() == form_of.BY_SELECTION:
            return f"the selection {self.selection.get()!r} of the explorer"
        outliers = "outliers left out" if self.leaveOutliersOut.get() else "outliers too"
        if self.way.get() == form_of.BY_CLUSTER:
            return f"clusters {self.clusters.get()}, {outliers}"
        point = (
            f"particle {self.particleId.get()}",
            f"the centre of cluster {self.cluster.get()}",
            f"({self.coordinates.get()})",
        )[self.point.get()]
        amount = f"{self.number.get()}" if self.amount.get() == form_of.BY_NUMBER else f"{self.percent.get():g} %"
        return f"the {amount} nearest to {point}, {outliers}"

    def _summary(self) -> list[str]:
        output = getattr(self, OUTPUT, None)
        if output is None or self.inputParticles.get() is None:
            return ["No particles selected yet."]
        count, of = output.getSize(), self.inputParticles.get().getSize()
        return [f"{count:,} of {of:,} particles ({count / of:.1%}): {self._choice()}."]

    def _methods(self) -> list[str]:
        output: Any = getattr(self, OUTPUT, None)
        if output is None:
            return []
        selected = counted(output.getSize(), "particle was", "particles were")
        return [f"{selected} selected: {self._choice()} [Yadgar2026]."]
