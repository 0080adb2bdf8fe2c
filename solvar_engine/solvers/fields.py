"""What a solver brings to zero: the gradient of a sum, or w - Psi(w), Psi being a step of EM."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor


class FiniteSum(Protocol):
    """F(w) = 1/n sum_i f_i(w). Points and gradients have shape (d,); ``rows`` are indices i, all without them."""

    @property
    def count(self) -> int:
        """Terms n."""

    def value_and_gradient(self, point: Tensor, rows: Tensor | None = None) -> tuple[float, Tensor]:
        """Mean over the rows."""

    def canonical(self, point: Tensor) -> Tensor:
        """The one of all points of equal terms that a solver goes on from."""


class CurvedSum(FiniteSum, Protocol):
    """A sum with second derivatives."""

    def hessian(self, point: Tensor, rows: Tensor | None = None) -> Tensor:
        """Mean over the rows, shape (d, d)."""


class LatentSum(FiniteSum, Protocol):
    """Negative log-likelihoods with latent variables: the means of sufficient statistics give a step of EM."""

    def expectation(self, point: Tensor, rows: Tensor | None = None) -> tuple[float, Tensor]:
        """Mean of the terms and of the expected sufficient statistics, shape (k,): the E-step."""

    def maximise(self, statistics: Tensor) -> Tensor:
        """The point that makes statistics most likely: the M-step."""


class Field(ABC):
    """A vector field on points, the mean of one for each term.

    Attributes
    ----------
    count : int
        Terms of the sum.
    passes : float
        Over the sum, so far: an evaluation of b terms costs b / n.
    """

    def __init__(self, count: int) -> None:
        self.count, self.passes = count, 0.0

    def __call__(self, point: Tensor, rows: Tensor | None = None) -> tuple[float, Tensor]:
        """Mean value of the terms, and the field, shape (d,); of some rows or all."""
        self.passes += 1.0 if rows is None else len(rows) / self.count
        return self._evaluate(point, rows)

    @abstractmethod
    def _evaluate(self, point: Tensor, rows: Tensor | None) -> tuple[float, Tensor]: ...

    @abstractmethod
    def canonical(self, point: Tensor) -> Tensor:
        """See `FiniteSum.canonical`."""


class GradientField(Field):
    """The gradient."""

    def __init__(self, problem: FiniteSum) -> None:
        super().__init__(problem.count)
        self._problem = problem

    def _evaluate(self, point: Tensor, rows: Tensor | None) -> tuple[float, Tensor]:
        return self._problem.value_and_gradient(point, rows)

    def canonical(self, point: Tensor) -> Tensor:
        """See `FiniteSum.canonical`."""
        return self._problem.canonical(point)


class CurvedField(GradientField):
    """The gradient of a sum with second derivatives."""

    def __init__(self, problem: CurvedSum) -> None:
        super().__init__(problem)
        self._curved = problem

    def hessian(self, point: Tensor, rows: Tensor) -> Tensor:
        """Mean over the rows, shape (d, d); it costs as much as d gradients (Paul 2024, section 4.5.1)."""
        self.passes += len(point) * len(rows) / self.count
        return self._curved.hessian(point, rows)


class ResidualField(Field):
    """w - Psi(w): minus the step of EM, which takes the place of a gradient (Paul 2024, section 4.4.2)."""

    def __init__(self, problem: LatentSum) -> None:
        super().__init__(problem.count)
        self._problem = problem

    def _evaluate(self, point: Tensor, rows: Tensor | None) -> tuple[float, Tensor]:
        value, statistics = self._problem.expectation(point, rows)
        return value, point - self._problem.maximise(statistics)

    def canonical(self, point: Tensor) -> Tensor:
        """See `FiniteSum.canonical`."""
        return self._problem.canonical(point)
