"""The density of the latent coordinates as a mixture of Gaussians, from what each image knows of its own.

The places of particles in latent space are blurred by the noise of their images, each in its own way. A mixture that is
fitted to the images' likelihoods, not to their posterior means, is the density without that blur (extreme
deconvolution; Bovy, Hogg & Roweis, Ann. Appl. Stat. 2011), and as a prior it draws each particle to where others are,
not to the middle of all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from solvar_engine.distributed.world import ALONE, World
from solvar_engine.estimation.model.mixture_moments import BLOCKS, add_posteriors
from solvar_engine.estimation.model.statistics import Statistics

_COUNTS = (2, 4, 8, 16)  # of Gaussians that are tried
_ITERATIONS = 25
_LAST_ITERATIONS = 10
_FIRST_VARIANCE = 0.1
_FLOOR, _FLOOR_IMAGES = 0.02, 5.0  # variance that a Gaussian is drawn to, as by so many images
_LEAST_VARIANCE = 1e-4
_DEVIATIONS = 3.0  # of its own error that a gain of held-out likelihood must reach


@dataclass(frozen=True)
class GaussianMixture:
    """A density of latent coordinates, float64.

    Attributes
    ----------
    weights : Tensor, shape (k,)
        Of sum one.
    means : Tensor, shape (k, r)
    covariances : Tensor, shape (k, r, r)
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor

    @staticmethod
    def one(rank: int) -> GaussianMixture:
        """N(0, I)."""
        eye = torch.eye(rank, dtype=torch.float64)
        return GaussianMixture(torch.ones(1, dtype=torch.float64), torch.zeros(1, rank, dtype=torch.float64), eye[None])

    def __len__(self) -> int:
        return len(self.weights)

    def scaled(self, deviation: Tensor) -> GaussianMixture:
        """Density of the coordinates times ``deviation`` (r,)."""
        outer = deviation[:, None] * deviation
        return GaussianMixture(self.weights, self.means * deviation, self.covariances * outer)


@dataclass(frozen=True)
class MixturePosterior:
    """Posterior of the latent coordinates of n images under a mixture, float64.

    Attributes
    ----------
    mean : Tensor, shape (n, r)
    second_moment : Tensor, shape (n, r, r)
        E[z z^T].
    evidence : Tensor, shape (n,)
        Log-likelihood of each image, less that without any factor.
    total, first, outer : Tensor, shape (k,), (k, r) and (k, r, r)
        Sums over the images of responsibilities, and of these times z and z z^T.
    """

    mean: Tensor
    second_moment: Tensor
    evidence: Tensor
    total: Tensor
    first: Tensor
    outer: Tensor

    def covariance(self) -> Tensor:
        """Posterior covariance of each image, shape (n, r, r)."""
        return self.second_moment - self.mean[:, :, None] * self.mean[:, None, :]


def mixture_posterior(statistics: Statistics, mixture: GaussianMixture) -> MixturePosterior:
    """Posterior of each image under a mixture; each Gaussian's share is that of the evidence it gives the image.

    Parameters
    ----------
    statistics : Statistics
        Of unit noise variance.
    mixture : GaussianMixture

    Returns
    -------
    MixturePosterior
    """
    count, rank = statistics.inner.shape
    precision = torch.linalg.inv(mixture.covariances)
    pull = (precision @ mixture.means[..., None])[..., 0]
    constant = mixture.weights.log() + 0.5 * torch.logdet(precision) - 0.5 * (pull * mixture.means).sum(dim=1)
    parts = len(mixture)
    results = [np.empty((count, rank)), np.empty((count, rank, rank)), np.empty(count)]
    sums = [np.zeros((BLOCKS, parts)), np.zeros((BLOCKS, parts, rank)), np.zeros((BLOCKS, parts, rank, rank))]
    given = (statistics.gram.double(), statistics.inner.double(), precision, pull, constant)
    add_posteriors(*(np.ascontiguousarray(array.cpu().numpy()) for array in given), *results, *sums)
    device = statistics.inner.device
    found = [torch.from_numpy(array) for array in (*results, *(total.sum(axis=0) for total in sums))]
    return MixturePosterior(*(tensor.to(device) for tensor in found))


