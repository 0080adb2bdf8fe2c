"""Images of another list on one scale and of one sign, by the mean of the run: found, said, and taken into account."""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor

from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.judging.given_poses import other_rows
from solvar_engine.estimation.judging.grey_scales import scales_of_parts
from solvar_engine.estimation.judging.low_band import scale_evidence
from solvar_engine.estimation.judging.scale_steps import cut_at_steps
from solvar_engine.estimation.judging.signs import signs_along_rows
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.imaging.sampling import sample_of
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.fit.grey_scales import names_of_pieces, parts_of, sentences_of_scales
from solvar_engine.projectors.options import SliceOptions

_SAMPLE = 1000  # images of each part, on which its scale is measured
_LEAST_MIXED, _SHARE_MIXED = 5, 0.02  # images, and of a part, that have either sign in one that is mixed
_LEAST_GAIN = 0.7  # of that of other images, from the orientations of images that are turned
_SEED = 23
_SHOWN = 3  # ranges of rows in a sentence


def on_one_scale(
    source: PreparedParticles, stack: ParticleStack, rows: Tensor, disk: HalfDisk, mean: Tensor, options: SliceOptions
) -> tuple[PreparedParticles, list[str], bool]:
    """Give parts of the set the scale that they have beside the others, and images of a part one sign.

    Single images keep their scales, and all images the sign that they have together.

    Parameters
    ----------
    source : PreparedParticles
        Of the ``stack``.
    stack : ParticleStack
        With the poses of the run.
    rows : Tensor, int64
        Images that count.
    disk : HalfDisk
        Band of the mean.
    mean : Tensor, shape (z, y, x)
        Of the run.
    options : SliceOptions

    Returns
    -------
    source : PreparedParticles
    cautions : list of str
        What was done, in sentences without full stop.
    are_turned : bool
        Whether single images or blocks were given the other sign: that alone makes any images agree a little.
    """
    part, names = parts_of(stack)
    rows = stack.each_image_once(rows)
    # in the order of the list, where images that were put together follow each other
    rows = rows[torch.from_numpy(stack.rows_of_list)[rows].argsort(stable=True)]
    used = torch.cat([sample_of(rows[part[rows] == number], _SAMPLE) for number in range(len(names))])
    evidence = torch.zeros(len(source), 2, dtype=torch.float64)
    evidence[used] = scale_evidence(source, used, disk, mean, options)
    sign, cautions = torch.ones(len(stack)), []
    if any(_has_both_signs(evidence[used[part[used] == number]]) for number in range(len(names))):
        evidence[rows] = scale_evidence(source, rows, disk, mean, options)
        found = _signs_of_parts(evidence, part, rows)
        if _are_in_their_poses(source, rows, found[rows], disk, mean, options):
            sign = _of_all_rows(found, rows, stack)
            cautions.append(_sentence_of_turned(found[rows], rows, stack))
            evidence[:, 1] *= found
    if float(evidence[used, 1].sum()) < 0:
        evidence[:, 1] *= -1  # the sign of all is found later
    piece = cut_at_steps(evidence, part, used)
    part, names = piece, names_of_pieces(piece, part, names, stack)
    scales = scales_of_parts(evidence, part, used, len(names))
    if bool((scales.scale != 1).any()):
        of_images = part[stack.each_image_once(torch.arange(len(stack)))]
        cautions += sentences_of_scales(scales.scale, scales.is_weak, of_images, names)
    source = source.with_grey_scale(sign * scales.scale[part]) if cautions else source
    return source, cautions, bool((sign < 0).any())


def _has_both_signs(evidence: Tensor) -> bool:
    """Whether a sample (m, 2) of a part, in the order of the list, surely has images of either sign."""
    if not len(evidence):
        return False
    negative = int((signs_along_rows(evidence) < 0).sum())
    return min(negative, len(evidence) - negative) >= max(_LEAST_MIXED, _SHARE_MIXED * len(evidence))


def _signs_of_parts(evidence: Tensor, part: Tensor, rows: Tensor) -> Tensor:
    """Sign (n,) of each image against the mean, part by part, +1 of those that are not among the rows."""
    sign = torch.ones(len(evidence))
    for number in part[rows].unique():
        members = rows[part[rows] == number]
        sign[members] = signs_along_rows(evidence[members])
    return sign


def _are_in_their_poses(
    source: PreparedParticles, rows: Tensor, sign: Tensor, disk: HalfDisk, mean: Tensor, options: SliceOptions
) -> bool:
    """Whether images (m,) of negative sign prefer their own orientations about as much as the others do.

    Images that are not those of their poses may resemble the opposite of the mean there, but hardly more than
    elsewhere.
    """
    generator = torch.Generator().manual_seed(_SEED)
    elsewhere = torch.arange(len(source))
    elsewhere[rows] = rows[other_rows(source.group.cpu()[rows], generator)]
    moved = source.with_pose(Pose(source.pose.rotation[elsewhere], source.pose.shift))
    of_others, of_turned = (
        _agreement(source, some, disk, of_mean, options) - _agreement(moved, some, disk, of_mean, options)
        for some, of_mean in ((sample_of(rows[sign > 0], _SAMPLE), mean), (sample_of(rows[sign < 0], _SAMPLE), -mean))
    )
    return of_turned > _LEAST_GAIN * of_others


def _agreement(
    source: PreparedParticles, rows: Tensor, disk: HalfDisk, mean: Tensor, options: SliceOptions
) -> float:
    """Log-likelihood that a mean adds to an image on average, with the scale that each has, unless it is negative."""
    power, cross = scale_evidence(source, rows, disk, mean, options).unbind(dim=1)
    return float((cross.clamp_min(0).square() / (2 * power.clamp_min(1e-30))).mean())


def _of_all_rows(sign: Tensor, rows: Tensor, stack: ParticleStack) -> Tensor:
    """Signs (n,) of some rows for all rows of their images."""
    image = stack.first_of_image()
    of_image = torch.ones(len(stack))
    of_image[image[rows]] = sign[rows]
    return of_image[image]


def _sentence_of_turned(sign: Tensor, rows: Tensor, stack: ParticleStack) -> str:
    """Say which of some images (m,), in the order of the list, are turned, and where they stand in it."""
    listed = stack.rows_of_list[rows.numpy()] + 1
    ranges = []
    for is_turned, group in groupby(zip((sign < 0).tolist(), listed.tolist(), strict=True), key=lambda pair: pair[0]):
        numbers = [number for _, number in group]
        if is_turned:
            ranges.append(f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else str(numbers[0]))
    more = f" and {len(ranges) - _SHOWN} other places" if len(ranges) > _SHOWN else ""
    return (
        f"{int((sign < 0).sum())} of {len(sign)} images of {stack.path} (rows {', '.join(ranges[:_SHOWN])}{more}) have"
        " the other sign than those of the fit: they are inverted; multiply them by -1 for other programs"
    )
