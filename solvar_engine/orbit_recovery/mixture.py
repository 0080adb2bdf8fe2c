"""Noisy observations of an unknown at random group elements: likelihood, gradient, Hessian and step of EM."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_CHUNK = 256  # observations at a time
_RIDGE = 1e-9  # of the normal equations of a batch that does not show all of the unknown
_LEAST_SHARE = 1e-12  # of the density, whose logarithm would be infinite


class OrbitMixture:
    """f_i(w) = -log sum_l exp(log rho_l - |A_l x - y_i|^2 / (2 sigma^2)), real (Paul 2024, eq. 4.18 and 4.25).

    The point w is x, followed by rho~ with rho = softmax(rho~) if the density is unknown. It offers what
    `solvers.fields` asks of a `CurvedSum` and a `LatentSum`. Statistics are, of each l, the mean posterior weight, and
    the mean over i of sum_l weight A_l^T y_i.

    Parameters
    ----------
    observations : Tensor, shape (n, m), float64
    operators : Tensor, shape (l, m, d), float64
        A_l: the group element, then what is observed of the result.
    sigma : float
        Of the noise.
    density : Tensor, shape (l,), optional
        rho, if it is known.
    """

    def __init__(
        self, observations: Tensor, operators: Tensor, sigma: float, density: Tensor | None = None
    ) -> None:
        self._observations, self._operators, self._variance = observations, operators, sigma**2
        self._square = observations.square().sum(dim=1)
        self._rows = operators.flatten(0, 1)  # a view: products of all operators without a copy of them
        self._normal = operators.mT @ operators
        self._log_density = None if density is None else density.log()

    @property
    def count(self) -> int:
        """Observations."""
        return len(self._observations)

    @property
    def positions(self) -> int:
        """Group elements."""
        return len(self._operators)

    @property
    def dimension(self) -> int:
        """Of the unknown x."""
        return self._operators.shape[2]

    def canonical(self, point: Tensor) -> Tensor:
        """Point with log rho in place of rho~, which is free up to a constant."""
        unknown, density = point[: self.dimension], point[self.dimension :]
        return torch.cat((unknown, density.log_softmax(0)))

    def value_and_gradient(self, point: Tensor, rows: Tensor | None = None) -> tuple[float, Tensor]:
        """Mean f_i of the rows (default: all) and its gradient, in closed form.

        The gradient by rho~ is softmax(rho~) less the mean posterior weights; the thesis has rho~ itself for the
        softmax, and the other sign.
        """
        value, statistics = self.expectation(point, rows)
        weight, projected = statistics[: self.positions], statistics[self.positions :]
        unknown = point[: self.dimension]
        gradient = (self._normal_matrix(weight) @ unknown - projected) / self._variance
        if self._log_density is not None:
            return value, gradient
        return value, torch.cat((gradient, self._log_rho(point).exp() - weight))

    def expectation(self, point: Tensor, rows: Tensor | None = None) -> tuple[float, Tensor]:
        """Mean f_i of the rows (default: all) and of their sufficient statistics, shape (l + d,)."""
        value = 0.0
        weight = torch.zeros(self.positions, dtype=torch.float64)
        images = torch.zeros(self._operators.shape[:2], dtype=torch.float64)
        for observed, posterior, log_sum in self._posteriors(point, rows):
            value -= float(log_sum.sum())
            weight += posterior.sum(dim=0)
            images += posterior.T @ observed
        count = self.count if rows is None else len(rows)
        projected = self._rows.T @ images.flatten()
        return value / count, torch.cat((weight, projected)) / count

    def maximise(self, statistics: Tensor) -> Tensor:
        """The point of the M-step (Paul 2024, after eq. 4.20)."""
        weight, projected = statistics[: self.positions], statistics[self.positions :]
        normal = self._normal_matrix(weight)
        normal = normal + _RIDGE * normal.diagonal().mean() * torch.eye(self.dimension, dtype=torch.float64)
        unknown = torch.linalg.solve(normal, projected)
        if self._log_density is not None:
            return unknown
        return self.canonical(torch.cat((unknown, weight.clamp_min(_LEAST_SHARE).log())))

    def hessian(self, point: Tensor, rows: Tensor | None = None) -> Tensor:
        """Mean Hessian of f_i over the rows: of minus log sum exp(a_l), -E[a_l''] - Cov[a_l'], under the posterior."""
        unknown, known = point[: self.dimension], self._log_density is not None
        size = self.dimension + (0 if known else self.positions)
        predicted = (self._normal @ unknown) / self._variance
        hessian = torch.zeros(size, size, dtype=torch.float64)
        weight = torch.zeros(self.positions, dtype=torch.float64)
        # of log rho_l by rho~
        slopes = torch.eye(self.positions, dtype=torch.float64) - self._log_rho(point).exp()
        for observed, posterior, _ in self._posteriors(point, rows):
            derivative = torch.einsum("lmd,im->ild", self._operators, observed) / self._variance - predicted
            if not known:
                derivative = torch.cat((derivative, slopes.expand(len(observed), -1, -1)), dim=2)
            mean = torch.einsum("il,ild->id", posterior, derivative)
            hessian += mean.T @ mean - torch.einsum("ild,il,ile->de", derivative, posterior, derivative)
            weight += posterior.sum(dim=0)
        count = self.count if rows is None else len(rows)
        hessian /= count
        hessian[: self.dimension, : self.dimension] += self._normal_matrix(weight / count) / self._variance
        if not known:
            rho = self._log_rho(point).exp()
            hessian[self.dimension :, self.dimension :] += rho.diag() - rho[:, None] * rho
        return hessian

    def steepest(self, point: Tensor) -> float:
        """A bound of the curvature of the terms along x: the step 1 / bound never makes the mean larger there."""
        _, statistics = self.expectation(point)
        return float(torch.linalg.eigvalsh(self._normal_matrix(statistics[: self.positions]))[-1]) / self._variance

    def _log_rho(self, point: Tensor) -> Tensor:
        return point[self.dimension :].log_softmax(0) if self._log_density is None else self._log_density

    def _normal_matrix(self, weight: Tensor) -> Tensor:
        return (weight @ self._normal.flatten(1)).unflatten(0, (self.dimension, self.dimension))

    def _posteriors(self, point: Tensor, rows: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Chunks of rows: observations (b, m), posterior weights (b, l) (eq. 4.20), log of their sum before (b,)."""
        images = (self._rows @ point[: self.dimension]).unflatten(0, self._operators.shape[:2])
        constant = self._log_rho(point) - images.square().sum(dim=1) / (2 * self._variance)
        scaled = images.T / self._variance
        observations = self._observations if rows is None else self._observations[rows]
        squares = self._square if rows is None else self._square[rows]
        for observed, square in zip(observations.split(_CHUNK), squares.split(_CHUNK), strict=True):
            logits = torch.addmm(constant, observed, scaled)
            largest = logits.amax(dim=1, keepdim=True)
            posterior = logits.sub_(largest).exp_()
            total = posterior.sum(dim=1, keepdim=True)
            yield observed, posterior.div_(total), (largest + total.log())[:, 0] - square / (2 * self._variance)
