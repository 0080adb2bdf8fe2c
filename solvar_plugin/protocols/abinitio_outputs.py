"""The outputs of the ab-initio model: particles with the poses found, volumes, and classes of several structures."""

from __future__ import annotations

from typing import Any

from pwem.objects import SetOfClasses3D, SetOfParticles, SetOfVolumes, Volume
from pyworkflow.object import Float, Integer

from solvar_engine.contract.results import CLASS_NUMBER, read_structure
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_plugin.convert.particle_results import ParticleResults, fill_particles
from solvar_plugin.convert.particles import ID_COLUMN
from solvar_plugin.convert.states import fill_classes
from solvar_plugin.convert.volumes import mean_volume, volume_of
from solvar_plugin.protocols.covariance_outputs import MEAN, OUTLIERS, PARTICLES, plain_set, volume_set

VOLUMES = "outputVolumes"
CLASSES = "outputClasses"

POSSIBLE_OUTPUTS = {
    PARTICLES: SetOfParticles,
    OUTLIERS: SetOfParticles,
    MEAN: Volume,
    VOLUMES: SetOfVolumes,
    CLASSES: SetOfClasses3D,
}
"""Of one structure the mean, of several volumes and classes; nothing where there is no structure."""


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
    structure = read_structure(run)
    if structure is None or not structure.found:
        return {}
    found = ParticleResults.read(run)
    made: dict[str, Any] = {PARTICLES: _particles(protocol, found)}
    if found.n_outliers:
        made[OUTLIERS] = _particles(protocol, found, only_outliers=True)
    if len(structure.populations) == 1:
        return {**made, MEAN: mean_volume(run)}
    volumes = {
        number: _class_volume(run, number, share, structure.resolutions[number - 1])
        for number, share in enumerate(structure.populations, start=1)
        if run.class_volume(number).exists()
    }
    made[VOLUMES] = volume_set(protocol, "classes", list(volumes.values()))
    made[CLASSES] = _classes(protocol, found, volumes)
    return made


def _particles(protocol: Any, found: ParticleResults, only_outliers: bool = False) -> SetOfParticles:
    source = protocol.inputParticles.get()
    output = plain_set(protocol, source, "outliers" if only_outliers else None)
    output.setAlignmentProj()
    fill_particles(output, source, found, only_outliers)
    return output


def _class_volume(run: RunDir, number: int, share: float, resolution: float | None) -> Volume:
    volume = volume_of(run.class_volume(number))
    volume.setHalfMaps([str(run.class_half(number, half)) for half in (1, 2)])
    volume.setObjLabel(f"class {number} ({share:.0%} of the particles)")
    volume._solvarClass = Integer(number)
    volume._solvarResolution = Float(resolution)
    return volume


def _classes(protocol: Any, found: ParticleResults, volumes: dict[int, Volume]) -> SetOfClasses3D:
    table = StarFile.read(found.run.particles).particles
    numbers = zip(table.integers(ID_COLUMN).tolist(), table.integers(CLASS_NUMBER).tolist())
    is_outlier = [False] * len(table) if found.is_outlier is None else found.is_outlier
    owner = {
        identity: number
        for (identity, number), left_out in zip(numbers, is_outlier)
        if not left_out and number in volumes
    }
    output = protocol._createSetOfClasses3D(protocol.inputParticles)
    poses, sampling = found.poses, protocol.inputParticles.get().getSamplingRate()
    assert poses is not None
    ordered = [volumes.get(number) for number in range(1, max(volumes) + 1)]
    fill_classes(
        output,
        protocol.inputParticles.get(),
        owner,
        ordered,
        lambda identity: poses.transform(found.row_of_id[identity], sampling),
    )
    return output
