"""Two ways to improve a map by images at poses: running normal equations, and descent on Hartley numbers."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import LowImages
from solvar_engine.abinitio.online_em import finished, running
from solvar_engine.abinitio.semi_amortized.hartley import HartleyVolume, read_slices
from solvar_engine.abinitio.semi_amortized.problem import Problem
from solvar_engine.reconstruction.normal_equations import (
    NormalEquations,
    normal_equations,
    rotations_of_group,
    solve,
)

_ITERATIONS = 6  # of conjugate gradients
_NEGLIGIBLE = 1e-3  # weight of a pose


class ImprovableMap(Protocol):
    """A map that images make better, batch by batch."""

    def grid(self) -> Tensor:
        """As projectors slice it, (z, y, x >= 0, 1), complex, without gradients."""
        ...

    def volume(self) -> Tensor:
        """Map (z, y, x)."""
        ...

    def improve(self, images: LowImages, rotation: Tensor, shift_px: Tensor, weight: Tensor) -> None:
        """Use images at M poses each: rotations (n, M, 3, 3), shifts (n, M, 2), and their weights (n, M)."""
        ...


class RunningMap:
    """Map from normal equations, of which each batch is a share: no step size, and a prior from the images' power.

    Parameters
    ----------
    problem : Problem
    start : Tensor, shape (z, y, x)
        Forgotten at the first improvement.
    memory : float
        Weight of a batch.
    """

    def __init__(self, problem: Problem, start: Tensor, memory: float) -> None:
        self._problem, self._volume, self._memory = problem, start, memory
        self._grid = problem.projector.to_grid(start[None])
        self._normal: NormalEquations | None = None

    def grid(self) -> Tensor:
        """See :meth:`ImprovableMap.grid`."""
        return self._grid

    def volume(self) -> Tensor:
        """See :meth:`ImprovableMap.volume`."""
        return self._volume

    def improve(self, images: LowImages, rotation: Tensor, shift_px: Tensor, weight: Tensor) -> None:
        """See :meth:`ImprovableMap.improve`."""
        problem = self._problem
        sums = problem.projector.convolution_sums()
        hermitian = images.disk.weight * images.ctf
        for number in range(rotation.shape[1]):
            rows = torch.nonzero(weight[:, number] > _NEGLIGIBLE).flatten()
            share = weight[rows, number, None]
            slices = problem.moved(images.images[rows], shift_px[rows, number]) * hermitian[rows] * share
            power = (images.ctf[rows] * hermitian[rows] * share).to(slices.dtype)
            for turned in rotations_of_group(rotation[rows, number].contiguous(), problem.operators):
                sums.add(slices, power, turned)
        now = normal_equations(sums, len(self._volume), images.disk.shell_max)
        self._normal = now = running(self._normal, now, self._memory)
        self._volume = finished(solve(now, problem.precision.to(now.right_side), iterations=_ITERATIONS))
        self._grid = problem.projector.to_grid(self._volume[None])


class HartleyMap:
    """Map whose Hartley numbers go down the loss by Adam, as in the paper.

    Parameters
    ----------
    problem : Problem
    start : Tensor, shape (z, y, x)
    rate : float
        Of Adam.
    """

    def __init__(self, problem: Problem, start: Tensor, rate: float) -> None:
        self._problem = problem
        self.numbers = HartleyVolume.of(start, problem.geometry)
        self._optimizer = torch.optim.Adam(self.numbers.parameters(), lr=rate)

    def grid(self) -> Tensor:
        """See :meth:`ImprovableMap.grid`."""
        with torch.no_grad():
            return self.numbers.grid()

    def volume(self) -> Tensor:
        """See :meth:`ImprovableMap.volume`."""
        with torch.no_grad():
            return self.numbers.volume()

    def improve(self, images: LowImages, rotation: Tensor, shift_px: Tensor, weight: Tensor) -> None:
        """See :meth:`ImprovableMap.improve`."""
        problem, grid = self._problem, self.numbers.grid()
        loss = torch.zeros((), device=grid.device)
        for number in range(rotation.shape[1]):
            rows = torch.nonzero(weight[:, number] > _NEGLIGIBLE).flatten()
            slices = read_slices(grid, problem.geometry, images.disk, rotation[rows, number]) * images.ctf[rows]
            centred = problem.moved(images.images[rows], shift_px[rows, number])
            loss = loss - (weight[rows, number] * problem.log_likelihood(slices, centred)).sum()
        self._optimizer.zero_grad()
        (loss / len(images)).backward()
        self._optimizer.step()
