"""Where the signal becomes weaker or stronger from one row of a list to the next, as where two lists were joined."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.estimation.model.contrast import contrast_variance

_SURE = 8.0  # standard errors, of the best of all places
_LEAST_RATIO = 1.5  # of the scales: ice that becomes thicker on the way changes less
_LEAST_IMAGES, _LEAST_SHARE = 100, 0.1  # of all, on either side


def cut_at_steps(evidence: Tensor, part: Tensor, used: Tensor) -> Tensor:
    """Cut parts of a list between rows where the scale of the signal surely changes; not where its sign does.

    The place is that at which the scales of the images before and after differ most in standard errors, which hold the
    spread of single images; each piece is looked at again. Pieces that are too much alike are then joined again.

    Parameters
    ----------
    evidence : Tensor, shape (n, 2), float64
        From `solvar_engine.estimation.judging.grey_scales.scale_evidence`.
    part : Tensor, shape (n,), int64
        From 0.
    used : Tensor, int64
        Rows that count.

    Returns
    -------
    Tensor, shape (n,), int64
        The parts, numbered anew from 0 in their order.
    """
    rows = used.sort().values
    least = max(_LEAST_IMAGES, round(_LEAST_SHARE * len(rows)))
    piece = torch.zeros_like(part)
    for number in part[rows].unique():
        members = rows[part[rows] == number]
        for first in _clear_steps(evidence[members], _sure_steps(evidence[members], least)):
            piece[(part == number) & (torch.arange(len(part)) >= members[first])] += 1
    return torch.stack((part, piece)).unique(dim=1, return_inverse=True)[1] if bool(piece.any()) else part


def _sure_steps(evidence: Tensor, least: int) -> list[int]:
    """First images after each step."""
    place = _largest_step(evidence, least)
    if place is None:
        return []
    after = [place + later for later in _sure_steps(evidence[place:], least)]
    return [*_sure_steps(evidence[:place], least), place, *after]


def _clear_steps(evidence: Tensor, steps: list[int]) -> list[int]:
    """Those that are left once the smallest one is taken out, again and again, until all are large enough."""
    while steps:
        edges = zip([0, *steps], [*steps, len(evidence)], strict=True)
        scales = torch.stack([cross / power for power, cross in (evidence[a:b].sum(dim=0) for a, b in edges)]).abs()
        ratios = torch.maximum(scales[1:], scales[:-1]) / torch.minimum(scales[1:], scales[:-1])
        if float(ratios.min()) > _LEAST_RATIO:
            break
        steps = [step for number, step in enumerate(steps) if number != int(ratios.argmin())]
    return steps


def _largest_step(evidence: Tensor, least: int) -> int | None:
    if len(evidence) < 2 * least:
        return None
    power, cross = evidence[:, 0].clamp_min(torch.finfo(torch.float32).tiny), evidence[:, 1]
    average = cross.sum() / power.sum()
    spread = contrast_variance(torch.stack((average.square() * power, average * (cross - average * power)), dim=1))
    weight = 1 / (1 / power + spread * average.square())
    own = average.sign() * cross / power
    known, scaled = weight.cumsum(0), (weight * own).cumsum(0)
    before, scaled_before = (values[least - 1 : len(evidence) - least] for values in (known, scaled))
    after, scaled_after = known[-1] - before, scaled[-1] - scaled_before
    scales = torch.stack((scaled_before / before, scaled_after / after))
    error = (1 / before + 1 / after).sqrt()
    weak, strong = scales.amin(dim=0), scales.amax(dim=0)
    best = int(((strong - weak) / error).argmax())
    is_step = (strong - weak > _SURE * error) & (weak > -_SURE * error)
    return least + best if bool(is_step[best]) else None
