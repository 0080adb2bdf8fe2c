"""Orientations and shifts of particles by damped Gauss-Newton steps on the marginal likelihood.

Homogeneous refinement takes motion for errors of the pose. Here the latent coordinates are integrated out, so motion
along the factors V weighs no more than it should: with A = P V, e = Y - P mu, S = (I + A* A)^-1 and m = S A* e, the
derivative of an image's negative log-likelihood by its pose is

    -rho* dP (mu + V m) + tr(S A* dA),   rho = Sigma^-1 e = e - A m,

and with J the derivatives of P (mu + V m) the matrix of the Gauss-Newton step is J* Sigma^-1 J, by Woodbury
J* J - (A* J)* S (A* J). The trace, from the log-determinant, vanishes for shifts. (The objective is that of Yadgar,
Lederman & Shkolnisky 2026, eq. 9; their section A.3 descends along its gradient instead.)

What is known of the poses before enters as a normal prior about them (`pose_prior`).

An error of the contrast is one more latent coordinate, of the factor s a P mu for a relative error of deviation s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.estimation.bands import Band
from solvar_engine.estimation.nuisance import PoseSpread
from solvar_engine.estimation.objectives import LatentPosterior, latent_posterior
from solvar_engine.estimation.pose_prior import PosePrior, precision_of
from solvar_engine.estimation.statistics import Statistics
from solvar_engine.imaging.fourier import HalfDisk, shift_phases
from solvar_engine.imaging.rotation import rotvec_to_rotation
from solvar_engine.imaging.types import Batch, BatchSource
from solvar_engine.projectors.base import images_per_call

_DAMPING = 0.03  # first share of the diagonal that is added to the matrix
_DAMPING_FALL, _DAMPING_RISE = 0.2, 10.0  # after a step that lowers the objective, and after one that does not
_LARGEST_TURN_RAD, _LARGEST_MOVE_PX = 0.1, 2.0  # of one step
_WEAK_PRECISION = torch.tensor([3.0, 3.0, 3.0, 0.01, 0.01], dtype=torch.float64)  # 30 degrees, 10 px
_LEAST_GAIN = 0.01  # of the log-likelihood: an image that expects less of a step is within 0.14 standard deviations


@dataclass(frozen=True)
class RefinedPoses:
    """Poses of some particles after refinement.

    Attributes
    ----------
    index : Tensor, shape (n,), int64
    rotation : Tensor, shape (n, 3, 3), float32
        Image to volume.
    shift_px : Tensor, shape (n, 2), float32
        By how much the shift that centres the image has grown, px of the working box.
    objective_start, objective : Tensor, shape (n,), float64
        Negative log-likelihood, with the prior, before and after; nowhere larger.
    latents : Tensor, shape (n, 1 + r), float64
        Posterior means of the relative error of the contrast, in standard deviations, and z at the refined poses.
    """

    index: Tensor
    rotation: Tensor
    shift_px: Tensor
    objective_start: Tensor
    objective: Tensor
    latents: Tensor


def refine_poses(
    source: BatchSource, index: Tensor, band: Band, factors: Tensor, *, steps: int, prior: PosePrior | None = None
) -> Iterator[RefinedPoses]:
    """Refine every image's pose under fixed volumes.

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
    band : Band
        With the mean.
    factors : Tensor, shape (r, z, y, x)
        In the gauge z ~ N(0, I), at the box of the band.
    steps : int
        Gauss-Newton steps that are tried on each image, at most.
    prior : PosePrior, optional
        Of all particles of the source; without it the images alone decide.

    Yields
    ------
    RefinedPoses
        Batch by batch.
    """
    model = PoseModel(band, factors)
    for batch in source.batches(index, band.disk, model.images_per_call):
        known = PosePrior.none(len(batch)) if prior is None else prior[batch.index]
        yield _refine(model, batch, band.disk, steps, known)


def pose_covariance(
    source: BatchSource, index: Tensor, band: Band, factors: Tensor, spread: PoseSpread | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the posterior covariance of poses, the inverse of the Gauss-Newton matrix, with a prior of that spread.

    Yields
    ------
    index : Tensor, shape (n,), int64
    covariance : Tensor, shape (n, 5, 5), float64
        Of the rotation vector in the frame of the image (radians) and the shift (px of the working box).
    """
    model = PoseModel(band, factors)
    for batch in source.batches(index, band.disk, model.images_per_call):
        _, matrix = model.derivatives(batch, model.evaluate(batch))
        matrix = matrix if spread is None else matrix + torch.diag(precision_of(spread))
        yield batch.index, torch.linalg.inv(_damped(matrix, torch.full((len(batch),), 1e-9, dtype=matrix.dtype)))


