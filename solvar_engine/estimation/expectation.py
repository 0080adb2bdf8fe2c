"""One pass over images: posterior statistics, and the gradient with respect to the factors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.estimation.bands import Band
from solvar_engine.estimation.objectives import LatentPosterior, latent_posterior
from solvar_engine.estimation.statistics import Statistics
from solvar_engine.imaging.types import Batch, BatchSource
from solvar_engine.projectors.base import images_per_call


@dataclass(frozen=True)
class Expectation:
    """Sums over the images of a pass.

    Attributes
    ----------
    objective : float
        Sum of the negative log-likelihoods.
    second_moment : Tensor, shape (r, r), float64
        Sum of E[z z^T].
    gradient : Tensor, shape (r, z, y, x), float32
        Of the objective with respect to the factors.
    count : int
    """

    objective: float
    second_moment: Tensor
    gradient: Tensor
    count: int


def expectation_pass(source: BatchSource, index: Tensor, band: Band, factors: Tensor) -> Expectation:
    """Evaluate the objective and its gradient, sum_i P_i*[A_i (S_i + m_i m_i^T) - e_i m_i^T].

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
        Particles to visit.
    band : Band
    factors : Tensor, shape (r, z, y, x)
        V, at the box of the band.

    Returns
    -------
    Expectation
    """
    rank = factors.shape[0]
    projector = band.projector
    grid = projector.to_grid(torch.cat((band.mean[None], factors)))
    accumulator = projector.new_accumulator(rank)
    second_moment = torch.zeros(rank, rank, dtype=torch.float64)
    objective = 0.0
    for batch in source.batches(index, band.disk, images_per_call(projector, rank + 2)):
        slices, products = projector.project_with_gram(grid, batch.rotation, batch.ctf, batch.images)
        posterior = latent_posterior(Statistics.at_contrast(products, batch.contrast))
        moments = posterior.second_moment()
        second_moment += moments.sum(dim=0)
        objective += float(posterior.objective.sum())
        projector.backproject_combination(
            slices,
            batch.images,
            _gradient_coefficients(posterior.mean, moments, batch.contrast),
            batch.rotation,
            batch.ctf,
            accumulator,
        )
    return Expectation(objective, second_moment, projector.to_volumes(accumulator), int(index.shape[0]))


def _gradient_coefficients(mean: Tensor, moments: Tensor, contrast: Tensor) -> Tensor:
    """Weights of (P mu, P V, Y) in each image's gradient: a [a P V (S + m m^T) - (Y - a P mu) m^T]."""
    a = contrast.to(mean.dtype)[:, None, None]
    row = mean[:, None, :]
    return torch.cat((a**2 * row, a**2 * moments, -a * row), dim=1).float()


def posterior_pass(
    source: BatchSource, index: Tensor, band: Band, factors: Tensor
) -> Iterator[tuple[Batch, Tensor, Statistics, LatentPosterior]]:
    """Yield batch by batch the slices, statistics and posterior under given factors.

    Yields
    ------
    batch : Batch
    slices : Tensor, shape (n, pixels, 1 + r), complex64
        Of the mean and the factors, at contrast 1.
    statistics : Statistics
    posterior : LatentPosterior
    """
    grid = band.projector.to_grid(torch.cat((band.mean[None], factors)))
    for batch in source.batches(index, band.disk, images_per_call(band.projector, factors.shape[0] + 2)):
        slices, products = band.projector.project_with_gram(grid, batch.rotation, batch.ctf, batch.images)
        statistics = Statistics.at_contrast(products, batch.contrast)
        yield batch, slices, statistics, latent_posterior(statistics)
