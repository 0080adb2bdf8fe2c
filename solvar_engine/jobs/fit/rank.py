"""The stage of a fit that decides which components are real, on images that did not shape them."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from solvar_engine.contract.params import AUTO_RANK
from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.judging.rank import DECOYS, RankDecision, judge_components, keep_components
from solvar_engine.jobs.fit.job import FitJob

logger = logging.getLogger(__name__)


def decide_rank(job: FitJob, halves: HalfSetFit) -> RankDecision:
    """Judge the components of the half-sets against decoys, and log the reasons."""
    job.progress.stage("rank")
    decision = job.checkpoint.load("rank", RankDecision)
    if decision is None:
        decision = job.world.agreed(judge_components(halves.problem, halves.state))
        job.checkpoint.save("rank", decision)
        _log(decision)
    job.progress.advance()
    return decision


def _log(decision: RankDecision) -> None:
    is_slow = torch.zeros_like(decision.kept) if decision.is_slow is None else decision.is_slow
    for number, kept in enumerate(decision.kept.tolist()):
        logger.info(
            "candidate %d: on held-out images it gains %.0f and %.0f of log-likelihood, the best of %d decoys %.1f and "
            "%.1f; half-set agreement %.2f: %s",
            number + 1,
            *decision.gains[:, number].tolist(),
            DECOYS,
            *decision.decoy_gains[:, number].tolist(),
            float(decision.agreement[number]),
            "real" if kept else "like a slow background" if is_slow[number] else "not reproducible",
        )


def keep_real(job: FitJob, halves: HalfSetFit, decision: RankDecision) -> HalfSetFit:
    """With an automatic rank, go on with the components that are real only."""
    if job.params.rank != AUTO_RANK:
        return halves
    kept = int(decision.kept.sum())
    logger.info("%d of %d candidates are kept", kept, decision.kept.shape[0])
    problem = replace(halves.problem, rank=kept)
    return replace(halves, problem=problem, state=keep_components(halves.state, decision))


def least_gain(job: FitJob, halves: HalfSetFit, decision: RankDecision) -> float:
    """Log-likelihood gain of a real component on as many images as the final scale is measured on.

    With an automatic rank the decision has been made, and whatever was kept counts as real.
    """
    return 0.0 if job.params.rank == AUTO_RANK else decision.least_gain_of_scale(halves.problem.halves)
