"""Small covariance problems, and the same mathematics written out with dense matrices in double precision."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band, make_band
from solvar_engine.estimation.solver.preconditioner import Preconditioner, make_preconditioner
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.projectors.torch_ref import TorchProjector
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations
from tests.reconstruction.simulated import MemorySource, Simulation, real_rows


def full_band(simulation: Simulation) -> Band:
    """Make the band of all shells, with the true mean."""
    source = simulation.source
    return make_band(source.disk.shell_max, source.disk, simulation.phantom.mean(source.box_size), SliceOptions())


def full_preconditioner(simulation: Simulation, mask: Tensor) -> Preconditioner:
    """Bound steps in the band of all shells by the density of all images."""
    source = simulation.source
    density = accumulate_normal_equations(source, source.everyone).density()
    return make_preconditioner(source.disk.shell_max, mask, density)


def in_double(band: Band) -> Band:
    """Replace the projector by the double-precision reference."""
    projector = TorchProjector(band.box_size, band.disk, dtype=torch.float64)
    return replace(band, projector=projector, mean=band.mean.double())


@dataclass(frozen=True)
class DenseModel:
    """Images y = mean + loadings z + noise of unit variance, all real: (n, N), (n, N), (n, N, r)."""

    images: Tensor
    mean: Tensor
    loadings: Tensor

    @staticmethod
    def of(source: MemorySource, band: Band, factors: Tensor) -> DenseModel:
        """Slice mean and factors by the band's projector, at each image's own contrast.

        The error of that contrast is one more ctf, the last one: the slice of the mean times its deviation.
        """
        projector = band.projector
        grid = projector.to_grid(torch.cat((band.mean[None], factors)))
        ctf = source.ctf[:, : len(band.disk)] * source.contrast[:, None]
        slices = projector.project(grid, source.rotation, ctf).to(torch.complex128)
        columns = torch.stack([real_rows(slices[..., j], band.disk) for j in range(slices.shape[-1])], dim=-1)
        images = real_rows(source.images[:, : len(band.disk)].to(torch.complex128), band.disk)
        loadings = torch.cat((columns[..., 1:], band.contrast_variance**0.5 * columns[..., :1]), dim=-1)
        return DenseModel(images, columns[..., 0], loadings)

    def about_what_is_shown(self, deviation: float, prior_covariance: Tensor | None = None) -> DenseModel:
        """The model (1 + s c) (mean + factors z) to first order about each image's own z and c, found in two rounds.

        The last loading is that of c, s times the mean.
        """
        seen = self
        for _ in range(2):
            place, error = seen.posterior(prior_covariance)[0].tensor_split([-1], dim=1)
            factors, column = self.loadings.tensor_split([-1], dim=2)
            moved = factors @ place[..., None]
            loadings = torch.cat(((1 + deviation * error[..., None]) * factors, column + deviation * moved), dim=2)
            seen = replace(self, mean=self.mean - deviation * error * moved[..., 0], loadings=loadings)
        return seen

    @property
    def error(self) -> Tensor:
        return self.images - self.mean

    def _prior(self, prior_covariance: Tensor | None) -> Tensor:
        rank = self.loadings.shape[-1]
        return torch.eye(rank, dtype=torch.float64) if prior_covariance is None else prior_covariance

    def covariance(self, prior_covariance: Tensor | None = None) -> Tensor:
        """Covariance of every image, shape (n, N, N)."""
        gamma = self._prior(prior_covariance)
        identity = torch.eye(self.images.shape[1], dtype=torch.float64)
        return self.loadings @ gamma @ self.loadings.transpose(1, 2) + identity

    def objective(self, prior_covariance: Tensor | None = None) -> Tensor:
        """Negative log of the Gaussian density of each image, without (N / 2) log 2 pi."""
        covariance = self.covariance(prior_covariance)
        weighted = torch.linalg.solve(covariance, self.error[..., None])[..., 0]
        return 0.5 * (torch.linalg.slogdet(covariance).logabsdet + (self.error * weighted).sum(dim=1))

    def squared_distance(self) -> Tensor:
        """A quarter of |e e^T - A A^T - I|_F^2 of each image, without the constant N / 4."""
        misfit = self.error[:, :, None] * self.error[:, None, :] - self.covariance()
        return 0.25 * (misfit.square().sum(dim=(1, 2)) - self.images.shape[1])

    def posterior(self, prior_covariance: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean (n, r) and covariance (n, r, r) of z, by conditioning the joint Gaussian of z and the image."""
        gamma = self._prior(prior_covariance)
        cross = gamma @ self.loadings.transpose(1, 2)
        gain = torch.linalg.solve(self.covariance(prior_covariance), cross.transpose(1, 2)).transpose(1, 2)
        return (gain @ self.error[..., None])[..., 0], gamma - gain @ cross.transpose(1, 2)


DENSE_OBJECTIVES = {"ml": DenseModel.objective, "ls": DenseModel.squared_distance}


def principal_cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosines of the principal angles between the spans of two sets of volumes, descending."""
    bases = [torch.linalg.qr(volumes.flatten(1).double().T).Q for volumes in (first, second)]
    return torch.linalg.svdvals(bases[0].T @ bases[1])


def covariance_error(factors: Tensor, truth: Tensor) -> float:
    """Relative Frobenius distance between V V^T of two sets of factors, without forming it."""

    def inner(first: Tensor, second: Tensor) -> float:
        return float((first.flatten(1).double() @ second.flatten(1).double().T).square().sum())

    return ((inner(factors, factors) - 2 * inner(factors, truth) + inner(truth, truth)) / inner(truth, truth)) ** 0.5
