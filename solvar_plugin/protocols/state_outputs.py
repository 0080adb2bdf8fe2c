"""The outputs of the volume reconstruction: volumes of states, their local resolution, and the particles of each."""

from __future__ import annotations

from typing import Any

import numpy as np
from pwem.objects import SetOfClasses3D, SetOfVolumes, Transform

from solvar_engine.contract.star import StarFile
from solvar_plugin.convert.particles import enabled_items, item_ids, rows_of_particles
from solvar_plugin.convert.states import fill_classes, local_resolutions, state_of_particles, state_volumes
from solvar_plugin.protocols.covariance_outputs import volume_set

VOLUMES = "outputVolumes"
LOCAL_RESOLUTION = "outputLocalResolution"
CLASSES = "outputClasses"

POSSIBLE_OUTPUTS = {VOLUMES: SetOfVolumes, LOCAL_RESOLUTION: SetOfVolumes, CLASSES: SetOfClasses3D}
"""Volumes by the linear method have no local resolution."""


def make_outputs(protocol: Any, full: Any) -> dict[str, Any]:
    """Make the outputs of a finished reconstruction.

    Parameters
    ----------
    protocol : SolvarProtReconstruct
    full : SetOfParticles or None
        The particles at full size, if they were given.

    Returns
    -------
    dict
        By the names of the outputs; not given to Scipion yet.

    Raises
    ------
    UserError
        If a file is absent or damaged.
    """
    states, kind = protocol.getStates(), protocol.getStateKind()
    volumes = state_volumes(states, kind)
    made: dict[str, Any] = {VOLUMES: volume_set(protocol, "states", volumes)}
    resolutions = local_resolutions(states, kind)
    if resolutions:
        made[LOCAL_RESOLUTION] = volume_set(protocol, "local_resolution", resolutions)
    classes = classes_of(protocol, full, state_of_particles(states, protocol.getRunDir()), volumes)
    # a subset of outliers has none
    if classes.getSize():
        made[CLASSES] = classes
    return made


def classes_of(protocol: Any, full: Any, owner: dict[int, int], volumes: list[Any]) -> SetOfClasses3D:
    """Put the particles, at full size if they were given, into classes.

    Parameters
    ----------
    protocol : SolvarProtReconstruct
    full : SetOfParticles or None
    owner : dict
        State (from 1) of each item of the run, by its id.
    volumes : list of Volume
        Of the states.
    """
    if full is None:
        output = protocol._createSetOfClasses3D(protocol.inputParticles)
        fill_classes(output, protocol.inputParticles.get(), owner, volumes)
        return output
    output = protocol._createSetOfClasses3D(protocol.fullParticles)
    source = protocol.inputParticles.get()
    matrices = {item.getObjId(): item.getTransform().getMatrix().copy() for item in enabled_items(source)}
    scale = source.getSamplingRate() / full.getSamplingRate()
    known = {identity: state for identity, state in owner.items() if identity in matrices}
    table = StarFile.read(protocol.getRunDir().particles).particles
    ids = item_ids(table)
    items = {particle: ids[rows].tolist() for particle, rows in rows_of_particles(table).items()}
    fill_classes(output, full, known, volumes, lambda identity: _scaled(matrices[identity], scale), items)
    return output


def _scaled(matrix: np.ndarray, scale: float) -> Transform:
    """Return a transform with shifts in other pixels."""
    matrix = matrix.copy()
    matrix[:3, 3] *= scale
    return Transform(matrix)
