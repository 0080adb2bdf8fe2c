"""What `fit` writes down so that a killed run can go on: typed states, one file each, replaced atomically."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import atomic_path
from solvar_engine.distributed.world import ALONE, Arrays, World
from solvar_engine.estimation.alternation.state import JudgedImages
from solvar_engine.estimation.judging.grey_scales import GreyScales
from solvar_engine.estimation.judging.other_frames import OtherFrames
from solvar_engine.imaging.types import Pose

State = TypeVar("State")
_NUMBERS = (bool, int, float)
_TABLES = (Pose, JudgedImages, GreyScales, OtherFrames)


class Checkpoint:
    """States in a folder.

    A state is a dataclass of tensors, numbers, other such dataclasses, pairs of these, and None for what there is not
    yet. Each tensor or number is an array of its file, named by the fields that lead to it; None has no array.

    Parameters
    ----------
    folder : Path
        Created if needed.
    world : World
        Of several processes the first one writes and reads for all.
    device : torch.device or str
        Where volumes are restored; tables of all particles are on the CPU.
    """

    def __init__(self, folder: Path, world: World = ALONE, device: torch.device | str = "cpu") -> None:
        self._folder, self._world, self._device = folder, world, torch.device(device)
        if world.is_first:
            folder.mkdir(exist_ok=True)

    def save(self, name: str, state: object) -> None:
        """Replace a state; a reader sees the old one or the new one, never half of each."""
        if not self._world.is_first:
            return
        with atomic_path(self._folder / f"{name}.npz") as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **dict(_arrays(state)))  # type: ignore[arg-type]

    def load(self, name: str, kind: type[State]) -> State | None:
        """Read a state; None if it was never saved.

        Raises
        ------
        UserError
            If the file holds another kind of state.
        """
        path = self._folder / f"{name}.npz"
        arrays = self._world.arrays_of_first(self._read(path))
        if arrays is None:
            return None
        try:
            return _restored(kind, arrays, "", self._device)
        except KeyError as error:
            raise UserError(
                f"The checkpoint {path} was written by another version, it has no {error.args[0]}: start again in a new"
                " folder."
            ) from error


    def _read(self, path: Path) -> Arrays | None:
        if not (self._world.is_first and path.exists()):
            return None
        with np.load(path, allow_pickle=False) as archive:
            return {key: np.array(archive[key]) for key in archive.files}


def _arrays(value: object, name: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    """Arrays of a value and their names."""
    if is_dataclass(value):
        parts = [(field.name, getattr(value, field.name)) for field in fields(value)]
    elif isinstance(value, tuple):
        parts = [(str(number), part) for number, part in enumerate(value, start=1)]
    elif value is None:
        return
    elif isinstance(value, (Tensor, *_NUMBERS)):
        yield name, np.asarray(value.cpu() if isinstance(value, Tensor) else value)
        return
    else:
        raise TypeError(f"{name} is a {type(value).__name__}, which a checkpoint cannot hold")
    for part, content in parts:
        yield from _arrays(content, f"{name}.{part}" if name else part)


def _restored(kind: Any, arrays: Arrays, name: str, device: torch.device) -> Any:
    """Value of a type from the arrays whose names begin with its own."""
    device = torch.device("cpu") if kind in _TABLES else device
    inside = f"{name}." if name else ""
    if is_dataclass(kind):
        hints, make = get_type_hints(kind), cast(type, kind)
        return make(*(_restored(hints[field.name], arrays, inside + field.name, device) for field in fields(kind)))
    if get_origin(kind) is tuple:
        parts = enumerate(get_args(kind), start=1)
        return tuple(_restored(part, arrays, f"{inside}{number}", device) for number, part in parts)
    if get_origin(kind) is UnionType:
        (known,) = (part for part in get_args(kind) if part is not NoneType)
        there = any(key == name or key.startswith(inside) for key in arrays)
        return _restored(known, arrays, name, device) if there else None
    return torch.from_numpy(arrays[name]).to(device) if kind is Tensor else kind(arrays[name])
