"""Quasi-Newton acceleration of EM on all terms."""

from __future__ import annotations

from torch import Tensor

from solvar_engine.solvers.base import Solver, is_no_worse
from solvar_engine.solvers.fields import Field
from solvar_engine.solvers.metrics import LimitedMemory


class QuasiNewtonEM(Solver):
    """L-BFGS on w - Psi(w) (Jamshidian & Jennrich 1997, QN1, with limited memory), safeguarded by steps of EM.

    A step that makes the value larger is undone: the pairs are forgotten, and a step of EM is taken.

    Parameters
    ----------
    field : Field
        w - Psi(w).
    start : Tensor, shape (d,)
    memory : int
        Pairs.
    longest : float
        Bound of a step, in steps of EM.
    """

    def __init__(self, field: Field, start: Tensor, memory: int = 10, longest: float = 30.0) -> None:
        super().__init__(field, start)
        self._metric = LimitedMemory(memory=memory, longest=longest)
        self._known: tuple[float, Tensor] | None = None

    def step(self) -> None:
        """One pass; two if a step is undone."""
        value, residual = self._known or self._field(self.point)
        self._metric.renew(self.point, residual)
        candidate = self._field.canonical(self.point - self._metric.direction(residual))
        self._known = self._field(candidate)
        if not is_no_worse(self._known[0], value):
            self._metric.forget()
            self._metric.renew(self.point, residual)
            candidate = self._field.canonical(self.point - residual)
            self._known = self._field(candidate)
        self.point = candidate
