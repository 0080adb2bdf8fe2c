"""The stage of a fit that finds how far off refined poses, and coordinates beside them, are in images of known ones."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import Tensor

from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.judging.bootstrap import (
    BootstrapModel,
    ErrorFactors,
    bootstrap_sample,
    make_images,
    measure_error_factors,
)
from solvar_engine.estimation.judging.components import Components
from solvar_engine.estimation.model.half_models import half_version
from solvar_engine.estimation.poses.schedules import POSE_SCHEDULES
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.reconstruction.mean import MeanEstimate, filtered

logger = logging.getLogger(__name__)


def measure_errors(job: FitJob, halves: HalfSetFit, components: Components) -> ErrorFactors:
    """Find by how much errors exceed the stated ones where poses were refined about given ones; else they are these."""
    prior_spread, found_spread = halves.pose_spread, halves.found_spread
    if prior_spread is None or found_spread is None or not len(components.eigenvalues):
        return ErrorFactors()
    job.progress.stage("errors of the poses")
    problem, generator = halves.problem, halves.problem.generator(6)
    good = torch.cat(problem.halves).sort().values
    index = bootstrap_sample(halves.source, good, generator)
    z = torch.randn(len(index), len(components.eigenvalues), generator=generator, dtype=torch.float64)
    images = make_images(halves.source, index, z, _models(halves, components), generator)
    found = measure_error_factors(
        images,
        index,
        z,
        BootstrapModel(problem, components),
        POSE_SCHEDULES[job.params.pose_schedule],
        (found_spread, prior_spread),
        halves.contrast_variance(),
        generator,
    )
    if job.world.is_first:
        logger.info(
            "errors in images that were made from the model, over the stated ones: orientations %.2f, shifts %.2f,"
            " what images say of latent coordinates %.2f",
            *(factor**0.5 for factor in (found.turn, found.move, found.latents)),
        )
    return found


def _models(halves: HalfSetFit, components: Components) -> tuple[BootstrapModel, BootstrapModel]:
    """Volumes as far from those of all images, to either side, as these are expected to be from the true ones."""
    problem = halves.problem
    of_mean = _error_of_mean(halves.mean) * problem.mask
    first, second = (
        half_version(components.eigenvolumes, factors.volumes * problem.mask) for factors in halves.state.factors
    )
    of_components = (0.5 * (first - second)).to(components.eigenvolumes)
    models = []
    for sign in (1.0, -1.0):
        moved = replace(components, eigenvolumes=components.eigenvolumes + sign * of_components)
        models.append(BootstrapModel(replace(problem, mean=problem.mean + sign * of_mean), moved))
    return models[0], models[1]


def _error_of_mean(mean: MeanEstimate) -> Tensor:
    """A volume with the posterior variance of the mean.

    Half the difference of the half-maps has the variance N of the noise of both together, of which a Wiener filter W
    leaves W N; W is the correlation 2 F / (1 + F) of all images with the truth.
    """
    correlation = mean.fsc.clamp(0, 1)
    return filtered(0.5 * (mean.half1 - mean.half2), (2 * correlation / (1 + correlation)).sqrt())
