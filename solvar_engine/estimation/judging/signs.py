"""Which images show what others show, and which ones its opposite, where the mean of all does not tell.

If nearly as many are of one sign as of the other, their mean vanishes. What they share is found as a common direction
is from pairs that agree or oppose each other (angular synchronization; Singer, Appl. Comput. Harmon. Anal. 2011): signs
drawn at random give a mean, that gives signs, and so on, a power iteration. Images resemble what was made of them: so
those of one half-set are compared with the mean of the other one, in turns, which also gives both the same sign.
Where the mean is known beforehand, each image shows its sign against it, and faint ones share that of their neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.estimation.judging.low_band import LowBand, rough_mean, scale_evidence
from solvar_engine.projectors.options import SliceOptions

_SHELL = 8  # up to which images are compared
_TURNS = 20  # of the half-sets, at most
_SETTLED = 0.01  # of the images of either half-set, that change their sign
_SEED = 15
_CHANGE = 8.0  # of log-likelihood, that a sign unlike that of the row before costs: of a clear image between others 16
_LEAST_SCALE = 0.5  # of the usual one, of images that tell a sign; junk does not


def signs_of_images(source: LowBand, halves: tuple[Tensor, Tensor], options: SliceOptions) -> Tensor:
    """Sign (n,), +1 or -1, of what each image shows; which of both is which is left to chance, +1 is not used ones'.

    Parameters
    ----------
    source : LowBand
    halves : tuple of two Tensors, int64
        Images of independent half-sets.
    options : SliceOptions
    """
    source = source.cut(_SHELL)
    drawn = torch.randint(2, (len(source),), generator=torch.Generator().manual_seed(_SEED))
    sign, changed = (2 * drawn - 1).float(), [1.0, 1.0]
    for turn in range(_TURNS):
        known, asked = halves[turn % 2], halves[1 - turn % 2]
        mean = rough_mean(source.scaled(sign), known, options)
        cross = scale_evidence(source, asked, source.disk, mean, options)[:, 1]
        found = source.world.agreed(torch.where(cross < 0, -1.0, 1.0))
        changed[turn % 2] = float((found != sign[asked]).double().mean())
        sign[asked] = found
        if max(changed) < _SETTLED:
            break
    return sign


def signs_along_rows(evidence: Tensor) -> Tensor:
    """Sign (n,), +1 or -1, of a known mean in each image of a list, in its order.

    The likeliest ones, if changes from one row to the next are rare: a clear image tells its own sign, and a block of
    faint ones together. That is the shortest path through two states (Viterbi).

    Parameters
    ----------
    evidence : Tensor, shape (n, 2), float64
        From `solvar_engine.estimation.judging.low_band.scale_evidence`.
    """
    power, cross = evidence.unbind(dim=1)
    # the square of the scale on average: noise alone makes <P mu, Y> as large as its standard deviation
    scale = ((cross.square() - power).sum().clamp_min(0) / power.square().sum().clamp_min(1e-30)).sqrt()
    told = torch.where(cross.abs() > _LEAST_SCALE * scale * power, scale * cross, 0.0)
    best, stays = (0.0, 0.0), []
    for value in told.tolist():
        up, down = best
        stays.append((up >= down - _CHANGE, down >= up - _CHANGE))
        best = max(up, down - _CHANGE) + value, max(down, up - _CHANGE) - value
    sign, is_up = torch.ones(len(evidence)), best[0] >= best[1]
    for row in range(len(stays) - 1, -1, -1):
        sign[row] = 1.0 if is_up else -1.0
        is_up = is_up == stays[row][0 if is_up else 1]
    return sign
