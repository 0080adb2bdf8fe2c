"""What is minimised over the factors of the covariance, by maximum likelihood or by least squares.

All that an objective sees of an image are its statistics, and all that the solver sees of an objective is what stands
in `Objective`: another one needs no change elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from solvar_engine.estimation.model.mixture import GaussianMixture, mixture_posterior
from solvar_engine.estimation.model.statistics import Statistics

_LEAST_SHARE = 0.3  # of the curvature of expectation maximisation: steps are at most three times as long
_SMALLEST_MOMENT = 1e-9


@dataclass(frozen=True)
class LatentPosterior:
    """Gaussian posterior of the latent coordinates of n images, float64.

    Attributes
    ----------
    mean : Tensor, shape (n, r)
    covariance : Tensor, shape (n, r, r)
    objective : Tensor, shape (n,)
        Negative log-likelihood of each image, without the constant (N / 2) log 2 pi.
    """

    mean: Tensor
    covariance: Tensor
    objective: Tensor

    def second_moment(self) -> Tensor:
        """E[z z^T] of each image: S + m m^T, shape (n, r, r)."""
        return self.covariance + self.mean[:, :, None] * self.mean[:, None, :]


def latent_posterior(statistics: Statistics, prior_precision: Tensor | None = None) -> LatentPosterior:
    """Posterior of z for images of unit noise variance and z ~ N(0, Gamma), with the marginal likelihood.

    -log p(Y) = 1/2 [log det(I + Gamma G) + |e|^2 - b^T (Gamma^-1 + G)^-1 b] (Yadgar, Lederman & Shkolnisky 2026,
    eq. 9, halved; whitened images, so sigma = 1).

    Parameters
    ----------
    statistics : Statistics
    prior_precision : Tensor, shape (r, r), optional
        Gamma^-1; identity by default.

    Returns
    -------
    LatentPosterior

    Examples
    --------
    >>> one = torch.ones(1, 1, 1, dtype=torch.float64)
    >>> round(latent_posterior(Statistics(one, one[0], one[0, 0])).mean.item(), 12)
    0.5
    """
    rank = statistics.gram.shape[-1]
    identity = torch.eye(rank, dtype=statistics.gram.dtype, device=statistics.gram.device)
    precision = identity if prior_precision is None else prior_precision
    lower = torch.linalg.cholesky(precision + statistics.gram)
    mean = torch.cholesky_solve(statistics.inner[..., None], lower)[..., 0]
    covariance = torch.cholesky_solve(identity.expand_as(lower), lower)
    log_determinant = 2 * torch.diagonal(lower, dim1=-2, dim2=-1).log().sum(dim=-1) - torch.logdet(precision)
    explained = (mean * statistics.inner).sum(dim=-1)
    return LatentPosterior(mean, covariance, 0.5 * (log_determinant + statistics.residual - explained))


@dataclass(frozen=True)
class ImageTerms:
    """What n images add to an objective and to its derivatives with respect to V, float64.

    With A = (P V, P F, s P mu), the last columns for what is not fitted, such as the error of the contrast, and
    e = Y - P mu, an image's part of the gradient is P*[A moments - e weights^T].

    Attributes
    ----------
    value : Tensor, shape (n,)
    weights : Tensor, shape (n, r)
    moments : Tensor, shape (n, columns, r)
    information : Tensor, shape (n, r, r)
        How well the image determines V, of which it does not know the latent coordinates: latent part of the matrix
        that D multiplies, to which a prior is compared.
    second_moment : Tensor, shape (n, r, r)
        E[z z^T] under the posterior, which serves the gauge.
    """

    value: Tensor
    weights: Tensor
    moments: Tensor
    information: Tensor
    second_moment: Tensor


class Objective(Protocol):
    """A function of V that is a sum over images, to be minimised."""

    def terms(self, statistics: Statistics, rank: int) -> ImageTerms:
        """Evaluate images of unit noise variance, from statistics of which only the first columns are fitted."""
        ...

    def curvature(self, information: Tensor, second_moment: Tensor) -> Tensor:
        """Latent part (r, r) of a matrix to divide gradients by, from averages over the images."""
        ...


class MaximumLikelihood:
    """Negative log-likelihood of Gaussian heterogeneity (Yadgar et al. 2026, eq. 9, halved).

    If the latents z were known, images would determine V by E[z z^T] = I; as they are not, to first order by
    E[m m^T] only, m the posterior mean: a share g / (1 + g) of it for a component of which an image knows g.
    """

    def terms(self, statistics: Statistics, rank: int) -> ImageTerms:
        """The gradient is P*[A (S + m m^T) - e m^T] with the posterior's mean m and covariance S."""
        posterior = latent_posterior(statistics)
        moments = posterior.second_moment()
        mean = posterior.mean[:, :rank]
        outer = mean[:, :, None] * mean[:, None, :]
        return ImageTerms(posterior.objective, mean, moments[:, :, :rank], outer, moments[:, :rank, :rank])

    def curvature(self, information: Tensor, second_moment: Tensor) -> Tensor:
        """The information, but along each direction at least `_LEAST_SHARE` of the second moment.

        The second moment is the curvature of expectation maximisation, which bounds the likelihood's. Where images know
        little of a component its steps are too short by the share of what is known, and would find it in hundreds of
        passes.
        """
        values, vectors = torch.linalg.eigh(second_moment)
        values = values.clamp_min(_SMALLEST_MOMENT)
        root = vectors * values.sqrt() @ vectors.T
        inverse = vectors * values.rsqrt() @ vectors.T
        share, basis = torch.linalg.eigh(inverse @ information @ inverse)
        return root @ (basis * share.clamp(_LEAST_SHARE, 1.0) @ basis.T) @ root


