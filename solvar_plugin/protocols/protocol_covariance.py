"""Covariance analysis: the motions of a molecule, and where every particle is along them."""

from __future__ import annotations

import shutil

from pyworkflow import BETA

from solvar_engine.contract.params import ReconstructParams
from solvar_engine.contract.status import status_path
from solvar_plugin.convert import volumes
from solvar_plugin.protocols import covariance_outputs as outputs
from solvar_plugin.protocols.covariance_form import FIT, define_form, fit_params
from solvar_plugin.protocols.form_options import cluster_problems, option_problems, size_problems
from solvar_plugin.protocols.protocol_particles import SolvarProtParticles
from solvar_plugin.protocols.summaries import outlier_lines


class SolvarProtCovariance(SolvarProtParticles):
    """Finds how a molecule moves, from the particles of a homogeneous 3-D refinement.

    The covariance of the molecule's volume is estimated directly from the images, their orientations and their CTFs, by
    maximum likelihood. Its leading components (eigenvolumes) are the principal motions; every particle gets its
    coordinates along them, with their uncertainty.

    Outputs: the particles with their latent coordinates, the mean volume with half-maps, the eigenvolumes, and volumes
    of states to look at: the mean minus and plus two standard deviations along each component, and the centres of
    clusters of particles. Particles that no state of the molecule explains, such as ice or overlapping molecules, are
    flagged, and given as a set of outliers too.

    If the particles do not show any motion that can be reproduced, the protocol says so: there are then no
    eigenvolumes and no states, and the particles have no latent coordinates.

    The molecule may be symmetric: give the point group that the refinement imposed. Each particle is then used in all
    orientations that are equal by it, motions are those of one asymmetric unit, and the output particles have an item
    for each orientation. The particle's own one keeps its id, the others have new ones.
    """

    _label = "covariance analysis"
    _devStatus = BETA
    _possibleOutputs = outputs.POSSIBLE_OUTPUTS
    MASKS = {"inputMask": "mask", "inputFocusMask": "focus mask"}

    REFINES = False
    """Whether poses are refined too."""

    def _defineParams(self, form) -> None:
        define_form(self, form)

    # ---------------------------------------------------------------- steps

    def _insertAllSteps(self) -> None:
        inputs, options = self._whatMatters(fit_params(self), FIT)
        clusters = self.numberOfClusters.get()
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.fitStep, inputs, options, needsGPU=self.useGpu.get())
        self._insertFunctionStep(self.analyzeStep, inputs, options, clusters, needsGPU=False)
        self._insertFunctionStep(self.reconstructStep, inputs, options, clusters, needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, inputs, options, clusters, needsGPU=False)

    def fitStep(self, inputs: str, options: str) -> list[str]:
        """Find the motions."""
        self._findResults(fit_params(self), gpu=self.useGpu.get())
        run = self.getRunDir()
        return [str(run.latents), str(run.eigenvalues), str(run.mean)]

    def analyzeStep(self, inputs: str, options: str, clusters: int) -> list[str]:
        """Group the particles, draw the figures, write the report; without any component, the report says why."""
        return self._analyze(clusters=clusters)

    def reconstructStep(self, inputs: str, options: str, clusters: int) -> list[str]:
        """Make the volumes of the states; there are none without any component."""
        folder = self.getStatesFolder()
        self._removeStates()
        if not volumes.write_points_to_look_at(self.getRunDir(), self.getPointsPath()):
            return []
        command = ReconstructParams(
            run=str(self.getRunDir().path), output=str(folder), points=str(self.getPointsPath()), method="linear",
            allow_extrapolation=True,  # along a component there may be none; such states are named so
            threads=self.numberOfThreads.get(), device="cpu",
        )  # fmt: skip
        self.runEngine(command, status_path(folder))
        return [str(folder / "states.csv")]

    def createOutputStep(self, inputs: str, options: str, clusters: int) -> None:
        """Give Scipion the particles and volumes."""
        made = outputs.make_outputs(self)
        self._replaceOutputs(made)
        masks = self._masks()
        if "inputMask" in masks:
            self._defineSourceRelation(self.inputMask, made[outputs.MEAN])
        if "inputFocusMask" in masks and outputs.EIGENVOLUMES in made:
            self._defineSourceRelation(self.inputFocusMask, made[outputs.EIGENVOLUMES])

    def _startAfresh(self) -> None:
        super()._startAfresh()
        self._removeStates()

    def _removeStates(self) -> None:
        shutil.rmtree(self.getStatesFolder(), ignore_errors=True)
        if self.getPointsPath().exists():
            self.getPointsPath().unlink()

    # ---------------------------------------------------------------- what Scipion asks

    def _validate(self) -> list[str]:
        particles = self.inputParticles.get()
        if particles is None:
            return []  # Scipion itself says that the input is missing
        options = option_problems(fit_params(self))
        problems = self._inputProblems() + options
        problems += cluster_problems(self.numberOfClusters.get(), particles.getSize())
        if not options:
            problems += size_problems(particles.getSize(), particles.getXDim(), fit_params(self))
        return problems + self._computerProblems()

    def _resultLines(self) -> list[str]:
        # counted in the output, since the run's table of particles can be large
        outliers = getattr(self, outputs.OUTLIERS, None)
        n_particles = getattr(self, outputs.PARTICLES).getSize() if hasattr(self, outputs.PARTICLES) else 0
        return super()._resultLines() + outlier_lines(0 if outliers is None else outliers.getSize(), n_particles)
