"""From fitted factors to eigenvolumes, eigenvalues and latent coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.estimation.judging.heldout import advantage_of_few, likelihood_gains
from solvar_engine.estimation.judging.nuisance import (
    MISSED_SHARE,
    error_volumes,
    is_slow_background,
    looks_like_error,
    nuisance_overlap,
)
from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.expectation import posterior_pass, unfitted_columns
from solvar_engine.estimation.model.fixed_factors import collect_statistics, latent_covariance
from solvar_engine.estimation.model.statistics import Statistics
from solvar_engine.estimation.solver.agreement import factor_fsc
from solvar_engine.estimation.solver.epochs import Factors
from solvar_engine.estimation.solver.gauge import fix_gauge
from solvar_engine.estimation.solver.half_sets import HalfSetState
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.imaging.fourier import ft_to_volume, volume_to_ft
from solvar_engine.imaging.linear_algebra import inner_products, mix
from solvar_engine.imaging.sampling import sample_of
from solvar_engine.imaging.shells import shell_sum, shells_to_volume
from solvar_engine.imaging.types import BatchSource

HELD_OUT_PARTICLES = 50_000
"""Of each half, at most, that the scale of the components is measured on."""

_PARTICLES_BESIDE_ERRORS = 2_000  # of each half

CLEAR = 10.0
"""Difference of log-likelihoods that decides: twice what Kass & Raftery (1995) call very strong."""

_LEAST_CONTRAST_VARIANCE = 1e-8  # without any, an image could not tell what it knows of its contrast
_ROUNDS = 2  # in which contrast and coordinates settle, which multiply each other
_LIMITS_OF_FILTER = (0.1, 10.0)  # of factors that hold nothing, of which ratios are chance
_LEAST_OF_ROOT = 1e-6  # of the largest eigenvalue: directions that hold nothing keep a length
_SMALLEST_SHARE = 1e-4  # of the leading eigenvalue: priors of zero variance would make precisions infinite


@dataclass(frozen=True)
class Components:
    """Principal components of the covariance, in descending order of eigenvalue.

    Attributes
    ----------
    eigenvolumes : Tensor, shape (r, z, y, x), float32
        Orthonormal in real space, sign fixed.
    eigenvalues : Tensor, shape (r,), float64
        Variance of the latent coordinates, scaled on held-out images.
    eigenvalues_in_sample : Tensor, shape (r,), float64
        Variance along the same directions as the fit itself would have it.
    agreement : Tensor, shape (r,), float64
        Correlation of the same component in both half-sets, between 0 and 1.
    likelihood_gain : Tensor, shape (r,), float64
        What each half-set's version of a component adds to the log-likelihood of the other half, the smaller of both.
    is_slow : Tensor, shape (r,), bool, or None
        Looks like a slow background; None if that was not judged.
    gain_beside_errors : Tensor, shape (r,), float64, or None
        Share of the gain that is surely left beside errors of the pose; None where no component looks like them.
    """

    eigenvolumes: Tensor
    eigenvalues: Tensor
    eigenvalues_in_sample: Tensor
    agreement: Tensor
    likelihood_gain: Tensor
    is_slow: Tensor | None = None
    gain_beside_errors: Tensor | None = None

    def scaled(self) -> Tensor:
        """Factors (r, z, y, x) for latent coordinates of unit variance: eigenvolumes times root of the eigenvalue."""
        return self.eigenvolumes * self.eigenvalues.sqrt().to(self.eigenvolumes)[:, None, None, None]

    @staticmethod
    def none(box_size: int, device: torch.device | str = "cpu") -> Components:
        """No component at all."""
        nothing = torch.zeros(0, dtype=torch.float64, device=device)
        no_volumes = torch.zeros(0, box_size, box_size, box_size, device=device)
        return Components(no_volumes, nothing, nothing, nothing, nothing)


def measure_components(problem: CovarianceProblem, state: HalfSetState, full: Factors) -> Components:
    """Scale each half's factors on images of the other half, and find the principal axes.

    Parameters
    ----------
    problem : CovarianceProblem
        With the spread of contrast that the half-sets found.
    state : HalfSetState
        Finished and aligned.
    full : Factors
        Of all images.

    Returns
    -------
    Components
    """
    if not problem.rank:
        return Components.none(problem.source.box_size, problem.mask.device)
    band = problem.full_band()
    halves = (state.factors[0].volumes * problem.mask, state.factors[1].volumes * problem.mask)
    factors = in_gauge_of_halves(full, halves) * problem.mask
    first, second = with_spectra_of(factors, halves)
    of_images = problem.source.world.of_halves(
        lambda half: collect_statistics(
            problem.source, sample_of(problem.halves[half], HELD_OUT_PARTICLES), band, (second, first)[half]
        )
    )
    components = find_components(factors, (first, second), of_images[::-1], problem.mean)
    overlap = nuisance_overlap(components.eigenvolumes, components.eigenvalues, problem.mean)
    if not looks_like_error(overlap, components.agreement).any():
        return components
    return replace(components, gain_beside_errors=gain_beside_errors(problem, factors, (first, second), components))


def gain_beside_errors(
    problem: CovarianceProblem, factors: Tensor, halves: tuple[Tensor, Tensor], components: Components
) -> Tensor:
    """Share (r,) of the gain of each component that is left once each image may have errors of its pose.

    These are integrated out, with the spread that they would have if they were all that the components are. A large
    domain that turns looks like a turn of the whole in most of its volume, but the rest of it shows in the images, too.
    """
    band, rank = problem.full_band(), len(factors)
    errors = error_volumes(components.eigenvolumes, components.eigenvalues, problem.mean)
    of_images = problem.source.world.of_halves(
        lambda half: collect_statistics(
            problem.source,
            sample_of(problem.halves[half], _PARTICLES_BESIDE_ERRORS),
            band,
            torch.cat((halves[1 - half], errors)),
        )
    )
    directions = factors / factors.flatten(1).norm(dim=1)[:, None, None, None]
    mixture = torch.linalg.solve(
        inner_products(directions, directions), inner_products(directions, components.eigenvolumes)
    )
    alone, beside = torch.zeros(2, len(components.eigenvalues), dtype=torch.float64, device=mixture.device)
    for half, statistics in zip(halves, of_images[::-1], strict=True):
        weights = mixture / half.flatten(1).double().norm(dim=1)[:, None]
        known = replace(statistics, gram=statistics.gram[:, :rank, :rank], inner=statistics.inner[:, :rank])
        left = statistics.integrate_out(range(rank, rank + len(errors)))
        alone += likelihood_gains(known, weights, components.eigenvalues)
        beside += likelihood_gains(left, weights, components.eigenvalues)
    return (beside - CLEAR).clamp_min(0) / alone.clamp_min(CLEAR)


def in_gauge_of_halves(full: Factors, halves: tuple[Tensor, Tensor]) -> Tensor:
    """Factors (r, z, y, x) of all images, rotated among themselves to fit those of the half-sets best."""
    return _match(fix_gauge(full.volumes, full.second_moment), 0.5 * (halves[0] + halves[1]))


def with_spectra_of(factors: Tensor, halves: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Filter the factors of both half-sets as the factors of all images differ from their mean.

    Half of the images know fine detail less well, so their factors lack more of it. Where it is the fine detail that an
    image shows best (under coloured noise), such factors need a larger variance to explain the images than those of all
    images do, and the variance measured with one is not that of the other.

    Parameters
    ----------
    factors : Tensor, shape (r, z, y, x)
        Of all images, in the gauge of the halves.
    halves : tuple of two Tensors, shape (r, z, y, x)

    Returns
    -------
    tuple of two Tensors, shape (r, z, y, x)
        What their mean lacks of the factors has no part along it, in any shell.
    """
    box_size = factors.shape[-1]
    first, second = volume_to_ft(halves[0]), volume_to_ft(halves[1])
    mean = 0.5 * (first + second)
    cross = shell_sum((volume_to_ft(factors) * mean.conj()).real, box_size)
    ratio = cross / shell_sum(mean.abs() ** 2, box_size).clamp_min(1e-300)
    shells = shells_to_volume(ratio.clamp(*_LIMITS_OF_FILTER), box_size, beyond=1.0)
    return ft_to_volume(first * shells, box_size), ft_to_volume(second * shells, box_size)


