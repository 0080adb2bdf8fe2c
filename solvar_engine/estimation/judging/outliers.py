"""Images that show no particle, or another one.

Three explanations of an image compete: the model (mean, factors and contrast), noise alone, and some other structure
that is as strong as the particle at each frequency but otherwise unknown. What tells them apart is coherence: a
particle that the model describes badly still follows the mean closely enough to be far more likely than something
unknown, so rare states are not taken for junk. Images that are too strong or too weak as a whole, whatever they show,
are found by their distance from the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.expectation import posterior_pass
from solvar_engine.imaging.sampling import enlarged_groups, sample_of
from solvar_engine.imaging.types import Batch, BatchSource, ParticleSource

PRIOR_SHARE = 0.05
"""Of images without a particle, and of images of another one, before an image is looked at."""

LARGEST_DEVIATION = 8.0
"""Of e^T Sigma^-1 e from its median, in robust standard deviations."""

_STRENGTH_SHELL = 8  # up to which images are compared in strength
_STRENGTH_IMAGES = 1_000  # in memory at a time
_SAMPLE = 1_000  # images that tell how strong the particle is
_CONTRAST_DEVIATION = 0.2  # of images of which nothing is known yet
_FAR_STRONGER = 10.0  # power of ice over that of the particle
_PRIOR_LOG_ODDS = log((1 - 2 * PRIOR_SHARE) / PRIOR_SHARE)
_DEVIATIONS_PER_MAD = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class ImageFit:
    """How well n images agree with the model.

    Attributes
    ----------
    log_odds : Tensor, shape (n,), float64
        Of the model against the more likely of noise and another structure, priors included.
    distance : Tensor, shape (n,), float64
        e^T Sigma^-1 e, which is the number of real pixels on average.
    contrast : Tensor, shape (n,), float64
        Posterior mean under the model, over the one that the image came with.
    """

    log_odds: Tensor
    distance: Tensor
    contrast: Tensor


def signal_power(source: BatchSource, index: Tensor, band: Band, factors: Tensor) -> Tensor:
    """Power per shell of what the model shows in images, transfer function and noise divided out.

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
        A sample of these is looked at.
    band : Band
    factors : Tensor, shape (r, z, y, x)

    Returns
    -------
    Tensor, shape (shells,), float64
    """
    shells = band.disk.shell
    power, seen = torch.zeros(2, band.shell_max + 1, dtype=torch.float64, device=shells.device)
    sample = sample_of(index, _SAMPLE)
    for batch, slices, _, _ in posterior_pass(source, sample, band, factors):
        shown = slices[:, :, : 1 + len(factors)].abs().square().sum(dim=2)
        power.index_add_(0, shells, (band.disk.weight * shown).sum(dim=0).double())
        seen.index_add_(0, shells, (band.disk.weight * batch.ctf.square()).sum(dim=0).double())
    power, seen = source.world.total(power, seen)
    return power / seen.clamp_min(1e-30)


def image_fits(source: BatchSource, index: Tensor, band: Band, factors: Tensor) -> Iterator[tuple[Tensor, ImageFit]]:
    """Compare the explanations of each image.

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
    band : Band
    factors : Tensor, shape (r, z, y, x)
        In the gauge z ~ N(0, I).

    Yields
    ------
    index : Tensor, shape (m,), int64
    fit : ImageFit
    """
    power = signal_power(source, index, band, factors)
    for batch, _, _, posterior in posterior_pass(source, index, band, factors):
        of_noise, of_other = (_unknown(batch, band, strength * power) for strength in (0.0, 1.0))
        log_odds = torch.minimum(of_noise, of_other) - posterior.objective + _PRIOR_LOG_ODDS
        distance = _distance(posterior.objective, posterior.covariance)
        contrast = 1 + band.contrast_variance**0.5 * posterior.mean[:, -1]
        yield batch.index, ImageFit(log_odds, distance, contrast)


def images_of_no_state(source: BatchSource, index: Tensor, band: Band) -> Tensor:
    """Images that show no particle in whatever state, as far as that can be told before any motion is known.

    Were a factor fitted to them, it would describe that the particle is missing, and explain them ever after. An image
    is one of them if noise alone, or a structure far stronger than the particle, is more likely than both the mean and
    some unknown structure as strong as the particle: that may be a rare state.

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
    band : Band
        Without errors of poses; its variance of the contrast does not count.

    Returns
    -------
    Tensor, shape (n,), bool
    """
    band, no_factors = replace(band, contrast_variance=_CONTRAST_DEVIATION**2), band.mean.new_zeros(0, *band.mean.shape)
    power = signal_power(source, index, band, no_factors)
    found = torch.zeros(len(source), dtype=torch.int64)
    for batch, _, _, posterior in posterior_pass(source, index, band, no_factors):
        of_noise, of_state, of_ice = (_unknown(batch, band, strength * power) for strength in (0.0, 1.0, _FAR_STRONGER))
        log_odds = torch.minimum(of_noise, of_ice) - torch.minimum(posterior.objective - _PRIOR_LOG_ODDS, of_state)
        found[batch.index] = (log_odds < 0).long().cpu()
    (found,) = source.world.total(found)
    return found[index] > 0


def _unknown(batch: Batch, band: Band, power: Tensor) -> Tensor:
    """Minus the log-likelihood (n,) of images of an unknown structure with some power (shells,), besides noise."""
    spread = power[band.disk.shell] * batch.ctf.double().square()
    observed = batch.images.abs().double().square()
    return 0.5 * ((observed / (1 + spread) + torch.log1p(spread)) @ band.disk.weight.double())


def _distance(objective: Tensor, covariance: Tensor) -> Tensor:
    """e^T Sigma^-1 e from the negative log-likelihood, whose determinant is that of the posterior's precision."""
    return 2 * objective + torch.logdet(covariance)


