"""How the factors are approached: which bands, how many mini-batches, which steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from solvar_engine.imaging.fourier import nyquist_shell

_MEMORY = 0.6
_OF_SOLVERS: Mapping[str, Mapping[str, Any]] = {
    "batches": {}, "em": {"full": " ".join(["1x1"] * 12)}, "squarem": {"accelerated": 6},
}  # fmt: skip


@dataclass(frozen=True)
class Epoch:
    """One visit to all images.

    Attributes
    ----------
    batches : int
        Mini-batches.
    step : float
        Share of the preconditioned step that each of them takes.
    memory : float
        Share of the old value in running averages over mini-batches, from which the curvature is made.
    """

    batches: int
    step: float
    memory: float = _MEMORY


@dataclass(frozen=True)
class Unit:
    """One epoch of both half-sets, and whether the halves are compared after it."""

    shell_max: int
    epoch: Epoch
    ends_round: bool


@dataclass(frozen=True)
class Schedule:
    """Epochs of a fit, written as mini-batches x step: "8x0.7 4x0.5 1x1".

    Attributes
    ----------
    first, middle, last : tuple of str
        Rounds of epochs of the half-sets in the first, each middle and the last band; after each round the half-sets
        are aligned and the prior is renewed. If there is one band only, it has those of the first and the last.
    full : str
        Epochs of the fit of all images.
    accelerated : int
        Iterations of SQUAREM with all images in a batch, two epochs each, in place of ``full``; zero for none.
    first_shell : int
        Last shell of the first band.
    memory : float
        See `Epoch`.
    """

    first: tuple[str, ...] = ("8x0.7 8x0.7 8x0.5", "4x0.7 4x0.5 2x0.7")
    middle: tuple[str, ...] = ("4x0.7 2x0.7",)
    last: tuple[str, ...] = ("4x0.6 2x0.7", "1x1")
    full: str = "4x0.5 2x0.7 1x1"
    accelerated: int = 0
    first_shell: int = 8
    memory: float = _MEMORY

    def shells(self, box_size: int) -> list[int]:
        """Last shells of the bands, each about twice the one before, the last one complete.

        Examples
        --------
        >>> Schedule().shells(64), Schedule().shells(128)
        ([8, 16, 31], [8, 16, 32, 63])
        """
        last = nyquist_shell(box_size)
        shell = self.first_shell
        lower = []
        while shell <= 0.75 * last:
            lower.append(shell)
            shell *= 2
        return [*lower, last]

    def units(self, box_size: int) -> list[Unit]:
        """All epochs of the fit of the half-sets, band by band."""
        shells = self.shells(box_size)
        units = []
        for number, shell_max in enumerate(shells):
            rounds = self.middle
            if number == len(shells) - 1:
                rounds = self.last
            if number == 0:
                rounds = self.first if len(shells) > 1 else self.first + self.last
            for written in rounds:
                epochs = list(epochs_of(written, self.memory))
                units += [Unit(shell_max, epoch, epoch is epochs[-1]) for epoch in epochs]
        return units

    def first_round_units(self, box_size: int) -> int:
        """Number of units until the halves are compared for the first time."""
        return next(number for number, unit in enumerate(self.units(box_size), start=1) if unit.ends_round)

    def band_ends(self, box_size: int) -> list[int]:
        """Number of units after which each band is done.

        After the first, the noise can be measured again.
        """
        shells = [unit.shell_max for unit in self.units(box_size)]
        return [number for number in range(1, len(shells) + 1) if shells[number : number + 1] != [shells[number - 1]]]

    def with_solver(self, name: str) -> Schedule:
        """The same with the fit of all images by a solver, named as in the options of `fit`."""
        return replace(self, **_OF_SOLVERS[name])

    @property
    def full_steps(self) -> int:
        """States of the fit of all images."""
        return self.accelerated or len(self.full_epochs())

    def full_epochs(self) -> list[Epoch]:
        """All epochs of the fit of all images."""
        return list(epochs_of(self.full, self.memory))


def epochs_of(written: str, memory: float = _MEMORY) -> Iterator[Epoch]:
    """Read epochs such as "8x0.7 4x0.5 1x1": mini-batches and step of each."""
    for word in written.split():
        batches, step = word.split("x")
        yield Epoch(int(batches), float(step), memory)