def find_components(
    factors: Tensor, halves: tuple[Tensor, Tensor], held_out: tuple[Statistics, Statistics], mean: Tensor
) -> Components:
    """Combine the factors of all images with the scale that the half-sets measured on each other.

    The variance along a half-set's direction, measured on the other half, is what that direction has of the true
    component. Twice the images find a better direction: shell by shell, where the halves correlate by F, signal rises
    from a share F of the power to 2 F / (1 + F) (Spearman-Brown), so the variance found grows by the average of
    2 / (1 + F) over the component's energy.

    Parameters
    ----------
    factors : Tensor, shape (r, z, y, x)
        Of all images, masked, in the gauge of the halves.
    halves : tuple of two Tensors, shape (r, z, y, x)
        Aligned and masked factors of the half-sets, :func:`with_spectra_of` those of all images.
    held_out : tuple of two Statistics
        Of images of the other half under each half's factors.
    mean : Tensor, shape (z, y, x)
        Zero where no molecule is.

    Returns
    -------
    Components
    """
    axes = held_out_axes(factors, halves, held_out)
    gains = [
        likelihood_gains(statistics, weights, axes.eigenvalues)
        for statistics, weights in zip(held_out, axes.weights, strict=True)
    ]
    gain = torch.minimum(*gains)
    eigenvalues = believed_variances(axes.eigenvalues, gain)
    order = eigenvalues.argsort(descending=True, stable=True)
    eigenvolumes = axes.eigenvolumes[order]
    return Components(
        eigenvolumes,
        eigenvalues[order],
        (inner_products(eigenvolumes, factors) ** 2).sum(dim=1),
        axes.agreement(halves)[order],
        gain[order],
        slow_components(axes.eigenvolumes, axes.eigenvalues, axes.weights, held_out, mean)[order],
    )


