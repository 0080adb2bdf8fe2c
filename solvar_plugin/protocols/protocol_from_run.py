"""What the protocols share that start from the particles of a finished covariance analysis."""

from __future__ import annotations

from typing import Any

import pyworkflow.protocol.params as params

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.run import RunDir, is_finished
from solvar_plugin.constants import FLEX_PROGRAM
from solvar_plugin.convert.particle_results import RUN_ATTRIBUTE
from solvar_plugin.protocols.protocol_base import SolvarProtBase


def add_analysed_particles(form: Any, text: str) -> None:
    """Add the particles of a finished analysis; `text` says what they are needed for."""
    form.addParam(
        "inputParticles",
        params.PointerParam,
        pointerClass="SetOfParticlesFlex",
        important=True,
        label="Analysed particles",
        help=f"{text}\n\nTake the particles of a finished covariance analysis, or a subset of them.",
    )


def run_of(particles: Any) -> RunDir:
    """Return the finished run that a set of particles comes from, which its coordinates name.

    Raises
    ------
    UserError
        If the set comes from elsewhere, or the run is gone or not finished.
    """
    info = particles.getFlexInfo() if hasattr(particles, "getFlexInfo") else None
    path = None if info is None or info.getProgName() != FLEX_PROGRAM else getattr(info, RUN_ATTRIBUTE, None)
    if path is None or not path.get():
        raise UserError(
            "The particles do not come from a covariance analysis of SOLVAR: choose the output of one, or a subset of "
            "it."
        )
    run = RunDir(path.get())
    if not run.path.is_dir():
        raise UserError(
            f"The run that the particles come from is gone: the folder {run.path} does not exist. Run the covariance "
            "analysis again."
        )
    if not is_finished(run):
        raise UserError(
            f"The run that the particles come from, {run.path}, is not finished: let the covariance analysis come to "
            "its end."
        )
    return run


class SolvarProtFromRun(SolvarProtBase):
    """Base of the protocols whose input is what a covariance analysis has put out."""

    _label = None

    def getRunDir(self) -> RunDir:
        """Return the run that the input comes from.

        Raises
        ------
        UserError
            If there is none.
        """
        return run_of(self.inputParticles.get())

    def _inputProblems(self) -> list[str]:
        """Return what is wrong with the input, if it is given."""
        particles = self.inputParticles.get()
        if particles is None:
            return []  # Scipion itself says so
        if not particles.getSize():
            return ["The set of particles is empty: choose one with particles."]
        try:
            self.getRunDir()
        except UserError as error:
            return [str(error)]
        return []

    def _inputSignature(self) -> list[str]:
        """Tell one input, and one state of its run, from another."""
        run = self.getRunDir()
        times = [str(path.stat().st_mtime_ns) for path in (run.latents, run.clusters) if path.exists()]
        return [self.inputParticles.getUniqueId(), str(self.inputParticles.get().getSize()), str(run.path), *times]
