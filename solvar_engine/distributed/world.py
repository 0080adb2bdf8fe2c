"""The processes that share the images of a computation, and what they tell each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.distributed.lost import ProcessLost

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]

_FAILURE = "solvar_engine/failure"  # key under which a process that fails leaves its sentence


@dataclass(frozen=True)
class Team:
    """Half of the processes.

    Attributes
    ----------
    number : int
        0 for the first half, 1 for the second.
    group : torch.distributed.ProcessGroup
    """

    number: int
    group: Any


@dataclass(frozen=True)
class World:
    """All processes of a computation, seen from one of them; without further ones nothing here costs anything.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    size : int
        Of how many.
    local_size : int
        How many of them are on this machine and share its memory.
    store : torch.distributed.Store or None
        Where a process that fails leaves a sentence for the others.
    team : Team or None
        The half of an even number of processes that this one belongs to, where images are dealt out so that each team
        has those of one half-set.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    store: Any = None
    team: Team | None = None
    _talking: list[Team] = field(default_factory=list, repr=False, compare=False)  # the team, while halves are apart

    @property
    def is_first(self) -> bool:
        """Whether this process owns files, status, log and lock."""
        return self.rank == 0

    @property
    def own(self) -> slice:
        """Rows that this process works on, of a table that all have."""
        return slice(self.rank, None, self.size)

    def of_halves(self, work: Callable[[int], T]) -> tuple[T, T]:
        """Find something of each half-set, 0 and 1; both at once, each by one team, if there are teams.

        Parameters
        ----------
        work : callable
            Told the half-set. What it sums, gathers or agrees on is meanwhile that of the team.

        Returns
        -------
        tuple of two
            The same in all processes. Tensors (of as many axes in both), numbers, or tuples and dataclasses of these.
        """
        if self.team is None or self._talking:
            return work(0), work(1)
        self._talking.append(self.team)
        try:
            found = work(self.team.number)
        finally:
            self._talking.clear()
        first, second = (self._sent(found, half * self.size // 2) for half in (0, 1))
        return first, second

    @property
    def _group(self) -> Any:
        """Whom sums and tables are shared with: None stands for all."""
        return self._talking[0].group if self._talking else None

    @property
    def _size(self) -> int:
        return self.size // 2 if self._talking else self.size

    def total(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Sum over all processes, element by element.

        A table of all images, zero where they belong to other processes, comes out complete.

        Parameters
        ----------
        *values : Tensor, real
            Of the same shapes in all processes; they may be changed.

        Returns
        -------
        tuple of Tensors
            The same in all processes.
        """
        if self._size == 1:
            return values
        sums = list(values)
        for kind in dict.fromkeys(value.dtype for value in values):
            # one message for all of a kind: what small ones cost is the waiting
            places = [place for place, value in enumerate(values) if value.dtype == kind]
            own = [values[place].contiguous().flatten() for place in places]
            flat = own[0] if len(own) == 1 else torch.cat(own)
            with self._together():
                torch.distributed.all_reduce(flat, group=self._group)
            parts = flat.split([values[place].numel() for place in places])
            for place, part in zip(places, parts, strict=True):
                sums[place] = part.view(values[place].shape)
        return tuple(sums)

    def gathered(self, rows: Tensor) -> Tensor:
        """Rows (n, ...) of all processes, those of one after those of the other."""
        if self._size == 1:
            return rows
        with self._together():
            counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(self._size)]
            torch.distributed.all_gather(counts, counts[0].new_tensor([len(rows)]), self._group)
            lengths = [int(count) for count in counts]
            if not any(lengths):
                return rows
            padded = rows.new_zeros(max(lengths), *rows.shape[1:])
            padded[: len(rows)] = rows
            parts = [torch.empty_like(padded) for _ in lengths]
            torch.distributed.all_gather(parts, padded, self._group)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    def entries(self, own: Mapping[int, str]) -> dict[int, str]:
        """Entries of tables of words by row, of all processes."""
        if self.size == 1:
            return dict(own)
        text = "".join(json.dumps(entry) + "\n" for entry in own.items())
        everything = self.gathered(_bytes(text.encode())).numpy().tobytes().decode()
        return dict(json.loads(line) for line in everything.splitlines())

    def agreed(self, value: T) -> T:
        """What the first process has, for all: where one rounds otherwise, it must not take another way.

        Parameters
        ----------
        value : Tensor, number, None, or tuples and dataclasses of these
            Tensors of as many axes in all processes.
        """
        if self._size == 1:
            return value
        return self._sent(value, self._talking[0].number * self.size // 2 if self._talking else 0)

    def _sent(self, value: Any, sender: int) -> Any:
        """What the process of that number has."""
        if isinstance(value, Tensor):
            with self._together():
                shape = torch.tensor(value.shape, dtype=torch.int64)
                if len(shape):
                    torch.distributed.broadcast(shape, sender, self._group)
                value = value.contiguous() if self.rank == sender else value.new_empty(shape.tolist())
                if value.numel():
                    torch.distributed.broadcast(value, sender, self._group)
            return value
        if isinstance(value, (bool, int, float)):
            kind = torch.float64 if isinstance(value, float) else torch.int64
            return type(value)(self._sent(torch.tensor([value], dtype=kind), sender).item())
        if isinstance(value, tuple):
            return tuple(self._sent(part, sender) for part in value)
        if is_dataclass(value) and not isinstance(value, type):
            parts = {part.name: self._sent(getattr(value, part.name), sender) for part in fields(value)}
            return replace(value, **parts)
        return value

    def arrays_of_first(self, arrays: Arrays | None) -> Arrays | None:
        """Named arrays that the first process has read, and others need not have; None if it has none."""
        if self.size == 1:
            return arrays
        kinds = None if arrays is None else [(name, a.dtype.str, a.shape) for name, a in arrays.items()]
        known = json.loads(self._bytes_of_first(json.dumps(kinds).encode()))
        if known is None:
            return None
        own = arrays or {name: np.empty(shape, kind) for name, kind, shape in known}
        return {
            name: np.frombuffer(self._bytes_of_first(own[name].tobytes()), kind).reshape(shape).copy()
            for name, kind, shape in known
        }

    def _bytes_of_first(self, data: bytes) -> bytes:
        length = self._sent(len(data), 0)
        content = _bytes(data) if self.is_first else torch.empty(length, dtype=torch.uint8)
        return bytes(self._sent(content, 0).numpy().tobytes())

    @contextmanager
    def telling(self, sentence_of: Any) -> Iterator[None]:
        """Leave a sentence for the first process if what is done here fails in another one.

        Parameters
        ----------
        sentence_of : callable
            Makes a sentence of an exception.
        """
        try:
            yield
        except ProcessLost:
            raise
        except BaseException as error:
            if self.store is not None and not self.is_first:
                self.store.set(_FAILURE, sentence_of(error))
            raise

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Turn what PyTorch says when another process has gone into a sentence."""
        try:
            yield
        except RuntimeError as error:
            raise ProcessLost(self._reason()) from error

    def _reason(self) -> str:
        try:
            if self.store.check([_FAILURE]):
                return str(self.store.get(_FAILURE).decode())
        except RuntimeError:
            pass  # the store goes with the first process
        return (
            f"One of the {self.size} processes of this run was killed, perhaps because memory was short:"
            " go on with --resume."
        )


ALONE = World()
"""The only process there is."""


@dataclass(frozen=True)
class Share:
    """The images that a process keeps, out of all.

    Attributes
    ----------
    world : World
    rows : Tensor, shape (m,), int64
        Ascending.
    place : Tensor or None, shape (n,), int64
        Place of each of all images among the rows, -1 for those of other processes; None if all are here.
    """

    world: World
    rows: Tensor
    place: Tensor | None = None

    @staticmethod
    def of(world: World, count: int, parts: Sequence[Tensor] = ()) -> Share:
        """Deal out images, as many to one process as to another.

        Parameters
        ----------
        world : World
            If it has teams, each gets one of two parts.
        count : int
            Number of images.
        parts : sequence of Tensors, int64
            Half-sets; without teams, processes have as many images of each. Rows of one process are neighbours in them.
        """
        everyone = torch.arange(count)
        if world.size == 1:
            return Share(world, everyone)
        owner = everyone * world.size // max(count, 1)
        members = world.size if world.team is None else world.size // 2
        for number, part in enumerate(parts):
            first = 0 if world.team is None else number * members
            owner[part] = first + torch.arange(len(part)) * members // max(len(part), 1)
        rows = torch.nonzero(owner == world.rank).flatten()
        place = torch.full((count,), -1)
        place[rows] = torch.arange(len(rows))
        return Share(world, rows, place)

    def own(self, index: Tensor) -> Tensor:
        """Those of some images that are here, in the same order."""
        return index if self.place is None else index[self.place[index] >= 0]

    def suits(self, halves: Sequence[Tensor]) -> bool:
        """Whether each team has all images of its half-set; True without teams."""
        if self.world.team is None:
            return True
        here = self.own(torch.cat(tuple(halves)))
        (strangers,) = self.world.total(torch.tensor(len(here) - len(self.own(halves[self.world.team.number]))))
        return not int(strangers)

    def places(self, rows: Tensor) -> Tensor:
        """Where images of this process are among its own."""
        return rows if self.place is None else self.place[rows]


def _bytes(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())
