"""The spread of the contrast: how much images differ in scale, beyond what is known of each.

Left out of the model, a spread of 0.2 makes a component larger than most motions. The mean therefore stands among the
factors of every image, with a prior variance s^2 for the relative error of its contrast; s^2 is what is found here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.estimation.model.statistics import Statistics

LARGEST_VARIANCE = 1.0
"""Contrasts are positive: a wider spread is a set of images that the model does not describe."""

_SMALLEST_VARIANCE = 1e-6
_BISECTIONS = 30


def contrast_evidence(products: Tensor, contrast: Tensor) -> Tensor:
    """What each image says of the relative error of its contrast, the latent coordinates marginalised.

    Parameters
    ----------
    products : Tensor, shape (n, r + 2, r + 2), float64
        Inner products of (P mu, P v_1, ..., P v_r, Y) at contrast 1.
    contrast : Tensor, shape (n,)

    Returns
    -------
    Tensor, shape (n, 2), float64
        g = p^T Sigma^-1 p and b = p^T Sigma^-1 e with p = a P mu, e = Y - p and Sigma = I + a^2 P V V^T P^T: the most
        likely error is b / g, with the standard deviation g^(-1/2).
    """
    rank = products.shape[-1] - 2
    statistics = Statistics.with_contrast_error(products, contrast, 1.0).integrate_out(range(rank))
    return torch.stack((statistics.gram[:, 0, 0], statistics.inner[:, 0]), dim=1)


def contrast_variance(evidence: Tensor) -> float:
    """Maximum-likelihood variance of the relative errors of the contrasts.

    With x ~ N(0, v) the evidence makes b ~ N(0, g + v g^2), so the likelihood rises with v where
    sum [b^2 / (1 + v g)^2 - g / (1 + v g)] is positive. Its sign is followed by bisection on a scale of logarithms.

    Parameters
    ----------
    evidence : Tensor, shape (n, 2)
        From :func:`contrast_evidence`.

    Returns
    -------
    float
        Between 0 and `LARGEST_VARIANCE`.

    Examples
    --------
    >>> contrast_variance(torch.tensor([[100.0, 0.0], [100.0, 3.0]]))
    0.0
    """
    gram, inner = evidence.double().unbind(dim=1)

    def rises_at(variance: float) -> bool:
        share = 1 + variance * gram
        return bool((inner.square() / share.square() - gram / share).sum() > 0)

    if not rises_at(_SMALLEST_VARIANCE):
        return 0.0
    if rises_at(LARGEST_VARIANCE):
        return LARGEST_VARIANCE
    low, high = _SMALLEST_VARIANCE, LARGEST_VARIANCE
    for _ in range(_BISECTIONS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if rises_at(middle) else (low, middle)
    return high
