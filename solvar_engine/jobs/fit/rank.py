"""The stage of a fit that decides which components are real, on images that did not shape them."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import MIN_PARTICLES_PER_COMPONENT
from solvar_engine.contract.words import counted
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.judging.rank import DECOYS, RankDecision, judge_components, keep_components
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.jobs.fit.plan import plan_fit, plan_gpu
from solvar_engine.jobs.fit.start import demand_of
from solvar_engine.jobs.running.devices import usable_memory
from solvar_engine.jobs.running.memory import available_bytes

logger = logging.getLogger(__name__)

_MOST = 0.75
_TIMES_ASKED = 4  # components at most, for each that was asked for: more hardly change these
_NOTABLE = 0.1  # of the gain of components; where the noise is a little wrong, decoys gain with the number of images
_DECOYS_OF_FULL_MODELS = 30.0  # log-likelihood; where components leave nothing unexplained, the best decoy gains 2 to 7


def decide_rank(job: FitJob, halves: HalfSetFit) -> RankDecision:
    """Judge the components of the half-sets against decoys, and log the reasons."""
    job.progress.stage("rank")
    name = job.checkpoint_name("rank")
    decision = job.checkpoint.load(name, RankDecision)
    if decision is None:
        decision = job.world.agreed(judge_components(halves.problem, halves.state))
        job.checkpoint.save(name, decision)
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


def with_more_components(job: FitJob, images: PreparedParticles, decision: RankDecision) -> FitJob | None:
    """Same job with twice the components, where those that were tried leave variability unexplained; None elsewhere.

    What components leave unexplained is taken up by those that there are, whose variances come out too large, and by
    any decoy. So more are tried if decoys gain although most components are real, and, where no number was asked for,
    if all are; else up to four times that number.
    """
    most_are_real = float(decision.kept.double().mean()) >= _MOST
    least = max(_DECOYS_OF_FULL_MODELS, _NOTABLE * float(decision.gains.median()))
    decoys_gain = float(decision.decoy_gains.max()) > least
    explains_too_little = (job.asked_rank is None and bool(decision.kept.all())) or (most_are_real and decoys_gain)
    more = min(2 * job.tried_rank, len(job.inputs.stack) // MIN_PARTICLES_PER_COMPONENT)
    if job.asked_rank is not None:
        more = min(more, _TIMES_ASKED * job.asked_rank)
    if not explains_too_little or more <= job.tried_rank:
        return None
    larger = replace(job, tried_rank=more)
    if not job.world.agreed(_fits_in_memory(job, larger, images)):
        logger.info("More than %d components would need more memory than there is", job.tried_rank)
        return None
    tried = counted(job.tried_rank, "component leaves", "components leave")
    minutes = plan_fit(demand_of(larger)).seconds / 60
    logger.info("%s variability unexplained: %d are fitted, in about %.1f min", tried, more, minutes)
    return larger


def _fits_in_memory(job: FitJob, larger: FitJob, images: PreparedParticles) -> bool:
    """Whether there is memory for what more components need beyond what those of now do."""
    before, after = demand_of(job), demand_of(larger)
    if images.largest_batch is not None:
        try:
            batch = plan_gpu(after, usable_memory(after.device, job.params.gpu_memory_gb)).largest_batch
        except UserError:
            return False
        return batch >= images.largest_batch
    needed = plan_fit(after).memory_bytes - plan_fit(before).memory_bytes
    return needed <= available_bytes() / job.world.local_size


def keep_real(job: FitJob, halves: HalfSetFit, decision: RankDecision) -> HalfSetFit:
    """Go on with the components that are real, and with no less than were asked for by number."""
    if job.asked_rank == job.tried_rank:
        return halves
    kept = decision.kept
    if job.asked_rank is not None:
        kept = kept | (torch.arange(len(kept), device=kept.device) < job.asked_rank)
    count = int(kept.sum())
    logger.info("%d of %d candidates are kept", count, len(kept))
    problem = replace(halves.problem, rank=count)
    return replace(halves, problem=problem, state=keep_components(halves.state, replace(decision, kept=kept)))


def least_gain(job: FitJob, halves: HalfSetFit, decision: RankDecision) -> float:
    """Log-likelihood gain of a real component on as many images as the final scale is measured on.

    With an automatic rank the decision has been made, and whatever was kept counts as real.
    """
    return 0.0 if job.asked_rank is None else decision.least_gain_of_scale(halves.problem.halves)
