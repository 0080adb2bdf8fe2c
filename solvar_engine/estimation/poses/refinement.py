"""Orientations and shifts of particles by damped Gauss-Newton steps on the marginal likelihood (`PoseModel`).

What is known of the poses before enters as a normal prior about them (`PosePrior`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.objectives import LatentPosterior
from solvar_engine.estimation.poses.likelihood import PoseModel, damped
from solvar_engine.estimation.poses.uncertainty import PosePrior
from solvar_engine.imaging.fourier import HalfDisk, shift_phases
from solvar_engine.imaging.rotation import rotvec_to_rotation
from solvar_engine.imaging.types import Batch, BatchSource

_DAMPING = 0.03  # first share of the diagonal that is added to the matrix
_DAMPING_FALL, _DAMPING_RISE = 0.2, 10.0  # after a step that lowers the objective, and after one that does not
_LARGEST_TURN_RAD, _LARGEST_MOVE_PX = 0.1, 2.0  # of one step
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
    latents : Tensor, shape (n, r + 1), float64
        Posterior means of z and, last, of the relative error of the contrast, in standard deviations, at the refined
        poses.
    latent_covariance : Tensor, shape (n, r + 1, r + 1), float64
        Of these, with the pose integrated out.
    cross_covariance : Tensor, shape (n, 5, r + 1), float64
        Of the rotation vector (radians, frame of the image) and the shift (px of the working box) with these.
    """

    index: Tensor
    rotation: Tensor
    shift_px: Tensor
    objective_start: Tensor
    objective: Tensor
    latents: Tensor
    latent_covariance: Tensor
    cross_covariance: Tensor


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
        # a prior is a table of all particles, on the CPU
        device = batch.images.device
        known = PosePrior.none(len(batch), device) if prior is None else prior[batch.index].to(device)
        yield _refine(model, batch, band.disk, steps, known)


def _refine(model: PoseModel, batch: Batch, disk: HalfDisk, steps: int, prior: PosePrior) -> RefinedPoses:
    """Try steps on all images of a batch, each with its own damping, until it moves no more."""
    count = len(batch)
    rotation, device = batch.rotation.double(), batch.images.device
    shift = torch.zeros(count, 2, dtype=torch.float64, device=device)
    damping = torch.full((count,), _DAMPING, dtype=torch.float64, device=device)
    posterior = model.evaluate(batch)
    start = posterior.objective + prior.objective(rotation, shift)
    objective, latents = start.clone(), posterior.mean.clone()
    derivatives = model.derivatives(batch, posterior).with_prior(prior, rotation, shift)
    rows = torch.arange(count, device=device)
    for number in range(1, steps + 1):
        gradient = derivatives.gradient[rows]
        step = _step(gradient, derivatives.matrix[rows], damping[rows])
        hopeful = -0.5 * (gradient * step).sum(dim=1) > _LEAST_GAIN
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
            there = model.derivatives(trial[better], _select(posterior, better))
            derivatives.put(gained, there.with_prior(prior[gained], turned[better], moved[better]))
    covariance = derivatives.joint_covariance()
    return RefinedPoses(batch.index, rotation.float(), shift.float(), start, objective, latents, *covariance)


def _step(gradient: Tensor, matrix: Tensor, damping: Tensor) -> Tensor:
    """Damped Gauss-Newton steps (n, 5), shortened to where the linear model can be trusted."""
    step = -torch.linalg.solve(damped(matrix, damping), gradient[..., None])[..., 0]
    turn, move = step[:, :3].norm(dim=1), step[:, 3:].norm(dim=1)
    excess = torch.maximum(turn / _LARGEST_TURN_RAD, move / _LARGEST_MOVE_PX).clamp_min(1.0)
    return step / excess[:, None]


def _at_pose(batch: Batch, rotation: Tensor, shift_px: Tensor, disk: HalfDisk) -> Batch:
    """Same images, moved by a shift and seen at other orientations."""
    images = batch.images * shift_phases(disk, shift_px.float(), disk.box_size)
    return replace(batch, images=images, rotation=rotation.float())


def _select(posterior: LatentPosterior, rows: Tensor) -> LatentPosterior:
    return LatentPosterior(posterior.mean[rows], posterior.covariance[rows], posterior.objective[rows])
