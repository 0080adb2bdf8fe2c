"""How many components are real: held-out likelihood against decoys.

A component that was fitted to noise does not make images more likely that did not shape it, a real one does, by
hundreds to thousands. Where between the two the line is to be drawn depends on what is wrong with the model of the
noise: if its variance is a few percent off, any direction gains a little. So the line is drawn by decoys, volumes that
look like the components in all but their phases and cannot be real.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.estimation.judging.components import (
    HELD_OUT_PARTICLES,
    HeldOutAxes,
    held_out_axes,
    slow_components,
)
from solvar_engine.estimation.judging.heldout import likelihood_gains
from solvar_engine.estimation.model.fixed_factors import collect_statistics
from solvar_engine.estimation.model.statistics import Statistics
from solvar_engine.estimation.solver.agreement import factor_fsc
from solvar_engine.estimation.solver.half_sets import HalfSetState
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.imaging.fourier import ft_to_volume, volume_to_ft
from solvar_engine.imaging.linear_algebra import inner_products, mix, orthonormal_basis
from solvar_engine.imaging.sampling import sample_of

DECOYS = 20
JUDGING_PARTICLES = 5_000
"""Of each half, at most, or `JUDGING_SHARE` of it: decoys are many, and what is real shows in some thousand images."""
JUDGING_SHARE = 0.2
MARGIN = 10.0
"""Log-likelihood by which a component must beat the best decoy: twice what Kass & Raftery (1995) call very strong.

Decoys are drawn at random, components are fitted: they adapt to whatever both half-sets have in common besides motions.
On simulated sets (10,000 images, SNR 0.1) remains of pose errors in coloured noise beat decoys by 5, motions by
thousands, and the curvature of a motion, its third component, by 5 to 25.
"""

_LEAST_AGREEMENT, _STRANGERS_MARGIN = 0.2, 30.0  # of half-sets; and the margin of components that agree by less
_MANY = 5  # components; junk and neighbours make one or two


def judged_of(half: Tensor) -> Tensor:
    """Particles of a half-set on which components are judged: faint ones show where there are more."""
    return sample_of(half, max(JUDGING_PARTICLES, int(JUDGING_SHARE * len(half))))


@dataclass(frozen=True)
class RankDecision:
    """Which of the components of the half-sets are real.

    Attributes
    ----------
    eigenvalues : Tensor, shape (r,), float64
        Held out, descending.
    agreement : Tensor, shape (r,), float64
        Correlation of both half-sets' versions of each component.
    gains : Tensor, shape (2, r), float64
        What each half-set's version of a component adds to the log-likelihood of the images of the other half.
    decoy_gains : Tensor, shape (2, r), float64
        The most that a decoy adds, at the time when the component was judged.
    kept : Tensor, shape (r,), bool
    weights : tuple of two Tensors, shape (r, r), float64
        Each component as a mixture of the factors of a half-set.
    is_slow : Tensor, shape (r,), bool, or None
        Looks like a slow background, and is therefore not kept, unless many others are real: the variance of one
        that is taken away goes into the others. None if that was not judged.
    """

    eigenvalues: Tensor
    agreement: Tensor
    gains: Tensor
    decoy_gains: Tensor
    kept: Tensor
    weights: tuple[Tensor, Tensor]
    is_slow: Tensor | None = None

    @property
    def least_gain(self) -> float:
        """Log-likelihood gain that a component must reach on the images it was judged on to count as real."""
        return float(self.decoy_gains.max()) + MARGIN

    def least_gain_of_scale(self, halves: tuple[Tensor, Tensor]) -> float:
        """The same on as many images of each half as the final scale of the components is measured on."""
        ratios = [
            len(sample_of(half, HELD_OUT_PARTICLES)) / len(judged_of(half)) for half in halves
        ]
        return self.least_gain * max(ratios)


def judge_components(problem: CovarianceProblem, state: HalfSetState) -> RankDecision:
    """Judge the components of the half-sets against decoys, each half's on images of the other.

    Parameters
    ----------
    problem : CovarianceProblem
        With the spread of contrast that the half-sets found.
    state : HalfSetState
        Finished and aligned.

    Returns
    -------
    RankDecision
    """
    band = problem.full_band()
    first, second = (factors.volumes * problem.mask for factors in state.factors)

    def of_images(half: int) -> Statistics:
        """Under the factors of the other half, and its decoys."""
        volumes, generator = (second, first)[half], problem.generator(3, 1 - half)
        decoys = make_decoys(volumes, problem.mean, problem.mask, DECOYS, generator)
        directions = torch.cat((volumes, decoys))
        return collect_statistics(problem.source, judged_of(problem.halves[half]), band, directions)

    held_out = problem.source.world.of_halves(of_images)[::-1]
    decision = decide_rank((first, second), held_out)
    kept = decision.kept
    weights = (decision.weights[0][:, kept], decision.weights[1][:, kept])
    both = mix(first, weights[0]) + mix(second, weights[1])
    slow = slow_components(both, decision.eigenvalues[kept], weights, held_out, problem.mean)
    is_slow = kept.masked_scatter(kept, slow)
    return replace(decision, kept=without_slow(kept, is_slow), is_slow=is_slow)


def without_slow(kept: Tensor, is_slow: Tensor) -> Tensor:
    """Real components (r,) that are kept: not those that look like a slow background, unless many others are real."""
    others = kept & ~is_slow
    return kept if int(others.sum()) >= _MANY else others


def make_decoys(factors: Tensor, mean: Tensor, mask: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw volumes with the power of factors and random phases, inside the mask, orthogonal to mean and factors.

    Parameters
    ----------
    factors : Tensor, shape (r, z, y, x)
        Taken in turn.
    mean, mask : Tensor, shape (z, y, x)
    count : int
    generator : torch.Generator

    Returns
    -------
    Tensor, shape (count, z, y, x)
        Of unit norm.
    """
    box_size = mask.shape[-1]
    decoys = factors.new_empty(count, box_size, box_size, box_size)
    for number in range(count):
        noise_ft = volume_to_ft(torch.randn((box_size,) * 3, generator=generator).to(factors.device))
        phases = noise_ft / noise_ft.abs().clamp_min(1e-20)
        power = volume_to_ft(factors[number % factors.shape[0]]).abs()
        decoys[number] = mask * ft_to_volume(power * phases, box_size)
    # Only what the mean has where decoys live can keep them from being orthogonal to it.
    basis = orthonormal_basis(torch.cat(((mean * (mask > 0))[None], factors)))
    decoys = decoys - mix(basis, inner_products(basis, decoys))
    return decoys / decoys.flatten(1).norm(dim=1)[:, None, None, None]


