"""Whether the images that volumes of states are made from are those of the fit: the images themselves tell."""

from __future__ import annotations

import logging

from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.run import RunDir
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.judging.given_poses import mean_and_error, pose_evidence
from solvar_engine.jobs.decisions import ImageDecisions
from solvar_engine.jobs.pose_doubts import SIGNIFICANT, WEAK, comparison, foreign_parts, reading_doubts
from solvar_engine.projectors.options import SliceOptions

logger = logging.getLogger(__name__)


def refuse_images_of_others(
    source: PreparedParticles, stack: ParticleStack, rows: tuple[Tensor, Tensor], means: tuple[Tensor, Tensor],
    run: RunDir, known: ImageDecisions, options: SliceOptions, seed: int,
    are_turned: bool = False,
) -> list[str]:
    """Compare images, at the orientations of the run, with the half-set's mean that has not seen them.

    Parameters
    ----------
    source : PreparedParticles
    stack : ParticleStack
        With the poses of the run.
    rows : tuple of two Tensors, int64
        Of each half-set.
    means : tuple of two Tensors, shape (z, y, x)
        Of each half-set, on the scale of the images.
    run : RunDir
    known : ImageDecisions
        Of the run, with what the images of the fit gained.
    options : SliceOptions
    seed : int
    are_turned : bool
        Whether signs were chosen for single images, with which those of others gain a little, too.

    Returns
    -------
    list of str
        What is doubtful, in sentences without full stop.

    Raises
    ------
    UserError
        If the images gain nothing at their orientations, or little with signs that were chosen, and those of the fit
        did.
    """
    evidence = pose_evidence(source, rows, means, options, seed)
    gain, error = mean_and_error(evidence.orientation_gain)
    logger.info("Images: %s", comparison(gain, error))
    if known.pose_gain is None or known.pose_gain_error is None:  # an earlier version, or a mean that is not resolved
        of_fit, of_fit_error = 0.0, float("inf")
    else:
        of_fit, of_fit_error = known.pose_gain, known.pose_gain_error
    spread = SIGNIFICANT * (error**2 + (WEAK * of_fit_error) ** 2) ** 0.5
    is_less = gain + spread < WEAK * of_fit
    found = f"{comparison(gain, error)}; in the fit {of_fit:.2f}"
    if not gain > SIGNIFICANT * error or (are_turned and is_less):
        if is_less:
            raise UserError(
                f"The images of {stack.path} are not those of the fit in {run.path} ({found}): give the stacks that"
                " were fitted, in their order, or a list whose rows name the same particles."
            )
        return [
            f"The images of {stack.path} do not tell whether they are those of the fit in {run.path}"
            f" ({comparison(gain, error)})"
        ]
    foreign = foreign_parts(evidence, stack)
    if foreign:
        return [
            f"The images of {foreign} in {stack.path} do not seem to be those of the fit in {run.path}, unlike the"
            f" others ({found}): check that their stacks are those that were fitted, in their order"
        ]
    if is_less:
        return [
            f"The images of {stack.path} agree with the fit in {run.path} less than those that were fitted ({found}):"
            " check that all are the same"
        ]
    return reading_doubts(evidence, stack)