class MixtureLikelihood(MaximumLikelihood):
    """Negative log-likelihood of latent coordinates from a mixture of Gaussians; what is not fitted stays N(0, I).

    Parameters
    ----------
    mixture : GaussianMixture
        Of the coordinates of the factors.
    """

    def __init__(self, mixture: GaussianMixture) -> None:
        self.mixture = mixture

    def terms(self, statistics: Statistics, rank: int) -> ImageTerms:
        """As without a mixture, of which only the moments differ.

        Columns u that are not fitted have the mean (I + G_u)^-1 (b_u - G_uz z) where z is known, so that
        E[u z^T] = (I + G_u)^-1 (b_u E[z]^T - G_uz E[z z^T]).
        """
        unfitted = list(range(rank, statistics.gram.shape[-1]))
        of_factors = statistics.integrate_out(unfitted)
        posterior = mixture_posterior(of_factors, self.mixture)
        mean, second = posterior.mean, posterior.second_moment
        precision = statistics.gram[:, rank:, rank:] + _identity_like(statistics.gram[:, rank:, rank:])
        known = statistics.inner[:, rank:, None] * mean[:, None, :] - statistics.gram[:, rank:, :rank] @ second
        moments = torch.cat((second, torch.linalg.solve(precision, known)), dim=1)
        value = 0.5 * of_factors.residual - posterior.evidence
        return ImageTerms(value, mean, moments, mean[:, :, None] * mean[:, None, :], second)


class LeastSquares:
    """Squared distance of each image's covariance, 1/4 |e e^T - A A^T - I|_F^2 without the constant N / 4.

    A quarter of eq. 6 of Yadgar et al. 2026, in which sigma = 1 for whitened images.
    """

    def terms(self, statistics: Statistics, rank: int) -> ImageTerms:
        """The gradient is P*[A (G + I) - e b^T] with the inner products b = A^T e and G = A^T A.

        The covariance that the last columns add is part of A A^T, but they are not fitted.
        """
        gram, inner, residual = statistics.gram, statistics.inner, statistics.residual
        trace = gram.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
        image = residual.square() - 2 * residual
        model = gram.square().sum(dim=(-2, -1)) + 2 * trace
        value = 0.25 * (image + model - 2 * inner.square().sum(dim=-1))
        moments = (gram + _identity_like(gram))[:, :, :rank]
        second_moment = latent_posterior(statistics).second_moment()
        return ImageTerms(value, inner[:, :rank], moments, gram[:, :rank, :rank], second_moment[:, :rank, :rank])

    def curvature(self, information: Tensor, second_moment: Tensor) -> Tensor:
        """2 G + I: twice, since V stands on both sides of V V^T.

        With G alone, full steps would be an iteration such as v <- c / v, which alternates about the root for ever;
        with twice of it they are Newton's v <- (v + c / v) / 2. The identity, from the noise, bounds the steps of
        factors that are still weak.
        """
        return 2 * information + _identity_like(information)


def _identity_like(matrices: Tensor) -> Tensor:
    return torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)


OBJECTIVES: Mapping[str, Objective] = {"ml": MaximumLikelihood(), "ls": LeastSquares()}
"""By the name of the option."""
