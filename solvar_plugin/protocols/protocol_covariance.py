"""Covariance analysis: the motions of a molecule, and where every particle is along them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyworkflow.protocol.params as params
from pwem.objects import SetOfParticlesFlex, SetOfVolumes, Volume
from pyworkflow import BETA
from pyworkflow.utils import Message

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import (
    SUPPORTED_DEVICES,
    AnalyzeParams,
    FitParams,
    Option,
    ReconstructParams,
    options_of,
)
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.status import status_path
from solvar_plugin import __version__
from solvar_plugin.constants import FLEX_PROGRAM
from solvar_plugin.convert import results
from solvar_plugin.convert.locations import file_name
from solvar_plugin.convert.particles import write_particles
from solvar_plugin.engine import EngineError, progress_text, unfinished_text
from solvar_plugin.protocols.form_options import (
    LABELS,
    choices_of,
    cluster_problems,
    help_of,
    option_problems,
    size_problems,
)
from solvar_plugin.protocols.input_checks import (
    mask_problems,
    optics_problems,
    optics_warnings,
    particle_problems,
)
from solvar_plugin.protocols.protocol_base import SolvarProtBase
from solvar_plugin.protocols.summaries import methods_text, result_lines

AUTOMATIC = 0
DEFAULT_RANK = 10

FIT: dict[str, Option] = {option.name: option for option in options_of(FitParams)}
ANALYZE: dict[str, Option] = {option.name: option for option in options_of(AnalyzeParams)}


OUTPUT_PARTICLES = "outputParticles"
OUTPUT_MEAN = "outputMean"
OUTPUT_EIGENVOLUMES = "outputEigenvolumes"
OUTPUT_STATES = "outputStates"


class SolvarProtCovariance(SolvarProtBase):
    """Finds how a molecule moves, from the particles of a homogeneous 3-D refinement.

    The covariance of the molecule's volume is estimated directly from the images, their orientations and their CTFs, by
    maximum likelihood. Its leading components (eigenvolumes) are the principal motions; every particle gets its
    coordinates along them, with their uncertainty.

    Outputs: the particles with their latent coordinates, the mean volume with half-maps, the eigenvolumes, and volumes
    of states to look at: the mean minus and plus two standard deviations along each component, and the centres of
    clusters of particles.

    The molecule is taken to have no symmetry. If the refinement imposed one, expand the particles by it first (with a
    symmetry expansion of your refinement package) and use the expanded set.
    """

    _label = "covariance analysis"
    _devStatus = BETA
    _possibleOutputs = {
        OUTPUT_PARTICLES: SetOfParticlesFlex,
        OUTPUT_MEAN: Volume,
        OUTPUT_EIGENVOLUMES: SetOfVolumes,
        OUTPUT_STATES: SetOfVolumes,
    }

    # ---------------------------------------------------------------- form

    def _defineParams(self, form) -> None:
        form.addSection(label=Message.LABEL_INPUT)
        self._defineComputeParams(form)
        form.addParam(
            "inputParticles",
            params.PointerParam,
            pointerClass="SetOfParticles",
            pointerCondition="hasAlignmentProj",
            important=True,
            label="Input particles",
            help="Particles of a finished homogeneous 3-D refinement, with orientations, shifts and CTF, in MRC "
            "stacks. At least 100, and 20 for each component; thousands are needed to see anything.\n\nThe molecule is "
            "taken to have no symmetry (C1). If the refinement imposed a symmetry, give symmetry-expanded particles.",
        )
        form.addParam(
            "inputMask",
            params.PointerParam,
            pointerClass="VolumeMask",
            allowsNull=True,
            label=LABELS["mask"],
            help="Soft mask around everything that moves, wide enough to hold all states, with the particles' pixel "
            "size. Without it, a mask is made from the mean volume.",
        )
        form.addParam(
            "inputFocusMask",
            params.PointerParam,
            pointerClass="VolumeMask",
            allowsNull=True,
            label=LABELS["focus_mask"],
            help="Soft mask around the one region whose motions you want to see, such as a mobile domain or a subunit "
            "that is there in some particles only, wide enough for all its states, with the particles' pixel size. "
            "Motions elsewhere are then left out; the mean volume still shows the whole molecule. Without it, motions "
            "are sought everywhere.",
        )
        form.addParam(
            "rank",
            params.IntParam,
            default=DEFAULT_RANK,
            important=True,
            label=LABELS["rank"],
            help=help_of(FIT["rank"])
            + "\n\nComponents beyond the real motions cost time and are marked as not reproducible, so a few too many "
            "do no harm. A large rotation of a domain needs several components.",
        )
        form.addParam(
            "boxSize",
            params.IntParam,
            default=AUTOMATIC,
            label=LABELS["box"],
            help=help_of(FIT["box"]) + f"\n\n{AUTOMATIC} is automatic. A smaller box is faster and sees coarser "
            "motions: the finest detail is two pixels of the working box.",
        )
        form.addParam(
            "numberOfClusters",
            params.IntParam,
            default=ANALYZE["clusters"].default,
            label=LABELS["clusters"],
            help="The particles are grouped into this many k-means clusters, and the volume at the centre of each is "
            "one of the states to look at. The groups divide the latent space for looking at it; they need not be "
            "states of the molecule.",
        )
        form.addParam(
            "opticsStar",
            params.FileParam,
            default="",
            expertLevel=params.LEVEL_ADVANCED,
            label="STAR file for the optics",
            help="Only for particles of several optics groups that were imported from RELION: the STAR file that was "
            "imported. The import gives all particles one voltage, spherical aberration and amplitude contrast and "
            "forgets their groups; with this file they are found again, image by image.",
        )

        form.addSection(label="Method")
        self._addEnum(form, "objective", FIT["objective"], params.LEVEL_NORMAL)
        self._addEnum(form, "projector", FIT["projector"])
        self._addNumber(form, "oversampling", FIT["oversampling"])
        self._addEnum(form, "invertContrast", FIT["invert_contrast"], params.LEVEL_NORMAL)
        self._addNumber(form, "seed", FIT["seed"])
        self._addNumber(form, "cacheMb", FIT["cache_mb"])
        form.addParam(
            "scratchFolder",
            params.FolderParam,
            default="",
            expertLevel=params.LEVEL_ADVANCED,
            label=LABELS["scratch"],
            help=help_of(FIT["scratch"]) + " A fast local disk is best.",
        )
        self._addThreads(form)

    def _addNumber(self, form, name: str, option: Option) -> None:
        form.addParam(
            name,
            params.IntParam,
            default=option.default,
            expertLevel=params.LEVEL_ADVANCED,
            label=LABELS[option.name],
            help=help_of(option),
        )

    def _addEnum(self, form, name: str, option: Option, level: int = params.LEVEL_ADVANCED) -> None:
        form.addParam(
            name,
            params.EnumParam,
            choices=choices_of(option),
            default=option.choices.index(option.default),
            display=params.EnumParam.DISPLAY_COMBO,
            expertLevel=level,
            label=LABELS[option.name],
            help=help_of(option),
        )

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

    def _insertAllSteps(self) -> None:
        # Scipion compares the arguments of a step, and of that step only, to tell whether it must be done again: every
        # step therefore gets all that its result depends on.
        inputs = json.dumps(self._inputSignature(), sort_keys=True)
        options = json.dumps(self._optionsThatMatter(), sort_keys=True)
        clusters = self.numberOfClusters.get()
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.fitStep, inputs, options, needsGPU=self.useGpu.get())
        self._insertFunctionStep(self.analyzeStep, inputs, options, clusters, needsGPU=False)
        self._insertFunctionStep(self.reconstructStep, inputs, options, clusters, needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, inputs, options, clusters, needsGPU=False)

    def _inputSignature(self) -> dict[str, Any]:
        """Tell one input from another, and from itself after it was made anew."""
        masks = [_path_of(self.inputMask.get()), _path_of(self.inputFocusMask.get())]
        files = [self.inputParticles.get().getFileName(), *masks, self.opticsStar.get()]
        return {
            "particles": self.inputParticles.getUniqueId(),
            "files": [[name, os.stat(name).st_mtime_ns, os.stat(name).st_size] for name in files if name],
        }

    def _optionsThatMatter(self) -> dict[str, Any]:
        values = self._fitParams().to_dict()
        return {name: value for name, value in values.items() if not FIT[name].may_differ_on_resume}

    def convertInputStep(self, inputs: str) -> list[str]:
        """Write the particles as the engine reads them."""
        original = Path(self.opticsStar.get()) if self.opticsStar.get() else None
        has_changed = write_particles(self.inputParticles.get(), self.getStarPath(), original)
        if has_changed:
            self._startAfresh()
        return [str(self.getStarPath())]

    def fitStep(self, inputs: str, options: str) -> list[str]:
        """Find the motions; goes on where an interrupted fit stopped, and starts afresh if an option has changed."""
        run = self.getRunDir()
        command = self._fitParams()
        if run.differing_options(command) or run.changed_inputs():
            self._startAfresh()
        self.runEngine(command, run.status, gpu=self.useGpu.get())
        return [str(run.latents), str(run.eigenvalues), str(run.mean)]

    def analyzeStep(self, inputs: str, options: str, clusters: int) -> list[str]:
        """Group the particles, draw the figures, write the report."""
        run = self.getRunDir()
        if run.analysis_status.exists():
            run.analysis_status.unlink()
        command = AnalyzeParams(
            run=str(run.path), clusters=clusters, seed=self.seed.get(), threads=self.numberOfThreads.get(), device="cpu"
        )
        self.runEngine(command, run.analysis_status)
        return [str(run.report)]

    def reconstructStep(self, inputs: str, options: str, clusters: int) -> list[str]:
        """Make the volumes of the states."""
        folder = self.getStatesFolder()
        shutil.rmtree(folder, ignore_errors=True)
        if not results.write_points(self.getRunDir(), self.getPointsPath()):
            return []
        command = ReconstructParams(
            run=str(self.getRunDir().path), output=str(folder), points=str(self.getPointsPath()), method="linear",
            threads=self.numberOfThreads.get(), device="cpu",
        )  # fmt: skip
        self.runEngine(command, status_path(folder))
        return [str(folder / "states.csv")]

    def createOutputStep(self, inputs: str, options: str, clusters: int) -> None:
        """Give Scipion the particles and volumes."""
        run = self.getRunDir()
        particles = self._outputParticles(run)
        mean = results.mean_volume(run)
        made = {OUTPUT_PARTICLES: particles, OUTPUT_MEAN: mean}
        if self.getStatesFolder().is_dir():
            made[OUTPUT_EIGENVOLUMES] = self._volumeSet("eigenvolumes", results.eigenvolumes(run))
            states = results.states(self.getPointsPath(), self.getStatesFolder())
            made[OUTPUT_STATES] = self._volumeSet("states", states)
        self._defineOutputs(**made)
        for output in made.values():
            self._defineSourceRelation(self.inputParticles, output)
        if self.inputMask.get() is not None:
            self._defineSourceRelation(self.inputMask, mean)
        if self.inputFocusMask.get() is not None and OUTPUT_EIGENVOLUMES in made:
            self._defineSourceRelation(self.inputFocusMask, made[OUTPUT_EIGENVOLUMES])

    def _outputParticles(self, run: RunDir) -> SetOfParticlesFlex:
        source = self.inputParticles.get()
        output = SetOfParticlesFlex.create(self._getPath(), progName=FLEX_PROGRAM)
        output.copyInfo(source)
        # what copyInfo leaves out
        output.setHasCTF(source.hasCTF())
        info = output.getFlexInfo()
        info.setProgName(FLEX_PROGRAM)
        info.setAttr("_solvarRun", str(run.path))
        info.setAttr("_solvarVersion", __version__)
        info.setAttr("_solvarSeed", self.seed.get())
        results.fill_particles(output, source, run)
        return output

    def _volumeSet(self, suffix: str, volumes: list[Volume]) -> SetOfVolumes:
        output = self._createSetOfVolumes(suffix=f"_{suffix}")
        output.setSamplingRate(volumes[0].getSamplingRate())
        for volume in volumes:
            output.append(volume)
        return output

    def _startAfresh(self) -> None:
        """Remove the results of other input or options; the outputs that point to them are replaced at the end."""
        self.getRunDir().clear()
        shutil.rmtree(self.getStatesFolder(), ignore_errors=True)

    # ---------------------------------------------------------------- options

    def _fitParams(self) -> FitParams:
        """Say in the engine's terms what the form says."""
        return FitParams(
            particles=str(self.getStarPath()),
            output=str(self.getRunDir().path),
            rank=self.rank.get(),
            mask=_path_of(self.inputMask.get()),
            focus_mask=_path_of(self.inputFocusMask.get()),
            box=self.boxSize.get() if self.boxSize.get() != AUTOMATIC else None,
            objective=FIT["objective"].choices[self.objective.get()],
            projector=FIT["projector"].choices[self.projector.get()],
            oversampling=self.oversampling.get(),
            invert_contrast=FIT["invert_contrast"].choices[self.invertContrast.get()],
            root=os.path.curdir,
            cache_mb=self.cacheMb.get(),
            scratch=self.scratchFolder.get() or None,
            resume=True,
            threads=self.numberOfThreads.get(),
            device="cuda" if self.useGpu.get() else "cpu",
            seed=self.seed.get(),
        )

    # ---------------------------------------------------------------- what Scipion asks

    def _validate(self) -> list[str]:
        particles = self.inputParticles.get()
        if particles is None:
            return []  # Scipion itself says that the input is missing
        problems = particle_problems(particles)
        options = option_problems(self._fitParams())
        problems += options + cluster_problems(self.numberOfClusters.get(), particles.getSize())
        if not options:
            problems += size_problems(particles.getSize(), particles.getXDim(), self._fitParams())
        if self.inputMask.get() is not None:
            problems += mask_problems(self.inputMask.get(), particles)
        if self.inputFocusMask.get() is not None:
            problems += mask_problems(self.inputFocusMask.get(), particles, "focus mask")
        if self.opticsStar.get() and not problems:
            problems += optics_problems(particles, Path(self.opticsStar.get()))
        if self.scratchFolder.get() and not os.path.isdir(self.scratchFolder.get()):
            problems.append(f"The scratch folder {self.scratchFolder.get()} does not exist: create it or leave it out.")
        if self.useGpu.get() and "cuda" not in SUPPORTED_DEVICES:
            problems.append("This version of the engine computes on the CPU only: set 'GPU IDs' to No.")
        return problems + self._engineProblems()

    def _warnings(self) -> list[str]:
        particles = self.inputParticles.get()
        return [] if self.opticsStar.get() or particles is None else optics_warnings(particles)

    def _summary(self) -> list[str]:
        run = self.getRunDir()
        try:
            if self.isActive():
                return [progress_text(run.read_status()) or "Preparing."]
            return result_lines(run) if run.is_finished() else [unfinished_text(run.read_status())]
        except (UserError, EngineError) as error:
            return [str(error)]

    def _methods(self) -> list[str]:
        run = self.getRunDir()
        return [methods_text(run)] if run.is_finished() else []

    def _citations(self) -> list[str]:
        return ["Yadgar2026"]


def _path_of(mask: Any) -> str | None:
    return None if mask is None else file_name(mask.getFileName())
