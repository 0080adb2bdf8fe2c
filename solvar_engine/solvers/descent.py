"""First-order solvers: gradient descent and EM, with all terms or with batches."""

from __future__ import annotations

from torch import Tensor

from solvar_engine.solvers.base import Batches, Solver
from solvar_engine.solvers.fields import Field


class Descent(Solver):
    """w <- w - eta g(w): gradient descent (Paul 2024, eq. 4.5), or EM where g(w) = w - Psi(w) and eta = 1 (4.13).

    Parameters
    ----------
    field, start
        See `Solver`.
    rate : float
        eta.
    """

    def __init__(self, field: Field, start: Tensor, rate: float = 1.0) -> None:
        super().__init__(field, start)
        self._rate = rate

    def step(self) -> None:
        """One pass."""
        self.point = self._field.canonical(self.point - self._rate * self._field(self.point)[1])


class StochasticDescent(Solver):
    """The same with a batch at a time and decaying steps: SGD (Paul 2024, eq. 4.6), or stochastic EM (4.14).

    Parameters
    ----------
    field, start
        See `Solver`.
    rate : float
        Of the first step; that of step t is rate / (1 + t / decay), with which SGD converges as 1/t.
    decay : float
        Steps until the rate has halved.
    batch : int
    seed : int
    """

    def __init__(self, field: Field, start: Tensor, rate: float, decay: float, batch: int, seed: int = 0) -> None:
        super().__init__(field, start)
        self._rate, self._decay = rate, decay
        self._batches = Batches(field.count, batch, seed)
        self._done = 0

    def step(self) -> None:
        """One batch."""
        rate = self._rate / (1 + self._done / self._decay)
        self.point = self._field.canonical(self.point - rate * self._field(self.point, self._batches.draw())[1])
        self._done += 1
