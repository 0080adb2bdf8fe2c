"""A network from moments to signal and density of shifts, and what is done with it: training, and fits of its weights.

As figure 2.1 and appendix A of Paul (2024); its widths, which the figure has, are our own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from solvar_engine.abinitio.moments.alignment import (
    aligned_error,
    gaussian_mixtures,
    moment_errors,
    moments_of_signal,
)

_WINDOW, _CHANNELS, _LEAVING, _HIDDEN = 5, 32, 3, 256
_LEAKY = 0.02


class Encoder(nn.Module):
    """A network that can be made anew from its settings, the arguments of its class."""

    settings: dict[str, object]

    @staticmethod
    def _convolution(entering: int, leaving: int) -> nn.Conv1d:
        """Along a circle."""
        return nn.Conv1d(entering, leaving, _WINDOW, padding="same", padding_mode="circular")


AnyEncoder = TypeVar("AnyEncoder", bound=Encoder)


class MomentEncoder(Encoder):
    """Convolutions over the frequencies of each moment, whose results are stacked, then fully connected layers.

    The second moment enters by its diagonals: entries of the same difference of frequencies are one channel, so that
    one window sees what belongs together.

    Parameters
    ----------
    points : int
        n.
    is_density : bool
        Whether results are positive and have the sum one.
    """

    def __init__(self, points: int, is_density: bool) -> None:
        super().__init__()
        self.points, self.is_density = points, is_density
        self.settings = {"points": points, "is_density": is_density}
        self.of_first, self.of_second = self._branch(2), self._branch(2 * points)
        self.together = nn.Sequential(
            self._convolution(2 * _LEAVING, _CHANNELS), nn.LeakyReLU(_LEAKY),
            self._convolution(_CHANNELS, _CHANNELS), nn.LeakyReLU(_LEAKY), nn.Flatten(),
            nn.Linear(_CHANNELS * points, _HIDDEN), nn.LeakyReLU(_LEAKY),
            nn.Linear(_HIDDEN, _HIDDEN), nn.LeakyReLU(_LEAKY), nn.Linear(_HIDDEN, points),
        )  # fmt: skip

    def _branch(self, entering: int) -> nn.Sequential:
        return nn.Sequential(
            self._convolution(entering, _CHANNELS), nn.LeakyReLU(_LEAKY),
            self._convolution(_CHANNELS, _CHANNELS), nn.LeakyReLU(_LEAKY),
            self._convolution(_CHANNELS, _LEAVING), nn.Tanh(),
        )  # fmt: skip

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Signals or densities (count, n) of moments (count, n) and (count, n, n), complex."""
        step = torch.arange(self.points)
        diagonals = second[:, step, (step - step[:, None]) % self.points]  # (count, difference, frequency)
        entering = torch.stack((first.real, first.imag), dim=1), torch.cat((diagonals.real, diagonals.imag), dim=1)
        stacked = torch.cat((self.of_first(entering[0].float()), self.of_second(entering[1].float())), dim=1)
        found = self.together(stacked)
        return torch.softmax(found, dim=1) if self.is_density else found


def random_pairs(
    count: int, gaussians: int, points: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Signals of unit norm, densities, and their moments: mixtures of so many normal densities each."""
    signal = gaussian_mixtures(count, gaussians, points, generator)
    signal = signal / signal.norm(dim=1, keepdim=True)
    density = gaussian_mixtures(count, gaussians, points, generator).float()
    return signal.float(), density, *moments_of_signal(signal.float(), density)


def trained(
    encoder: MomentEncoder, gaussians: int, generator: torch.Generator, pairs: int, batch_size: int, rate: float
) -> Iterator[float]:
    """Train on pairs that are made on the fly, each seen once, and yield the mean error of each batch.

    The rate falls to nought along a cosine.

    Parameters
    ----------
    encoder : MomentEncoder
        Changed in place.
    gaussians : int
        Of the mixtures.
    generator : torch.Generator
    pairs, batch_size : int
    rate : float
        Of Adam.
    """
    optimizer = torch.optim.Adam(encoder.parameters(), lr=rate)
    steps = pairs // batch_size
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        signal, density, first, second = random_pairs(batch_size, gaussians, encoder.points, generator)
        wanted = density if encoder.is_density else signal
        error = aligned_error(encoder(first, second), wanted).mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        schedule.step()
        yield float(error.detach())


def fitted(
    of_signal: MomentEncoder, of_density: MomentEncoder, first: Tensor, second: Tensor, iterations: int, rate: float
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Fit the weights of both networks to moments of one signal (equation 2.15, relative errors of both moments).

    Yields
    ------
    error : float
        Sum of the relative errors of both moments.
    signal, density : Tensor, shape (n,)
        Before each step; the first signal is moved to where its moments fit best.
    """
    moments = first[None], second[None]
    points = of_signal.points
    weights = [*of_signal.parameters(), *of_density.parameters()]
    optimizer = torch.optim.Adam(weights, lr=rate)
    with torch.no_grad():
        signal, density = of_signal(*moments)[0].double(), of_density(*moments)[0].double()
        moved = torch.stack([signal.roll(shift) for shift in range(points)])
        of_first, of_second = moment_errors(moved, density.expand_as(moved), *moments)
        shift = int((of_first + of_second).argmin())
    for _ in range(iterations):
        signal = of_signal(*moments)[0].double().roll(shift)
        density = of_density(*moments)[0].double()
        of_first, of_second = moment_errors(signal, density, first, second)
        error = of_first + of_second
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        yield float(error.detach()), signal.detach(), density.detach()


def save_encoder(encoder: Encoder, path: Path, training: dict[str, object]) -> None:
    """Write weights, and how they were trained, as safetensors."""
    record = {"settings": encoder.settings, "training": training}
    save_file(encoder.state_dict(), path, {type(encoder).__name__: json.dumps(record)})


def load_encoder(path: Path, kind: type[AnyEncoder]) -> tuple[AnyEncoder, dict[str, object]]:
    """Read weights of a kind of encoder, and how they were trained.

    Raises
    ------
    ValueError
        If the file is of something else.
    """
    with safe_open(path, framework="pt") as opened:
        record = (opened.metadata() or {}).get(kind.__name__)
        if record is None:
            raise ValueError(f"{path} holds no {kind.__name__}")
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    about = json.loads(record)
    encoder = kind(**about["settings"])
    encoder.load_state_dict(state)
    return encoder, about["training"]
