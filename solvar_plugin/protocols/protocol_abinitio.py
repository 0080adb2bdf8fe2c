"""Ab-initio model: the structure and the orientations, from particles without any."""

from __future__ import annotations

from pyworkflow import BETA

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import AbinitioParams
from solvar_engine.contract.results import read_structure
from solvar_engine.contract.run import read_record
from solvar_engine.contract.status import read_status
from solvar_plugin.protocols import abinitio_outputs as outputs
from solvar_plugin.protocols.abinitio_form import ABINITIO, SEARCHES, abinitio_params, define_form, size_problems
from solvar_plugin.protocols.form_options import in_form_words, option_problems
from solvar_plugin.protocols.protocol_particles import SolvarProtParticles
from solvar_plugin.protocols.summaries import cost_lines, message_lines, outlier_lines


class SolvarProtAbinitio(SolvarProtParticles):
    """Finds the structure of a molecule, and the orientations and shifts of its particles, from the images alone.

    No reference and no orientations are needed; those that the particles have are ignored. The search begins with
    random orientations, compares every image with all orientations by expectation maximisation at low resolution, and
    then refines each particle by itself, to finer and finer detail. A few thousand particles take minutes.

    Outputs: the particles with the orientations and shifts found and how uncertain these are, and the mean volume with
    its half-maps; of several structures their volumes, and the particles of each as 3-D classes. Particles that show
    none are given as a set of outliers too. Half-maps share the search for orientations, which flatters their
    resolution.

    Whether there is a structure at all is asked of particles that took no part in the search. If there is none, as in
    images of noise, or if too few views are there, the summary says so, and there are no outputs.

    Images do not tell one hand of a molecule from the other: look at the helices, and take the other hand if need be.
    What moves is found next, by a *pose and contrast refinement* of the output.
    """

    _label = "ab-initio model"
    _devStatus = BETA
    _possibleOutputs = outputs.POSSIBLE_OUTPUTS
    NEEDS_POSES = False

    def _defineParams(self, form) -> None:
        define_form(self, form)

    # ---------------------------------------------------------------- steps

    def _insertAllSteps(self) -> None:
        matters = self._whatMatters(abinitio_params(self), ABINITIO)
        self._insertFunctionStep(self.convertInputStep, matters[0], needsGPU=False)
        self._insertFunctionStep(self.searchStep, *matters, needsGPU=False)
        self._insertFunctionStep(self.analyzeStep, *matters, needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, *matters, needsGPU=False)

    def searchStep(self, inputs: str, options: str) -> list[str]:
        """Find the structure."""
        self._findResults(abinitio_params(self))
        run = self.getRunDir()
        return [str(run.latents), str(run.particles)]

    def analyzeStep(self, inputs: str, options: str) -> list[str]:
        """Draw the figures, write the report."""
        return self._analyze()

    def createOutputStep(self, inputs: str, options: str) -> None:
        """Give Scipion particles and volumes, if there is a structure."""
        self._replaceOutputs(outputs.make_outputs(self))

    # ---------------------------------------------------------------- what Scipion asks

    def _validate(self) -> list[str]:
        particles = self.inputParticles.get()
        if particles is None:
            return []  # Scipion itself says that the input is missing
        command = abinitio_params(self)
        options = option_problems(command)
        problems = self._inputProblems() + options
        if not options:
            problems += self._contradictions(command)
            problems += size_problems(
                particles.getSize(), particles.getXDim(), particles.getSamplingRate() or 1.0, command
            )
        return problems + self._computerProblems()

    def _contradictions(self, command: AbinitioParams) -> list[str]:
        try:
            command.validate()
        except UserError as error:
            return [in_form_words(str(error), self.LABELS)]
        return []

    def _warnings(self) -> list[str]:
        particles = self.inputParticles.get()
        has_poses = particles is not None and particles.hasAlignmentProj()
        ignored = ["The particles have orientations, which are ignored: a refinement would keep them."]
        return super()._warnings() + (ignored if has_poses else [])

    def _resultLines(self) -> list[str]:
        run = self.getRunDir()
        status, structure = read_status(run.status), read_structure(run)
        lines = message_lines(status)
        if structure is not None and structure.found and len(structure.populations) == 1:
            lines.append(f"Shifts spread by {structure.shift_std:.1f} Å along each axis.")
        if structure is not None and not structure.found:
            lines.insert(0, "WARNING: no structure was found, so there are no outputs.")
        flagged = getattr(self, outputs.OUTLIERS, None)
        n_particles = getattr(self, outputs.PARTICLES).getSize() if hasattr(self, outputs.PARTICLES) else 0
        return lines + outlier_lines(0 if flagged is None else flagged.getSize(), n_particles) + cost_lines(status)

    def _methods(self) -> list[str]:
        run = self.getRunDir()
        structure = read_structure(run) if run.params.exists() else None
        if structure is None or not structure.found:
            return []
        record = read_record(run)
        options = record["options"]
        return [
            "Orientations and shifts of the particles were found without a reference by "
            f"{SEARCHES[options['method']]} and refined by Gauss-Newton steps (SOLVAR engine "
            f"{record['versions']['solvar_engine']}, [Yadgar2026]), from images Fourier-cropped to "
            f"{record['resolved']['box']} px, in point group {options['symmetry']}, with random seed "
            f"{options['seed']}; {structure.evidence()}."
        ]
