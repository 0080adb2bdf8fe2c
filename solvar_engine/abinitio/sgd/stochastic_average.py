"""Stochastic average gradient: steps along the sum of the last gradients of all batches (Schmidt, Le Roux & Bach 2013).

With the constants of "Building Proteins in a Day" (section 3.2, algorithm 1). As in its eq. 7 a step is the mean of the
gradients over the Lipschitz constant of one batch; the mean is that of the batches that have been seen.
"""

from __future__ import annotations

import math
import tempfile
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from solvar_engine.abinitio.sgd.priors import Prior

_LINE_SEARCH_EVERY = 20  # iterations
_DECAY = 2 ** (-1 / 150)
_HALVED_EVERY = 150  # iterations
_LEAST_RATE = 1 / 16
_IN_MEMORY_BYTES = 256 * 2**20
_MOST_HALVINGS = 60


class Objective(Protocol):
    """Minus the log-likelihood of one batch."""

    def value(self, volume: Tensor) -> float:
        """At a map (z, y, x)."""
        ...

    def value_and_gradient(self, volume: Tensor) -> tuple[float, Tensor]:
        """At a map (z, y, x)."""
        ...


class StoredGradients:
    """The last gradient of each batch, and their sum.

    They take 4 bytes a voxel and batch (7 MB for 3,000 images in batches of 200 at box 48); up to 256 MB are held in
    memory, more than that in a file of the temporary folder, which goes with the object.

    Parameters
    ----------
    batches : int
    like : Tensor, shape (z, y, x)
        Whose shape, type and device gradients have.
    in_memory_bytes : int
    """

    def __init__(self, batches: int, like: Tensor, in_memory_bytes: int = _IN_MEMORY_BYTES) -> None:
        shape = (batches, *like.shape)
        if batches * like.numel() * like.element_size() <= in_memory_bytes:
            self._kept = torch.zeros(shape, dtype=like.dtype)
        else:
            dtype = str(like.dtype).removeprefix("torch.")
            with tempfile.TemporaryFile() as file:  # the map keeps it open
                self._kept = torch.from_numpy(np.memmap(file, dtype=dtype, mode="w+", shape=shape))
        self.sum = torch.zeros_like(like)
        self._is_seen = torch.zeros(batches, dtype=torch.bool)

    @property
    def seen(self) -> int:
        """Batches that have a gradient."""
        return int(self._is_seen.sum())

    def replace(self, batch: int, gradient: Tensor) -> None:
        """Put a gradient in place of the last one of its batch."""
        self.sum += gradient - self._kept[batch].to(gradient)
        self._kept[batch] = gradient.cpu()
        self._is_seen[batch] = True

    def __len__(self) -> int:
        return len(self._kept)


def learning_rate(iteration: int) -> float:
    """Epsilon of section 3.2.

    Examples
    --------
    >>> learning_rate(0), learning_rate(150), learning_rate(5000)
    (2.0, 1.0, 0.0625)
    """
    return max(_LEAST_RATE, 2.0 ** (1 - iteration // _HALVED_EVERY))


class StochasticAverage:
    """A map on its way down.

    Parameters
    ----------
    volume : Tensor, shape (z, y, x)
        To start from.
    batches : int
    prior : Prior
    support : Tensor, shape (z, y, x)
        By which the map is multiplied after each step; negative values are set to zero too.

    Attributes
    ----------
    volume : Tensor, shape (z, y, x)
    lipschitz : float
        Constant L of the gradient of one batch; zero before the first step.
    iteration : int
        Steps that were taken.
    """

    def __init__(self, volume: Tensor, batches: int, prior: Prior, support: Tensor) -> None:
        self.volume, self.lipschitz, self.iteration = volume, 0.0, 0
        self._prior, self._support = prior, support
        self._gradients = StoredGradients(batches, volume)

    def step(self, batch: int, objective: Objective) -> float:
        """Take one step with a batch.

        Parameters
        ----------
        batch : int
            Its number.
        objective : Objective
            Of the batch.

        Returns
        -------
        float
            The objective before the step.
        """
        value, gradient = objective.value_and_gradient(self.volume)
        self._gradients.replace(batch, gradient)
        if self.iteration % _LINE_SEARCH_EVERY == 0:
            self.lipschitz = self._searched(objective, value, gradient)
        else:
            self.lipschitz *= _DECAY
        seen, batches = self._gradients.seen, len(self._gradients)
        # the prior belongs to all batches: those seen have their share of it
        down = self._gradients.sum / seen + self._prior.gradient(self.volume) / batches
        moved = self.volume - learning_rate(self.iteration) / self.lipschitz * down
        self.volume = moved.clamp_min(0) * self._support
        self.iteration += 1
        return value

    def _searched(self, objective: Objective, value: float, gradient: Tensor) -> float:
        """Line search: the constant, doubled until a step along the gradient of one batch gains what it promises."""
        squared = float(gradient.double().square().sum())
        if not squared:
            return self.lipschitz or 1.0

        def suffices(lipschitz: float) -> bool:
            gain = value - objective.value(self.volume - gradient / lipschitz)
            return gain >= squared / (2 * lipschitz)

        lipschitz = self.lipschitz
        if not lipschitz:  # from a step as long as the map, down to the smallest constant that suffices
            lipschitz = math.sqrt(squared) / max(float(self.volume.norm()), 1e-12)
            for _ in range(_MOST_HALVINGS):
                if not suffices(lipschitz / 2):
                    break
                lipschitz /= 2
        for _ in range(_MOST_HALVINGS):
            if suffices(lipschitz):
                break
            lipschitz *= 2
        return lipschitz