def slow_components(
    volumes: Tensor,
    eigenvalues: Tensor,
    weights: tuple[Tensor, Tensor],
    held_out: tuple[Statistics, Statistics],
    mean: Tensor,
) -> Tensor:
    """Components that look like slow backgrounds, and are not clearly something that varies in all images.

    Parameters
    ----------
    volumes : Tensor, shape (r, z, y, x)
    eigenvalues : Tensor, shape (r,)
    weights : tuple of two Tensors, shape (factors, r), float64
        Each component as a mixture of the factors of a half-set.
    held_out : tuple of two Statistics
        Of images of the other half under each half's factors.
    mean : Tensor, shape (z, y, x)
        Zero where no molecule is.

    Returns
    -------
    Tensor, shape (r,), bool
    """
    is_slow = is_slow_background(volumes, eigenvalues, mean)
    if is_slow.any():
        both = [
            advantage_of_few(statistics, mixture, eigenvalues, is_slow, MISSED_SHARE)
            for statistics, mixture in zip(held_out, weights, strict=True)
        ]
        is_slow = is_slow.masked_scatter(is_slow, torch.maximum(*both) > -CLEAR)
    return is_slow


def believed_variances(variances: Tensor, gain: Tensor) -> Tensor:
    """Variances less what chance makes of none: v (1 - 1 / (2 gain)), or a small share of the largest.

    A variance is not negative, so that of a component that is not there is found too large, more so by iterations that
    begin with what the fit claims. Near its maximum the log-likelihood gains v^2 / (2 s^2), s the standard error of v,
    so this is v (1 - s^2 / v^2), the positive part of which is never worse on average (James & Stein 1961).

    Parameters
    ----------
    variances, gain : Tensor, shape (r,)

    Returns
    -------
    Tensor, shape (r,)
    """
    believed = variances * (1 - 0.5 / gain.clamp_min(0.5))
    return torch.maximum(believed, _SMALLEST_SHARE * variances.max())


