"""The preconditioned stochastic solver for the factors of the covariance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.contrast import contrast_variance
from solvar_engine.estimation.model.expectation import expectation_pass
from solvar_engine.estimation.model.objectives import Objective
from solvar_engine.estimation.model.penalties import WeightedPrior
from solvar_engine.estimation.solver.mini_batches import split_batches
from solvar_engine.estimation.solver.preconditioner import Preconditioner, preconditioned_step
from solvar_engine.estimation.solver.priors import extend_shells
from solvar_engine.estimation.solver.schedule import Epoch
from solvar_engine.imaging.fourier import ft_to_volume, volume_to_ft
from solvar_engine.imaging.shells import shell_count, shells_to_volume
from solvar_engine.imaging.types import BatchSource


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


def run_epoch(
    source: BatchSource,
    index: Tensor,
    band: Band,
    preconditioner: Preconditioner,
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
        Its variance of the contrast is that of ``state``.
    preconditioner : Preconditioner
        Of the band; its density counts the images of ``index``.
    state : Factors
    precision : Tensor, shape (r, shells)
        Inverse prior variance per factor and shell, in the units of the density.
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
    information: Tensor | None = None
    value = 0.0
    evidence = []
    band = replace(band, contrast_variance=state.contrast_variance)
    for rows in split_batches(index, epoch.batches, generator):
        expectation = expectation_pass(source, rows, band, state.volumes, objective)
        value += expectation.objective
        evidence.append(expectation.contrast)
        share = index.shape[0] / expectation.count
        second_moment = _running_mean(state.second_moment, expectation.second_moment / expectation.count, epoch)
        information = _running_mean(information, expectation.information / expectation.count, epoch)
        penalty = WeightedPrior(precision, band.box_size, information)
        gradient, curvature = expectation.gradient * share, objective.curvature(information, second_moment)
        step = preconditioned_step(preconditioner, state.volumes, gradient, curvature, penalty)
        state = replace(state, volumes=state.volumes - epoch.step * step, second_moment=second_moment)
    state = replace(state, contrast_variance=contrast_variance(torch.cat(evidence)))
    return source.world.agreed(state), value / index.shape[0]


def _running_mean(running: Tensor | None, current: Tensor, epoch: Epoch) -> Tensor:
    if running is None or epoch.batches == 1:
        return current
    return epoch.memory * running + (1 - epoch.memory) * current


def random_factors(preconditioner: Preconditioner, rank: int, prior: Tensor, generator: torch.Generator) -> Factors:
    """Draw factors from a prior: Gaussian, inside the band and the mask.

    Parameters
    ----------
    preconditioner : Preconditioner
        Of the band.
    rank : int
    prior : Tensor, shape (shells,)
        Inverse prior variance per shell.
    generator : torch.Generator

    Returns
    -------
    Factors
        With the second moment set to one.
    """
    box_size, inside = preconditioner.box_size, preconditioner.inside
    # drawn on the CPU, so that a seed means the same numbers on every device
    noise = torch.randn(rank, box_size, box_size, box_size, generator=generator).to(inside.device)
    deviation = shells_to_volume(extend_shells(prior, shell_count(box_size)).float().rsqrt(), box_size)
    volumes = preconditioner.mask_root**2 * ft_to_volume(volume_to_ft(noise) * deviation * inside, box_size)
    identity = torch.eye(rank, dtype=torch.float64, device=volumes.device)
    return Factors(ft_to_volume(volume_to_ft(volumes) * inside, box_size), identity)
