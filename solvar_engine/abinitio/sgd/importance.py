"""Importance sampling of poses, from what an image told of its pose when it was last seen (eqs. 9-14, algorithm 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.abinitio.sgd.quadrature import Quadrature, kernels

_KEPT = (256, 128, 128)  # values of each factor that are kept of an image, the largest: 2 kB in all
_LEAST_ALPHA, _LEAST_TEMPERATURE = 0.05, 1.25
_EPOCH = 50  # iterations
_MISSED = 0.2  # of the points, below which none are
_WORTH = 0.4  # of all poses; more of them, by the image, cost more than all, which images share
_EMPTY = -math.inf


@dataclass(frozen=True)
class Samples:
    """Points of one factor at which an image is looked at.

    Attributes
    ----------
    index : Tensor, shape (points,), int64
        Distinct.
    log_factor : Tensor, shape (points,), float64
        Logarithm of c / (N q): a point that was drawn c times of N, with probability q, stands for so many.
    """

    index: Tensor
    log_factor: Tensor

    @staticmethod
    def all_of(count: int) -> Samples:
        """Every point once: the full sum."""
        return Samples(torch.arange(count), torch.zeros(count, dtype=torch.float64))

    @staticmethod
    def drawn(distribution: Tensor, scale: float, generator: torch.Generator) -> Samples:
        """Draw from a distribution (points,), so many times ``scale`` as its effective sample size.

        Where nearly all points would be drawn, all are taken, once: the sum is exact then.
        """
        number = math.ceil(scale / float(distribution.square().sum()))
        missed = (-number * distribution).exp().mean()  # share of the points, expected
        if float(missed) < _MISSED:
            return Samples.all_of(len(distribution))
        draws = torch.multinomial(distribution, number, replacement=True, generator=generator)
        index, count = draws.unique(return_counts=True)
        return Samples(index, (count / (number * distribution[index])).log())


PoseSamples = tuple[Samples, Samples, Samples]
"""Of directions, angles and shifts."""


def annealing(iteration: int) -> tuple[float, float]:
    """Share of the uniform distribution, and exponent 1/T, at an iteration (section 3.3).

    Before iteration 50, where the paper's exponent of T divides by zero, all is uniform.

    Examples
    --------
    >>> annealing(49), annealing(100_000)
    ((1.0, 0.0), (0.05, 0.8))
    """
    epochs = iteration // _EPOCH
    if not epochs:
        return 1.0, 0.0
    alpha = max(_LEAST_ALPHA, 2 ** (-0.25 * epochs))
    return alpha, 1 / max(_LEAST_TEMPERATURE, 2 ** (10 / epochs))


def importance_distribution(marginal: Tensor, kernel: Tensor, alpha: float, exponent: float) -> Tensor:
    """Where to look for an image (eq. 14).

    Parameters
    ----------
    marginal : Tensor, shape (points before,), float64
        Zero where the image was not looked at.
    kernel : Tensor, shape (points before, points now), float64
    alpha : float
        Share of the uniform distribution.
    exponent : float
        1/T.

    Returns
    -------
    Tensor, shape (points now,), float64
        Sums to 1.
    """
    seen = marginal > 0
    smooth = marginal[seen].pow(exponent) @ kernel[seen]
    return (1 - alpha) * smooth / smooth.sum() + alpha / len(smooth)


class ImportanceSampler:
    """Chooses poses for images that come again and again.

    What is kept of an image are the largest marginal probabilities of each factor, as logarithms in half precision: 2
    kB of each image, 200 MB of 100,000. What was cut off is left to the uniform share.

    Parameters
    ----------
    count : int
        Images.
    scale : float
        Draws over the effective sample size, s0.
    generator : torch.Generator
    worth : float
        Share of the poses from which on all are taken.
    """

    def __init__(self, count: int, scale: float, generator: torch.Generator, worth: float = _WORTH) -> None:
        self._scale, self._generator, self._worth = scale, generator, worth
        self._index = [torch.zeros(count, kept, dtype=torch.int16) for kept in _KEPT]
        self._log_marginal = [torch.full((count, kept), _EMPTY, dtype=torch.float16) for kept in _KEPT]
        self._iteration = torch.full((count,), -1)
        self._quadrature: dict[int, Quadrature] = {}
        self._seen_at = torch.full((count,), -1)
        self._kernels: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}
        self._everything: PoseSamples

    def samples(self, rows: Tensor, quadrature: Quadrature, shell: int) -> list[PoseSamples]:
        """Poses at which images are to be looked at.

        Parameters
        ----------
        rows : Tensor, shape (n,), int64
            Which images.
        quadrature : Quadrature
            The one of this shell.
        shell : int
        """
        if self._quadrature.get(shell) is not quadrature:
            self._quadrature[shell] = quadrature
            first, second, third = (Samples.all_of(size) for size in quadrature.sizes)
            self._everything = first, second, third
        return [self._samples_of(row, quadrature, shell) for row in rows.tolist()]

    def keep(
        self,
        rows: Tensor,
        samples: Sequence[PoseSamples],
        log_marginals: Sequence[tuple[Tensor, Tensor, Tensor]],
        shell: int,
        iteration: int,
    ) -> None:
        """Keep what images told of their poses.

        Parameters
        ----------
        rows : Tensor, shape (n,), int64
        samples : sequence of n PoseSamples
        log_marginals : sequence of n times three Tensors
            Logarithms of the marginal probabilities of the samples.
        shell : int
            Of the quadrature.
        iteration : int
        """
        self._iteration[rows], self._seen_at[rows] = iteration, shell
        for row, of_image, values in zip(rows.tolist(), samples, log_marginals, strict=True):
            for factor, kept in enumerate(_KEPT):
                best, place = values[factor].topk(min(kept, len(values[factor])))
                self._log_marginal[factor][row] = _EMPTY
                self._log_marginal[factor][row, : len(best)] = (best - best[0]).half()
                self._index[factor][row, : len(best)] = of_image[factor].index[place].short()

    def _samples_of(self, row: int, quadrature: Quadrature, shell: int) -> PoseSamples:
        before = int(self._seen_at[row])
        alpha, exponent = annealing(int(self._iteration[row])) if before >= 0 else (1.0, 0.0)
        if alpha == 1:  # all points, which costs less than draws from the uniform distribution
            return self._everything
        if (before, shell) not in self._kernels:
            self._kernels = {pair: kernel for pair, kernel in self._kernels.items() if pair[1] == shell}
            self._kernels[before, shell] = kernels(self._quadrature[before], quadrature)
        first, second, third = (
            Samples.drawn(
                importance_distribution(self._marginal(row, factor, len(kernel)), kernel, alpha, exponent),
                self._scale,
                self._generator,
            )
            for factor, kernel in enumerate(self._kernels[before, shell])
        )
        poses = len(first.index) * len(second.index) * len(third.index)
        is_worth_it = poses < self._worth * math.prod(quadrature.sizes)
        return (first, second, third) if is_worth_it else self._everything

    def _marginal(self, row: int, factor: int, points: int) -> Tensor:
        values = self._log_marginal[factor][row].double().exp()
        return torch.zeros(points, dtype=torch.float64).index_add_(0, self._index[factor][row].long(), values)
