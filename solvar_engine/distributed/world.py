"""The processes that share the images of a computation, and what they tell each other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
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
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    store: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process owns files, status, log and lock."""
        return self.rank == 0

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
        if self.size == 1:
            return values
        sums = tuple(value.contiguous() for value in values)
        with self._together():
            for value in sums:
                torch.distributed.all_reduce(value)
        return sums

    def gathered(self, rows: Tensor) -> Tensor:
        """Rows (n, ...) of all processes, those of one after those of the other."""
        if self.size == 1:
            return rows
        with self._together():
            counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(self.size)]
            torch.distributed.all_gather(counts, counts[0].new_tensor([len(rows)]))
            lengths = [int(count) for count in counts]
            if not any(lengths):
                return rows
            padded = rows.new_zeros(max(lengths), *rows.shape[1:])
            padded[: len(rows)] = rows
            parts = [torch.empty_like(padded) for _ in lengths]
            torch.distributed.all_gather(parts, padded)
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
            Of the same shapes in all processes.
        """
        return value if self.size == 1 else self._agreed(value)

    def _agreed(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            with self._together():
                value = value.contiguous()
                if value.numel():
                    torch.distributed.broadcast(value, 0)
            return value
        if isinstance(value, (bool, int, float)):
            kind = torch.float64 if isinstance(value, float) else torch.int64
            return type(value)(self._agreed(torch.tensor([value], dtype=kind)).item())
        if isinstance(value, tuple):
            return tuple(self._agreed(part) for part in value)
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{part.name: self._agreed(getattr(value, part.name)) for part in fields(value)})
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
        length = self._agreed(len(data))
        content = _bytes(data) if self.is_first else torch.empty(length, dtype=torch.uint8)
        return bytes(self._agreed(content).numpy().tobytes())

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
        """Deal out images, as many of each part to one process as to another.

        Parameters
        ----------
        world : World
        count : int
            Number of images.
        parts : sequence of Tensors, int64
            Such as half-sets, which are visited one after the other; rows of one process are neighbours in them.
        """
        everyone = torch.arange(count)
        if world.size == 1:
            return Share(world, everyone)
        owner = everyone * world.size // max(count, 1)
        for part in parts:
            owner[part] = torch.arange(len(part)) * world.size // max(len(part), 1)
        rows = torch.nonzero(owner == world.rank).flatten()
        place = torch.full((count,), -1)
        place[rows] = torch.arange(len(rows))
        return Share(world, rows, place)

    def own(self, index: Tensor) -> Tensor:
        """Those of some images that are here, in the same order."""
        return index if self.place is None else index[self.place[index] >= 0]

    def places(self, rows: Tensor) -> Tensor:
        """Where images of this process are among its own."""
        return rows if self.place is None else self.place[rows]


def _bytes(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())
