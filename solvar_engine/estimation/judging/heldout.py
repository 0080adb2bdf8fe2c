"""The scale of the covariance from images that did not shape its directions.

In sample, factors have adapted to the noise of the very images that would measure them, and eigenvalues come out too
large; components of pure noise look real. So the factors of one half-set are scaled on the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from solvar_engine.estimation.model.objectives import latent_posterior
from solvar_engine.estimation.model.statistics import Statistics

_SCORING_STEPS = 30
_CHUNK = 4096


def likelihood_gains(statistics: Statistics, weights: Tensor, variances: Tensor) -> Tensor:
    """Log-likelihood that each component adds to all the others, with its variance refitted.

    All that an image knows of one coordinate, whatever the others are, follows from the posterior N(m, S) of all:
    the information q = 1 / S_jj - 1 / variance_j and the inner product h = m_j / S_jj, h ~ N(q z, q) at a coordinate z.
    So no component needs to be left out for real.

    A shift that is common to all images is an error of the mean, not variability: with and without the component, the
    mean of its coordinate is fitted too. (The mean is a regularised one, so it lacks a little of itself in all images;
    on simulated sets of one state that alone made a component look real.)

    Parameters
    ----------
    statistics : Statistics
        Under r factors and, after them, any further directions, each to be tried beside all components.
    weights : Tensor, shape (r, components)
        Each component as a mixture of the factors.
    variances : Tensor, shape (components,)
        Of the latent coordinates, positive; each stands for its component while another one is tried.

    Returns
    -------
    Tensor, shape (components + further directions,), float64
        Not negative.
    """
    parts = [_evidence(chunk, weights.double(), variances) for chunk in _in_double(statistics)]
    information, inner = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return _refitted_gains(information.clamp_min(1e-12), inner)


def _evidence(statistics: Statistics, weights: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Information and inner product of each component given the others, and of each further direction given all."""
    rank = weights.shape[0]
    gram = weights.T @ statistics.gram[:, :rank, :rank] @ weights
    cross = statistics.gram[:, rank:, :rank] @ weights
    posterior = latent_posterior(
        Statistics(gram, statistics.inner[:, :rank] @ weights, statistics.residual), torch.diag(1 / variances)
    )
    own = posterior.covariance.diagonal(dim1=1, dim2=2)
    known = ((cross @ posterior.covariance) * cross).sum(dim=2)
    information = statistics.gram[:, rank:, rank:].diagonal(dim1=1, dim2=2) - known
    inner = statistics.inner[:, rank:] - (cross @ posterior.mean[..., None])[..., 0]
    return (
        torch.cat((1 / own - 1 / variances, information), dim=1),
        torch.cat((posterior.mean / own, inner), dim=1),
    )


def _refitted_gains(information: Tensor, inner: Tensor) -> Tensor:
    """Gain by a variance, at its best value, of coordinates that each image knows by (n, c) numbers q and h.

    Fisher scoring; the variance stays at zero where the score there is negative.
    """
    shift = inner.sum(dim=0) / information.sum(dim=0)
    without = ((inner - information * shift) ** 2 / information).sum(dim=0)
    variance = torch.zeros_like(shift)
    for _ in range(_SCORING_STEPS):
        error = inner - information * shift
        weight = 1 / (1 + variance * information)
        score = ((error * weight) ** 2 - information * weight).sum(dim=0)
        variance = (variance + score / ((information * weight) ** 2).sum(dim=0)).clamp_min(0)
        weight = 1 / (1 + variance * information)
        shift = (weight * inner).sum(dim=0) / (weight * information).sum(dim=0)
    error = inner - information * shift
    with_variance = (weight * error**2 / information - weight.log()).sum(dim=0)
    return 0.5 * (without - with_variance).clamp_min(0)


def _in_double(statistics: Statistics) -> Iterator[Statistics]:
    """Yield the statistics of some images after the others in double precision."""
    parts = (statistics.gram, statistics.inner, statistics.residual)
    for start in range(0, statistics.gram.shape[0], _CHUNK):
        yield Statistics(*(part[start : start + _CHUNK].double() for part in parts))
