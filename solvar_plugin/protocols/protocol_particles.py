"""What the protocols share that give particles of a 3-D refinement to the engine and keep its run directory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Mapping

from solvar_engine.contract.params import AnalyzeParams, Option, Params
from solvar_engine.contract.run import RunDir, changed_inputs, clear_run, differing_options, is_finished
from solvar_plugin.convert.locations import path_of
from solvar_plugin.convert.particles import write_particles
from solvar_plugin.protocols.input_checks import (
    mask_problems,
    optics_problems,
    optics_warnings,
    particle_problems,
)
from solvar_plugin.protocols.protocol_base import SolvarProtBase
from solvar_plugin.protocols.summaries import methods_text, result_lines


class SolvarProtParticles(SolvarProtBase):
    """Base of the protocols that start from refined particles.

    Their forms have the parameters inputParticles, opticsStar and scratchFolder; `MASKS` names those that are masks.
    """

    _label = None

    MASKS: dict[str, str] = {}
    """What sentences call each mask, by the name of its parameter."""

    NEEDS_POSES = True
    """Whether orientations and shifts of the particles are given to the engine."""

    # ---------------------------------------------------------------- files

    def getRunDir(self) -> RunDir:
        """Return the engine's run directory."""
        return RunDir(self._getExtraPath("run"))

    def getStarPath(self) -> Path:
        """Return the STAR file that is given to the engine."""
        return Path(self._getExtraPath("particles.star"))

    def getPointsPath(self) -> Path:
        """Return the table of the states: their names and latent coordinates."""
        return Path(self._getExtraPath("points.csv"))

    def getStatesFolder(self) -> Path:
        """Return the folder of the volumes of the states, in the order of the table."""
        return Path(self._getExtraPath("states"))

    # ---------------------------------------------------------------- steps

    def _whatMatters(self, command: Params, options: Mapping[str, Option]) -> tuple[str, str]:
        """Return the input and the options that results depend on, as arguments of steps.

        Scipion compares the arguments of a step, and of that step only, to tell whether it must be done again: every
        step therefore gets all that its result depends on.
        """
        values = command.to_dict().items()
        chosen = {name: value for name, value in values if not options[name].may_differ_on_resume}
        return json.dumps(self._inputSignature(), sort_keys=True), json.dumps(chosen, sort_keys=True)

    def _inputSignature(self) -> dict[str, Any]:
        """Tell one input from another, and from itself after it was made anew."""
        masks = [path_of(mask) for mask in self._masks().values()]
        files = [self.inputParticles.get().getFileName(), *masks, self.opticsStar.get()]
        return {
            "particles": self.inputParticles.getUniqueId(),
            "files": [[name, os.stat(name).st_mtime_ns, os.stat(name).st_size] for name in files if name],
        }

    def convertInputStep(self, inputs: str) -> list[str]:
        """Write the particles as the engine reads them."""
        original = Path(self.opticsStar.get()) if self.opticsStar.get() else None
        source, path = self.inputParticles.get(), self.getStarPath()
        has_changed = write_particles(source, path, original, with_poses=self.NEEDS_POSES)
        if has_changed:
            self._startAfresh()
        return [str(self.getStarPath())]

    def _findResults(self, command: Params, gpu: bool = False) -> None:
        """Call the engine; go on where an interrupted run stopped, and afresh if an option or the input has changed."""
        run = self.getRunDir()
        if differing_options(run, command) or changed_inputs(run):
            self._startAfresh()
        self.runEngine(command, run.status, gpu=gpu)

    def _analyze(self, **choices: Any) -> list[str]:
        """Draw the figures, write the report."""
        run = self.getRunDir()
        if run.analysis_status.exists():
            run.analysis_status.unlink()
        command = AnalyzeParams(
            run=str(run.path), seed=self.seed.get(), threads=self.numberOfThreads.get(), device="cpu", **choices
        )
        self.runEngine(command, run.analysis_status)
        return [str(run.report)]

    def _startAfresh(self) -> None:
        """Remove the results of other input or options; the outputs that point to them are replaced at the end."""
        clear_run(self.getRunDir())

    def _masks(self) -> dict[str, Any]:
        """Return the masks that were chosen, by the name of their parameter."""
        masks = {name: getattr(self, name).get() for name in self.MASKS}
        return {name: mask for name, mask in masks.items() if mask is not None}

    # ---------------------------------------------------------------- what Scipion asks

    def _inputProblems(self) -> list[str]:
        """Return what is wrong with the particles, the masks, and the files beside them."""
        particles = self.inputParticles.get()
        original = Path(self.opticsStar.get()) if self.opticsStar.get() else None
        known = original if original is not None and original.is_file() else None
        problems = particle_problems(particles, self.NEEDS_POSES, known)
        for name, mask in self._masks().items():
            problems += mask_problems(mask, particles, self.MASKS[name])
        if original is not None and not problems:
            problems += optics_problems(particles, original)
        return problems

    def _warnings(self) -> list[str]:
        particles = self.inputParticles.get()
        return [] if self.opticsStar.get() or particles is None else optics_warnings(particles)

    def _summary(self) -> list[str]:
        run = self.getRunDir()
        return self._summaryOf(run.status, lambda: is_finished(run))

    def _resultLines(self) -> list[str]:
        return result_lines(self.getRunDir())

    def _methods(self) -> list[str]:
        run = self.getRunDir()
        return [methods_text(run)] if is_finished(run) else []