@dataclass(frozen=True)
class HeldOutAxes:
    """Principal axes of the covariance that the half-sets measured on each other.

    Attributes
    ----------
    eigenvolumes : Tensor, shape (r, z, y, x), float32
        Orthonormal in real space, sign fixed.
    eigenvalues : Tensor, shape (r,), float64
        Descending, positive.
    weights : tuple of two Tensors, shape (r, r), float64
        Each axis as a mixture of the factors of a half-set.
    """

    eigenvolumes: Tensor
    eigenvalues: Tensor
    weights: tuple[Tensor, Tensor]

    def agreement(self, halves: tuple[Tensor, Tensor]) -> Tensor:
        """Correlation of both half-sets' versions of each axis, between 0 and 1, shape (r,)."""
        return _agreement(*(mix(half, weights) for half, weights in zip(halves, self.weights, strict=True)))


def held_out_axes(
    factors: Tensor, halves: tuple[Tensor, Tensor], held_out: tuple[Statistics, Statistics]
) -> HeldOutAxes:
    """Scale the directions of factors by what the half-sets measured on each other, and find the principal axes.

    Factors hold noise, and where two of them are weak it may turn the ones of one half-set among each other against
    those of the other; the off-diagonal variances of both then cancel, and one motion becomes two weaker ones. So the
    half-sets are laid on each other (orthogonal Procrustes; Schoenemann, Psychometrika 1966) with each direction as
    long as the other half's images say, which leaves little of noise, and the factors are turned to fit them.

    Parameters
    ----------
    factors : Tensor, shape (r, z, y, x)
        Whose span counts.
    halves, held_out
        As for :func:`find_components`.

    Returns
    -------
    HeldOutAxes
    """
    roots = [_positive_root(latent_covariance(statistics)) for statistics in held_out]
    scaled = [mix(half, root) for half, root in zip(halves, roots, strict=True)]
    left, _, right = torch.linalg.svd(inner_products(*scaled))
    turns = left, right.T
    laid = [mix(one, turn) for one, turn in zip(scaled, turns, strict=True)]
    grams = [inner_products(one, one) for one in laid]
    gain = _gain_of_all_images(*laid).sqrt()
    eigenvalues, vectors = torch.linalg.eigh(gain[:, None] * 0.5 * (grams[0] + grams[1]) * gain[None, :])
    eigenvalues, vectors = eigenvalues.flip(0), vectors.flip(1)
    weights = [
        root @ turn @ torch.linalg.inv(_positive_root(gram)) @ vectors
        for root, turn, gram in zip(roots, turns, grams, strict=True)
    ]
    eigenvolumes = _match_span(factors, mix(halves[0], weights[0]) + mix(halves[1], weights[1]))
    sign = torch.where((eigenvolumes.flatten(1).double() ** 3).sum(dim=1) < 0, -1.0, 1.0)
    eigenvalues = eigenvalues.clamp_min(_SMALLEST_SHARE * float(eigenvalues[0]))
    first, second = (weight * sign for weight in weights)
    return HeldOutAxes(eigenvolumes * sign.to(eigenvolumes)[:, None, None, None], eigenvalues, (first, second))


def _positive_root(matrix: Tensor) -> Tensor:
    """Symmetric root of a symmetric matrix, whose eigenvalues are not taken for less than a share of the largest."""
    values, vectors = torch.linalg.eigh(matrix)
    values = torch.maximum(values, _LEAST_OF_ROOT * values[-1]).clamp_min(1e-30)
    return (vectors * values.sqrt()) @ vectors.T


def _match_span(factors: Tensor, target: Tensor) -> Tensor:
    """Orthonormal volumes with the span of factors that fit others, as many, best."""
    norms = factors.flatten(1).double().norm(dim=1).clamp_min(1e-20)
    basis = torch.linalg.inv(_positive_root(inner_products(factors, factors) / (norms[:, None] * norms)))
    return _match(mix(factors, basis / norms[:, None]), target)


