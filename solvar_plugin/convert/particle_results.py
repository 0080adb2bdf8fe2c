"""What the engine found out about every particle, as attributes of the particles of Scipion's sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pwem.objects import Particle, ParticleFlex, SetOfParticlesFlex
from pyworkflow.object import Float, Integer

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import (
    CONTRAST,
    LOG_LIKELIHOOD,
    OUTLIER,
    POSE_CHANGE_COLUMNS,
    Latents,
    image_results,
    read_latents,
)
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_plugin.constants import FLEX_PROGRAM
from solvar_plugin.convert.alignment import RefinedPoses, poses_of, refined_poses_of
from solvar_plugin.convert.attributes import csv_list
from solvar_plugin.convert.particles import enabled_items, item_ids, rows_of_particles

RUN_ATTRIBUTE = "_solvarRun"
"""Attribute of a flexible set's information: the run directory that its coordinates come from."""

PARTICLE_ATTRIBUTE = "_solvarParticleId"
"""Attribute of the items of a symmetric molecule: id of the particle whose orientations they are."""

FLEX_ATTRIBUTES = ("_flexInfo", "_zFlex", "_zRed")
"""What makes a particle flexible."""

# what an earlier analysis of the same particles may have left on them
_RUN_ATTRIBUTES = (
    "_solvarPrecision",
    *(f"_{name}" for name in (CONTRAST, LOG_LIKELIHOOD, OUTLIER, *POSE_CHANGE_COLUMNS)),
)


@dataclass(frozen=True)
class ParticleResults:
    """The results of a run, row by row.

    Attributes
    ----------
    run : RunDir
    row_of_id : dict
        Row of each item of the output, by its id in Scipion; rows are never found by their order.
    rows_of_particle : dict
        Rows of each particle of the input, by its id: several with symmetry, its own orientation first.
    item_id : ndarray, shape (n,)
        Id of the item that each row is in the output.
    latents : Latents
    log_likelihood : ndarray, shape (n,), or None
        How well the model explains each image; None if the run does not say.
    is_outlier : ndarray of bool, shape (n,), or None
    poses : RefinedPoses or None
        None if the run has taken the poses as they were, and added none.
    """

    run: RunDir
    row_of_id: dict[int, int]
    rows_of_particle: dict[int, list[int]]
    item_id: np.ndarray
    latents: Latents
    log_likelihood: np.ndarray | None
    is_outlier: np.ndarray | None
    poses: RefinedPoses | None = None

    @classmethod
    def read(cls, run: RunDir) -> ParticleResults:
        """Read a finished run.

        Raises
        ------
        UserError
            If a file is absent or damaged.
        """
        table = StarFile.read(run.particles).particles
        ids, rows = item_ids(table), rows_of_particles(table)
        row_of_id = {identity: row for row, identity in enumerate(ids.tolist())}
        images, latents = image_results(table), read_latents(run.latents)
        poses = poses_of(table) if len(rows) < len(ids) else refined_poses_of(table)
        return cls(run, row_of_id, rows, ids, latents, images.log_likelihood, images.is_outlier, poses)

    @property
    def rank(self) -> int:
        """Number of components."""
        return int(self.latents.z.shape[1])

    @property
    def n_outliers(self) -> int:
        """Number of particles that are flagged."""
        return 0 if self.is_outlier is None else int(self.is_outlier.sum())

    @property
    def is_expanded(self) -> bool:
        """Whether symmetry has given particles several rows."""
        return len(self.rows_of_particle) < len(self.item_id)

    def rows_of(self, particle: Any) -> list[int]:
        """Return the rows of a particle of the input, its own orientation first.

        Raises
        ------
        UserError
            If the run does not know it, because the set has changed since.
        """
        rows = self.rows_of_particle.get(particle.getObjId())
        if rows is None:
            raise UserError(
                f"Particle {particle.getObjId()} is not in {self.run.particles}: the input has changed, run the "
                "protocol again."
            )
        return rows

    def annotate(self, item: Any, row: int) -> None:
        """Give an item what is known of the particle of a row, its place in the latent space aside."""
        if self.poses is not None:
            item.setTransform(self.poses.transform(row, item.getSamplingRate()))
            for name, values in self.poses.known.items():
                setattr(item, f"_{name}", Float(float(values[row])))
        item._solvarContrast = Float(float(self.latents.contrast[row]))
        if self.log_likelihood is not None:
            item._solvarLogLikelihood = Float(float(self.log_likelihood[row]))
        if self.is_outlier is not None:
            item._solvarOutlier = Integer(int(self.is_outlier[row]))


def fill_particles(output: Any, particles: Any, found: ParticleResults, only_outliers: bool = False) -> None:
    """Append a copy of the particles with what the run found; ids, CTF and all other attributes stay.

    With symmetry, each is followed by its other orientations, items with ids of their own.

    Parameters
    ----------
    output : SetOfParticlesFlex or SetOfParticles
        Empty, with the information of `particles` copied; particles of a flexible set get their latent coordinates.
    particles : SetOfParticles
        The input of the run.
    found : ParticleResults
        Of at least one component for a flexible set.
    only_outliers : bool
        Leave the others out.

    Raises
    ------
    UserError
        If the run does not know a particle, because the set has changed since.
    """
    upper = np.triu_indices(found.rank)
    is_flexible = isinstance(output, SetOfParticlesFlex)
    for particle in enabled_items(particles):
        for row in found.rows_of(particle):
            if only_outliers and (found.is_outlier is None or not found.is_outlier[row]):
                continue
            item = ParticleFlex(progName=FLEX_PROGRAM) if is_flexible else Particle()
            # without what an earlier analysis knew of it
            item.copy(particle, ignoreAttrs=[*FLEX_ATTRIBUTES, *_RUN_ATTRIBUTES])
            item.setObjId(int(found.item_id[row]))
            if is_flexible:
                item.setZFlex([float(value) for value in found.latents.z[row]])
                item._solvarPrecision = csv_list(found.latents.precision[row][upper])
            found.annotate(item, row)
            if found.is_expanded:
                setattr(item, PARTICLE_ATTRIBUTE, Integer(particle.getObjId()))
            output.append(item)
