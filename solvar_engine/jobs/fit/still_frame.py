"""The stage of a fit that turns each state to where the largest part of the molecule stands still."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from math import degrees

import torch
from torch import Tensor

from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.judging.components import measure_components
from solvar_engine.estimation.judging.rank import RankDecision, keep_components
from solvar_engine.estimation.poses.still_frame import find_drift, in_still_frame
from solvar_engine.estimation.solver.agreement import covariance_fsc
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.jobs.fit.latents import place_images

logger = logging.getLogger(__name__)

_KNOWN, _LEAST_SHELL = 0.8, 5  # agreement of the half-sets up to which factors are compared
_NOTABLE_TURN_DEG, _NOTABLE_MOVE_PX = 0.5, 0.3  # of one standard deviation of the states: less changes no component


@dataclass(frozen=True)
class StillFrame:
    """Poses in the frame of each state.

    Attributes
    ----------
    pose : Pose
        Of all particles.
    drift : Tensor, shape (6, r), float64
        Moves, px of the working box, and turns, radians, with each latent coordinate of unit variance.
    """

    pose: Pose
    drift: Tensor

    @property
    def turn_deg(self) -> float:
        """Root mean square over the states."""
        return degrees(float(self.drift[3:].norm()))

    @property
    def move_px(self) -> float:
        """Root mean square over the states."""
        return float(self.drift[:3].norm())

    @property
    def is_notable(self) -> bool:
        """Whether components in this frame are others than before."""
        return self.turn_deg > _NOTABLE_TURN_DEG or self.move_px > _NOTABLE_MOVE_PX


def settle_still_frame(
    job: FitJob, source: PreparedParticles, halves: HalfSetFit, decision: RankDecision
) -> tuple[FitJob, PreparedParticles] | None:
    """Turn the refined poses, each by its state, to where most of the molecule is still; None if it is already.

    Parameters
    ----------
    job : FitJob
    source : PreparedParticles
        At the poses that the fit began with.
    halves : HalfSetFit
    decision : RankDecision
        On the components of these.

    Returns
    -------
    tuple of FitJob and PreparedParticles, or None
        To fit once more from these poses.
    """
    if not bool(decision.kept.any()):
        return None
    found = job.checkpoint.load("still_frame", StillFrame)
    if found is None:
        job.progress.stage("still frame")
        found = job.world.agreed(_find(job, halves, decision))
        job.checkpoint.save("still_frame", found)
        if job.world.is_first:
            logger.info(
                "From state to state the frame turned by %.2f degrees and moved by %.2f Angstrom against the largest"
                " part of the molecule%s",
                found.turn_deg,
                found.move_px * job.pixel_size,
                ": all is fitted once more where that stands still" if found.is_notable else "",
            )
    if not found.is_notable:
        return None
    given = job.given_pose
    inputs = replace(job.inputs, stack=job.inputs.stack.with_pose(found.pose))
    return replace(job, inputs=inputs, pose_before=given), source.with_pose(found.pose)


def _find(job: FitJob, halves: HalfSetFit, decision: RankDecision) -> StillFrame:
    state = keep_components(halves.state, decision)
    mask = halves.problem.mask
    problem = replace(halves.problem, rank=int(decision.kept.sum()))
    one, two = (factors.volumes * mask for factors in state.factors)
    components = measure_components(problem, state, replace(state.factors[0], volumes=(one + two) / 2))
    drift = find_drift(problem.mean, components.scaled(), (one - two) / 2, mask, _known_shells(one, two)).cpu()
    kept = replace(halves, problem=problem, state=state)
    z = place_images(job, kept, components).z / components.eigenvalues.cpu().sqrt()
    return StillFrame(in_still_frame(halves.source.pose, drift, z, job.pixel_size), drift)


def _known_shells(one: Tensor, two: Tensor) -> int:
    """Last shell before the first one in which half-sets of factors (r, z, y, x) differ."""
    unknown = torch.nonzero(covariance_fsc(one, two).diagonal()[1:] < _KNOWN).flatten()
    last = int(unknown[0]) if len(unknown) else one.shape[-1] // 2
    return max(_LEAST_SHELL, last)
