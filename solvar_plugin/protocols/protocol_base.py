"""What all protocols of the plugin share: they call the engine and look at how it ended."""

from __future__ import annotations

import inspect
import os
import textwrap
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, Callable, Mapping

import pyworkflow.protocol.params as params
from pwem.protocols import ProtAnalysis3D

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import Params
from solvar_engine.contract.status import Status, read_status
from solvar_plugin import Plugin, __version__
from solvar_plugin.constants import ENGINE_PACKAGE
from solvar_plugin.engine import (
    EngineError,
    arguments_of,
    command_line,
    engine_problems,
    progress_text,
    project_path_problems,
    require_finished,
    unfinished_text,
)
from solvar_plugin.protocols.form_options import LABELS, in_form_words

_MAX_THREADS_BY_DEFAULT = 16
# characters in a line of a help window
_HELP_WIDTH = 75


class SolvarProtBase(ProtAnalysis3D):
    """Base of the protocols; their forms have the parameter inputParticles."""

    _label = None

    LABELS: Mapping[str, str] = LABELS
    """What the form calls the engine's options, by their names."""

    @classmethod
    def getClassPackageName(cls):
        """Name of the plugin in forms."""
        return ENGINE_PACKAGE

    @classmethod
    def getHelpText(cls):
        """Return the documentation of the class; Scipion would show it indented as in the source."""
        paragraphs = inspect.cleandoc(cls.getDoc() or "").split("\n\n")
        # Scipion adds the address of the plugin in the next line
        return "\n\n".join(textwrap.fill(" ".join(lines.split()), _HELP_WIDTH) for lines in paragraphs) + "\n"

    # ---------------------------------------------------------------- form

    def _defineComputeParams(self, form) -> None:
        """Add where to compute: shown in the head of the form and in the section of the computer's resources."""
        form.addHidden(
            params.USE_GPU,
            params.BooleanParam,
            default=False,
            label="Use GPU for execution",
            help="Fit and reconstruct on a GPU; no fit on one has been timed yet.",
        )
        form.addHidden(
            params.GPU_LIST,
            params.StringParam,
            default="0",
            label="GPU ids",
            help="Numbers of the GPUs as nvidia-smi lists them, separated by blanks. In a queue, the GPUs that the "
            "queue gives to the job are used.",
        )

    def _addThreads(self, form) -> None:
        form.addParallelSection(threads=min(os.cpu_count() or 1, _MAX_THREADS_BY_DEFAULT), mpi=0)

    def getGpuList(self):
        """Return the ids of the GPUs to use: none without GPU, else a queue would be asked for one all the same."""
        return super().getGpuList() if self.usesGpu() else []

    # ---------------------------------------------------------------- calling the engine

    def runEngine(self, command: Params, status: Path, gpu: bool = False) -> Status:
        """Run one command of the engine and wait for its end.

        Parameters
        ----------
        command : Params
            Its options.
        status : Path
            Its status file.
        gpu : bool
            Give it the GPUs of this step.

        Raises
        ------
        EngineError
            With the engine's sentence if it failed, or one that says that it was stopped.
        """
        program, arguments = command_line(
            Plugin.getEngineProgram(),
            arguments_of(command),
            activation=Plugin.getActivation(),
            gpu=gpu,
            in_queue=self.useQueue(),
            in_step_queue=self.useQueueForSteps(),
        )
        exit_code = None
        try:
            self.runJob(program, arguments, env=Plugin.getEnviron(), numberOfMpi=1)
        except CalledProcessError as error:
            exit_code = error.returncode
        try:
            return require_finished(status, command.command, exit_code)
        except EngineError as error:
            raise EngineError(in_form_words(str(error), self.LABELS)) from error

    # ---------------------------------------------------------------- outputs

    def _replaceOutputs(self, made: dict[str, Any]) -> None:
        """Give Scipion the outputs, and take away those of an earlier end of this run that were not made again."""
        self._deleteOutputsUnlike(made)
        self._defineOutputs(**made)
        for output in made.values():
            self._defineSourceRelation(self.inputParticles, output)

    def copy(self, other, copyId=True, excludeInputs=False):
        """Take over what another process has made of this run.

        By itself Scipion only adds outputs: those that the other process took away, because a run that went on with
        other options has not made them again, would stay in the project window.
        """
        self._deleteOutputsUnlike({name: getattr(other, name, None) for name in self._possibleOutputs})
        return super().copy(other, copyId, excludeInputs)

    def _deleteOutputsUnlike(self, others: dict[str, Any]) -> None:
        """Remove the outputs that are not among others, or are of another kind there, which Scipion cannot replace."""
        for name in self._possibleOutputs:
            old = getattr(self, name, None)
            if old is not None and type(old) is not type(others.get(name)):
                self.deleteOutput(old)

    # ---------------------------------------------------------------- validation

    def _computerProblems(self) -> list[str]:
        """Return what this computer cannot do."""
        problems = []
        if self.scratchFolder.get() and not os.path.isdir(self.scratchFolder.get()):
            problems.append(f"The scratch folder {self.scratchFolder.get()} does not exist: create it or leave it out.")
        return problems + self._engineProblems()

    def _engineProblems(self) -> list[str]:
        """Return why the engine cannot run here; none if it can."""
        problems = project_path_problems(self.getProject().getPath())
        # Scipion itself says what validateInstallation finds
        if not Plugin.validateInstallation():
            problems += engine_problems(
                Plugin.getActivation(), Plugin.getEngineProgram(), Plugin.getEnviron(), __version__
            )
        return problems

    def _summaryOf(self, status: Path, isDone: Callable[[], bool]) -> list[str]:
        """Say how far the call of the engine with this status file is, or what `_resultLines` tells of its results."""
        try:
            if self.isActive():
                return [progress_text(read_status(status)) or "Preparing."]
            return self._resultLines() if isDone() else [unfinished_text(read_status(status))]
        except (UserError, EngineError) as error:
            return [str(error)]

    def _citations(self) -> list[str]:
        return ["Yadgar2026"]
