"""The marginal likelihood of images as a function of their poses, and its derivatives.

Homogeneous refinement takes motion for errors of the pose. Here the latent coordinates are integrated out, so motion
along the factors V weighs no more than it should: with A = P V, e = Y - P mu, S = (I + A* A)^-1 and m = S A* e, the
derivative of an image's negative log-likelihood by its pose is

    -rho* dP (mu + V m) + tr(S A* dA),   rho = Sigma^-1 e = e - A m,

and with J the derivatives of P (mu + V m) the matrix of the Gauss-Newton step is J* Sigma^-1 J, by Woodbury
J* J - (A* J)* S (A* J). The trace, from the log-determinant, vanishes for shifts. (The objective is that of Yadgar,
Lederman & Shkolnisky 2026, eq. 9; their section A.3 descends along its gradient instead.)

An error of the contrast is one more latent coordinate, of the factor s a P mu for a relative error of deviation s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.objectives import LatentPosterior, latent_posterior
from solvar_engine.estimation.model.statistics import Statistics
from solvar_engine.estimation.poses.prior import PosePrior
from solvar_engine.imaging.types import Batch
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
    coupling : Tensor, shape (n, 5, 1 + r)
        By how much the posterior mean of each latent coordinate falls as the pose changes: J* A S.
    latent_covariance : Tensor, shape (n, 1 + r, 1 + r)
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
        """Covariance (n, 1 + r, 1 + r) of the latents, the pose integrated out, and that of pose and latents."""
        cross = -torch.linalg.solve(damped(self.matrix, _NO_DAMPING), self.coupling)
        return self.latent_covariance - self.coupling.mT @ cross, cross


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
        self._scales = torch.ones(1 + factors.shape[0], dtype=torch.float64, device=factors.device)
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

    def derivatives(self, batch: Batch, posterior: LatentPosterior) -> PoseDerivatives:
        """Derivatives of the objective at the poses of a batch, from the posterior there."""
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
        coupling = loadings @ posterior.covariance
        matrix = products[:, :, channels:-1] - coupling @ loadings.mT
        return PoseDerivatives(gradient, matrix, coupling, posterior.covariance)

    def _scale(self, batch: Batch) -> Tensor:
        """What turns mean and factors into columns of latent coordinates of unit variance, (n, 1 + r)."""
        return batch.contrast.double()[:, None] * self._scales


def damped(matrix: Tensor, damping: Tensor) -> Tensor:
    """Add a share of the diagonal, and so much that no step is unbounded where an image says nothing."""
    diagonal = torch.diagonal(matrix, dim1=1, dim2=2).clamp_min(0)
    return matrix + torch.diag_embed(damping.to(matrix)[..., None] * diagonal + _WEAK_PRECISION.to(matrix))
