"""Particles of symmetric molecules: a row for each orientation that the point group makes equal, on the same image."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.contract.angles import rotation_to_relion
from solvar_engine.contract.errors import UserError
from solvar_engine.contract.words import counted
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.units import ANGLE_COLUMNS
from solvar_engine.imaging.symmetry import symmetry_operators
from solvar_engine.imaging.types import Pose

logger = logging.getLogger(__name__)

_SAME_TURN_DEG = 1.0  # of rows that symmetry makes equal; programs round angles


def expanded(stack: ParticleStack, symmetry: str) -> ParticleStack:
    """Give each particle a row for each orientation that is equal by symmetry, one after the other, its own first.

    A list that holds all of them already, made by `relion_particle_symmetry_expand` say, stays as it is.

    Parameters
    ----------
    stack : ParticleStack
    symmetry : str
        Point group, see `solvar_engine.imaging.symmetry`.

    Returns
    -------
    ParticleStack

    Raises
    ------
    UserError
        If there is no such group, or some particles have rows of some of the orientations.
    """
    try:
        operators = symmetry_operators(symmetry)
    except ValueError as error:
        raise UserError(f"--symmetry: {error}.") from error
    count = len(operators)
    if count == 1:
        return stack
    if _is_expanded(stack, operators, symmetry):
        logger.info("%s is expanded by the symmetry %s already: it is taken as it is", stack.path, symmetry)
        return stack
    logger.info(
        "Symmetry %s: each of %s is seen in %d orientations, which are rows of one half-set",
        symmetry, counted(len(stack), "particle"), count,
    )  # fmt: skip
    if stack.cryosparc is not None:
        logger.warning("A .cs file has one row of each particle: no particles.cs is written of expanded ones")
    row = np.repeat(np.arange(len(stack)), count)
    rotation = (operators[None] @ stack.pose.rotation.double()[:, None]).reshape(-1, 3, 3)
    return _repeated(stack, row, rotation)


def _repeated(stack: ParticleStack, row: NDArray[np.int64], rotation: Tensor) -> ParticleStack:
    """Particles of some rows (n,), at other orientations (n, 3, 3); cells of orientations that stay keep their text."""
    taken = stack.taken(row)
    table = taken.star.particles
    is_first = np.concatenate([[True], row[1:] != row[:-1]])
    angles = dict(zip(ANGLE_COLUMNS, rotation_to_relion(rotation.numpy()), strict=True))
    columns: dict[str, Any] = {
        name: [
            text if first else f"{value:.6f}"
            for text, first, value in zip(table.text(name), is_first, values, strict=True)
        ]
        for name, values in angles.items()
    }
    return dataclasses.replace(
        taken,
        star=taken.star.replace(table, table.with_columns(columns)),
        metadata=dataclasses.replace(taken.metadata, pose=Pose(rotation.float(), taken.pose.shift)),
    )


def _is_expanded(stack: ParticleStack, operators: Tensor, symmetry: str) -> bool:
    """Whether each image has a row for each operator; refused if only some have.

    Rows of one image at one orientation are copies, which are expanded like others.
    """
    _, label, size = np.unique(
        np.stack([stack.index.stack, stack.index.image]), axis=1, return_inverse=True, return_counts=True
    )
    order = np.argsort(label.reshape(-1), kind="stable")
    first = np.repeat(order[np.cumsum(size) - size], size)
    rotation = stack.pose.rotation.double()
    turn = rotation[order] @ rotation[first].mT
    # the operator next to each turn between an image's first row and another
    cosine = (torch.einsum("nij,gij->ng", turn, operators).amax(dim=1) - 1) / 2
    nearest = torch.einsum("nij,gij->ng", turn, operators).argmax(dim=1)
    is_equal = cosine > np.cos(np.radians(_SAME_TURN_DEG))
    is_other = (nearest > 0) & is_equal
    if not bool(is_other.any()):
        return False
    rows = torch.from_numpy(np.repeat(np.arange(len(size)), size))
    found = torch.zeros(len(size), len(operators), dtype=torch.int64)
    found.index_put_((rows[is_equal], nearest[is_equal]), torch.ones(int(is_equal.sum()), dtype=torch.int64), True)
    lacks = torch.nonzero((found != found[:, :1]).any(dim=1) | (found[:, 0] * len(operators) != torch.from_numpy(size)))
    if len(lacks):
        image = stack.name_of_image(int(order[np.cumsum(size)[int(lacks[0])] - 1]))
        raise UserError(
            f"{image} is in {stack.path} in some of the orientations that --symmetry {symmetry} makes equal: give it"
            " once, or in all of them."
        )
    return True
