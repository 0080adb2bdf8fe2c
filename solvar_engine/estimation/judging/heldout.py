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
_MIXTURE_STEPS = 100
_FIRST_SHARES = (0.02, 0.08, 0.2)
_LEAST_SHARE = 1e-4
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
    return _refitted_gains(*_all_evidence(statistics, weights, variances))


def advantage_of_few(
    statistics: Statistics, weights: Tensor, variances: Tensor, chosen: Tensor, share: float
) -> Tensor:
    """Log-likelihood of a component being there in few images only, over that of its varying in all.

    A motion moves all particles. Images without the particle are few, and lie far from all others, which have no
    variability along what those make: a share p of the images has coordinates from one normal distribution, the others
    all have the same. (What neighbours and backgrounds leave beside the slow ones that are integrated out is in few
    images, too.)

    Parameters
    ----------
    statistics, weights, variances
        As for :func:`likelihood_gains`; further directions are not looked at.
    chosen : Tensor, shape (components,), bool
        Which ones to look at.
    share : float
        p, at most.

    Returns
    -------
    Tensor, shape (chosen components,), float64
        Positive where few images are the better explanation.
    """
    columns = torch.nonzero(chosen).flatten()
    information, inner = (part[:, columns] for part in _all_evidence(statistics, weights, variances))
    of_all, shift, variance = _normal_fit(information, inner)
    found = []
    for first_share in _FIRST_SHARES:
        for side in (-1.0, 0.0, 1.0):
            # the whole variance comes from the few: from where they are, or from how they spread
            far = shift + side * (variance / first_share).sqrt()
            spread = variance if side else variance / first_share
            found.append(_fit_of_few(information, inner, shift, far, spread, first_share, share))
    return torch.stack(found).amax(dim=0) - of_all


def _fit_of_few(
    information: Tensor, inner: Tensor, common: Tensor, mean: Tensor, variance: Tensor, first: float, most: float
) -> Tensor:
    """Log-likelihood (c,), at its maximum by EM, of coordinates that all images share but a part of them."""
    part = torch.full_like(common, first)
    none = torch.zeros_like(common)

    def log_densities() -> tuple[Tensor, Tensor]:
        """Of the others and of the few, times their shares."""
        return (
            torch.log1p(-part) + _log_density(information, inner, common, none),
            part.log() + _log_density(information, inner, mean, variance),
        )

    for _ in range(_MIXTURE_STEPS):
        others, few = log_densities()
        belongs = torch.sigmoid(few - others)
        count = belongs.sum(dim=0).clamp_min(1e-12)
        spread = variance / (1 + variance * information)
        place = mean + spread * (inner - information * mean)
        mean = (belongs * place).sum(dim=0) / count
        variance = (belongs * ((place - mean) ** 2 + spread)).sum(dim=0) / count
        common = ((1 - belongs) * inner).sum(dim=0) / ((1 - belongs) * information).sum(dim=0)
        part = belongs.mean(dim=0).clamp(_LEAST_SHARE, most)
    return torch.logaddexp(*log_densities()).sum(dim=0)


def _log_density(information: Tensor, inner: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Log-density (n, c) of inner products of coordinates from N(mean, variance), over that of coordinates at zero."""
    weight = 1 / (1 + variance * information)
    error = inner - information * mean
    return 0.5 * (weight.log() - weight * error**2 / information + inner**2 / information)


def _all_evidence(statistics: Statistics, weights: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """`_evidence` of all images (n, components + further directions), the information positive."""
    parts = [_evidence(chunk, weights.double(), variances) for chunk in _in_double(statistics)]
    information, inner = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return information.clamp_min(1e-12), inner


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
    without = _log_density(information, inner, shift, torch.zeros_like(shift)).sum(dim=0)
    return (_normal_fit(information, inner)[0] - without).clamp_min(0)


def _normal_fit(information: Tensor, inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-likelihood (c,), at its maximum, of coordinates from a normal distribution; its mean and its variance."""
    shift = inner.sum(dim=0) / information.sum(dim=0)
    variance = torch.zeros_like(shift)
    for _ in range(_SCORING_STEPS):
        error = inner - information * shift
        weight = 1 / (1 + variance * information)
        score = ((error * weight) ** 2 - information * weight).sum(dim=0)
        variance = (variance + score / ((information * weight) ** 2).sum(dim=0)).clamp_min(0)
        weight = 1 / (1 + variance * information)
        shift = (weight * inner).sum(dim=0) / (weight * information).sum(dim=0)
    return _log_density(information, inner, shift, variance).sum(dim=0), shift, variance


def _in_double(statistics: Statistics) -> Iterator[Statistics]:
    """Yield the statistics of some images after the others in double precision."""
    parts = (statistics.gram, statistics.inner, statistics.residual)
    for start in range(0, statistics.gram.shape[0], _CHUNK):
        yield Statistics(*(part[start : start + _CHUNK].double() for part in parts))