def fit_mixture(
    statistics: Statistics, count: int, generator: torch.Generator, world: World = ALONE
) -> GaussianMixture:
    """Fit so many Gaussians to images by expectation maximisation, from centres far from each other.

    Parameters
    ----------
    statistics : Statistics
        Of coordinates that would be N(0, I) as one Gaussian.
    count : int
    generator : torch.Generator
    world : World, optional
        Processes that have the same statistics.

    Returns
    -------
    GaussianMixture
    """
    rank = statistics.inner.shape[1]
    mean = mixture_posterior(statistics, GaussianMixture.one(rank)).mean
    spread = _FIRST_VARIANCE * torch.eye(rank, dtype=torch.float64).expand(count, -1, -1)
    weights = torch.full((count,), 1.0 / count, dtype=torch.float64)
    start = GaussianMixture(weights, _distant(mean, count, generator), spread)
    return _improved(start, statistics, _ITERATIONS, world)


def choose_mixture(statistics: Statistics, generator: torch.Generator, world: World = ALONE) -> GaussianMixture:
    """Fit as many Gaussians as make images that did not shape them more likely; N(0, I) if none are.

    Parameters
    ----------
    statistics : Statistics
        Of a sample of images.
    generator : torch.Generator
    world : World, optional
        Processes that have the same statistics.

    Returns
    -------
    GaussianMixture
    """
    shaping, held_out = (
        Statistics(statistics.gram[start::2], statistics.inner[start::2], statistics.residual[start::2])
        for start in (0, 1)
    )
    best = GaussianMixture.one(statistics.inner.shape[1])
    evidence = mixture_posterior(held_out, best).evidence
    for count in _COUNTS:
        tried = fit_mixture(shaping, count, generator, world)
        gain = mixture_posterior(held_out, tried).evidence - evidence
        if float(gain.sum()) <= _DEVIATIONS * float(gain.std()) * len(gain) ** 0.5:
            break
        best, evidence = tried, evidence + gain
    return best if len(best) == 1 else _improved(best, statistics, _LAST_ITERATIONS, world)


def _improved(mixture: GaussianMixture, statistics: Statistics, iterations: int, world: World) -> GaussianMixture:
    """Do some steps of expectation maximisation.

    Each Gaussian's covariance is drawn to a narrow one as by a few images more, so that none shrinks to a point.
    """
    identity = torch.eye(mixture.means.shape[1], dtype=torch.float64)
    own = slice(world.rank, None, world.size)
    known = Statistics(statistics.gram[own], statistics.inner[own], statistics.residual[own])
    for _ in range(iterations):
        found = mixture_posterior(known, mixture)
        total, first, outer = world.total(found.total, found.first, found.outer)
        total = total.clamp_min(1e-6)
        means = first / total[:, None]
        scatter = outer - total[:, None, None] * means[:, :, None] * means[:, None, :]
        covariances = (scatter + _FLOOR_IMAGES * _FLOOR * identity) / (total + _FLOOR_IMAGES)[:, None, None]
        weights = (total + 1) / (total + 1).sum()
        mixture = GaussianMixture(weights, means, covariances + _LEAST_VARIANCE * identity)
    return mixture


def _distant(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Some of the points (n, r), each drawn by its squared distance from those before (Arthur & Vassilvitskii 2007)."""
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    distance = torch.full((len(points),), torch.inf, dtype=torch.float64)
    while len(chosen) < count:
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(dim=1))
        chosen.append(int(torch.multinomial(distance.clamp_min(1e-30), 1, generator=generator)))
    return points[chosen]
