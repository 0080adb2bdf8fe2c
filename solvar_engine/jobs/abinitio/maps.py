"""Volumes from poses that were found: of each class the mean with its half-maps, and a mask around it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.abinitio.structure import Structure
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.alternation.means import half_set_equations
from solvar_engine.estimation.judging.components import Components, LatentBatch, latent_coordinates
from solvar_engine.estimation.model.bands import make_band
from solvar_engine.estimation.poses.likelihood import pose_deviation
from solvar_engine.imaging.masks import BALL, automatic_mask, sphere_mask
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.mean import MeanEstimate, estimate_mean

logger = logging.getLogger(__name__)

_FEWEST = 10  # images of a half-set that a volume is made from
_CONTRAST_VARIANCE = 0.04  # of the contrasts of images before they are looked at


@dataclass(frozen=True)
class ClassMap:
    """The volume of one class.

    Attributes
    ----------
    mean : MeanEstimate
        In the units of the estimators.
    mask : Tensor, shape (z, y, x)
        Around the molecule.
    members : Tensor, shape (m,), int64
        Rows of its images, junk left out, ascending.
    """

    mean: MeanEstimate
    mask: Tensor
    members: Tensor


@dataclass(frozen=True)
class ImageScores:
    """What the volumes say of each image.

    Attributes
    ----------
    contrast, contrast_std : Tensor, shape (n,)
        1 and 0 of images that are in no class.
    shift_std : Tensor, shape (n,)
        Posterior standard deviation of the shift, Angstrom.
    """

    contrast: Tensor
    contrast_std: Tensor
    shift_std: Tensor


def reconstruct_classes(
    source: PreparedParticles, halves: tuple[Tensor, Tensor], structure: Structure, is_used: Tensor,
    group: Tensor, options: SliceOptions,
) -> list[ClassMap | None]:
    """Reconstruct the volume of each class from its images at the poses found.

    Parameters
    ----------
    source : PreparedParticles
        At these poses, with the sign found.
    halves : tuple of two Tensors, int64
    structure : Structure
    is_used : Tensor, shape (n,), bool
    group : Tensor, shape (g, 3, 3)
        Rotations of the point group: each image is used at all poses that are equal by symmetry.
    options : SliceOptions

    Returns
    -------
    list of ClassMap or None
        None for a class with hardly any images.
    """
    return [
        _reconstruct(source, halves, is_used & (structure.class_of == number), group, options)
        for number in range(len(structure.populations))
    ]


def _reconstruct(
    source: PreparedParticles, halves: tuple[Tensor, Tensor], is_member: Tensor, group: Tensor, options: SliceOptions
) -> ClassMap | None:
    first, second = (half[is_member[half]] for half in halves)
    if min(len(first), len(second)) < _FEWEST:
        return None
    sums = None
    for turn in group.to(source.pose.rotation):
        turned = source.with_pose(replace(source.pose, rotation=turn @ source.pose.rotation))
        equations = half_set_equations(turned, (first, second), options)
        sums = equations if sums is None else (sums[0] + equations[0], sums[1] + equations[1])
    assert sums is not None
    mean = estimate_mean(*sums)
    try:
        mask = automatic_mask(mean.mean, source.pixel_size)
    except ValueError as error:
        logger.warning("No mask is made from the mean, but a ball: %s", error)
        mask = sphere_mask(source.box_size, BALL * source.box_size, 0.05 * source.box_size)
    return ClassMap(estimate_mean(*sums, mask), mask, torch.nonzero(is_member).flatten())


def score_images(source: PreparedParticles, maps: list[ClassMap], options: SliceOptions) -> ImageScores:
    """Ask each image under the volume of its class for its contrast and how well its shift is known."""
    count, nothing = len(source), Components.none(source.box_size)
    scores = ImageScores(torch.ones(count), torch.zeros(count), torch.zeros(count, dtype=torch.float64))
    for found in maps:
        band = make_band(source.disk.shell_max, source.disk, found.mean.mean * found.mask, options)
        _, move = pose_deviation(source, band, nothing.scaled())
        scores.shift_std[found.members] = move[found.members] * source.pixel_size
        band = replace(band, contrast_variance=_CONTRAST_VARIANCE)
        batches: list[LatentBatch] = list(latent_coordinates(source, found.members, band, nothing))
        for batch in batches:
            scores.contrast[batch.index], scores.contrast_std[batch.index] = batch.contrast, batch.contrast_std
    return scores
