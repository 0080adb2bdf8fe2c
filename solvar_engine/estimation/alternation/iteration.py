"""The alternation itself: an iterator of states, and the half-sets as they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.estimation.alternation.images import find_junk, judge_images
from solvar_engine.estimation.alternation.means import HalfSetEquations, estimate_problem
from solvar_engine.estimation.alternation.poses import PoseRound, refine_round
from solvar_engine.estimation.alternation.problem import AlternationProblem, Masks
from solvar_engine.estimation.alternation.state import AlternationState, Step
from solvar_engine.estimation.judging.outliers import strong_images
from solvar_engine.estimation.model.bands import Band, change_box
from solvar_engine.estimation.poses.spread import FIRST_SPREAD, measure_spread
from solvar_engine.estimation.poses.uncertainty import LEAST_SPREAD, PoseErrors, PosePrior, PoseSpread
from solvar_engine.estimation.solver.half_sets import HalfSetState, fit_half_sets
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.imaging.types import ParticleSource
from solvar_engine.reconstruction.mean import MeanEstimate, filtered_halves


def alternate(
    problem: AlternationProblem,
    state: AlternationState | None = None,
    equations: HalfSetEquations | None = None,
    watch: Callable[[float], object] = lambda share: None,
) -> Iterator[AlternationState]:
    """March both half-sets to the full band; on the way poses are refined, outliers are found, the noise is measured.

    Parameters
    ----------
    problem : AlternationProblem
    state : AlternationState, optional
        Where to go on.
    equations : tuple of two NormalEquations, optional
        Of the half-sets' images as they come, if they are known.
    watch : callable, optional
        Told which share of a refinement of the poses is done.

    Yields
    ------
    AlternationState
        After every step; ``problem.next_step`` says which one follows.
    """
    state, present = state or AlternationState(), None
    while (step := problem.next_step(state)) is not None:
        if present is None:
            present = _Present.of(problem, state, equations)
            equations = None  # of other poses and another noise than those that follow
        if step is Step.FIT_FACTORS:
            covariance = replace(present.covariance, pose_errors=problem.errors_while_fitting(state))
            for factors in fit_half_sets(covariance, state.factors, problem.next_stop(state)):
                state = replace(state, factors=factors)
                yield state
            continue
        if step is Step.FIND_JUNK:
            junk = find_junk(present.source, problem.halves, present.covariance, present.outlier)
            state, present = replace(state, junk=junk), present if torch.equal(junk, present.outlier) else None
        elif step is Step.MEASURE_SPREAD:
            state = _with_measured_spread(problem, present, state)
        elif step is Step.REFINE_POSES:
            state, present = _with_refined_poses(problem, present, state, watch), None
        else:
            state, present = _with_judged_images(problem, present, state), None
        yield state


@dataclass(frozen=True)
class _Present:
    """Images at the noise and poses of a state, with their mean: the same until either changes."""

    source: ParticleSource
    outlier: Tensor
    mean: MeanEstimate
    covariance: CovarianceProblem

    @staticmethod
    def of(
        problem: AlternationProblem, state: AlternationState, equations: HalfSetEquations | None = None
    ) -> _Present:
        source, outlier = problem.images(state), problem.outlier(state)
        if problem.next_step(state) is Step.FIND_JUNK:
            used = torch.cat(problem.halves)
            strong = used[strong_images(source, used)]
            if len(strong):
                outlier, equations = outlier.index_fill(0, strong, True), None
        return _Present(source, outlier, *estimate_problem(problem, source, outlier, equations, state.means))

    def means(self, problem: AlternationProblem) -> tuple[Tensor, Tensor]:
        """Mean of each half-set, filtered and masked."""
        first, second = (mean * problem.masks.mean for mean in filtered_halves(self.mean))
        return first, second


def _with_measured_spread(
    problem: AlternationProblem, present: _Present, state: AlternationState
) -> AlternationState:
    known = FIRST_SPREAD if state.rough_spread is None else state.rough_spread
    band = replace(present.covariance, pose_errors=PoseErrors(known)).first_band()
    box_size = band.box_size
    factors = [band.mean.new_zeros(0, *band.mean.shape)] * 2
    if state.factors is not None:
        factors = [change_box(of_half.volumes, box_size) for of_half in state.factors.factors]
    found = measure_spread(present.source, present.covariance.halves, band, factors, known)
    return replace(state, rough_spread=found) if state.factors is None else replace(state, spread=found)


def _with_refined_poses(
    problem: AlternationProblem, present: _Present, state: AlternationState, watch: Callable[[float], object]
) -> AlternationState:
    if problem.pose_schedule is None or state.spread is None or state.factors is None:
        raise ValueError("poses are refined after their spread has been measured and factors have been fitted")
    source, given, number = present.source, problem.source.pose, state.pose_rounds + 1
    prior = PosePrior.about(given, source.pose, source.pixel_size, state.spread.at_least(LEAST_SPREAD))
    this = PoseRound(
        source, problem.halves, given, prior, problem.pose_schedule, is_last=number == len(problem.rounds)
    )
    means = present.means(problem)
    pose, gain = refine_round(this, present.covariance, means, state.factors, watch)
    return replace(state, pose=pose, pose_gain=gain, pose_rounds=number, means=means)


def _with_judged_images(
    problem: AlternationProblem, present: _Present, state: AlternationState
) -> AlternationState:
    if state.factors is None:
        raise ValueError("images are judged after factors have been fitted")
    covariance = replace(
        present.covariance,
        contrast_variance=state.factors.contrast_variance,
        pose_errors=problem.errors_of_refined(state),
    )
    judged = judge_images(present.source, problem.halves, covariance, state.factors)
    return replace(state, judged=judged, rounds=state.rounds + 1, means=present.means(problem))


@dataclass(frozen=True)
class HalfSetFit:
    """Where the half-sets end.

    Attributes
    ----------
    source : ParticleSource
        Whitened by the noise as it was measured last, at the last poses.
    mean : MeanEstimate
        Under that noise.
    masks : Masks
    problem : CovarianceProblem
        Of these images, without the outliers, and this mean.
    state : HalfSetState
        Finished and aligned.
    outlier : Tensor, shape (n,), bool
        Particles that no estimate has seen since they were found.
    pose_errors : PoseErrors
        That the poses still have, for passes that judge single images.
    pose_spread : PoseSpread or None
        Of the prior of the poses; None if they are taken for true, or nothing but the images is to tell of them.
    found_spread : PoseSpread or None
        Of the errors of the given poses, as images tell it; the prior is never narrow.
    """

    source: ParticleSource
    mean: MeanEstimate
    masks: Masks
    problem: CovarianceProblem
    state: HalfSetState
    outlier: Tensor
    pose_errors: PoseErrors = PoseErrors()
    pose_spread: PoseSpread | None = None
    found_spread: PoseSpread | None = None

    def judging_band(self) -> Band:
        """The full band for passes that judge single images."""
        return replace(self.problem, pose_errors=self.pose_errors).full_band()

    def contrast_variance(self) -> float:
        """Variance of the contrasts of images, with that of the estimates that are in use."""
        left, known = self.problem.contrast_variance, self.source.contrast
        if known is None:
            return left
        known = known[~self.outlier]
        return left + float((known / known.mean()).var())


def half_set_fit(problem: AlternationProblem, state: AlternationState) -> HalfSetFit:
    """Estimate the last mean, and put together what the last state of an alternation amounts to.

    Raises
    ------
    ValueError
        If it is not the last one.
    """
    if state.factors is None or problem.next_step(state) is not None:
        raise ValueError("the alternation has not come to its end")
    present, outlier = _Present.of(problem, state), problem.outlier(state)
    return HalfSetFit(
        present.source,
        present.mean,
        problem.masks,
        replace(present.covariance, contrast_variance=state.factors.contrast_variance),
        state.factors,
        outlier,
        problem.errors_of_refined(state),
        problem.prior_spread(state),
        state.spread,
    )
