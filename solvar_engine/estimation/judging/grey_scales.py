"""How strong the signal is in parts of a data set, and which images show the molecule with the other sign.

Normalisation gives images a common level of noise. What it says of the signal is nothing: joined sets differ in grey
scale, in ice, in sign. So images are compared with a first mean, at low frequencies: <P mu, Y> / |P mu|^2 is the scale
of the signal in an image, with the variance 1 / |P mu|^2. Each half-set is compared with the mean of the other, since
images resemble what was made of them. Where many have either sign, signs of single images come first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.estimation.judging.low_band import LowBand, scale_evidence
from solvar_engine.estimation.judging.scale_steps import cut_at_steps
from solvar_engine.estimation.judging.signs import signs_of_images
from solvar_engine.estimation.model.contrast import contrast_variance
from solvar_engine.imaging.types import BatchSource
from solvar_engine.projectors.options import DEFAULT_OPTIONS, SliceOptions
from solvar_engine.reconstruction.mean import estimate_mean, filtered_halves, one_sidedness
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations

_LEAST_SIGNAL = 0.05  # over the noise, of that in other parts: images with less hold none
_ROUNDS = 8  # at most, of means and scales
_CHANGE = 0.01  # of a scale, that another round is worth
_SURE = 5.0  # standard errors
_LEAST_DIFFERENCE = 0.05  # of scales that matter beside the spread of single images
_LEAST_SHARE = 0.1  # of all images, in a part that a mean is made of alone
_CLEAR = 0.2  # of the strength of single images, that is left on average in a part that has one sign
_LARGER_SPREAD, _LIKELIER = 0.25, 12.0  # of relative variances, and of log-likelihoods: images at foreign poses
_MANY_DARK = 0.2  # of the images: beyond that, a mean of all may hardly show what they share
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
    is_weak : Tensor, shape (parts,), bool
        Parts whose signal is hardly there beside their noise: their scale is what they have at most.
    is_known : bool
        Whether there is a mean to compare with. All scales are 1 if there is none, and no image is dark.
    one_sidedness : float
        Of that mean: near +1 or -1 if it is a molecule's density, near 0 if it has as much of either sign, as the
        difference of two states does.
    """

    scale: Tensor
    is_dark: Tensor
    part: Tensor
    is_weak: Tensor
    is_known: bool = True
    one_sidedness: float = 1.0


