"""The volumes of states that the engine reconstructed, and the particles of each, as Scipion's objects."""

from __future__ import annotations

import math
from typing import Any, Iterator

from pwem.objects import Class3D, Particle, Volume
from pyworkflow.object import Float, Integer, String

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import StateFolder, read_owners, read_states
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_plugin.convert.attributes import csv_list
from solvar_plugin.convert.particle_results import FLEX_ATTRIBUTES
from solvar_plugin.convert.particles import enabled_items, item_ids
from solvar_plugin.convert.volumes import volume_of


def state_volumes(folder: StateFolder, kind: str) -> list[Volume]:
    """Return the volumes of the states with their half-maps, if they have any.

    Parameters
    ----------
    folder : StateFolder
    kind : str
        What a state is, such as ``cluster``: the volumes are called cluster 1, cluster 2 ...
    """
    table = read_states(folder)
    volumes = []
    for number in range(1, len(table) + 1):
        volume = volume_of(folder.volume(number))
        name = table.title(number, kind)
        volume.setObjLabel(name)
        halves = [folder.half(number, half) for half in (1, 2)]
        if all(path.exists() for path in halves):
            volume.setHalfMaps([str(path) for path in halves])
        volume._solvarState = String(name)
        volume._solvarParticles = Integer(int(table.images_used[number - 1]))
        resolution = float(table.resolution[number - 1])
        volume._solvarResolution = Float(resolution if math.isfinite(resolution) else None)
        volume._zFlex = csv_list(table.points[number - 1])
        volumes.append(volume)
    return volumes


def local_resolutions(folder: StateFolder, kind: str) -> list[Volume]:
    """Return the maps of local resolution, Angstrom; none if the method makes none."""
    table = read_states(folder)
    paths = [folder.local_resolution(number) for number in range(1, len(table) + 1)]
    if not all(path.exists() for path in paths):
        return []
    volumes = []
    for number, path in enumerate(paths, start=1):
        volume = volume_of(path)
        volume.setObjLabel(f"local resolution of {table.title(number, kind)}")
        volume._solvarState = String(table.title(number, kind))
        volumes.append(volume)
    return volumes


def state_of_particles(folder: StateFolder, run: RunDir) -> dict[int, int]:
    """Return the state (from 1) of every item of a run that belongs to one, by its id; outliers belong to none.

    Raises
    ------
    UserError
        If the table of particles is absent, or not of this run.
    """
    if not folder.owners.exists():
        raise UserError(f"{folder.owners} does not exist: run the protocol again.")
    rows, states = read_owners(folder)
    ids = item_ids(StarFile.read(run.particles).particles)
    if rows.max(initial=-1) >= len(ids):
        raise UserError(f"{folder.owners} has other particles than {run.particles}: run the protocol again.")
    return dict(zip(ids[rows].tolist(), states.tolist()))


def fill_classes(
    output: Any,
    images: Any,
    owner: dict[int, int],
    volumes: list[Volume],
    alignment: Any = None,
    items: dict[int, list[int]] | None = None,
) -> None:
    """Append one class for each state that has particles, with its volume as the representative.

    Parameters
    ----------
    output : SetOfClasses3D
        Empty.
    images : SetOfParticles
        The particles of the classes.
    owner : dict
        State (from 1) of each item, by its id.
    volumes : list of Volume
        Of the states.
    alignment : callable, optional
        Gives the transform of an item by its id; without it, particles keep theirs.
    items : dict, optional
        Ids of the items that each image is in, by the image's; without it, each is one itself.
    """
    classes: dict[int, Class3D] = {}
    for particle in enabled_items(images):
        own = particle.getObjId()
        for identity in [own] if items is None else items.get(own, []):
            state = owner.get(identity)
            if state is None:
                continue
            if state not in classes:
                classes[state] = _new_class(output, images, volumes[state - 1], state)
            item = Particle()
            item.copy(particle, ignoreAttrs=FLEX_ATTRIBUTES)
            item.setObjId(identity)
            item.setClassId(state)
            if alignment is not None:
                item.setTransform(alignment(identity))
            classes[state].append(item)
    for one in _by_number(classes):
        output.update(one)


def _new_class(output: Any, images: Any, volume: Volume, number: int) -> Class3D:
    one = Class3D(objId=number)
    one.setAcquisition(images.getAcquisition())
    one.setSamplingRate(images.getSamplingRate())
    one.setAlignmentProj()
    one.setHasCTF(images.hasCTF())
    one.setObjLabel(volume.getObjLabel())
    one.setRepresentative(volume.clone())
    output.append(one)
    return one


def _by_number(classes: dict[int, Class3D]) -> Iterator[Class3D]:
    return (classes[number] for number in sorted(classes))
