"""Windowed multireference alignment: a periodic signal, shifted at random, of which a window is seen in noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.orbit_recovery.mixture import OrbitMixture


def shift_operators(length: int, window: int) -> Tensor:
    """Cyclic shift by l, then the first positions, for all l, shape (length, window, length), float64.

    Paul (2024, section 4.2) writes them between Fourier transforms, which are unitary and change no likelihood.
    """
    identity = torch.eye(length, dtype=torch.float64)
    return torch.stack([identity.roll(shift, 0)[:window] for shift in range(length)])


@dataclass(frozen=True)
class AlignmentInstance:
    """Observations with their truth.

    Attributes
    ----------
    problem : OrbitMixture
        Of signal and density.
    signal : Tensor, shape (length,)
    density : Tensor, shape (length,)
        Of the shifts.
    start : Tensor, shape (2 * length,)
        For solvers: an almost flat signal and a flat density.
    """

    problem: OrbitMixture
    signal: Tensor
    density: Tensor
    start: Tensor


def alignment_instance(
    length: int = 16, window: int = 12, count: int = 3000, sigma: float = 0.2, seed: int = 0
) -> AlignmentInstance:
    """Observations of a Gaussian pulse of norm 1, the shifts from two Gaussians (Paul 2024, section 4.5.1).

    The thesis gives no widths: here the pulse has 1.5 samples, the density 1.5 about 1/4 and, with 0.7 of the weight,
    about 11/16 of the length.
    """
    generator = torch.Generator().manual_seed(seed)
    position = torch.arange(length, dtype=torch.float64)

    def bump(centre: float) -> Tensor:
        return (-0.5 * ((position - centre) / 1.5).square()).exp()

    signal = bump(length / 2) / bump(length / 2).norm()
    density = bump(length / 4) + 0.7 * bump(11 * length / 16)
    density = density / density.sum()
    operators = shift_operators(length, window)
    shifts = torch.multinomial(density, count, replacement=True, generator=generator)
    noise = torch.randn(count, window, dtype=torch.float64, generator=generator)
    observations = torch.einsum("imd,d->im", operators[shifts], signal) + sigma * noise
    level = 1 / math.sqrt(length)
    rough = level + 0.2 * level * torch.randn(length, dtype=torch.float64, generator=generator)
    start = torch.cat((rough, torch.zeros(length, dtype=torch.float64)))
    return AlignmentInstance(OrbitMixture(observations, operators, sigma), signal, density, start)
