"""Backgrounds that a program has put in the place of those that were recorded, found by the edge of its mask.

Programs that mask particles fill the rest of the box with noise of their own. What pixels differ by across both
diagonals is mostly noise, since a molecule is smooth; where it is not, it fades out towards the edge of the molecule,
and neighbours come in gradually. The level of replaced noise changes within few pixels, at one distance from the centre
of all images. Where there is such an edge, each image is judged by its own ratio of the noise on both sides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.imaging.masks import real_radius

_RING_PX, _RINGS = 2.0, 24  # width at least, and how many across the box at most
_OUTERMOST = 0.6  # of the box: corners beyond are one ring
_EDGES = (0.25, 0.5)  # of the box: radii of masks
_SHARP_EDGE = 0.8  # of the difference between both sides, within two rings, beyond how the level falls before
_LEAST_STEP, _SURE = 0.02, 5.0  # of the logarithm of the power, and in standard errors
_FEWEST_RINGS = 3  # within an edge, to know how the level falls before
_SURELY_OTHER = 1.25  # ratio of deviations in single images
_LEAST_RATIO = 1.08  # of deviations, or its inverse, that matters
_CORNER_VARIANCE = 2.25  # of an estimate from differences over corners, over that from independent pixels
_LEAST_SHARP = 1e-6  # of the power of an image, in such differences: less is what a low-pass filter left
_ROUNDS = 100
_LIKELIER = 12.0  # of log-likelihoods


@dataclass(frozen=True)
class ReplacedBackgrounds:
    """Where the background was replaced, and how the noise of images changes there.

    Attributes
    ----------
    ring : int
        That the edge lies in.
    radius : float
        Of the edge, px.
    molecule : float
        What it adds to the logarithm of the deviation within.
    modes : Tensor, shape (k, 3), float64
        Share, centre and deviation of logarithmic ratios of the deviations within and outside: first of images as they
        were recorded, then of others.
    error : float
        Of such a logarithm, in a single image.
    count : Tensor, shape (rings,), int64
        Corners between pixels in each ring.
    """

    ring: int
    radius: float
    molecule: float
    modes: Tensor
    error: float
    count: Tensor

    def inner_noise(self, profile: Tensor) -> Tensor:
        """Deviation of the noise within the particle over that outside, (n,), from profiles; 1 of usual images."""
        value = _log_ratio(profile, self.ring, self.count) - self.molecule
        mode = _log_density(value, self.modes).argmax(dim=1)
        _, centre, deviation = self.modes[mode].unbind(dim=1)
        own = (1 - (self.error / deviation).square()).clamp_min(0)  # the rest of the spread is sampling error
        return torch.where((mode == 0) | ~value.isfinite(), 1.0, (centre + own * (value - centre)).exp())

    def levelled(self, images: Tensor, ratio: Tensor) -> Tensor:
        """Images (n, y, x) whose background is as noisy as what is within, by the ratio (n,) of the deviations."""
        outside = real_radius(images.shape[-1], 2, images.device) > self.radius
        return torch.where(outside, ratio.to(images)[:, None, None] * images, images)


def noise_profile(images: Tensor) -> Tensor:
    """Power of the sharp noise in rings around the centre of flattened images.

    Parameters
    ----------
    images : Tensor, shape (n, y, x)

    Returns
    -------
    Tensor, shape (n, rings), float64
        On average over each ring; not a number in images that hold no such noise.
    """
    sharp = images[:, 1:, 1:] - images[:, 1:, :-1] - images[:, :-1, 1:] + images[:, :-1, :-1]
    ring, count = _rings(images.shape[-1])
    total = torch.zeros(len(images), len(count), dtype=torch.float64, device=images.device)
    total.index_add_(1, ring.flatten().to(images.device), sharp.double().square().flatten(1))
    power = total / count.to(images.device)
    is_noise = power.min(dim=1).values > _LEAST_SHARP * images.double().square().mean(dim=(1, 2))
    return torch.where(is_noise[:, None], power, math.nan).cpu()


def find_replaced_backgrounds(profile: Tensor, box_size: int) -> ReplacedBackgrounds | None:
    """Find the edge of a mask in a sample of images, and how the noise within differs; None if there is none.

    Parameters
    ----------
    profile : Tensor, shape (n, rings), float64
        From :func:`noise_profile`.
    box_size : int
    """
    profile = profile[profile.isfinite().all(dim=1)]
    ring = _edge_of_any(profile, box_size)
    if ring is None:
        return None
    count = _rings(box_size)[1]
    error = _error(ring, count)
    molecule = _of_molecule(_mean_level(profile), ring, count)
    modes = _modes(_log_ratio(profile, ring, count) - molecule, error)
    if modes is None:
        return None
    return ReplacedBackgrounds(ring, _radius(profile, ring, box_size), molecule, modes, error, count)


def _rings(box_size: int) -> tuple[Tensor, Tensor]:
    """Ring of each corner between pixels (y - 1, x - 1), int64, and the number of corners in each (rings,)."""
    width = _ring_width(box_size)
    corner = torch.arange(1, box_size) - 0.5 - box_size // 2
    radius = (corner[:, None].square() + corner.square()).sqrt()
    ring = (radius / width).long().clamp_max(int(_OUTERMOST * box_size / width))
    return ring, torch.bincount(ring.flatten())


def ring_count(box_size: int) -> int:
    """How many rings there are."""
    return len(_rings(box_size)[1])


def _ring_width(box_size: int) -> float:
    return max(_RING_PX, box_size / _RINGS)


def _mean_level(profile: Tensor) -> Tensor:
    """Logarithm of the power in each ring (rings,), of images that count alike."""
    return (profile / profile.mean(dim=1, keepdim=True)).mean(dim=0).log()


def _edge_of_any(profile: Tensor, box_size: int) -> int | None:
    """Ring with the edge of a mask in all images, or else in those whose ratio is surely another one."""
    if not len(profile):
        return None
    count = _rings(box_size)[1]
    usual = round(sum(_EDGES) / 2 * box_size / _ring_width(box_size))
    value, sure = _log_ratio(profile, usual, count), max(math.log(_SURELY_OTHER), _SURE * _error(usual, count))
    for chosen in (value < math.inf, value > sure, value < -sure):
        ring = _edge(profile[chosen], box_size) if bool(chosen.any()) else None
        if ring is not None:
            return ring
    return None


def _edge(profile: Tensor, box_size: int) -> int | None:
    """Ring over which the level changes at once, unlike where a molecule fades out; None if there is none."""
    level, count = _mean_level(profile), _rings(box_size)[1].double()
    first, last = (round(edge * box_size / _ring_width(box_size)) for edge in _EDGES)
    best, found = 0.0, None
    for ring in range(max(first, _FEWEST_RINGS), min(last, len(count) - 2) + 1):
        step, before = level[ring - 1] - level[ring + 1], level[ring - 3] - level[ring - 1]
        whole = _inner_and_outer(level.exp()[None], ring - 1, count)[1].log()
        difference = level[ring - 1] - whole
        sign = difference.sign()
        excess = float(sign * step - (sign * before).clamp_min(0))
        corners = count[[ring + 1, ring - 1, ring - 1, ring - 3]]
        error = float(2 * _CORNER_VARIANCE / len(profile) * (1 / corners).sum()) ** 0.5
        is_edge = excess > max(_LEAST_STEP, _SURE * error) and excess > _SHARP_EDGE * float(difference.abs())
        if is_edge and excess > best:
            best, found = excess, ring
    return found


def _inner_and_outer(power: Tensor, ring: int, count: Tensor) -> tuple[Tensor, Tensor]:
    """Mean power (n,) on both sides of a ring, from that in each (n, rings)."""
    inner, outer = (
        (power[:, side] * count[side]).sum(dim=1) / count[side].sum() for side in (slice(ring), slice(ring + 1, None))
    )
    return inner, outer


def _log_ratio(profile: Tensor, ring: int, count: Tensor) -> Tensor:
    inner, outer = _inner_and_outer(profile, ring, count)
    return 0.5 * (inner / outer).log()


def _error(ring: int, count: Tensor) -> float:
    """Sampling error of such a logarithm, of one image."""
    return (_CORNER_VARIANCE / 2 * float(1 / count[:ring].sum() + 1 / count[ring + 1 :].sum())) ** 0.5


def _of_molecule(level: Tensor, ring: int, count: Tensor) -> float:
    """What it adds to the logarithm of the deviation within, over that beside the edge, where hardly any of it is."""
    beside, within = slice(ring - 2, ring), slice(ring)
    inner, outer = ((level.exp() * count)[side].sum() / count[side].sum() for side in (within, beside))
    return max(0.0, 0.5 * float((inner / outer).log()))


def _radius(profile: Tensor, ring: int, box_size: int) -> float:
    """Radius of the edge, px, by the share of its ring that is within."""
    power, width = _mean_level(profile).exp(), _ring_width(box_size)
    share = (power[ring] - power[ring + 1]) / (power[ring - 1] - power[ring + 1])
    within = float(share.clamp(0, 1))
    return width * float(ring**2 + within * (2 * ring + 1)) ** 0.5


def _modes(value: Tensor, error: float) -> Tensor | None:
    """Shares, centres and deviations (k, 3) of images as recorded, about zero, and of others; None without others.

    One mode may lie at larger values, one at smaller ones, where they make all values likelier by far. Those too near
    zero do not count.
    """
    least = math.log(_LEAST_RATIO)
    ends = [end for end in (value[value > least], value[value < -least]) if len(end)]
    others = [[1.0, float(end.median()), error] for end in ends]
    best, modes = -math.inf, None
    for chosen in ([], *([other] for other in others), others):
        fitted = _fitted(value, torch.tensor([[1.0, 0.0, error], *chosen], dtype=torch.float64), error)
        score = float(_log_density(value, fitted).logsumexp(dim=1).sum()) - _LIKELIER * len(chosen)
        if score > best and bool((fitted[1:, 1].abs() > least).all()):
            best, modes = score, fitted
    return modes if modes is not None and len(modes) > 1 else None


def _fitted(value: Tensor, modes: Tensor, error: float) -> Tensor:
    """Likeliest modes, from some to begin with; the first stays at zero."""
    for _ in range(_ROUNDS):
        member = _log_density(value, modes).softmax(dim=1)
        weight = member.sum(dim=0).clamp_min(1e-10)
        centre = (member * value[:, None]).sum(dim=0) / weight
        centre[0] = 0.0
        spread = (member * (value[:, None] - centre).square()).sum(dim=0) / weight
        modes = torch.stack((weight / len(value), centre, spread.sqrt().clamp_min(error)), dim=1)
    return modes


def _log_density(value: Tensor, modes: Tensor) -> Tensor:
    """Logarithmic density (n, k) of values under each mode, with its share."""
    share, centre, deviation = modes.unbind(dim=1)
    return share.log() - deviation.log() - 0.5 * ((value[:, None] - centre) / deviation).square()
