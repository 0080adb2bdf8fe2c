"""Whether components tell orientations where the mean does not, as that of very many states may not."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import Tensor

from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.judging.components import Components, latent_coordinates
from solvar_engine.estimation.judging.given_poses import mean_and_error, other_rows
from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.half_models import half_version
from solvar_engine.imaging.sampling import sample_of
from solvar_engine.imaging.types import ParticleSource, Pose
from solvar_engine.jobs.decisions import read_cautions, read_decisions, take_cautions_back, write_decisions
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.jobs.pose_doubts import SIGNIFICANT, comparison
from solvar_engine.reconstruction.mean import filtered_halves

logger = logging.getLogger(__name__)

_MOST = 500  # images of each half-set


def settle_doubt_of_orientations(job: FitJob, halves: HalfSetFit, components: Components) -> None:
    """Take the doubt that the first mean raised back, if images are likelier at their own orientations after all."""
    if not job.world.agreed(read_decisions(job.run).poses_are_foreign) or not len(components.eigenvalues):
        return
    gain, error = mean_and_error(_gain_of_orientations(job, halves, components))
    logger.info("Poses, components included: %s", comparison(gain, error))
    if gain > SIGNIFICANT * error and job.world.is_first:
        write_decisions(job.run, replace(read_decisions(job.run), poses_are_foreign=False))
        take_cautions_back(job.run, [one for one in read_cautions(job.run) if one.startswith("The orientations in")])
        logger.info("The orientations belong to the images: the mean of many states is round, the components are not")


def _gain_of_orientations(job: FitJob, halves: HalfSetFit, components: Components) -> Tensor:
    """Log-likelihood of some images at their own orientations less that at others', under the other half's model."""
    problem, source, pose = halves.problem, halves.source, halves.source.pose
    means = filtered_halves(halves.mean)
    generator, samples, rows = problem.generator(5), [], torch.arange(len(source))
    for half in job.inputs.halves:
        # outliers, too: they are those that are unlikely at their own orientations, right or wrong
        index = sample_of(half, _MOST)
        rows[index] = index[other_rows(source.group.cpu()[index], generator)]
        samples.append(index)

    def gain_of(half: int) -> Tensor:
        index, other = samples[half], 1 - half
        band = replace(problem, mean=means[other].to(problem.mask) * problem.mask).full_band()
        factors = halves.state.factors[other].volumes * problem.mask
        model = replace(components, eigenvolumes=half_version(components.eigenvolumes, factors))
        own, turned = (
            _log_likelihood(job, one, index, band, model, halves.contrast_variance())
            for one in (source, source.with_pose(Pose(pose.rotation[rows], pose.shift)))
        )
        return own - turned

    return torch.cat(job.world.of_halves(gain_of))


def _log_likelihood(
    job: FitJob, source: ParticleSource, index: Tensor, band: Band, model: Components, contrast_variance: float
) -> Tensor:
    found = torch.zeros(len(source), dtype=torch.float64)
    for batch in latent_coordinates(source, index, band, model, contrast_variance):
        found[batch.index] = batch.log_likelihood.double().cpu()
    (found,) = job.world.total(found)
    return found[index]
