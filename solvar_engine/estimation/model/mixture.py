"""The density of the latent coordinates as a mixture of Gaussians, from what each image knows of its own.

The places of particles in latent space are blurred by the noise of their images, each in its own way. A mixture that is
fitted to the images' likelihoods, not to their posterior means, is the density without that blur (extreme
deconvolution; Bovy, Hogg & Roweis, Ann. Appl. Stat. 2011), and as a prior it draws each particle to where others are,
not to the middle of all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from solvar_engine.distributed.world import ALONE, World
from solvar_engine.estimation.model.mixture_moments import BLOCKS, add_posteriors
from solvar_engine.estimation.model.statistics import Statistics

SHAPING_PARTICLES = 6_000
"""That a mixture is fitted to, at most."""

LIVE_SHARE = 1e-3
"""Of the variance of the leading coordinate: with less, images say nothing of one."""

FEWEST_SHARED = 16
"""Gaussians of one covariance that are started from images; more grow by splitting."""

SHARED_ITERATIONS = 15
"""Of expectation maximisation, for Gaussians of one covariance."""

_ITERATIONS = 25
_FIRST_VARIANCE, _FIRST_SHARED_VARIANCE = 0.1, 0.5
_SPLIT = 0.7  # of the deviation of a Gaussian, to both sides
_FEW = 1e-6  # images in a Gaussian, where sums over them are divided by their number
_FLOOR, _FLOOR_IMAGES = 0.02, 5.0  # variance that a Gaussian is drawn to, as by so many images
_LEAST_VARIANCE = 1e-4


@dataclass(frozen=True)
class GaussianMixture:
    """A density of latent coordinates, float64.

    Attributes
    ----------
    weights : Tensor, shape (k,)
        Of sum one.
    means : Tensor, shape (k, r)
    covariances : Tensor, shape (k, r, r) or (1, r, r)
        Of each Gaussian, or of all.
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

    def __str__(self) -> str:
        alike = " of one covariance" if len(self) > len(self.covariances) else ""
        return f"{len(self)} Gaussian{'s' * (len(self) > 1)}{alike}"

    def beside_others(self, places: Tensor, rank: int) -> GaussianMixture:
        """Of more coordinates: these are at some places (r,), and the others N(0, 1) and independent."""
        means = self.means.new_zeros(len(self), rank)
        means[:, places] = self.means
        covariances = torch.eye(rank, dtype=torch.float64).repeat(len(self.covariances), 1, 1)
        covariances[:, places[:, None], places] = self.covariances
        return GaussianMixture(self.weights, means, covariances)

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
    total, first : Tensor, shape (k,) and (k, r)
        Sums over the images of responsibilities, and of these times z.
    outer : Tensor, shape (k, r, r) or (1, r, r)
        Of responsibilities times z z^T, of all Gaussians together if they share a covariance.
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


def mixture_posterior(
    statistics: Statistics, mixture: GaussianMixture, of_each: bool = False
) -> MixturePosterior:
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
    parts, kinds = len(mixture), len(precision)
    results = [np.empty((count, rank)), np.empty((count, rank, rank)), np.empty(count)]
    apart = parts if of_each else kinds
    sums = [np.zeros((BLOCKS, parts)), np.zeros((BLOCKS, parts, rank)), np.zeros((BLOCKS, apart, rank, rank))]
    given = (statistics.gram.double(), statistics.inner.double(), precision, pull, constant)
    add_posteriors(*(np.ascontiguousarray(array.cpu().numpy()) for array in given), *results, *sums)
    device = statistics.inner.device
    found = [torch.from_numpy(array) for array in (*results, *(total.sum(axis=0) for total in sums))]
    return MixturePosterior(*(tensor.to(device) for tensor in found))


def fit_mixture(
    statistics: Statistics, count: int, generator: torch.Generator, is_shared: bool = False, world: World = ALONE
) -> GaussianMixture:
    """Fit so many Gaussians to images by expectation maximisation, from centres far from each other.

    Parameters
    ----------
    statistics : Statistics
        Of coordinates that would be N(0, I) as one Gaussian.
    count : int
        More than 16 of one covariance grow by :func:`split` from so many.
    generator : torch.Generator
    is_shared : bool, optional
        Whether all have one covariance.
    world : World, optional
        Processes that have the same statistics, and share the work.

    Returns
    -------
    GaussianMixture
    """
    first = min(count, FEWEST_SHARED) if is_shared else count
    mixture = start_mixture(statistics, first, generator, is_shared)
    mixture = improved(mixture, statistics, SHARED_ITERATIONS if is_shared else _ITERATIONS, world)
    while len(mixture) < count:
        mixture = improved(split(mixture, statistics, world), statistics, SHARED_ITERATIONS, world)
    return mixture


