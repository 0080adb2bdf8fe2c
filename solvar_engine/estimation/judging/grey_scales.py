"""How strong the signal is in parts of a data set, and which images show the molecule with the other sign.

Normalisation gives images a common level of noise. What it says of the signal is nothing: joined sets differ in grey
scale, in ice, in sign. So images are compared with a first mean, at low frequencies: <P mu, Y> / |P mu|^2 is the scale
of the signal in an image, with the variance 1 / |P mu|^2. Each half-set is compared with the mean of the other, since
images resemble what was made of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.distributed.world import World
from solvar_engine.estimation.judging.scale_steps import cut_at_steps
from solvar_engine.estimation.model.bands import band_box
from solvar_engine.estimation.model.contrast import contrast_variance
from solvar_engine.estimation.model.slices import slices_of_batch
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.imaging.types import Batch, BatchSource
from solvar_engine.projectors.base import images_per_call
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import DEFAULT_OPTIONS, SliceOptions
from solvar_engine.reconstruction.mean import estimate_mean, filtered_halves
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations

LEAST_SCALE = 0.05
"""Images with less signal hold none."""

_SHELL = 16  # up to which images are compared
_ROUNDS = 8  # at most, of means and scales
_CHANGE = 0.01  # of a scale, that another round is worth
_SURE = 5.0  # standard errors
_LEAST_DIFFERENCE = 0.05  # of scales that matter beside the spread of single images
_LEAST_SHARE = 0.1  # of all images, in a part that a mean is made of alone
_CLEAR = 0.2  # of the strength of single images, that is left on average in a part that has one sign
_LARGER_SPREAD, _LIKELIER = 0.25, 12.0  # of relative variances, and of log-likelihoods: images at foreign poses
_DARK_SURE, _DARK_SHARE = 4.0, 0.5  # standard errors, and share of the scale of the part, below zero


@dataclass(frozen=True)
class GreyScales:
    """What a first mean tells of the images.

    Attributes
    ----------
    scale : Tensor, shape (parts,), float64
        Of the signal in each part of the set, negative for the other sign; 1 in the part with most images, or on
        average if that is small, and in those that do not differ from it.
    is_dark : Tensor, shape (n,), bool
        Images that show the molecule with the other sign than the rest of their part; if that has nearly as many of one
        as of the other, than most of all.
    part : Tensor, shape (n,), int64
        Part of each image, which may be a piece of those that were asked for.
    """

    scale: Tensor
    is_dark: Tensor
    part: Tensor


def find_grey_scales(
    source: BatchSource, halves: tuple[Tensor, Tensor], part: Tensor, options: SliceOptions = DEFAULT_OPTIONS
) -> GreyScales:
    """Find the scale of the signal in each part, and the images of the other sign, with a mean of low frequencies.

    The mean of all images may vanish if parts have opposite signs. So the first one is that of the largest part, unless
    that has a tenth of the images only. Parts are cut where the scale changes from one row to the next.

    Parameters
    ----------
    source : BatchSource
        Its contrasts are not used.
    halves : tuple of two Tensors, int64
    part : Tensor, shape (n,), int64
        Part of each image, from 0.
    options : SliceOptions

    Returns
    -------
    GreyScales
    """
    low = LowBand.of(source)
    found, evidence = _scales_in_rounds(low, halves, part, options)
    cut = source.world.agreed(cut_at_steps(evidence, part, torch.cat(halves)))
    return found if torch.equal(cut, part) else _scales_in_rounds(low, halves, cut, options)[0]


def _scales_in_rounds(
    low: LowBand, halves: tuple[Tensor, Tensor], part: Tensor, options: SliceOptions
) -> tuple[GreyScales, Tensor]:
    """Scales of parts, and the evidence of each image (n, 2), from means that are made with the scales before."""
    used = torch.cat(halves)
    size = torch.bincount(part[used], minlength=int(part.max()) + 1)
    reference = int(size.argmax())
    found = GreyScales(torch.ones(len(size), dtype=torch.float64), torch.zeros(len(low), dtype=torch.bool), part)
    evidence = torch.zeros(len(low), 2, dtype=torch.float64)
    starts_with_part = all(int((part[half] == reference).sum()) >= _LEAST_SHARE * len(half) for half in halves)
    for number in range(_ROUNDS):
        of_first = starts_with_part and number == 0
        kept = ~found.is_dark & ((part == reference) | (not of_first))
        scaled = replace(low, scale=found.scale[part].float())
        means = _filtered_means(scaled, [half[kept[half]] for half in halves], options)
        for half, of_half in zip(halves, _evidence_of_halves(low, halves, means, options), strict=True):
            evidence[half] = of_half
        before, found = found, low.world.agreed(scales_of_parts(evidence, part, used, len(size)))
        change = (found.scale / before.scale - 1).abs().max()
        if float(change) < _CHANGE and torch.equal(found.is_dark, before.is_dark) and not (of_first and len(size) > 1):
            break
    return found, evidence


def _filtered_means(source: BatchSource, halves: Sequence[Tensor], options: SliceOptions) -> tuple[Tensor, Tensor]:
    first, second = source.world.of_halves(lambda half: accumulate_normal_equations(source, halves[half], options))
    return filtered_halves(estimate_mean(first, second, world=source.world))


def _evidence_of_halves(
    source: BatchSource, halves: Sequence[Tensor], means: tuple[Tensor, Tensor], options: SliceOptions
) -> tuple[Tensor, Tensor]:
    """Evidence of each half-set under the mean of the other."""
    return source.world.of_halves(
        lambda half: scale_evidence(source, halves[half], source.disk, means[1 - half], options)
    )


def scale_evidence(
    source: BatchSource, index: Tensor, disk: HalfDisk, mean: Tensor, options: SliceOptions = DEFAULT_OPTIONS
) -> Tensor:
    """What each image says of the scale of a mean in it: |P mu|^2 and <P mu, Y>, shape (n, 2), float64.

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
    disk : HalfDisk
        Band of the mean, a prefix of the source's.
    mean : Tensor, shape (z, y, x)
    options : SliceOptions
    """
    return evidence_of_means(source, index, disk, mean[None], options)[:, 0]


def evidence_of_means(
    source: BatchSource, index: Tensor, disk: HalfDisk, means: Tensor, options: SliceOptions = DEFAULT_OPTIONS
) -> Tensor:
    """The same of several means (k, z, y, x), shape (n, k, 2)."""
    projector, count = create_projector(int(means.shape[-1]), disk, options), len(means)
    grid, evidence = projector.to_grid(means), torch.zeros(len(source), count, 2, dtype=torch.float64)
    for batch in source.batches(index, disk, images_per_call(projector, count + 1)):
        _, products, _ = slices_of_batch(projector, grid, batch)
        power, cross = products.diagonal(dim1=1, dim2=2)[:, :-1], products[:, :-1, -1]
        evidence[batch.index] = torch.stack((power, cross), dim=2).double().cpu()
    (evidence,) = source.world.total(evidence)
    return evidence[index]


def scales_of_parts(evidence: Tensor, part: Tensor, used: Tensor, parts: int) -> GreyScales:
    """Scales relative to the part with most images, where they surely differ, from the evidence of each image.

    If that has a few images only, they are relative to all parts that do not surely have the other sign than most. A
    part some of whose images have no signal (junk) does not differ: the others have that of the rest.

    Parameters
    ----------
    evidence : Tensor, shape (n, 2)
        From `scale_evidence`.
    part : Tensor, shape (n,), int64
    used : Tensor, int64
        Images that count.
    parts : int
        Number of parts.

    Returns
    -------
    GreyScales
    """
    of_image = part[used]
    power, cross = evidence[used].unbind(dim=1)
    power = power.clamp_min(torch.finfo(torch.float32).tiny)
    size = torch.bincount(of_image, minlength=parts)
    is_reference = torch.zeros(parts, dtype=torch.bool)
    is_reference[size.argmax()] = True
    if int(size.max()) < _LEAST_SHARE * len(used):  # too small for that: all parts, whatever the sign of the largest
        is_reference[:] = True
    own, is_dark = cross / power, torch.zeros(len(used), dtype=torch.bool)
    for _ in range(2):  # dark images weaken what they are compared with
        known = power * ~is_dark
        total = _sums(known, of_image, parts).clamp_min(1e-30)
        average, magnitude = (_sums(known * values, of_image, parts) / total for values in (own, own.abs()))
        usual = -1.0 if float((total * average)[is_reference].sum()) < 0 else 1.0
        is_turned = usual * average < -_CLEAR * magnitude
        sign = torch.where(is_turned, -usual, usual)[of_image]
        is_dark = (sign * cross < -_DARK_SURE * power.sqrt()) & (sign * own < -_DARK_SHARE * average[of_image].abs())
    centre = average[of_image]
    relative = torch.stack((centre.square() * power, centre * (cross - centre * power)), dim=1)
    spread = contrast_variance(relative[~is_dark])
    weight = ~is_dark / (1 / power + spread * centre.square())
    precision = _sums(weight, of_image, parts)
    average = usual * _sums(weight * own, of_image, parts) / precision.clamp_min(1e-30)
    whole, dark = _pooled(average, precision, is_reference), torch.zeros(len(part), dtype=torch.bool)
    if not whole > _SURE * float(precision[is_reference].sum()) ** -0.5:
        return GreyScales(torch.ones(parts, dtype=torch.float64), dark, part)  # there is no mean to compare with
    dark[used] = is_dark
    is_reference &= average > -_SURE * precision.clamp_min(1e-30) ** -0.5
    whole = _pooled(average, precision, is_reference)
    ratio = average / whole
    error = (1 / precision.clamp_min(1e-30) + ratio.square() / precision[is_reference].sum()).sqrt() / whole
    sign = torch.where((ratio < -_SURE * error) & (size > 0), -1.0, 1.0)
    ratio = (sign * ratio).clamp_min(LEAST_SCALE)
    differs = ((ratio - 1).abs() > (_SURE * error).clamp_min(_LEAST_DIFFERENCE)) & (size > 0)
    kept, known = of_image[~is_dark], torch.stack((power, usual * sign[of_image] * cross), dim=1)[~is_dark]
    reference = known[is_reference[kept]]
    for number in torch.nonzero(differs & (ratio > LEAST_SCALE)).flatten().tolist():
        weak, strong = sorted((known[kept == number], reference), key=_scale_of)
        differs[number] = not _is_diluted(weak, strong)
    return GreyScales(sign * torch.where(differs, ratio, 1.0), dark, part)


def _scale_of(evidence: Tensor) -> float:
    return float(evidence[:, 1].sum() / evidence[:, 0].sum())


def _is_diluted(weak: Tensor, strong: Tensor) -> bool:
    """Whether images (n, 2) have a weaker signal than others because some of them have none, or another one.

    Each has their mean scale, with the spread of the others; or such a share of them has that of the others, and the
    rest none (junk); or they spread much more about their mean (images at foreign poses). The likeliest one counts.
    """
    mean, scale = _scale_of(weak), _scale_of(strong)
    spread, own_spread = _spread_about(scale, strong), _spread_about(mean, weak)
    share = min(max(mean / scale, 1e-6), 1 - 1e-6)
    log_all, log_spread, log_signal, log_none = (
        -0.5 * (variance.log() + (weak[:, 1] / weak[:, 0] - centre).square() / variance)
        for centre, variance in (
            (centre, 1 / weak[:, 0] + relative * deviation**2)
            for centre, deviation, relative in (
                (mean, mean, spread), (mean, mean, own_spread), (scale, scale, spread), (0.0, scale, spread),
            )
        )
    )  # fmt: skip
    mixed = torch.logaddexp(math.log(share) + log_signal, math.log(1 - share) + log_none)
    differ = own_spread > spread + _LARGER_SPREAD and float((log_spread - log_all).sum()) > _LIKELIER
    return differ or bool(mixed.sum() > log_all.sum())


def _spread_about(centre: float, evidence: Tensor) -> float:
    """Relative variance of the scales of images (n, 2) about a centre."""
    power, cross = evidence.unbind(dim=1)
    return contrast_variance(torch.stack((centre**2 * power, centre * (cross - centre * power)), dim=1))


def _pooled(average: Tensor, precision: Tensor, chosen: Tensor) -> float:
    """Average over some parts."""
    return float((average * precision)[chosen].sum() / precision[chosen].sum().clamp_min(1e-30))


def _sums(values: Tensor, part: Tensor, parts: int) -> Tensor:
    return torch.bincount(part, weights=values.double(), minlength=parts)


@dataclass(frozen=True)
class LowBand:
    """The first shells of images, on the smallest box that holds them, with scales (n,) of their signal."""

    source: BatchSource
    disk: HalfDisk
    box_size: int
    scale: Tensor | None = None

    @staticmethod
    def of(source: BatchSource) -> LowBand:
        """Cut a source."""
        return LowBand(source, source.disk, source.box_size).cut(_SHELL)

    def cut(self, shell: int) -> LowBand:
        """To a lower band."""
        shell_max = min(shell, self.disk.shell_max)
        box_size = band_box(shell_max, self.source.box_size)
        return replace(self, disk=self.source.disk.prefix(shell_max), box_size=box_size)

    @property
    def pixel_size(self) -> float:
        """Of the box, Angstrom."""
        return self.source.pixel_size * self.source.box_size / self.box_size

    @property
    def world(self) -> World:
        """Processes that share the images."""
        return self.source.world

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, index: Tensor, disk: HalfDisk, batch_size: int) -> Iterator[Batch]:
        """See :meth:`solvar_engine.imaging.types.BatchSource.batches`."""
        for batch in self.source.batches(index, disk, batch_size):
            if self.scale is None:
                yield batch
            else:
                yield replace(batch, contrast=self.scale[batch.index].to(batch.contrast))
