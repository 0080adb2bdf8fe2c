"""The outputs of the covariance analysis: sets of particles and volumes, made from the engine's run directory."""

from __future__ import annotations

from typing import Any

from pwem.objects import SetOfParticles, SetOfParticlesFlex, SetOfVolumes, Volume

from solvar_engine.contract.results import StateFolder
from solvar_engine.contract.run import RunDir
from solvar_plugin import __version__
from solvar_plugin.constants import FLEX_PROGRAM
from solvar_plugin.convert import volumes
from solvar_plugin.convert.particle_results import RUN_ATTRIBUTE, ParticleResults, fill_particles

PARTICLES = "outputParticles"
OUTLIERS = "outputOutliers"
MEAN = "outputMean"
EIGENVOLUMES = "outputEigenvolumes"
STATES = "outputStates"

POSSIBLE_OUTPUTS = {
    PARTICLES: SetOfParticlesFlex,
    OUTLIERS: SetOfParticles,
    MEAN: Volume,
    EIGENVOLUMES: SetOfVolumes,
    STATES: SetOfVolumes,
}
"""Without any component, the particles are a plain set, and there are neither eigenvolumes nor states."""


def make_outputs(protocol: Any) -> dict[str, Any]:
    """Make the outputs of a finished run.

    Returns
    -------
    dict
        By the names of the outputs; not given to Scipion yet.

    Raises
    ------
    UserError
        If the input has changed since, or a file of the run is absent or damaged.
    """
    run = protocol.getRunDir()
    found = ParticleResults.read(run)
    made = {PARTICLES: _particles(protocol, found), MEAN: volumes.mean_volume(run)}
    if found.n_outliers:
        made[OUTLIERS] = _outliers(protocol, found)
    if found.rank:
        made[EIGENVOLUMES] = volume_set(protocol, "eigenvolumes", volumes.eigenvolumes(run))
        states = volumes.states(protocol.getPointsPath(), StateFolder(protocol.getStatesFolder()))
        made[STATES] = volume_set(protocol, "states", states)
    return made


def _particles(protocol: Any, found: ParticleResults) -> SetOfParticles:
    source = protocol.inputParticles.get()
    if not found.rank:
        # nothing to be flexible about
        output = plain_set(protocol, source)
    else:
        output = SetOfParticlesFlex.create(protocol._getPath(), progName=FLEX_PROGRAM)
        output.copyInfo(source)
        # what copyInfo leaves out
        output.setHasCTF(source.hasCTF())
        _sign(output.getFlexInfo(), found.run, protocol.seed.get())
    fill_particles(output, source, found)
    return output


def _sign(info: Any, run: RunDir, seed: int) -> None:
    """Write into a flexible set where its coordinates come from."""
    info.setProgName(FLEX_PROGRAM)
    info.setAttr(RUN_ATTRIBUTE, str(run.path))
    info.setAttr("_solvarVersion", __version__)
    info.setAttr("_solvarSeed", seed)


def _outliers(protocol: Any, found: ParticleResults) -> SetOfParticles:
    source = protocol.inputParticles.get()
    output = plain_set(protocol, source, "outliers")
    output.setObjComment("Particles that the model explains far worse than the others.")
    fill_particles(output, source, found, only_outliers=True)
    return output


def plain_set(protocol: Any, source: Any, suffix: str | None = None) -> SetOfParticles:
    """Make an empty set of particles of a protocol like another set, in files with this suffix."""
    output = SetOfParticles.create(protocol._getPath(), suffix=suffix)
    output.copyInfo(source)
    return output


def volume_set(protocol: Any, suffix: str, members: list[Volume]) -> SetOfVolumes:
    """Make a set of volumes of a protocol, in files with this suffix."""
    output = protocol._createSetOfVolumes(suffix=f"_{suffix}")
    output.setSamplingRate(members[0].getSamplingRate())
    for volume in members:
        output.append(volume)
    return output