def split(mixture: GaussianMixture, statistics: Statistics, world: World = ALONE) -> GaussianMixture:
    """Two Gaussians in the place of each, along the direction in which its particles scatter most.

    Parameters
    ----------
    mixture : GaussianMixture
        Of one covariance.
    statistics : Statistics
    world : World, optional
        Processes that have the same statistics, and share the work.

    Returns
    -------
    GaussianMixture
    """
    found = _sums(statistics, mixture, world, of_each=True)
    means, scatter = _means_and_scatter(found)
    scatter /= found.total.clamp_min(_FEW)[:, None, None]
    lower = torch.linalg.cholesky(mixture.covariances[0])
    inverse = torch.linalg.inv(lower)
    values, vectors = torch.linalg.eigh(inverse @ scatter @ inverse.T)
    step = _SPLIT * (values[:, -1].clamp_min(0).sqrt()[:, None] * vectors[:, :, -1]) @ lower.T
    return GaussianMixture(mixture.weights.repeat(2) / 2, torch.cat((means + step, means - step)), mixture.covariances)


def start_mixture(statistics: Statistics, count: int, generator: torch.Generator, is_shared: bool) -> GaussianMixture:
    """Gaussians about the places of some images, far from each other; of one covariance if it is shared."""
    rank = statistics.inner.shape[1]
    mean = mixture_posterior(statistics, GaussianMixture.one(rank)).mean
    weights = torch.full((count,), 1.0 / count, dtype=torch.float64)
    spread = torch.eye(rank, dtype=torch.float64).expand(1 if is_shared else count, -1, -1)
    first = _FIRST_SHARED_VARIANCE if is_shared else _FIRST_VARIANCE
    return GaussianMixture(weights, _distant(mean, count, generator), first * spread)


def improved(
    mixture: GaussianMixture, statistics: Statistics, iterations: int, world: World = ALONE, is_width_kept: bool = False
) -> GaussianMixture:
    """Do some steps of expectation maximisation.

    Each Gaussian's covariance is drawn to a narrow one as by a few images more, so that none shrinks to a point.

    Parameters
    ----------
    mixture : GaussianMixture
    statistics : Statistics
    iterations : int
    world : World, optional
        Processes that have the same statistics, and share the work.
    is_width_kept : bool, optional
        Whether only weights and means move.

    Returns
    -------
    GaussianMixture
    """
    for _ in range(iterations):
        found = _sums(statistics, mixture, world)
        means, scatter = _means_and_scatter(found)
        weights = (found.total + 1) / (found.total + 1).sum()
        covariances = mixture.covariances if is_width_kept else _drawn_in(scatter, found.total)
        mixture = GaussianMixture(weights, means, covariances)
    return mixture


def evidence_of(statistics: Statistics, mixture: GaussianMixture, world: World = ALONE) -> Tensor:
    """Log-likelihood of each image (n,), less that without any factor."""
    evidence = torch.zeros(len(statistics.inner), dtype=torch.float64, device=statistics.inner.device)
    evidence[world.own] = mixture_posterior(_own(statistics, world), mixture).evidence
    return world.total(evidence)[0]


def _means_and_scatter(found: MixturePosterior) -> tuple[Tensor, Tensor]:
    """Means (k, r) of Gaussians, and sums of squares (k or 1, r, r) about them."""
    means = found.first / found.total.clamp_min(_FEW)[:, None]
    about_zero = found.total[:, None, None] * means[:, :, None] * means[:, None, :]
    return means, found.outer - (about_zero if len(found.outer) > 1 else about_zero.sum(dim=0, keepdim=True))


def _drawn_in(scatter: Tensor, total: Tensor) -> Tensor:
    """Covariances (k or 1, r, r) from sums of squares, and the images (k,) of each Gaussian."""
    total = total.clamp_min(_FEW) if len(scatter) > 1 else total.sum()[None]
    identity = torch.eye(scatter.shape[-1], dtype=torch.float64)
    covariances = (scatter + _FLOOR_IMAGES * _FLOOR * identity) / (total + _FLOOR_IMAGES)[:, None, None]
    return covariances + _LEAST_VARIANCE * identity


def _own(statistics: Statistics, world: World) -> Statistics:
    """Of images whose posterior this process finds."""
    return statistics[world.own]


def _sums(statistics: Statistics, mixture: GaussianMixture, world: World, of_each: bool = False) -> MixturePosterior:
    """Posterior of this process's images, with the sums over all."""
    found = mixture_posterior(_own(statistics, world), mixture, of_each)
    total, first, outer = world.total(found.total, found.first, found.outer)
    return replace(found, total=total, first=first, outer=outer)


def _distant(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Some of the points (n, r), each drawn by its squared distance from those before (Arthur & Vassilvitskii 2007)."""
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    distance = torch.full((len(points),), torch.inf, dtype=torch.float64)
    while len(chosen) < count:
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(dim=1))
        chosen.append(int(torch.multinomial(distance.clamp_min(1e-30), 1, generator=generator)))
    return points[chosen]
