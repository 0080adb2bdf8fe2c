"""Whether poses that the mean finds foreign are those of the images after all: of many states a mean tells little."""

from __future__ import annotations

from dataclasses import replace

from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.judging.given_poses import gain_under_model, mean_and_error
from solvar_engine.jobs.decisions import read_cautions, read_decisions, write_decisions
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.jobs.pose_doubts import OF_ORIENTATIONS, OTHER_CONVENTION, SIGNIFICANT_PART


def have_foreign_poses(job: FitJob, halves: HalfSetFit) -> bool:
    """Whether poses that the mean found foreign are that to the components, too: images of the other half-set tell.

    If not, that answers what was said of the poses, and components are what they seem.

    Parameters
    ----------
    job : FitJob
    halves : HalfSetFit
        Before factors of one half-set are laid on those of the other: each knows nothing of the other's images.
    """
    told = [one for one in read_cautions(job.run) if one.startswith(OF_ORIENTATIONS)] if job.world.is_first else []
    are_open = bool(told) and read_decisions(job.run).poses_are_foreign and OTHER_CONVENTION not in told[0]
    if not job.world.agreed(are_open):
        return job.world.agreed(job.world.is_first and read_decisions(job.run).poses_are_foreign)
    index = tuple(half[~halves.outlier.cpu()[half]] for half in job.inputs.halves)
    means = (halves.mean.half1, halves.mean.half2)
    models = [
        (mean * halves.problem.mask, factors.volumes * halves.problem.mask)
        for mean, factors in zip(means, halves.state.factors, strict=True)
    ]
    gains = gain_under_model(halves.source, (index[0], index[1]), models, job.projector_options, job.params.seed)
    gain, error = mean_and_error(gains)
    if not job.world.agreed(gain > SIGNIFICANT_PART * error):
        return True
    if not job.world.is_first:
        return False
    write_decisions(job.run, replace(read_decisions(job.run), poses_are_foreign=False))
    answer = (
        f"The mean of {job.inputs.stack.path} tells little of its images, as that of very many different states does:"
        f" components of each half-set make those of the other likelier at their own orientations (log-likelihood gain"
        f" {gain:.2f} +- {error:.2f} an image over orientations of other images); if all show one molecule, check that"
        " the angles are of RELION's convention"
    )
    job.answer_cautions(told, [answer])
    return False
