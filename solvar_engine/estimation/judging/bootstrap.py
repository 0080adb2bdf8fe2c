"""How far estimates are off where errors of poses are too large for a first order: a parametric bootstrap.

Stated errors of refined poses, and of the latent coordinates beside them, are those of a model that is linear about the
refined pose. Errors of some degrees turn fine detail by more than it is wide; then an image tells less than that, and
sometimes another pose fits better than the true one. So images are made from the fitted model, with poses and states
that are known, their poses are disturbed and refined as the others' were, and what comes out is held against what was
put in (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 6).

The images show volumes to either side of the fit, as far from its own as these are expected to be from the true ones,
and are judged under those of the fit: errors of the volumes are in what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.distributed.world import World
from solvar_engine.estimation.judging.components import Components, LatentBatch, latent_coordinates
from solvar_engine.estimation.judging.given_poses import drawn_rows
from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.expectation import posterior_pass
from solvar_engine.estimation.model.mixture import LIVE_SHARE
from solvar_engine.estimation.poses.likelihood import pose_covariance
from solvar_engine.estimation.poses.schedules import PoseSchedule
from solvar_engine.estimation.poses.uncertainty import PoseErrors, PosePrior, PoseSpread
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.imaging.rotation import rotation_to_rotvec, rotvec_to_rotation
from solvar_engine.imaging.types import Batch, HalfDisk, ParticleSource, Pose

_IMAGES, _FEWEST_IMAGES = 1000, 200
_COEFFICIENTS = 16_000_000  # of all images, at most: 128 MB
_ROUNDS = 2  # of refinement
_MOST = 25.0  # times the stated variance: an image whose pose is lost counts as five deviations
_CHUNK = 4096  # images


@dataclass(frozen=True)
class ErrorFactors:
    """Variances of errors over the stated ones, none less than one.

    Attributes
    ----------
    latents : float
        Of what an image says of its latent coordinates.
    turn, move : float
        Of orientations and of shifts.
    """

    latents: float = 1.0
    turn: float = 1.0
    move: float = 1.0


@dataclass(frozen=True)
class BootstrapImages:
    """A `BatchSource` of images that were made in the place of some others, with their optics and their background.

    Attributes
    ----------
    source : ParticleSource
        Whose images they replace, at the poses in use.
    images : Tensor, shape (m, pixels), complex64
        Whitened, on the CPU.
    row : Tensor, shape (n,), int64
        Of each particle among them.
    true : Pose
        Of all particles; the images are centred by its shifts.
    """

    source: ParticleSource
    images: Tensor
    row: Tensor
    true: Pose

    @property
    def disk(self) -> HalfDisk:
        """All pixels that the images hold."""
        return self.source.disk

    @property
    def box_size(self) -> int:
        """Working box, px."""
        return self.source.box_size

    @property
    def pixel_size(self) -> float:
        """Of the working box, Angstrom."""
        return self.source.pixel_size

    @property
    def world(self) -> World:
        """Processes that share the images."""
        return self.source.world

    @property
    def pose(self) -> Pose:
        """In use."""
        return self.source.pose

    def __len__(self) -> int:
        return len(self.source)

    def with_pose(self, pose: Pose) -> BootstrapImages:
        """The same images at other poses."""
        return replace(self, source=self.source.with_pose(pose))

    def batches(self, index: Tensor, disk: HalfDisk, batch_size: int) -> Iterator[Batch]:
        """Yield some particles, see `BatchSource.batches`."""
        moved_px = (self.pose.shift - self.true.shift) / self.pixel_size * (disk.box_size / self.box_size)
        for batch in self.source.batches(index, disk, batch_size):
            images = self.images[self.row[batch.index]][:, : batch.images.shape[1]].to(batch.images)
            made = replace(batch, images=images, background=None)
            images = made.moved(moved_px[batch.index].to(batch.rotation), disk).images
            if batch.background is not None:
                batch.background.take_from(images[..., None], disk.weight.to(images.device))
            yield replace(batch, images=images)


@dataclass(frozen=True)
class BootstrapModel:
    """What images are made of, or judged under.

    Attributes
    ----------
    problem : CovarianceProblem
        About the mean.
    components : Components
    """

    problem: CovarianceProblem
    components: Components

    def band(self, errors: PoseErrors | None = None) -> Band:
        """With all shells; poses are taken for true, or have errors."""
        return replace(self.problem, pose_errors=errors or PoseErrors()).full_band()


def bootstrap_sample(source: ParticleSource, index: Tensor, generator: torch.Generator) -> Tensor:
    """Some of the particles (n,), of which images are made: as many as memory holds, and no more than it takes."""
    count = max(_FEWEST_IMAGES, min(_IMAGES, _COEFFICIENTS // len(source.disk.weight)))
    return drawn_rows(index, count, generator)


def make_images(
    source: ParticleSource, index: Tensor, z: Tensor, models: tuple[BootstrapModel, ...], generator: torch.Generator
) -> BootstrapImages:
    """Make images in the place of some, at their poses, of each model in turn.

    Parameters
    ----------
    source : ParticleSource
        At poses that the new images have for true ones.
    index : Tensor, shape (m,), int64
    z : Tensor, shape (m, r), float64
        Latent coordinates that they show, in units of the deviations.
    models : tuple of BootstrapModel
    generator : torch.Generator

    Returns
    -------
    BootstrapImages
        In white noise of unit variance, with contrasts about the known ones of the deviation of the band.
    """
    pixels = len(source.disk.weight)
    row = torch.full((len(source),), -1, dtype=torch.int64)
    row[index] = torch.arange(len(index))
    images = torch.view_as_complex(torch.randn(len(index), pixels, 2, generator=generator)) / 2**0.5
    contrast = torch.randn(len(index), generator=generator)
    for number, model in enumerate(models):
        rows = index[number :: len(models)]
        band, rank = model.band(), z.shape[1]
        for batch, slices, _, _ in posterior_pass(source, rows, band, model.components.scaled()):
            place = row[batch.index]
            of_states = (slices[:, :, 1 : 1 + rank] @ z[place].to(slices)[..., None])[..., 0]
            scale = batch.contrast.cpu() * (1 + band.contrast_variance**0.5 * contrast[place])
            shown = scale[:, None] * (slices[:, :, 0] + of_states).cpu()
            images[place] = (images[place] + shown) * (batch.ctf.cpu() != 0)
    return BootstrapImages(source, images, row, source.pose)


def measure_error_factors(
    images: BootstrapImages,
    index: Tensor,
    z: Tensor,
    model: BootstrapModel,
    schedule: PoseSchedule,
    spreads: tuple[PoseSpread, PoseSpread],
    contrast_variance: float,
    generator: torch.Generator,
) -> ErrorFactors:
    """Disturb the poses of made images, refine them, and hold what is found against the truth.

    Parameters
    ----------
    images : BootstrapImages
        At their true poses.
    index : Tensor, shape (m,), int64
        The particles whose images were made.
    z : Tensor, shape (m, r), float64
        What they show.
    model : BootstrapModel
        That they are judged under.
    schedule : PoseSchedule
    spreads : tuple of two PoseSpreads
        Of the errors that given poses have, and of those that the prior takes them to have.
    contrast_variance : float
        As for `latent_coordinates`.
    generator : torch.Generator

    Returns
    -------
    ErrorFactors
    """
    given_spread, prior_spread = spreads
    true, band, factors = images.pose, model.band(), model.components.scaled()
    given = _disturbed(true, index, given_spread, images.pixel_size, generator)
    images = images.with_pose(given)
    for _ in range(_ROUNDS):
        prior = PosePrior.about(given, images.pose, images.pixel_size, prior_spread)
        images = images.with_pose(_refined(images, index, band, factors, schedule, prior))
    errors = PoseErrors.about(given, images.pose, images.pixel_size, prior_spread)
    of_latents = _excess_of_latents(images, index, z, model.band(errors), model.components, contrast_variance)
    excess = (of_latents, *_excess_of_poses(images, index, band, factors, prior_spread))
    return ErrorFactors(*(max(1.0, factor) for factor in excess))


def with_larger_errors(latents: LatentBatch, rows: Tensor, eigenvalues: Tensor, factor: float) -> LatentBatch:
    """What images say of their coordinates with errors of so many times the variance, the prior as it was.

    Parameters
    ----------
    latents : LatentBatch
        Of all particles.
    rows : Tensor, shape (m,), int64
        Those that it is about.
    eigenvalues : Tensor, shape (r,), float64
        Priors of the coordinates.
    factor : float

    Returns
    -------
    LatentBatch
    """
    if factor == 1.0:
        return latents
    z, precision, prior = latents.z.clone(), latents.precision.clone(), torch.diag(1 / eigenvalues)
    for chunk in rows.split(_CHUNK):
        before = latents.precision[chunk].double()
        after = prior + (before - prior) / factor
        inner = before @ latents.z[chunk].double()[..., None] / factor
        z[chunk], precision[chunk] = torch.linalg.solve(after, inner)[..., 0].float(), after.float()
    return replace(latents, z=z, precision=precision)


def _disturbed(pose: Pose, index: Tensor, spread: PoseSpread, pixel_size: float, generator: torch.Generator) -> Pose:
    """Some of the poses with errors of a spread about every axis."""
    turn = spread.turn_rad * torch.randn(len(index), 3, generator=generator, dtype=torch.float64)
    move = spread.move_px * pixel_size * torch.randn(len(index), 2, generator=generator)
    rotation, shift = pose.rotation.clone(), pose.shift.clone()
    rotation[index] = (pose.rotation[index].double() @ rotvec_to_rotation(turn)).to(rotation)
    shift[index] += move.to(shift)
    return Pose(rotation, shift)


def _refined(
    images: BootstrapImages, index: Tensor, band: Band, factors: Tensor, schedule: PoseSchedule, prior: PosePrior
) -> Pose:
    """All poses after a round of refinement of some."""
    moved = torch.zeros(len(images), 2, dtype=torch.float64)
    turned = torch.zeros(len(images), 3, 3, dtype=torch.float64)
    for part in schedule.refine(images, index, band, factors, prior):
        turned[part.index], moved[part.index] = part.rotation.double().cpu(), part.shift_px.double().cpu()
    turned, moved = images.world.total(turned, moved)
    rotation, shift = images.pose.rotation.clone(), images.pose.shift.clone()
    rotation[index] = turned[index].to(rotation)
    shift[index] += (moved[index] * images.pixel_size).to(shift)
    return Pose(rotation, shift)


def _excess_of_latents(
    images: BootstrapImages, index: Tensor, z: Tensor, band: Band, components: Components, contrast_variance: float
) -> float:
    """Variance of b - G z, which is G if stated errors hold: its trace over that of G, along live components."""
    deviation = components.eigenvalues.sqrt()
    live = (components.eigenvalues > LIVE_SHARE * components.eigenvalues.max()).cpu()
    true = torch.zeros(len(images), z.shape[1], dtype=torch.float64)
    true[index] = z
    sums = torch.zeros(2, dtype=torch.float64)
    for batch in latent_coordinates(images, index, band, components, contrast_variance):
        known = batch.known(deviation)
        gram, inner = known.gram.cpu(), known.inner.cpu()
        error = inner - (gram @ true[batch.index][..., None])[..., 0]
        stated = gram.diagonal(dim1=1, dim2=2)[:, live].sum(dim=1)
        squared = torch.minimum(error[:, live].square().sum(dim=1), _MOST * stated)
        sums += torch.stack((squared.sum(), stated.sum()))
    (sums,) = images.world.total(sums)
    return float(sums[0] / sums[1])


def _excess_of_poses(
    images: BootstrapImages, index: Tensor, band: Band, factors: Tensor, spread: PoseSpread
) -> tuple[float, float]:
    """Mean of the squared errors of orientations, and of shifts, over the stated ones."""
    true, found = images.true, images.pose
    turn = rotation_to_rotvec(found.rotation.double().mT @ true.rotation.double())
    move = (true.shift - found.shift).double() / images.pixel_size
    sums = torch.zeros(2, dtype=torch.float64)
    for rows, covariance in pose_covariance(images, index, band, factors, spread):
        variance = covariance.diagonal(dim1=1, dim2=2).cpu()
        for number, (error, stated) in enumerate(((turn, variance[:, :3]), (move, variance[:, 3:]))):
            sums[number] += (error[rows].square().sum(dim=1) / stated.sum(dim=1)).clamp_max(_MOST).sum()
    (sums,) = images.world.total(sums)
    return float(sums[0]) / len(index), float(sums[1]) / len(index)
