"""The maximum-likelihood objective of the low-rank covariance and the posterior that it comes with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.estimation.statistics import Statistics


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
    >>> latent_posterior(Statistics(one, one[0], one[0, 0])).mean.item()
    0.5
    """
    rank = statistics.gram.shape[-1]
    identity = torch.eye(rank, dtype=statistics.gram.dtype, device=statistics.gram.device)
    precision = identity if prior_precision is None else prior_precision
    factor = torch.linalg.cholesky(precision + statistics.gram)
    mean = torch.cholesky_solve(statistics.inner[..., None], factor)[..., 0]
    covariance = torch.cholesky_solve(identity.expand_as(factor), factor)
    log_determinant = 2 * torch.diagonal(factor, dim1=-2, dim2=-1).log().sum(dim=-1) - torch.logdet(precision)
    explained = (mean * statistics.inner).sum(dim=-1)
    return LatentPosterior(mean, covariance, 0.5 * (log_determinant + statistics.residual - explained))
