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
from solvar_plugin.convert.alignment import RefinedPoses, refined_poses_of
from solvar_plugin.convert.attributes import csv_list
from solvar_plugin.convert.particles import ID_COLUMN, enabled_items

RUN_ATTRIBUTE = "_solvarRun"
"""Attribute of a flexible set's information: the run directory that its coordinates come from."""

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
        Row of each particle, by its id in Scipion; rows are never found by their order.
    latents : Latents
    log_likelihood : ndarray, shape (n,), or None
        How well the model explains each image; None if the run does not say.
    is_outlier : ndarray of bool, shape (n,), or None
    poses : RefinedPoses or None
        None if the run has taken the poses as they were.
    """

    run: RunDir
    row_of_id: dict[int, int]
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
        row_of_id = {int(identity): row for row, identity in enumerate(table.integers(ID_COLUMN))}
        images, latents = image_results(table), read_latents(run.latents)
        return cls(run, row_of_id, latents, images.log_likelihood, images.is_outlier, refined_poses_of(table))

    @property
    def rank(self) -> int:
        """Number of components."""
        return int(self.latents.z.shape[1])

    @property
    def n_outliers(self) -> int:
        """Number of particles that are flagged."""
        return 0 if self.is_outlier is None else int(self.is_outlier.sum())

    def row_of(self, particle: Any) -> int:
        """Return the row of a particle.

        Raises
        ------
        UserError
            If the run does not know it, because the set has changed since.
        """
        row = self.row_of_id.get(particle.getObjId())
        if row is None:
            raise UserError(
                f"Particle {particle.getObjId()} is not in {self.run.particles}: the input has changed, run the "
                "protocol again."
            )
        return row

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
        row = found.row_of(particle)
        if only_outliers and (found.is_outlier is None or not found.is_outlier[row]):
            continue
        item = ParticleFlex(progName=FLEX_PROGRAM) if is_flexible else Particle()
        # without what an earlier analysis knew of it
        item.copy(particle, ignoreAttrs=[*FLEX_ATTRIBUTES, *_RUN_ATTRIBUTES])
        if is_flexible:
            item.setZFlex([float(value) for value in found.latents.z[row]])
            item._solvarPrecision = csv_list(found.latents.precision[row][upper])
        found.annotate(item, row)
        output.append(item)