def decide_rank(halves: tuple[Tensor, Tensor], held_out: tuple[Statistics, Statistics]) -> RankDecision:
    """Judge the principal axes of the held-out covariance.

    A component is real if each half-set's version of it makes the other half more likely than any decoy does, by
    `MARGIN`, however much noise it holds besides. That both versions agree shows nothing: they share one mean, and
    what that lacks. That they hardly agree shows that little is common to them, and what each gains may be chance:
    then the margin is three times as large. Components are judged beside all others; those that fail are taken away,
    the worse half of them at a time, and the others judged anew, for what two components share is credited to neither.

    Parameters
    ----------
    halves : tuple of two Tensors, shape (r, z, y, x)
        Aligned and masked factors of the half-sets.
    held_out : tuple of two Statistics
        Of images of the other half under each half's factors and, after them, its decoys.

    Returns
    -------
    RankDecision
    """
    rank = halves[0].shape[0]
    first, second = (replace(part, gram=part.gram[:, :rank, :rank], inner=part.inner[:, :rank]) for part in held_out)
    axes = held_out_axes(0.5 * (halves[0] + halves[1]), halves, (first, second))
    agreement = axes.agreement(halves)
    margin = torch.where(agreement < _LEAST_AGREEMENT, _STRANGERS_MARGIN, MARGIN)
    gains = agreement.new_zeros(2, rank)
    decoy_gains = torch.zeros_like(gains)
    kept = torch.ones(rank, dtype=torch.bool, device=agreement.device)
    while kept.any():
        gains[:, kept], decoy_gains[:, kept] = _gains_beside_each_other(axes, held_out, kept)
        excess = (gains - decoy_gains).amin(dim=0) - margin
        failing = torch.nonzero(kept & (excess <= 0)).flatten()
        if not failing.numel():
            break
        order = excess[failing].argsort()
        kept[failing[order[: (failing.numel() + 1) // 2]]] = False
    return RankDecision(axes.eigenvalues, agreement, gains, decoy_gains, kept, axes.weights)


def _gains_beside_each_other(
    axes: HeldOutAxes, held_out: tuple[Statistics, Statistics], kept: Tensor
) -> tuple[Tensor, Tensor]:
    """Gains (2, kept) of some components, each beside the others, and the largest of the decoys (2, 1)."""
    count = int(kept.sum())
    gains = torch.stack(
        [
            likelihood_gains(statistics, weights[:, kept], axes.eigenvalues[kept])
            for statistics, weights in zip(held_out, axes.weights, strict=True)
        ]
    )
    return gains[:, :count], gains[:, count:].amax(dim=1, keepdim=True)


def keep_components(state: HalfSetState, decision: RankDecision) -> HalfSetState:
    """Reduce the fit of the half-sets to the components that are kept.

    Parameters
    ----------
    state : HalfSetState
        Finished and aligned.
    decision : RankDecision

    Returns
    -------
    HalfSetState
        Factors along the components, each with the variance that its half-set's own fit has along it.
    """
    kept = int(decision.kept.sum())
    identity = torch.eye(kept, dtype=torch.float64, device=decision.kept.device)
    reduced = []
    for factors, weights in zip(state.factors, decision.weights, strict=True):
        axes = mix(factors.volumes, weights[:, decision.kept])
        axes = axes / axes.flatten(1).norm(dim=1).clamp_min(1e-20)[:, None, None, None]
        deviation = inner_products(axes, factors.volumes).norm(dim=1).to(axes)
        reduced.append(replace(factors, volumes=axes * deviation[:, None, None, None], second_moment=identity))
    first, second = reduced
    correlation = factor_fsc(first.volumes, second.volumes)[:, : state.correlation.shape[1]]
    return replace(state, factors=(first, second), correlation=correlation)
