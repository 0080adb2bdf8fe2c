"""What the factors tell of the images: outliers, noise and contrasts."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.estimation.alternation.problem import of_no_half
from solvar_engine.estimation.alternation.state import JudgedImages
from solvar_engine.estimation.judging.outliers import find_outliers, image_fits, images_of_no_state, strong_images
from solvar_engine.estimation.model.bands import change_box
from solvar_engine.estimation.model.residuals import ResidualNoise, residual_power
from solvar_engine.estimation.solver.half_sets import HalfSetState
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.imaging.sampling import sample_of
from solvar_engine.imaging.types import ParticleSource

_NOISE_PARTICLES = 5_000
_NOISE_PARTICLES_PER_GROUP = 500  # at least, as far as an optics group has them
_NOISE_PARTICLES_OF_MICROGRAPHS, _LEAST_OF_MICROGRAPH = 2_500, 10  # of a half-set
_JUDGED_SHELL = 16  # what particles look like is decided below; all shells found the same outliers
_MOST_OUTLIERS = 0.5  # of the particles: beyond that it is the model that is doubtful


LEAST_CONTRAST = 0.1
"""Of an image that is fitted: junk has none, and its sign means nothing."""


def find_junk(
    source: ParticleSource, halves: tuple[Tensor, Tensor], problem: CovarianceProblem, outlier: Tensor
) -> Tensor:
    """Find images without a particle before any factor is fitted.

    Parameters
    ----------
    source : ParticleSource
    halves : tuple of two Tensors, int64
        All particles of each half-set.
    problem : CovarianceProblem
        Around the mean.
    outlier : Tensor, shape (n,), bool
        Particles that this mean has not seen.

    Returns
    -------
    Tensor, shape (n,), bool
        These, too; only they, if more than half of all look like junk.
    """
    used = torch.cat(halves).sort().values
    band = problem.band(min(_JUDGED_SHELL, source.disk.shell_max))
    junk = outlier.clone()
    junk[used] |= images_of_no_state(source, used, band)
    return outlier if float(junk[used].float().mean()) > _MOST_OUTLIERS else junk


def judge_images(
    source: ParticleSource, halves: tuple[Tensor, Tensor], problem: CovarianceProblem, state: HalfSetState
) -> JudgedImages:
    """Find the outliers, and measure the noise on the others; each half is judged by the factors of the other.

    Parameters
    ----------
    source : ParticleSource
    halves : tuple of two Tensors, int64
        All particles of each half-set; those of none are outliers.
    problem : CovarianceProblem
        Of the source, with the spread of contrast that the half-sets found.
    state : HalfSetState

    Returns
    -------
    JudgedImages
    """
    shell_max = source.disk.shell_max
    judged = tuple(zip(halves, reversed(state.factors), strict=True))
    band = problem.band(min(_JUDGED_SHELL, shell_max))
    # tables of all particles are on the CPU
    group = source.group.cpu()

    def fits_of(half: int) -> Tensor:
        table, (index, factors) = torch.zeros(3, len(source), dtype=torch.float64), judged[half]
        for rows, fit in image_fits(source, index, band, change_box(factors.volumes, band.box_size)):
            table[:, rows] = torch.stack((fit.log_odds, fit.distance, fit.contrast)).double().cpu()
        return source.world.total(table)[0]

    log_odds, distance, contrast = torch.add(*source.world.of_halves(fits_of))
    used = torch.cat(halves).sort().values
    found = find_outliers(log_odds[used], distance[used], group[used]) | strong_images(source, used)
    share = float(found.float().mean())
    is_doubted = share > _MOST_OUTLIERS
    outlier = of_no_half(halves, len(source))
    if not is_doubted:
        outlier[used] = found
    band = problem.band(shell_max)
    noise = ResidualNoise(source.noise_variance.shape[0], source.disk, source.micrographs)
    for index, factors in judged:
        sample = _noise_sample(source, index[~outlier[index]])
        for rows, power, kept in residual_power(source, sample, band, change_box(factors.volumes, band.box_size)):
            noise.add(power, group[rows], kept, rows)
    noise.complete(source.world)
    if source.contrast is not None:
        contrast = contrast * source.contrast.cpu()
    contrast = (contrast / contrast[~outlier].mean()).clamp_min(LEAST_CONTRAST)
    measured = noise.update(source.noise_variance).to(source.noise_variance.device)
    return JudgedImages(measured, outlier, contrast.float(), share if is_doubted else 0.0, noise.ratio(group))


def _noise_sample(source: ParticleSource, index: Tensor) -> Tensor:
    """Some particles of a half-set, as many of each optics group, and of each micrograph, as its noise needs."""
    if source.micrographs is not None:
        of_row = source.micrographs.micrograph[index]
        order = torch.argsort(of_row, stable=True)
        size = torch.bincount(of_row)
        number = torch.arange(len(index)) - (size.cumsum(0) - size)[of_row[order]]
        most = max(_LEAST_OF_MICROGRAPH, _NOISE_PARTICLES_OF_MICROGRAPHS // int((size > 0).sum()))
        return index[order[number < most]].sort().values
    groups, group_of = source.noise_variance.shape[0], source.group.cpu()[index]
    wanted = max(_NOISE_PARTICLES // groups, _NOISE_PARTICLES_PER_GROUP) // 2
    members = [index[group_of == group] for group in range(groups)]
    return torch.cat([sample_of(rows, wanted) for rows in members])
