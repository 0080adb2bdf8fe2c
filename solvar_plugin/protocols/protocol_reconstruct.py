"""Volume reconstruction: states of a molecule whose motions a covariance analysis has found."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from pyworkflow import BETA

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_json, write_json
from solvar_engine.contract.results import StateFolder, is_limit, read_components, read_reach, read_states, write_points
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.selections import PATH, POINTS, read_selection
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import read_status, status_path
from solvar_engine.contract.words import counted
from solvar_plugin.convert.particles import rows_of_particles, write_particles
from solvar_plugin.protocols import reconstruct_form as form_of
from solvar_plugin.protocols import state_outputs as outputs
from solvar_plugin.protocols.form_options import in_form_words, option_problems
from solvar_plugin.protocols.input_checks import full_size_problems, optics_problems
from solvar_plugin.protocols.latent_places import clusters_of, coordinates_of
from solvar_plugin.protocols.protocol_from_run import SolvarProtFromRun
from solvar_plugin.protocols.summaries import cost_lines, message_lines

KINDS = ("cluster", "Gaussian", "point", "frame", "frame")
"""What the states of each choice of the form are called."""

FEWEST_IMAGES_USED = 200
_IRRELEVANT = ("output", "threads", "device", "cache_mb", "scratch", "resume", "debug")


class SolvarProtReconstruct(SolvarProtFromRun):
    """Reconstructs volumes of states of a molecule, from the particles of a finished covariance analysis.

    The states are clusters of the particles, Gaussians fitted to them, points of the latent space, or a series along a
    path through it. Each volume is made from the particles near its state (kernel regression): how near is chosen place
    by place with half-sets, so that rigid parts are seen with nearly all particles and moving ones only with those that
    agree.

    Outputs: the volumes with half-maps, filtered to their local resolution; maps of the local resolution; and the
    particles in classes, one for each state, ready for a refinement of that state.

    With the particles at full size, as they were before down-sampling, volumes can go beyond the resolution of the
    analysis.
    """

    _label = "volume reconstruction"
    _devStatus = BETA
    _possibleOutputs = outputs.POSSIBLE_OUTPUTS
    LABELS = form_of.RECONSTRUCT_LABELS

    def _defineParams(self, form) -> None:
        form_of.define_form(self, form)

    # ---------------------------------------------------------------- files

    def getStatesFolder(self) -> Path:
        """Return the folder of the volumes."""
        return Path(self._getExtraPath("states"))

    def getStates(self) -> StateFolder:
        """Return the names of the files of the volumes."""
        return StateFolder(self.getStatesFolder())

    def getStateKind(self) -> str:
        """Return what a state is called, such as cluster."""
        return KINDS[self.states.get()]

    def getPointsPath(self) -> Path:
        """Return the table of points that is given to the engine."""
        return Path(self._getExtraPath("points.csv"))

    def getFullStarPath(self) -> Path:
        """Return the STAR file of the particles at full size that is given to the engine."""
        return Path(self._getExtraPath("full_size.star"))

    # ---------------------------------------------------------------- steps

    def _insertAllSteps(self) -> None:
        # every step gets all that its result depends on, since Scipion looks at the arguments of that step only
        inputs = json.dumps(self._inputSignature())
        options = json.dumps(self._optionsThatMatter(), sort_keys=True)
        self._insertFunctionStep(self.convertInputStep, inputs, options, needsGPU=False)
        self._insertFunctionStep(self.reconstructStep, inputs, options, needsGPU=self.useGpu.get())
        self._insertFunctionStep(self.createOutputStep, inputs, options, needsGPU=False)

    def _inputSignature(self) -> list[str]:
        full = self._fullParticles()
        files = [] if full is None else [full.getFileName(), self.opticsStar.get()]
        table = self._tableOfPoints() if self._takesPoints() and not (self.points.get() or "").strip() else None
        signature = [] if full is None else [self.fullParticles.getUniqueId()]
        for name in (*files, table):
            if name:
                signature.append(f"{name} {Path(name).stat().st_mtime_ns}")
        return super()._inputSignature() + signature

    def _optionsThatMatter(self) -> dict[str, Any]:
        values = form_of.reconstruct_params(self).to_dict()
        options = {name: value for name, value in values.items() if name not in _IRRELEVANT}
        if self._takesPoints():
            options["points written"] = self.points.get()
        return options

    def _tableOfPoints(self) -> str | None:
        """Return the table that points come from if none are written: that of a selection, or a file."""
        name = (self.pointsSelection.get() or "").strip()
        if not name:
            return self.pointsFile.get()
        table = self.getRunDir().selection_table(name)
        return str(table) if table.exists() else None

    def _selectedPoints(self) -> Any:
        """Return the points of the selection of the explorer, shape (k, r); None if none is named."""
        name = (self.pointsSelection.get() or "").strip()
        return read_selection(self.getRunDir(), name, (POINTS, PATH)).values if name else None

    def _takesPoints(self) -> bool:
        return self.states.get() in (form_of.POINTS, form_of.TRAJECTORY)

    def _rowsOfParticles(self) -> dict[int, list[int]]:
        """Return the rows of the run by the ids of its particles."""
        return rows_of_particles(StarFile.read(self.getRunDir().particles).particles)

    def _fullParticles(self) -> Any:
        """Return the particles at full size; None if there are none, or the method does not look at images."""
        return self.fullParticles.get() if self.method.get() == form_of.KERNEL else None

    def convertInputStep(self, inputs: str, options: str) -> list[str]:
        """Write the points and the particles at full size as the engine reads them."""
        made = []
        if self._takesPoints():
            made.append(str(self._writePoints()))
        full = self._fullParticles()
        if full is not None:
            original = Path(self.opticsStar.get()) if self.opticsStar.get() else None
            # the engine tells by its row which particle is which
            write_particles(full, self.getFullStarPath(), original, list(self._rowsOfParticles()))
            made.append(str(self.getFullStarPath()))
        return made

    def _writePoints(self) -> Path:
        path = self.getPointsPath()
        if (self.points.get() or "").strip():
            points = coordinates_of(self.getRunDir(), self.points.get(), form_of.POINTS_LABEL)
            write_points(path, points)
        elif (selected := self._selectedPoints()) is not None:
            write_points(path, selected)
        else:
            shutil.copyfile(self.pointsFile.get(), path)
        return path

    def reconstructStep(self, inputs: str, options: str) -> list[str]:
        """Make the volumes; those that an interrupted reconstruction of the same has finished are kept."""
        folder = self.getStatesFolder()
        if not self._goesOn({"inputs": inputs, "options": options}):
            shutil.rmtree(folder, ignore_errors=True)
        self.runEngine(form_of.reconstruct_params(self), status_path(folder), gpu=self.useGpu.get())
        return [str(self.getStates().table)]

    def _goesOn(self, begun: dict[str, str]) -> bool:
        """Whether there are finished states of the same input and options; note what is begun."""
        note = Path(self._getExtraPath("states.json"))
        is_same = note.exists() and read_json(note) == begun
        write_json(note, begun)
        return is_same and self.getStates().checkpoint.exists()

    def createOutputStep(self, inputs: str, options: str) -> None:
        """Give Scipion the volumes, their local resolution, and the particles of each state."""
        made = outputs.make_outputs(self, self._fullParticles())
        self._replaceOutputs(made)
        if self._fullParticles() is not None:
            for output in made.values():
                self._defineSourceRelation(self.fullParticles, output)

    # ---------------------------------------------------------------- what Scipion asks

    def _validate(self) -> list[str]:
        problems = self._inputProblems()
        if problems or self.inputParticles.get() is None:
            return problems
        try:
            problems = self._stateProblems() or option_problems(form_of.reconstruct_params(self), self.LABELS)
        except UserError as error:
            problems = [str(error)]
        full = self._fullParticles()
        if full is not None:
            problems += full_size_problems(full, self.inputParticles.get(), len(self._rowsOfParticles()))
            if self.opticsStar.get() and not problems:
                problems += optics_problems(full, Path(self.opticsStar.get()))
        return problems + self._computerProblems()

    def _stateProblems(self) -> list[str]:
        """Return which states the run does not have."""
        run, states = self.getRunDir(), self.states.get()
        if states == form_of.BETWEEN:
            clusters_of(run, self.between.get(), form_of.BETWEEN_LABEL)
        if not self._takesPoints():
            return []
        if (self.points.get() or "").strip():
            points = coordinates_of(run, self.points.get(), form_of.POINTS_LABEL)
        else:
            points = self._selectedPoints()
        if points is not None:
            if states == form_of.TRAJECTORY and len(points) < 2:
                return [f"'{form_of.POINTS_LABEL}' has one point, but a trajectory needs at least two."]
            if not self.allowExtrapolation.get():
                self._refuseBeyond(run, points)
        elif not self.pointsFile.get():
            return [f"'{form_of.POINTS_LABEL}' is empty: write one point in each line, or choose a table of points."]
        elif not Path(self.pointsFile.get()).is_file():
            return [f"The table of points {self.pointsFile.get()} does not exist: choose another."]
        return []

    def _refuseBeyond(self, run: RunDir, points: np.ndarray) -> None:
        """Refuse points far from all particles, in the words of the engine."""
        reach, components = read_reach(run), read_components(run.eigenvalues)
        by_kernel = self.method.get() == form_of.KERNEL
        columns = components.compared if by_kernel else np.arange(len(components))
        names = [f"Point {number} of '{form_of.POINTS_LABEL}'" for number in range(1, len(points) + 1)]
        try:
            reach.refuse_beyond(points, columns, names)
        except UserError as error:
            raise UserError(in_form_words(str(error), self.LABELS)) from error

    def _warnings(self) -> list[str]:
        particles = self.inputParticles.get()
        if particles is None or self._inputProblems():
            return []
        count = len(StarFile.read(self.getRunDir().particles).particles)
        if particles.getSize() == count:
            return []
        return [
            f"The input has {particles.getSize():,} of the {count:,} particles of its run. The volumes are made from "
            "all of them; the classes hold those of the input."
        ]

    def _summary(self) -> list[str]:
        return self._summaryOf(status_path(self.getStatesFolder()), lambda: hasattr(self, outputs.VOLUMES))

    def _resultLines(self) -> list[str]:
        table, kind = read_states(self.getStates()), self.getStateKind()
        pixel_size = getattr(self, outputs.VOLUMES).getSamplingRate()
        status = read_status(status_path(self.getStatesFolder()))
        lines = message_lines(status)
        for number, (images, resolution) in enumerate(zip(table.images_used, table.resolution), start=1):
            quality = f", {resolution:.1f} Å" if math.isfinite(resolution) else ""
            quality += " (limit of the pixel size)" if is_limit(resolution, pixel_size) else ""
            few = " - few images" if images < FEWEST_IMAGES_USED else ""
            title = table.title(number, kind)
            lines.append(f"{title[0].upper()}{title[1:]}: {images:,} image{'' if images == 1 else 's'}{quality}{few}")
        return lines + cost_lines(status)

    def _methods(self) -> list[str]:
        if not hasattr(self, outputs.VOLUMES):
            return []
        count = getattr(self, outputs.VOLUMES).getSize()
        how = (
            "by kernel regression from the particles near each state, with bandwidths chosen locally by half-sets, and "
            "filtered to their local resolution"
            if self.method.get() == form_of.KERNEL
            else "as the mean plus the eigenvolumes times the latent coordinates"
        )
        chosen = form_of.STATES[self.states.get()]
        return [f"Volumes of {counted(count, 'state')} ({chosen}) were reconstructed {how} (SOLVAR, [Yadgar2026])."]
