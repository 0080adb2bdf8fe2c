"""One pass over images: sums of an objective and its derivatives, or the posterior of each image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.contrast import contrast_evidence, contrast_variance
from solvar_engine.estimation.model.objectives import ImageTerms, LatentPosterior, Objective, latent_posterior
from solvar_engine.estimation.model.slices import slices_of_batch
from solvar_engine.estimation.model.statistics import Statistics, about_expected, linear_mixtures
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
    contrast : Tensor, shape (count, 2), float64
        What each image says of its contrast, see `contrast_evidence`.
    """

    objective: float
    second_moment: Tensor
    information: Tensor
    gradient: Tensor
    count: int
    contrast: Tensor


def expectation_pass(
    source: BatchSource, index: Tensor, band: Band, factors: Tensor, objective: Objective
) -> Expectation:
    """Evaluate an objective and its gradient, sum_i P_i*[A_i moments_i - e_i weights_i^T].

    The contrasts are known up to an error of the band's variance, which is marginalised, and so are the latent
    coordinates of the band's nuisance factors.

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
    grid = projector.to_grid(torch.cat((band.mean[None], factors, band.nuisance)))
    accumulator = projector.new_accumulator(rank)
    second_moment = torch.zeros(rank, rank, dtype=torch.float64, device=factors.device)
    information = torch.zeros_like(second_moment)
    value, deviation = second_moment.new_zeros(()), band.contrast_variance**0.5
    evidence = [second_moment.new_zeros(0, 2)]
    channels = rank + band.nuisance.shape[0] + 2
    for batch in source.batches(index, band.disk, images_per_call(projector, channels)):
        slices, products, _ = slices_of_batch(projector, grid, batch)
        expected = band.expected_nuisance(batch.index)
        products = about_expected(products, expected)
        terms = objective.terms(Statistics.with_contrast_error(products, batch.contrast, deviation), rank)
        evidence.append(contrast_evidence(products, batch.contrast))
        second_moment += terms.second_moment.sum(dim=0)
        information += terms.information.sum(dim=0)
        value += terms.value.sum()
        projector.backproject_combination(
            slices,
            batch.images,
            _gradient_coefficients(terms, batch.contrast, deviation, expected).to(batch.images.real.dtype),
            batch.rotation,
            batch.ctf,
            accumulator,
        )
    del grid  # as large as the accumulator, and transforms need room
    gradient = projector.to_volumes(accumulator)
    value, second_moment, information, gradient = source.world.total(value, second_moment, information, gradient)
    contrast = source.world.gathered(torch.cat(evidence))
    return Expectation(float(value), second_moment, information, gradient, len(index), contrast)


def contrast_variance_without_factors(source: BatchSource, index: Tensor, band: Band) -> float:
    """Variance of the images' contrasts as it would be if all images showed the mean: to begin with.

    Whatever of a motion looks like a change of contrast is counted in. As the factors take up their own the variance
    falls, whereas a spread that the factors have taken up first would stay with them.

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
    band : Band

    Returns
    -------
    float
    """
    projector = band.projector
    grid = projector.to_grid(band.mean[None])
    evidence = [band.mean.new_zeros(0, 2, dtype=torch.float64)]
    for batch in source.batches(index, band.disk, images_per_call(projector, 2)):
        _, products, _ = slices_of_batch(projector, grid, batch)
        evidence.append(contrast_evidence(products, batch.contrast))
    return contrast_variance(source.world.gathered(torch.cat(evidence)))


def _gradient_coefficients(terms: ImageTerms, contrast: Tensor, deviation: float, expected: Tensor) -> Tensor:
    """Weights of (P mu, P V, P F, Y) in a gradient: a [a (P V, P F, s p) moments - (Y - a p) weights^T].

    Here p = P mu + P F d is the mean where the nuisance coordinates are as expected.
    """
    a = contrast.to(terms.weights.dtype)[:, None, None]
    row = terms.weights[:, None, :]
    of_mean = row + deviation * terms.moments[:, -1:]
    moments = terms.moments[:, :-1]
    fitted = moments.shape[1] - expected.shape[1]
    of_nuisance = moments[:, fitted:] + expected[:, :, None] * of_mean
    return torch.cat((a**2 * of_mean, a**2 * moments[:, :fitted], a**2 * of_nuisance, -a * row), dim=1)


def unfitted_columns(band: Band, rank: int) -> list[int]:
    """Columns of the statistics of a pass that are not those of its factors: nuisance and the contrast."""
    return list(range(rank, rank + len(band.nuisance) + 1))


def posterior_pass(
    source: BatchSource, index: Tensor, band: Band, factors: Tensor, rounds: int = 0
) -> Iterator[tuple[Batch, Tensor, Statistics, LatentPosterior]]:
    """Yield batch by batch the slices, statistics and posterior under given factors and the band's contrast variance.

    Of the images of this process, see `BatchSource.batches`. The model is linear about what is expected of every image
    or, after some rounds, about what was found of it.

    Yields
    ------
    batch : Batch
    slices : Tensor, shape (n, pixels, 1 + r + f), complex64
        Of the mean, where the nuisance coordinates are as expected, of the factors and of the band's nuisance factors,
        at contrast 1.
    statistics : Statistics
        Of the factors, the nuisance factors and, as last column, the error of the contrast.
    posterior : LatentPosterior
        Of the latent coordinates, those of the nuisance factors (less what is expected of them) and, last, of the error
        of the contrast in units of its standard deviation.
    """
    deviation = band.contrast_variance**0.5
    grid = band.projector.to_grid(torch.cat((band.mean[None], factors, band.nuisance)))
    fitted = 1 + len(factors)
    for batch in source.batches(index, band.disk, images_per_call(band.projector, fitted + len(band.nuisance) + 1)):
        slices, products, _ = slices_of_batch(band.projector, grid, batch)
        if len(band.nuisance):
            expected = band.expected_nuisance(batch.index)
            products = about_expected(products, expected)
            slices[:, :, 0] += (slices[:, :, fitted:] @ expected[:, :, None].to(slices.dtype))[..., 0]
        statistics = Statistics.with_contrast_error(products, batch.contrast, deviation)
        posterior = latent_posterior(statistics)
        for _ in range(rounds):
            mixtures = linear_mixtures(batch.contrast, deviation, posterior.mean)
            statistics = Statistics.of_mixtures(products, mixtures)
            posterior = latent_posterior(statistics)
        yield batch, slices, statistics, posterior
