"""Stochastic solvers whose variance falls: SVRG, SVRG+I, SVRG+II, and of EM sEM-vr and sEM-vr+QN."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.solvers.base import Batches, Solver, is_no_worse
from solvar_engine.solvers.fields import Field
from solvar_engine.solvers.metrics import Identity, Metric


class VarianceReduction(Solver):
    """Batches corrected by the field of all terms at a snapshot (Paul 2024, algorithms 1-5).

    In iteration t of an epoch, g = g_I(w_t) - g_I(snapshot) + g(snapshot) and w_{t+1} = w_t - eta H g; the next
    snapshot is the mean of the epoch's points (VR-SGD, Shang et al. 2018). Which of the algorithms it is depends on
    field and metric; (4.16) is that of w - Psi(w). In (4.7) the snapshot is that of the epoch before, as in the
    algorithms. An iteration evaluates its batch twice: an epoch is 1 + 2 m b / n passes, which the thesis counts as
    1 + m b / n.

    Parameters
    ----------
    field, start
        See `Solver`.
    rate : float
        eta; it need not decay.
    iterations : int
        m, of an epoch.
    batch : int
        b.
    metric : Metric, optional
        H (default: none). With one, an epoch that ends at a larger value, which its snapshot tells at no cost, is
        undone, the metric forgotten and the rate halved.
    seed : int
    """

    def __init__(
        self,
        field: Field,
        start: Tensor,
        rate: float,
        iterations: int,
        batch: int,
        metric: Metric | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(field, start)
        self._rate, self._iterations = rate, iterations
        self._metric, self._safeguarded = metric or Identity(), metric is not None
        self._batches = Batches(field.count, batch, seed)
        self._known: tuple[float, Tensor] | None = None

    def step(self) -> None:
        """One epoch."""
        value, field = self._known or self._field(self.point)
        self._metric.renew(self.point, field)
        point, mean = self.point, torch.zeros_like(self.point)
        for _ in range(self._iterations):
            rows = self._batches.draw()
            reduced = self._field(point, rows)[1] - self._field(self.point, rows)[1] + field
            point = self._field.canonical(point - self._rate * self._metric.direction(reduced))
            mean += point / self._iterations
        mean = self._field.canonical(mean)
        at_mean = self._field(mean)
        if not self._safeguarded or is_no_worse(at_mean[0], value):
            self.point, self._known = mean, at_mean
        else:
            self._known = value, field
            self._metric.forget()
            self._rate /= 2
