"""The marginal likelihood of images as a function of their poses, and its derivatives.

Homogeneous refinement takes motion for errors of the pose. Here the latent coordinates are integrated out, so motion
along the factors V weighs no more than it should: with A = P V, e = Y - P mu, S = (I + A* A)^-1 and m = S A* e, the
derivative of an image's negative log-likelihood by its pose is

    -rho* dP (mu + V m) + tr(S A* dA),   rho = Sigma^-1 e = e - A m,

and with J the derivatives of P (mu + V m) the matrix of the Gauss-Newton step is J* Sigma^-1 J, by Woodbury
J* J - (A* J)* S (A* J). The trace, from the log-determinant, vanishes for shifts. (The objective is that of Yadgar,
Lederman & Shkolnisky 2026, eq. 9; their section A.3 descends along its gradient instead.)

An error of the contrast is one more latent coordinate, the last, of the factor s a P mu for a relative error of
deviation s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.objectives import LatentPosterior, latent_posterior
from solvar_engine.estimation.model.slices import slices_of_batch
from solvar_engine.estimation.model.statistics import Statistics
from solvar_engine.estimation.poses.uncertainty import PosePrior, PoseSpread, precision_of
from solvar_engine.imaging.types import Batch, BatchSource
from solvar_engine.projectors.base import images_per_call

_WEAK_PRECISION = torch.tensor([3.0, 3.0, 3.0, 0.01, 0.01], dtype=torch.float64)  # 30 degrees, 10 px
_NO_DAMPING = torch.tensor(1e-9, dtype=torch.float64)


@dataclass(frozen=True)
class PoseDerivatives:
    """Derivatives of the negative log-likelihoods of n images by their poses, all float64.

    Attributes
    ----------
    gradient : Tensor, shape (n, 5)
        By rotation vector (radians, frame of the image) and shift (px of the working box).
    matrix : Tensor, shape (n, 5, 5)
        Of Gauss and Newton, the latent coordinates integrated out.
    coupling : Tensor, shape (n, 5, r + 1)
        By how much the posterior mean of each latent coordinate falls as the pose changes: J* A S.
    latent_covariance : Tensor, shape (n, r + 1, r + 1)
        S, that of the latent coordinates at the pose.
    """

    gradient: Tensor
    matrix: Tensor
    coupling: Tensor
    latent_covariance: Tensor

    def with_prior(self, prior: PosePrior, rotation: Tensor, shift_px: Tensor) -> PoseDerivatives:
        """Add what is known of the poses beside the images."""
        return replace(
            self, gradient=self.gradient + prior.gradient(rotation, shift_px), matrix=self.matrix + prior.matrix
        )

    def put(self, rows: Tensor, other: PoseDerivatives) -> None:
        """Overwrite some images by others."""
        self.gradient[rows], self.matrix[rows] = other.gradient, other.matrix
        self.coupling[rows], self.latent_covariance[rows] = other.coupling, other.latent_covariance

    def pose_covariance(self) -> Tensor:
        """Posterior covariance of the poses (n, 5, 5), the inverse of the matrix."""
        return torch.linalg.inv(damped(self.matrix, _NO_DAMPING))

    def joint_covariance(self) -> tuple[Tensor, Tensor]:
        """Covariance (n, r + 1, r + 1) of the latents, the pose integrated out, and that of pose and latents."""
        cross = -torch.linalg.solve(damped(self.matrix, _NO_DAMPING), self.coupling)
        return self.latent_covariance - self.coupling.mT @ cross, cross


@dataclass(frozen=True)
class PosePosterior(LatentPosterior):
    """Posterior of the latent coordinates at some poses.

    Attributes
    ----------
    removed : Tensor, shape (n, k, 1 + r), or None
        Coordinates of the slow background that the slices at these poses had, that of the mean first.
    """

    removed: Tensor | None = None

    def __getitem__(self, rows: Tensor) -> PosePosterior:
        removed = None if self.removed is None else self.removed[rows]
        return PosePosterior(self.mean[rows], self.covariance[rows], self.objective[rows], removed)


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
        self._deviation = band.contrast_variance**0.5
        self._scales = factors.new_tensor([1.0] * len(factors) + [self._deviation], dtype=torch.float64)
        self.images_per_call = images_per_call(band.projector, factors.shape[0] + 2)

    def evaluate(self, batch: Batch) -> PosePosterior:
        """Posterior of (z, contrast) and the objective, at the poses of a batch.

        The last coordinate is that of the contrast, in units of its standard deviation.
        """
        _, products, removed = slices_of_batch(self._projector, self._grid, batch)
        found = latent_posterior(Statistics.with_contrast_error(products, batch.contrast, self._deviation))
        return PosePosterior(found.mean, found.covariance, found.objective, removed)

    def derivatives(self, batch: Batch, posterior: PosePosterior) -> PoseDerivatives:
        """Derivatives of the objective at the poses of a batch, from the posterior there.

        The matrix, and the share of the log-determinant in the gradient, leave the few coordinates of the background
        in: a few percent of the gradient. Steps are judged by the objective, which is exact.
        """
        contrast = batch.contrast.double()[:, None]
        scale = contrast * self._scales  # what turns factors and mean into columns of coordinates of unit variance
        coefficients = scale * posterior.mean
        coefficients[:, -1:] += contrast
        moments = posterior.covariance * scale[:, :, None] * scale[:, None, :]
        kind, channels = batch.ctf.dtype, scale.shape[1]
        mixed = coefficients.roll(1, 1)  # slices have the mean first
        images = batch.images
        if posterior.removed is not None:
            # With columns U, the slices A c are compared without their part U U* A c: that is the same as with it, if
            # the images have it, too.
            images = batch.with_background((posterior.removed.double() @ mixed[..., None])[..., 0])
        products, turn = self._projector.pose_products(
            self._grid,
            batch.rotation,
            batch.ctf,
            images,
            mixed.to(kind),
            moments.roll((1, 1), (1, 2)).to(kind),
        )
        loadings = products[:, :, :channels].roll(-1, 2) * scale[:, None, :]
        error = products[:, :, -1] - contrast * products[:, :, 0]
        gradient = (loadings @ posterior.mean[..., None])[..., 0] - error
        gradient[:, :3] += turn
        coupling = loadings @ posterior.covariance
        matrix = products[:, :, channels:-1] - coupling @ loadings.mT
        return PoseDerivatives(gradient, matrix, coupling, posterior.covariance)


def damped(matrix: Tensor, damping: Tensor) -> Tensor:
    """Add a share of the diagonal, and so much that no step is unbounded where an image says nothing."""
    diagonal = torch.diagonal(matrix, dim1=1, dim2=2).clamp_min(0)
    return matrix + torch.diag_embed(damping.to(matrix)[..., None] * diagonal + _WEAK_PRECISION.to(matrix))


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
        derivatives = model.derivatives(batch, model.evaluate(batch))
        if spread is not None:
            known = torch.diag(precision_of(spread)).to(batch.images.device)
            derivatives = replace(derivatives, matrix=derivatives.matrix + known)
        yield batch.index, derivatives.pose_covariance()


def pose_deviation(
    source: BatchSource, band: Band, factors: Tensor, spread: PoseSpread | None = None
) -> tuple[Tensor, Tensor]:
    """Posterior standard deviations (n,) of all orientations (radians) and shifts (px), with a prior of that spread.

    The root of the sum of the variances about the three axes, or along both: how far an estimate is expected to be off,
    in the mean square.
    """
    turn, move = torch.zeros(2, len(source), dtype=torch.float64)
    for index, covariance in pose_covariance(source, torch.arange(len(source)), band, factors, spread):
        variance = covariance.diagonal(dim1=1, dim2=2).cpu()
        turn[index], move[index] = variance[:, :3].sum(dim=1).sqrt(), variance[:, 3:].sum(dim=1).sqrt()
    turn, move = source.world.total(turn, move)
    return turn, move
