"""Classes of images at the poses that they have: what a list mixes tells itself apart, whatever the order of its rows.

Each class has a mean at low frequencies, and each image belongs to the class whose mean it resembles most (k-means,
or 3D classification without alignment; Scheres et al., Nat. Methods 2007). Images resemble what was made of them: so
those of one half-set are compared with means of the other one, in turns, from classes drawn at random. What images
share grows from round to round, as in a power iteration; what noise has does not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.estimation.judging.low_band import LowBand, evidence_of_means, rough_mean
from solvar_engine.projectors.options import SliceOptions

_SHELL = 6  # up to which images are compared
_TURNS = 16  # of the half-sets, at most
_SETTLED = 0.03  # of the images of either half-set, that change their class
_SEED = 15


def classes_of_images(
    source: LowBand, halves: tuple[Tensor, Tensor], count: int, options: SliceOptions
) -> tuple[Tensor, Tensor]:
    """Put images into classes.

    Parameters
    ----------
    source : LowBand
    halves : tuple of two Tensors, int64
        Images of independent half-sets.
    count : int
        Number of classes; some may end without an image.
    options : SliceOptions

    Returns
    -------
    tuple of two Tensors, int64
        Class of each image of the half-sets, from 0.
    """
    source = source.cut(_SHELL)
    generator = torch.Generator().manual_seed(_SEED)
    first, second = (torch.randint(count, (len(half),), generator=generator) for half in halves)
    classes, changed = [first, second], [1.0, 1.0]
    for turn in range(_TURNS):
        asked, known = turn % 2, 1 - turn % 2
        means = _means(source, halves[known], classes[known], count, options)
        found = source.world.agreed(_resemblance(source, halves[asked], means, options).argmax(dim=1))
        changed[asked] = float((found != classes[asked]).double().mean())
        classes[asked] = found
        if max(changed) < _SETTLED:
            break
    return classes[0], classes[1]


def _means(source: LowBand, index: Tensor, of_class: Tensor, count: int, options: SliceOptions) -> Tensor:
    """Mean of the images of each class, (count, z, y, x); nothing of one without images."""
    return torch.stack([rough_mean(source, index[of_class == one], options) for one in range(count)])


def _resemblance(source: LowBand, index: Tensor, means: Tensor, options: SliceOptions) -> Tensor:
    """Log-likelihood (m, classes) of images under each mean, over that without a molecule."""
    power, cross = evidence_of_means(source, index, source.disk, means, options).unbind(dim=2)
    return cross - 0.5 * power
