"""Stochastic EM on sufficient statistics."""

from __future__ import annotations

from torch import Tensor

from solvar_engine.solvers.base import Batches
from solvar_engine.solvers.fields import LatentSum


class OnlineEM:
    """Running means of the sufficient statistics of batches, maximised after each (Cappe & Moulines 2009, eq. 9).

    Parameters
    ----------
    problem : LatentSum
    start : Tensor, shape (d,)
    batch : int
    power : float
        The t-th batch has weight t^-power, between 1/2 and 1; zero forgets all others (Paul 2024, eq. 4.14).
    seed : int

    Attributes
    ----------
    point : Tensor, shape (d,)
    passes : float
        Over the sum, so far.
    """

    def __init__(self, problem: LatentSum, start: Tensor, batch: int, power: float = 0.6, seed: int = 0) -> None:
        self._problem, self._power, self._batch = problem, power, batch
        self._batches = Batches(problem.count, batch, seed)
        self._statistics: Tensor | None = None
        self._done = 0
        self.point = problem.canonical(start)

    @property
    def passes(self) -> float:
        """Over the sum, so far."""
        return self._done * self._batch / self._problem.count

    def step(self) -> None:
        """One batch."""
        _, current = self._problem.expectation(self.point, self._batches.draw())
        self._done += 1
        weight = self._done**-self._power
        old = current if self._statistics is None else self._statistics
        self._statistics = old + weight * (current - old)
        self.point = self._problem.maximise(self._statistics)
