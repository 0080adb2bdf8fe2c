"""The mean under the present noise and poses, and the problem of the factors around it."""

from __future__ import annotations

from torch import Tensor

from solvar_engine.estimation.alternation.problem import AlternationProblem
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.imaging.types import BatchSource, ParticleSource
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.mean import MeanEstimate, estimate_mean
from solvar_engine.reconstruction.normal_equations import NormalEquations, accumulate_normal_equations

HalfSetEquations = tuple[NormalEquations, NormalEquations]


def half_set_equations(
    source: BatchSource,
    halves: tuple[Tensor, Tensor],
    options: SliceOptions,
    means: tuple[Tensor, Tensor] | None = None,
) -> HalfSetEquations:
    """Normal equations for the mean of each half-set, around earlier means if there are any."""
    known = means or (None, None)
    return source.world.of_halves(
        lambda half: accumulate_normal_equations(source, halves[half], options, mean=known[half])
    )


def estimate_problem(
    problem: AlternationProblem,
    source: ParticleSource,
    outlier: Tensor,
    equations: HalfSetEquations | None = None,
    means: tuple[Tensor, Tensor] | None = None,
) -> tuple[MeanEstimate, CovarianceProblem]:
    """Estimate the mean under the noise of the source, and set up the problem of the factors around it.

    Parameters
    ----------
    problem : AlternationProblem
    source : ParticleSource
    outlier : Tensor, shape (n,), bool
        Particles that are left out.
    equations : tuple of two NormalEquations, optional
        Of the half-sets, if they are known.
    means : tuple of two Tensors, shape (z, y, x), optional
        Mean of each half-set as it was estimated before.

    Returns
    -------
    mean : MeanEstimate
    problem : CovarianceProblem
        At the poses as they are.
    """
    first, second = (half[~outlier[half]] for half in problem.halves)
    if equations is None:
        equations = half_set_equations(source, (first, second), problem.options, means)
    mean = source.world.agreed(estimate_mean(*equations, problem.masks.mean, source.world))
    normal = equations[0] + equations[1]
    covariance = CovarianceProblem(
        source,
        (first, second),
        mean.mean * problem.masks.mean,
        problem.masks.factors,
        normal.density(),
        problem.rank,
        problem.seed,
        problem.options,
        problem.objective,
        schedule=problem.schedule,
    )
    return mean, covariance
