"""SQUAREM: two steps of EM, extrapolated."""

from __future__ import annotations

import math

from torch import Tensor

from solvar_engine.solvers.base import Solver, is_no_worse
from solvar_engine.solvers.fields import Field


class Squarem(Solver):
    """Squared extrapolation of a fixed-point iteration (Varadhan & Roland 2008, scheme S3).

    r = Psi(w) - w, v = Psi(Psi(w)) - Psi(w) - r, alpha = -|r| / |v|, at most -1, where it is plain EM; then
    w - 2 alpha r + alpha^2 v, or two steps of EM if that is worse. The evaluation that tells is the first one of
    the next iteration, so that one takes two passes, and one more if the extrapolation is rejected.

    Parameters
    ----------
    field : Field
        w - Psi(w).
    start : Tensor, shape (d,)

    Attributes
    ----------
    value : float
        At the point, once there has been a step; the last evaluation of the field was there.
    """

    def __init__(self, field: Field, start: Tensor) -> None:
        super().__init__(field, start)
        self._known: tuple[float, Tensor] | None = None
        self.value = math.inf

    def step(self) -> None:
        """One iteration."""
        first = self._known or self._field(self.point)
        once = self.point - first[1]
        value, second = self._field(once)
        change = first[1] - second
        length = max(1.0, float(first[1].norm() / change.norm().clamp_min(1e-300)))
        candidate = self._field.canonical(self.point - 2 * length * first[1] + length**2 * change)
        self._known = self._field(candidate)
        if not is_no_worse(self._known[0], value):
            candidate = once - second
            self._known = self._field(candidate)
        self.point, self.value = candidate, self._known[0]
