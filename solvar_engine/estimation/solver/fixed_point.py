"""The preconditioned step of all images as one of EM, for the solvers that accelerate EM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.contrast import contrast_variance
from solvar_engine.estimation.model.expectation import expectation_pass
from solvar_engine.estimation.model.objectives import Objective
from solvar_engine.estimation.model.penalties import WeightedPrior
from solvar_engine.estimation.solver.epochs import Factors
from solvar_engine.estimation.solver.preconditioner import Preconditioner, preconditioned_step
from solvar_engine.imaging.fourier import ft_to_volume, volume_to_ft
from solvar_engine.imaging.types import BatchSource
from solvar_engine.solvers.fields import Field


@dataclass(frozen=True)
class FactorSum:
    """What stays fixed while factors are fitted to all images; see `epochs.run_epoch`."""

    source: BatchSource
    index: Tensor
    band: Band
    preconditioner: Preconditioner
    precision: Tensor
    objective: Objective


class FactorField(Field):
    """V - Psi(V), Psi(V) = V less its preconditioned step; points are factors (r, z, y, x) in one row, float64.

    The value is the mean of the objective, with a quarter of V^T W V for the prior of weight W. Its gradient is that of
    the steps, W V, where W grows with the square of the factors: for least squares, and where images know little of a
    component. Elsewhere it is near that, and good enough to tell whether an extrapolation has gone too far.

    Parameters
    ----------
    problem : FactorSum

    Attributes
    ----------
    factors : Factors
        Of the last evaluation, with what the images say under them.
    """

    def __init__(self, problem: FactorSum) -> None:
        super().__init__(len(problem.index))
        self._problem = problem
        self.factors: Factors

    def _evaluate(self, point: Tensor, rows: Tensor | None) -> tuple[float, Tensor]:
        this, box_size = self._problem, self._problem.preconditioner.box_size
        volumes = this.source.world.agreed(point.reshape(-1, box_size, box_size, box_size).float())
        index = this.index if rows is None else this.index[rows]
        found = expectation_pass(this.source, index, this.band, volumes, this.objective)
        information, second_moment = found.information / found.count, found.second_moment / found.count
        penalty = WeightedPrior(this.precision, box_size, information)
        step = preconditioned_step(
            this.preconditioner,
            volumes,
            found.gradient * (self.count / found.count),
            this.objective.curvature(information, second_moment),
            penalty,
        )
        pulled = ft_to_volume(penalty.gradient(volume_to_ft(volumes)), box_size)
        held = 0.25 * float(torch.sum(volumes.double() * pulled.double()))
        self.factors = Factors(volumes, second_moment, contrast_variance(found.contrast))
        return found.objective / found.count + held / self.count, step.double().flatten()

    def canonical(self, point: Tensor) -> Tensor:
        """The point in the precision in which states are saved: a fit that is resumed goes on from the same one."""
        return point.float().double()