def _gain_of_all_images(half1: Tensor, half2: Tensor) -> Tensor:
    """Growth of the variance along each direction from half of the images to all, between 1 and 2; shape (r,)."""
    box_size = half1.shape[-1]
    correlation = factor_fsc(half1, half2).clamp(0, 1)
    energy = shell_sum(volume_to_ft(half1).abs() ** 2 + volume_to_ft(half2).abs() ** 2, box_size)
    return (energy * 2 / (1 + correlation)).sum(dim=1) / energy.sum(dim=1).clamp_min(1e-300)


def _match(factors: Tensor, target: Tensor) -> Tensor:
    """Rotate factors among themselves to fit a target best (orthogonal Procrustes)."""
    left, _, right = torch.linalg.svd(inner_products(factors, target))
    return mix(factors, left @ right)


def _agreement(version1: Tensor, version2: Tensor) -> Tensor:
    """Correlation of the two versions of each component that the same mixture of half-set factors gives."""
    first, second = version1.flatten(1).double(), version2.flatten(1).double()
    norms = first.norm(dim=1) * second.norm(dim=1)
    return ((first * second).sum(dim=1) / norms.clamp_min(1e-30)).clamp(0, 1)


@dataclass(frozen=True)
class LatentBatch:
    """Latent coordinates of some particles.

    Attributes
    ----------
    index : Tensor, shape (n,), int64
    z : Tensor, shape (n, r), float32
        Posterior mean, for eigenvolumes of unit norm.
    precision : Tensor, shape (n, r, r), float32
        Of the posterior, prior included.
    log_likelihood : Tensor, shape (n,), float64
    contrast : Tensor, shape (n,), float32
        Posterior mean of each image's contrast over the one that it came with.
    contrast_std : Tensor, shape (n,), float32
        Its posterior standard deviation.
    """

    index: Tensor
    z: Tensor
    precision: Tensor
    log_likelihood: Tensor
    contrast: Tensor
    contrast_std: Tensor

    def known(self, deviation: Tensor, rows: Tensor | slice = slice(None)) -> Statistics:
        """What images of some rows say of their coordinates beside the prior, in units of its deviations (r,)."""
        precision, z = self.precision[rows].double(), self.z[rows].double()
        inner = (precision @ z[..., None])[..., 0] * deviation
        identity = torch.eye(len(deviation), dtype=torch.float64, device=precision.device)
        gram = deviation[:, None] * precision * deviation - identity
        return Statistics(gram, inner, gram.new_zeros(len(gram)))


def latent_coordinates(
    source: BatchSource, index: Tensor, band: Band, components: Components, contrast_variance: float = 0.0
) -> Iterator[LatentBatch]:
    """Yield the posterior of the latent coordinates, batch by batch, the band's nuisance factors marginalised.

    An image that is twice as bright shows twice as much of its motion, too: the model is linear about what each shows.

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
    band : Band
        The last one; its variance of the contrast is what is left beside the contrasts in use.
    components : Components
    contrast_variance : float, optional
        Of the contrasts of images before they are looked at, the prior of the stated uncertainty, if it is more than
        that of the band.

    Yields
    ------
    LatentBatch
    """
    deviation, factors = components.eigenvalues.sqrt(), components.scaled()
    identity = torch.eye(deviation.shape[0], dtype=torch.float64, device=deviation.device)
    rank, variance = deviation.shape[0], max(band.contrast_variance, _LEAST_CONTRAST_VARIANCE)
    band, spread = replace(band, contrast_variance=variance), variance**0.5
    missing = variance / max(contrast_variance, variance) - 1  # of the prior's precision
    unfitted = unfitted_columns(band, rank)
    for batch, _, statistics, posterior in posterior_pass(source, index, band, factors, _ROUNDS):
        gram = statistics.integrate_out(unfitted).gram
        yield LatentBatch(
            batch.index,
            (posterior.mean[:, :rank] * deviation).float(),
            ((identity + gram) / (deviation[:, None] * deviation[None, :])).float(),
            -posterior.objective,
            (1 + spread * posterior.mean[:, -1]).float(),
            (spread * (1 / posterior.covariance[:, -1, -1] + missing).rsqrt()).float(),
        )
