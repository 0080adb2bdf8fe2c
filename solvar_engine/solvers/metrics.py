"""What turns a field into a direction, from what is known at the snapshots of an epoch."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import torch
from torch import Tensor

from solvar_engine.solvers.base import Batches, limited
from solvar_engine.solvers.fields import CurvedField

_LEAST_CURVATURE = 1e-3  # of a pair, over that of two parallel vectors


class Metric(Protocol):
    """An estimate of the inverse Hessian."""

    def renew(self, point: Tensor, field: Tensor) -> None:
        """Learn from a snapshot and the field of all terms there."""

    def forget(self) -> None:
        """Begin anew."""

    def direction(self, field: Tensor) -> Tensor:
        """Product of the estimate and a field."""


class Identity:
    """No metric: SVRG and sEM-vr."""

    def renew(self, point: Tensor, field: Tensor) -> None:
        """Nothing to learn."""

    def forget(self) -> None:
        """Nothing to forget."""

    def direction(self, field: Tensor) -> Tensor:
        """The field itself."""
        return field


class ThresholdedHessian:
    """Hessian of some terms, small singular values raised to the one after the r-th (Paul 2024, eq. 4.8): SVRG+I.

    In (4.8) the last fraction is (1 / sigma_{r+1}) I. A Hessian that is not definite has negative eigenvalues, whose
    sizes are its singular values: their absolute values make the direction one of descent.

    Parameters
    ----------
    field : CurvedField
        Shared with the solver, whose passes count the Hessians, too.
    rank : int
        r; less than the dimension.
    batch : int
        Terms of the Hessian.
    seed : int
    """

    def __init__(self, field: CurvedField, rank: int, batch: int, seed: int = 0) -> None:
        self._field, self._rank = field, rank
        self._batches = Batches(field.count, batch, seed)

    def renew(self, point: Tensor, field: Tensor) -> None:
        """Hessian at the snapshot."""
        values, self._vectors = torch.linalg.eigh(self._field.hessian(point, self._batches.draw()))
        sizes = values.abs()
        self._inverse = 1 / sizes.clamp_min(float(sizes.sort(descending=True).values[self._rank]))

    def forget(self) -> None:
        """Nothing to forget: each snapshot has a Hessian of its own."""

    def direction(self, field: Tensor) -> Tensor:
        """Inverse of the thresholded Hessian times a field."""
        return self._vectors @ (self._inverse * (self._vectors.T @ field))


class LimitedMemory:
    """L-BFGS from pairs of differences of points and of fields there (Paul 2024, eq. 4.9-4.10): SVRG+II, sEM-vr+QN.

    With w - Psi(w) for a field this accelerates EM (Jamshidian & Jennrich 1997). Algorithm 5 as
    printed takes the differences of Psi(w) instead: of slow directions, along which Psi(w) moves as w does, they say
    that a step of EM is long enough.

    Parameters
    ----------
    scale : float
        H_0 = scale I: one for w - Psi(w), which is nearly as long as a Newton step.
    memory : int
        Pairs; with as many as there are snapshots, (4.10) is exact.
    longest : float
        Bound of the length of a direction over scale times that of the field.
    """

    def __init__(self, scale: float = 1.0, memory: int = 10, longest: float = 30.0) -> None:
        self._scale, self._longest = scale, longest
        self._pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=memory)
        self._last: tuple[Tensor, Tensor] | None = None

    def renew(self, point: Tensor, field: Tensor) -> None:
        """Keep a pair, if its curvature is positive and more than rounding makes it."""
        if self._last is not None:
            moved, changed = point - self._last[0], field - self._last[1]
            if moved @ changed > _LEAST_CURVATURE * moved.norm() * changed.norm():
                self._pairs.append((moved, changed))
        self._last = point, field

    def forget(self) -> None:
        """Begin anew."""
        self._pairs.clear()
        self._last = None

    def direction(self, field: Tensor) -> Tensor:
        """Estimate times a field by the recursion of two loops (Nocedal & Wright 2006, algorithm 7.4)."""
        direction, weights = field, []
        for moved, changed in reversed(self._pairs):
            weights.append((moved @ direction) / (moved @ changed))
            direction = direction - weights[-1] * changed
        direction = self._scale * direction
        for (moved, changed), weight in zip(self._pairs, reversed(weights), strict=True):
            direction = direction + (weight - (changed @ direction) / (moved @ changed)) * moved
        return limited(direction, field, self._scale * self._longest)
