"""One pass over images: sums of an objective and its derivatives, or the posterior of each image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.estimation.bands import Band
from solvar_engine.estimation.objectives import ImageTerms, LatentPosterior, Objective, latent_posterior
from solvar_engine.estimation.statistics import Statistics
from solvar_engine.imaging.types import Batch, BatchSource
from solvar_engine.projectors.base import images_per_call


@dataclass(frozen=True)
class Expectation:
    """Sums over the images of a pass.

    Attributes
    ----------
    objective : float
    second_moment : Tensor, shape (r, r), float64
        Sum of E[z z^T].
    information : Tensor, shape (r, r), float64
        Sum of the images' information, see `ImageTerms`.
    gradient : Tensor, shape (r, z, y, x)
        Of the objective with respect to the factors, in the precision of the images.
    count : int
    """

    objective: float
    second_moment: Tensor
    information: Tensor
    gradient: Tensor
    count: int


def expectation_pass(
    source: BatchSource, index: Tensor, band: Band, factors: Tensor, objective: Objective
) -> Expectation:
    """Evaluate an objective and its gradient, sum_i P_i*[A_i moments_i - e_i weights_i^T].

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
        Particles to visit.
    band : Band
    factors : Tensor, shape (r, z, y, x)
        V, at the box of the band.
    objective : Objective

    Returns
    -------
    Expectation
    """
    rank = factors.shape[0]
    projector = band.projector
    grid = projector.to_grid(torch.cat((band.mean[None], factors)))
    accumulator = projector.new_accumulator(rank)
    second_moment = torch.zeros(rank, rank, dtype=torch.float64)
    information = torch.zeros_like(second_moment)
    value = 0.0
    for batch in source.batches(index, band.disk, images_per_call(projector, rank + 2)):
        slices, products = projector.project_with_gram(grid, batch.rotation, batch.ctf, batch.images)
        terms = objective.terms(Statistics.at_contrast(products, batch.contrast))
        second_moment += terms.second_moment.sum(dim=0)
        information += terms.information.sum(dim=0)
        value += float(terms.value.sum())
        projector.backproject_combination(
            slices,
            batch.images,
            _gradient_coefficients(terms, batch.contrast).to(batch.images.real.dtype),
            batch.rotation,
            batch.ctf,
            accumulator,
        )
    return Expectation(value, second_moment, information, projector.to_volumes(accumulator), int(index.shape[0]))


def _gradient_coefficients(terms: ImageTerms, contrast: Tensor) -> Tensor:
    """Weights of (P mu, P V, Y) in each image's gradient: a [a P V moments - (Y - a P mu) weights^T]."""
    a = contrast.to(terms.weights.dtype)[:, None, None]
    row = terms.weights[:, None, :]
    return torch.cat((a**2 * row, a**2 * terms.moments, -a * row), dim=1)


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