def find_grey_scales(
    source: BatchSource, halves: tuple[Tensor, Tensor], part: Tensor, options: SliceOptions = DEFAULT_OPTIONS
) -> GreyScales:
    """Find the scale of the signal in each part, and the images of the other sign, with a mean of low frequencies.

    The mean of all images may vanish if parts have opposite signs. So the first one is that of the largest part, unless
    that has a tenth of the images only. If it holds nothing, or many images are of the other sign, the first mean is
    one of images whose signs were found one by one. Parts are cut where the scale changes from one row to the next.

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
    low, used = LowBand.of(source), torch.cat(halves)
    found, evidence = _scales_in_rounds(low, halves, part, options)
    sign = None
    if not found.is_known or float(found.is_dark[used].double().mean()) > _MANY_DARK:
        sign = signs_of_images(low, halves, options)
        found, evidence = _scales_in_rounds(low, halves, part, options, sign)
    of_one_sign = torch.where(found.is_dark[:, None], evidence * torch.tensor([1.0, -1.0]).double(), evidence)
    cut = source.world.agreed(cut_at_steps(of_one_sign, part, used))
    return found if torch.equal(cut, part) else _scales_in_rounds(low, halves, cut, options, sign)[0]


def _scales_in_rounds(
    low: LowBand, halves: tuple[Tensor, Tensor], part: Tensor, options: SliceOptions, sign: Tensor | None = None
) -> tuple[GreyScales, Tensor]:
    """Scales of parts, and the evidence of each image (n, 2), from means that are made with the scales before.

    The first mean is one with signs (n,), if there are any.
    """
    used = torch.cat(halves)
    size = torch.bincount(part[used], minlength=int(part.max()) + 1)
    reference = int(size.argmax())
    found = _of_one_scale(len(size), torch.zeros(len(low), dtype=torch.bool), part)
    evidence = torch.zeros(len(low), 2, dtype=torch.float64)
    starts_with_part = sign is None and all(
        int((part[half] == reference).sum()) >= _LEAST_SHARE * len(half) for half in halves
    )
    for number in range(_ROUNDS):
        is_first = number == 0
        of_part = starts_with_part and is_first
        kept = ~found.is_dark & ((part == reference) | (not of_part))
        scaled = low.scaled(sign if sign is not None and is_first else found.scale[part].float())
        means = _filtered_means(scaled, [half[kept[half]] for half in halves], options)
        for half, of_half in zip(halves, _evidence_of_halves(low, halves, means, options), strict=True):
            evidence[half] = of_half
        before, found = found, low.world.agreed(scales_of_parts(evidence, part, used, len(size)))
        change = (found.scale / before.scale - 1).abs().max()
        settled = float(change) < _CHANGE and torch.equal(found.is_dark, before.is_dark)
        if settled and not (is_first and (sign is not None or (of_part and len(size) > 1))):
            break
    return low.world.agreed(replace(found, one_sidedness=one_sidedness(means[0] + means[1]))), evidence


def _filtered_means(source: BatchSource, halves: Sequence[Tensor], options: SliceOptions) -> tuple[Tensor, Tensor]:
    first, second = source.world.of_halves(lambda half: accumulate_normal_equations(source, halves[half], options))
    return filtered_halves(estimate_mean(first, second, world=source.world))


def _nothing_known(parts: int, part: Tensor) -> GreyScales:
    return replace(_of_one_scale(parts, torch.zeros(len(part), dtype=torch.bool), part), is_known=False)


def _evidence_of_halves(
    source: BatchSource, halves: Sequence[Tensor], means: tuple[Tensor, Tensor], options: SliceOptions
) -> tuple[Tensor, Tensor]:
    """Evidence of each half-set under the mean of the other."""
    return source.world.of_halves(
        lambda half: scale_evidence(source, halves[half], source.disk, means[1 - half], options)
    )


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
    whole = _pooled(average, precision, is_reference)
    if not whole > _SURE * float(precision[is_reference].sum()) ** -0.5:
        return _nothing_known(parts, part)
    dark = torch.zeros(len(part), dtype=torch.bool)
    dark[used] = is_dark
    is_reference &= average > -_SURE * precision.clamp_min(1e-30) ** -0.5
    whole = _pooled(average, precision, is_reference)
    ratio = average / whole
    error = (1 / precision.clamp_min(1e-30) + ratio.square() / precision[is_reference].sum()).sqrt() / whole
    sign = torch.where((ratio < -_SURE * error) & (size > 0), -1.0, 1.0)
    least = _LEAST_SIGNAL * _noise_levels(power, of_image, parts, is_reference)
    is_weak = (sign * ratio <= least) & (size > 0)
    ratio = torch.maximum(sign * ratio, least)
    differs = ((ratio - 1).abs() > (_SURE * error).clamp_min(_LEAST_DIFFERENCE)) & (size > 0)
    kept, known = of_image[~is_dark], torch.stack((power, usual * sign[of_image] * cross), dim=1)[~is_dark]
    reference = known[is_reference[kept]]
    for number in torch.nonzero(differs & ~is_weak).flatten().tolist():
        weak, strong = sorted((known[kept == number], reference), key=_scale_of)
        differs[number] = not _is_diluted(weak, strong)
    return GreyScales(sign * torch.where(differs, ratio, 1.0), dark, part, is_weak & differs)


def _of_one_scale(parts: int, is_dark: Tensor, part: Tensor) -> GreyScales:
    ones = torch.ones(parts, dtype=torch.float64)
    return GreyScales(ones, is_dark, part, is_weak=ones < 1)


def _noise_levels(power: Tensor, part: Tensor, parts: int, is_reference: Tensor) -> Tensor:
    """Deviation of the noise in each part, over that in some (parts,) of them: the grey unit of sets like each other.

    The power (n,) of one and the same mean, over the noise of each image, tells.
    """
    total, size = _sums(power, part, parts), torch.bincount(part, minlength=parts)
    usual = total[is_reference].sum() / size[is_reference].sum()
    return (usual * size / total.clamp_min(1e-30)).sqrt()


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