def strong_images(source: ParticleSource, index: Tensor) -> Tensor:
    """Images far stronger than the others over the low shells: ice, carbon, aggregates.

    They are found without a model, so that no model is fitted to them. A particle has about the strength of the others
    in whatever state it is.

    Parameters
    ----------
    source : ParticleSource
    index : Tensor, shape (n,), int64
        Images that are compared.

    Returns
    -------
    Tensor, shape (n,), bool
    """
    disk = source.disk.prefix(min(_STRENGTH_SHELL, source.disk.shell_max))
    weight = disk.weight.double()
    strength = torch.zeros(len(source), dtype=torch.float64)
    for batch in source.batches(index, disk, _STRENGTH_IMAGES):
        strength[batch.index] = (batch.images.abs().double().square() @ weight.to(batch.images.device)).cpu()
    (strength,) = source.world.total(strength)
    return deviations(strength[index], source.group.cpu()[index.cpu()]) > LARGEST_DEVIATION


def deviations(values: Tensor, group: Tensor) -> Tensor:
    """Distance of values (n,) from the median of their optics group (n,), in robust standard deviations.

    Small groups are taken together: see `enlarged_groups`.
    """
    deviation, group = torch.zeros_like(values), enlarged_groups(group)
    for number in group.unique():
        members = group == number
        centred = values[members] - values[members].median()
        deviation[members] = centred / (_DEVIATIONS_PER_MAD * centred.abs().median()).clamp_min(1e-30)
    return deviation


def find_outliers(log_odds: Tensor, distance: Tensor, group: Tensor) -> Tensor:
    """Decide which images are outliers.

    Parameters
    ----------
    log_odds, distance : Tensor, shape (n,)
        As in `ImageFit`.
    group : Tensor, shape (n,), int64
        Optics group: the distances within one are compared with each other, since its noise may be a few percent wrong.

    Returns
    -------
    Tensor, shape (n,), bool
    """
    return (log_odds < 0) | (deviations(distance, group).abs() > LARGEST_DEVIATION)