class PoseModel:
    """The marginal likelihood of images and its derivatives by their poses, under fixed volumes.

    Parameters
    ----------
    band : Band
    factors : Tensor, shape (r, z, y, x)
    """

    def __init__(self, band: Band, factors: Tensor) -> None:
        self._projector = band.projector
        self._grid = band.projector.to_grid(torch.cat((band.mean[None], factors)))
        self._scales = torch.ones(1 + factors.shape[0], dtype=torch.float64)
        self._scales[0] = band.contrast_variance**0.5
        self.images_per_call = images_per_call(band.projector, factors.shape[0] + 2)

    def evaluate(self, batch: Batch) -> LatentPosterior:
        """Posterior of (contrast, z) and the objective, at the poses of a batch.

        The first coordinate is that of the contrast, in units of its standard deviation.
        """
        _, products = self._projector.project_with_gram(self._grid, batch.rotation, batch.ctf, batch.images)
        contrast, scale = batch.contrast.double()[:, None], self._scale(batch)
        mean, image = products[:, :-1, 0], products[:, :-1, -1]
        residual = products[:, -1, -1] - 2 * contrast[:, 0] * image[:, 0] + contrast[:, 0] ** 2 * mean[:, 0]
        gram = products[:, :-1, :-1] * scale[:, :, None] * scale[:, None, :]
        return latent_posterior(Statistics(gram, scale * (image - contrast * mean), residual))

    def derivatives(self, batch: Batch, posterior: LatentPosterior) -> tuple[Tensor, Tensor]:
        """Gradient (n, 5) of the objective by rotation vector and shift, and the Gauss-Newton matrix (n, 5, 5)."""
        contrast, scale = batch.contrast.double()[:, None], self._scale(batch)
        coefficients = scale * posterior.mean
        coefficients[:, :1] += contrast
        moments = posterior.covariance * scale[:, :, None] * scale[:, None, :]
        kind = batch.ctf.dtype
        products, turn = self._projector.pose_products(
            self._grid, batch.rotation, batch.ctf, batch.images, coefficients.to(kind), moments.to(kind)
        )
        channels = scale.shape[1]
        loadings = products[:, :, :channels] * scale[:, None, :]
        error = products[:, :, -1] - contrast * products[:, :, 0]
        gradient = (loadings @ posterior.mean[..., None])[..., 0] - error
        gradient[:, :3] += turn
        return gradient, products[:, :, channels:-1] - loadings @ posterior.covariance @ loadings.mT

    def _scale(self, batch: Batch) -> Tensor:
        """What turns mean and factors into columns of latent coordinates of unit variance, (n, 1 + r)."""
        return batch.contrast.double()[:, None] * self._scales


def _refine(model: PoseModel, batch: Batch, disk: HalfDisk, steps: int, prior: PosePrior) -> RefinedPoses:
    """Try steps on all images of a batch, each with its own damping, until it moves no more."""
    count = len(batch)
    rotation, shift = batch.rotation.double(), torch.zeros(count, 2, dtype=torch.float64)
    damping = torch.full((count,), _DAMPING, dtype=torch.float64)
    posterior = model.evaluate(batch)
    start = posterior.objective + prior.objective(rotation, shift)
    objective, latents = start.clone(), posterior.mean.clone()
    gradient, matrix = model.derivatives(batch, posterior)
    gradient, matrix = gradient + prior.gradient(rotation, shift), matrix + prior.matrix
    rows = torch.arange(count)
    for number in range(1, steps + 1):
        step = _step(gradient[rows], matrix[rows], damping[rows])
        hopeful = -0.5 * (gradient[rows] * step).sum(dim=1) > _LEAST_GAIN
        rows, step = rows[hopeful], step[hopeful]
        if not len(rows):
            break
        turned = rotation[rows] @ rotvec_to_rotation(step[:, :3])
        moved = shift[rows] + step[:, 3:]
        trial = _at_pose(batch[rows], turned, moved, disk)
        posterior = model.evaluate(trial)
        value = posterior.objective + prior[rows].objective(turned, moved)
        better = value < objective[rows]
        damping[rows] *= torch.where(better, _DAMPING_FALL, _DAMPING_RISE)
        gained = rows[better]
        rotation[gained], shift[gained] = turned[better], moved[better]
        objective[gained], latents[gained] = value[better], posterior.mean[better]
        if number < steps:
            slope, curvature = model.derivatives(trial[better], _select(posterior, better))
            gradient[gained] = slope + prior[gained].gradient(turned[better], moved[better])
            matrix[gained] = curvature + prior.matrix
    return RefinedPoses(batch.index, rotation.float(), shift.float(), start, objective, latents)


def _step(gradient: Tensor, matrix: Tensor, damping: Tensor) -> Tensor:
    """Damped Gauss-Newton steps (n, 5), shortened to where the linear model can be trusted."""
    step = -torch.linalg.solve(_damped(matrix, damping), gradient[..., None])[..., 0]
    turn, move = step[:, :3].norm(dim=1), step[:, 3:].norm(dim=1)
    excess = torch.maximum(turn / _LARGEST_TURN_RAD, move / _LARGEST_MOVE_PX).clamp_min(1.0)
    return step / excess[:, None]


def _damped(matrix: Tensor, damping: Tensor) -> Tensor:
    """Add a share of the diagonal, and so much that no step is unbounded where an image says nothing."""
    diagonal = torch.diagonal(matrix, dim1=1, dim2=2).clamp_min(0)
    return matrix + torch.diag_embed(damping[:, None] * diagonal + _WEAK_PRECISION.to(matrix))


def _at_pose(batch: Batch, rotation: Tensor, shift_px: Tensor, disk: HalfDisk) -> Batch:
    """Same images, moved by a shift and seen at other orientations."""
    images = batch.images * shift_phases(disk, shift_px.float(), disk.box_size)
    return replace(batch, images=images, rotation=rotation.float())


def _select(posterior: LatentPosterior, rows: Tensor) -> LatentPosterior:
    return LatentPosterior(posterior.mean[rows], posterior.covariance[rows], posterior.objective[rows])
