"""The stage of a fit that decides which components are real, on images that did not shape them."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import Tensor

from solvar_engine.contract.params import AUTO_RANK
from solvar_engine.estimation.judging.heldout import collect_statistics
from solvar_engine.estimation.judging.rank import (
    DECOYS,
    JUDGING_PARTICLES,
    RankDecision,
    decide_rank,
    keep_components,
    make_decoys,
)
from solvar_engine.imaging.sampling import sample_of
from solvar_engine.jobs.fit.halves import HELD_OUT_PARTICLES, HalfSetFit
from solvar_engine.jobs.fit.job import FitJob

logger = logging.getLogger(__name__)


def judge_components(job: FitJob, halves: HalfSetFit) -> RankDecision:
    """Judge the components of the half-sets against decoys, and log the reasons."""
    job.progress.stage("rank")
    saved = job.checkpoint.load("rank")
    if saved is None:
        decision = _judge(job, halves)
        first, second = decision.weights
        job.checkpoint.save(
            "rank",
            eigenvalues=decision.eigenvalues,
            agreement=decision.agreement,
            gains=decision.gains,
            decoy_gains=decision.decoy_gains,
            kept=decision.kept,
            weights_1=first,
            weights_2=second,
        )
        _log(decision)
    else:
        weights = (saved.pop("weights_1"), saved.pop("weights_2"))
        decision = RankDecision(**saved, weights=weights)
    job.progress.advance()
    return decision


def _judge(job: FitJob, halves: HalfSetFit) -> RankDecision:
    problem = halves.problem
    band = problem.band(job.shell_max, 1.0)
    first, second = (factors.volumes * problem.mask for factors in halves.state.factors)
    held_out = []
    for half, (volumes, other) in enumerate(zip((first, second), reversed(problem.halves), strict=True)):
        decoys = make_decoys(volumes, problem.mean, problem.mask, DECOYS, problem.generator(3, half))
        sample = sample_of(other, JUDGING_PARTICLES)
        held_out.append(collect_statistics(problem.source, sample, band, torch.cat((volumes, decoys))))
    return decide_rank((first, second), (held_out[0], held_out[1]))


def _log(decision: RankDecision) -> None:
    for number, kept in enumerate(decision.kept.tolist()):
        logger.info(
            "candidate %d: on held-out images it gains %.0f and %.0f of log-likelihood, the best of %d decoys %.1f and "
            "%.1f; half-set agreement %.2f: %s",
            number + 1,
            *decision.gains[:, number].tolist(),
            DECOYS,
            *decision.decoy_gains[:, number].tolist(),
            float(decision.agreement[number]),
            "real" if kept else "not reproducible",
        )


def keep_real(job: FitJob, halves: HalfSetFit, decision: RankDecision) -> HalfSetFit:
    """With an automatic rank, go on with the components that are real only."""
    if job.params.rank != AUTO_RANK:
        return halves
    kept = int(decision.kept.sum())
    logger.info("%d of %d candidates are kept", kept, decision.kept.shape[0])
    problem = replace(halves.problem, rank=kept)
    return replace(halves, problem=problem, state=keep_components(halves.state, decision))


def least_gain(job: FitJob, halves: tuple[Tensor, Tensor], decision: RankDecision) -> float:
    """Log-likelihood gain of a real component on as many images as the final scale is measured on.

    With an automatic rank the decision has been made, and whatever was kept counts as real.
    """
    if job.params.rank == AUTO_RANK:
        return 0.0
    ratios = [len(sample_of(half, HELD_OUT_PARTICLES)) / len(sample_of(half, JUDGING_PARTICLES)) for half in halves]
    return decision.least_gain * max(ratios)
