"""Noise of images whose background was replaced: at all frequencies it is measured between the molecule and the edge.

The level of the filling can be told and mended while images are read, its colour cannot: filled in white, it says
nothing of the low frequencies of the noise within, where most of a molecule's power is as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.alternation.means import half_set_equations
from solvar_engine.estimation.model.bands import Band, make_band
from solvar_engine.estimation.model.expectation import posterior_pass
from solvar_engine.estimation.model.residuals import ResidualNoise
from solvar_engine.imaging.fourier import disk_to_images, images_to_disk, shift_phases
from solvar_engine.imaging.masks import real_radius
from solvar_engine.imaging.sampling import sample_of
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.reconstruction.mean import estimate_mean, filtered_halves

_IMAGES = 2_500  # of each half-set
_INNER, _OUTER = 0.8, 0.97  # of the radius of the mask: what a mean leaves beside the molecule is noise


@dataclass(frozen=True)
class InnerNoise:
    """Noise variance (groups, shells) within the particle, in the unit of the images."""

    variance: Tensor


def settle_inner_noise(job: FitJob, source: PreparedParticles) -> PreparedParticles:
    """Same images, whitened by the noise beside the molecule, if backgrounds were replaced."""
    if source.filled_from is None:
        return source
    found = job.checkpoint.load("inner_noise", InnerNoise)
    if found is None:
        job.progress.stage("noise within the particle")
        found = InnerNoise(job.world.agreed(_noise_beside_the_molecule(job, source)))
        job.checkpoint.save("inner_noise", found)
    return source.with_noise(found.variance.to(source.noise_variance.device))


def _noise_beside_the_molecule(job: FitJob, source: PreparedParticles) -> Tensor:
    """Noise variance (groups, shells) of what the mean of each half-set leaves of images of the other."""
    first, second = half_set_equations(source, job.inputs.halves, job.projector_options)
    means = filtered_halves(estimate_mean(first, second, world=job.world))
    noise = ResidualNoise(source.noise_variance.shape[0], source.disk)
    for half, mean in zip(job.inputs.halves, reversed(means), strict=True):
        band = make_band(source.disk.shell_max, source.disk, mean, job.projector_options)
        _add_residuals(noise, source, sample_of(half, _IMAGES), band)
    noise.complete(source.world)
    return noise.update(source.noise_variance).cpu()


def _add_residuals(noise: ResidualNoise, source: PreparedParticles, index: Tensor, band: Band) -> None:
    radius = real_radius(source.box_size, 2, band.mean.device) * source.input_box / source.box_size
    edge = 0.0 if source.filled_from is None else source.filled_from
    ring = ((radius > _INNER * edge) & (radius < _OUTER * edge)).float()
    no_factors = band.mean.new_zeros(0, *band.mean.shape)
    # once: a ring loses less to backgrounds than whole images, by which powers are divided, and that would add up
    for batch, slices, _, _ in posterior_pass(source, index, band, no_factors):
        rest = batch.images - batch.contrast[:, None] * slices[:, :, 0]
        moved_px = -source.pose.shift[batch.index].to(rest.device) / source.pixel_size
        images = disk_to_images(rest * shift_phases(band.disk, moved_px, source.box_size), band.disk, source.box_size)
        power = images_to_disk(ring * images, band.disk).abs().square() / ring.mean()
        noise.add(power, source.group[batch.index], batch.kept_variance())
