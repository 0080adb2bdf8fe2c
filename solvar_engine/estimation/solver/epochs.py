"""The preconditioned stochastic solver for the factors of the covariance.

The curvature of an objective is nearly separable, D(k) over frequencies times an r-by-r matrix C over latents: for the
likelihood C = mean(S + m m^T), the normal matrix of expectation maximisation (EM). A gradient divided by
D(k) lambda + 1/tau(k) in the eigenbasis of C costs no more than a gradient and moves like EM.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band, split_batches
from solvar_engine.estimation.model.contrast import contrast_variance
from solvar_engine.estimation.model.expectation import expectation_pass
from solvar_engine.estimation.model.objectives import Objective
from solvar_engine.estimation.solver.regularization import Penalty, extend_shells
from solvar_engine.imaging.fourier import ft_to_volume, volume_radius, volume_to_ft
from solvar_engine.imaging.linear_algebra import mix
from solvar_engine.imaging.shells import shell_count, shells_to_volume
from solvar_engine.imaging.types import BatchSource

_SEPARATION = 100.0  # of factors by their prior against mixing them by the curvature
_MEMORY = 0.6  # share of the old value in running averages, per mini-batch


@dataclass(frozen=True)
class Factors:
    """State of the solver.

    Attributes
    ----------
    volumes : Tensor, shape (r, z, y, x), float32
        V, at the box of the current band.
    second_moment : Tensor, shape (r, r), float64
        Running mean of S + m m^T.
    contrast_variance : float
        Of the relative error of the images' contrasts.
    """

    volumes: Tensor
    second_moment: Tensor
    contrast_variance: float = 0.0


@dataclass(frozen=True)
class Epoch:
    """One visit to all images: in how many mini-batches, with which step."""

    batches: int
    step: float


def run_epoch(
    source: BatchSource,
    index: Tensor,
    band: Band,
    state: Factors,
    precision: Tensor,
    epoch: Epoch,
    generator: torch.Generator,
    objective: Objective,
) -> tuple[Factors, float]:
    """Visit all particles once, one preconditioned step per mini-batch; the contrast's variance is renewed at the end.

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
        Particles of this fit (a half-set or all).
    band : Band
        Its density counts the images of ``index``.
    state : Factors
    precision : Tensor, shape (r, shells)
        Inverse prior variance per component and shell, in the units of the band's density.
    epoch : Epoch
    generator : torch.Generator
        Deals the particles into mini-batches.
    objective : Objective

    Returns
    -------
    state : Factors
    value : float
        Mean of the objective per image, each at the factors that its mini-batch met.
    """
    information = objective.known_information(state.second_moment)
    value = 0.0
    evidence = []
    band = replace(band, contrast_variance=state.contrast_variance)
    for rows in split_batches(index, epoch.batches, generator):
        expectation = expectation_pass(source, rows, band, state.volumes, objective)
        value += expectation.objective
        evidence.append(expectation.contrast)
        share = index.shape[0] / expectation.count
        second_moment = _running_mean(
            state.second_moment, expectation.second_moment / expectation.count, epoch.batches
        )
        information = _running_mean(information, expectation.information / expectation.count, epoch.batches)
        penalty = objective.penalty(precision, band.box_size, information)
        step = preconditioned_step(
            band, state.volumes, expectation.gradient * share, objective.curvature(information), penalty
        )
        state = replace(state, volumes=state.volumes - epoch.step * step, second_moment=second_moment)
    state = replace(state, contrast_variance=contrast_variance(torch.cat(evidence)))
    return state, value / index.shape[0]


def _running_mean(running: Tensor | None, current: Tensor, batches: int) -> Tensor:
    if running is None or batches == 1:
        return current
    return _MEMORY * running + (1 - _MEMORY) * current


def preconditioned_step(
    band: Band, factors: Tensor, gradient: Tensor, curvature: Tensor, penalty: Penalty
) -> Tensor:
    """Turn a gradient into a step of the size of an EM update or a Newton step.

    Parameters
    ----------
    band : Band
    factors, gradient : Tensor, shape (r, z, y, x)
        The gradient of the data term, scaled to all images.
    curvature : Tensor, shape (r, r)
        Of the average image, to be multiplied by the density.
    penalty : Penalty

    Returns
    -------
    Tensor, shape (r, z, y, x)
        To be subtracted; band-limited, inside the mask up to that.
    """
    pulled = ft_to_volume(penalty.gradient(volume_to_ft(factors)), band.box_size)
    residual_ft = volume_to_ft(band.mask_root * (gradient + pulled))
    vectors = _basis(band, curvature, penalty)
    # Row sums bound a matrix whose small remaining off-diagonal parts are left out.
    values = (vectors.T @ curvature @ vectors).abs().sum(dim=1).clamp_min(1e-6).to(gradient)
    denominator = band.bound(band.density * values[:, None, None, None] + penalty.diagonal(vectors))
    step_ft = mix(mix(residual_ft, vectors) / denominator, vectors.T)
    inside = volume_radius(band.box_size, gradient.device) <= band.shell_max
    step = band.mask_root * ft_to_volume(step_ft * inside, band.box_size)
    return ft_to_volume(volume_to_ft(step) * inside, band.box_size)


def _basis(band: Band, curvature: Tensor, penalty: Penalty) -> Tensor:
    """Orthogonal mixtures (r, r) of factors in which the curvature and the penalty are nearly diagonal.

    After a change of gauge the curvature is close to the identity, and its eigenvectors mean nothing: they would mix
    factors that the prior leaves alone with others that it holds down by a hundred times as much, for which the steps
    would be up to r times too long. So factors are first told apart by how much the prior holds them down.
    """
    held = penalty.precision()
    inside = (volume_radius(band.box_size, held.device) <= band.shell_max) & (band.density > 0)
    share = (held / (held + band.density))[:, inside].mean(dim=1).to(curvature)
    scale = _SEPARATION * curvature.diagonal().mean()
    return torch.linalg.eigh(curvature + scale * torch.diag(share)).eigenvectors


def random_factors(band: Band, rank: int, prior: Tensor, generator: torch.Generator) -> Factors:
    """Draw factors from a prior: Gaussian, band-limited, inside the mask.

    Parameters
    ----------
    band : Band
    rank : int
    prior : Tensor, shape (shells,)
        Inverse prior variance per shell.
    generator : torch.Generator

    Returns
    -------
    Factors
        With the second moment set to one.
    """
    box_size = band.box_size
    # drawn on the CPU, so that a seed means the same numbers on every device
    noise = torch.randn(rank, box_size, box_size, box_size, generator=generator).to(band.mean.device)
    deviation = shells_to_volume(extend_shells(prior, shell_count(box_size)).float().rsqrt(), box_size)
    inside = volume_radius(box_size, noise.device) <= band.shell_max
    volumes = band.mask_root**2 * ft_to_volume(volume_to_ft(noise) * deviation * inside, box_size)
    identity = torch.eye(rank, dtype=torch.float64, device=volumes.device)
    return Factors(ft_to_volume(volume_to_ft(volumes) * inside, box_size), identity)


def epochs_of(schedule: str) -> Iterator[Epoch]:
    """Read a schedule such as "8x0.7 4x0.5 1x1": mini-batches and step of each epoch."""
    for word in schedule.split():
        batches, step = word.split("x")
        yield Epoch(int(batches), float(step))
