"""A second device on a machine that has none: tensors that claim to lie elsewhere and refuse to meet others.

Values stay in the memory of the CPU and are computed there, so a computation can run to its end and be compared with
that on the CPU. What a GPU refuses is refused here, too: operands on different devices (other than single numbers and
indices), random numbers by a generator of the CPU, arrays of NumPy that share memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

OTHER = torch.device("lazy", 0)
"""The name under which tensors lie elsewhere: one that PyTorch knows and starts nothing for."""

_aten = torch.ops.aten
# Those whose indices may lie on the CPU, where PyTorch moves them: the arguments behind the first.
_INDEXING = {_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default, _aten._index_put_impl_.default}
# A conjugate is a view with a mark that nothing below heeds: here it is computed.
_COMPUTED = {_aten._conj.default: _aten.conj_physical.default, _aten._neg_view.default: _aten.neg.default}
_MOVING = {_aten.copy_.default, _aten._to_copy.default}


class Elsewhere(Tensor):
    """A tensor that says that it lies on another device."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> Elsewhere:
        tensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=OTHER,
        )
        tensor.values = values
        return tensor

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.values!r})"

    def tolist(self) -> Any:
        return self.values.tolist()

    def __getitem__(self, place: Any) -> Tensor:
        return super().__getitem__(_without_lists(place))

    def __setitem__(self, place: Any, value: Any) -> None:
        super().__setitem__(_without_lists(place), value)

    def new_tensor(self, data: Any, **options: Any) -> Tensor:  # type: ignore[override]
        return Elsewhere(self.values.new_tensor(data, **options))

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


_tensor_on_cpu = torch.tensor


def _tensor(*args: Any, **options: Any) -> Tensor:
    """Make a tensor on any device from data: `torch.tensor` does it beneath all dispatch."""
    if torch.device(options.get("device") or "cpu").type != OTHER.type:
        return _tensor_on_cpu(*args, **options)
    return Elsewhere(_tensor_on_cpu(*args, **{**options, "device": "cpu"}))


class _AnyDevice(TorchDispatchMode):
    """Lets tensors be made on the other device."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or else the first operation imports the compiler, which takes seconds

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = list(_tensors(args))
    elsewhere = any(isinstance(value, Elsewhere) for value in tensors)
    _refuse_mixtures(function, args, tensors)
    device = kwargs.get("device")
    if device is not None:
        elsewhere = torch.device(device).type == OTHER.type
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if elsewhere and kwargs.get("generator") is not None:
        raise RuntimeError(f"{function}: a generator of the CPU cannot draw random numbers on {OTHER}")
    if function is _aten.copy_.default:
        elsewhere = isinstance(args[0], Elsewhere)
    plain_args, plain_kwargs = _each(_plain, args), {name: _plain(value) for name, value in kwargs.items()}
    if not elsewhere:
        return function(*plain_args, **plain_kwargs)
    result = _COMPUTED.get(function, function)(*plain_args, **plain_kwargs)
    known = {id(value.values): value for value in tensors if isinstance(value, Elsewhere)}
    return _each(lambda value: _wrapped(value, known), result)


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to all that nested lists hold."""
    if isinstance(value, (list, tuple)):
        return type(value)([_each(function, part) for part in value])
    return function(value)


def _refuse_mixtures(function: Any, args: Any, tensors: list[Tensor]) -> None:
    if function in _MOVING:
        return
    if function in _INDEXING:
        indices = [index for index in args[1] if index is not None]
        if not isinstance(args[0], Elsewhere) and any(isinstance(index, Elsewhere) for index in indices):
            raise RuntimeError(f"{function}: indices on {OTHER}, but the tensor is on the CPU")
        tensors = [args[0], *(value for value in args[2:] if isinstance(value, Tensor))]
    places = {isinstance(value, Elsewhere) for value in tensors if isinstance(value, Elsewhere) or value.dim()}
    if len(places) > 1:
        raise RuntimeError(f"{function}: expected all tensors on one device, found cpu and {OTHER}")
    if tensors and not isinstance(tensors[0], Elsewhere) and function._schema.name.endswith("_") and True in places:
        raise RuntimeError(f"{function}: a tensor on the CPU cannot be changed by one on {OTHER}")


def _without_lists(place: Any) -> Any:
    """Lists of numbers become indices on the CPU: PyTorch makes tensors of lists beneath all dispatch."""
    parts = tuple(torch.tensor(part, dtype=torch.long) if isinstance(part, list) else part for part in _as_tuple(place))
    return parts if isinstance(place, tuple) else parts[0]


def _as_tuple(place: Any) -> tuple[Any, ...]:
    return place if isinstance(place, tuple) else (place,)


def _plain(value: Any) -> Any:
    return value.values if isinstance(value, Elsewhere) else value


def _wrapped(value: Any, known: dict[int, Elsewhere]) -> Any:
    if not isinstance(value, Tensor) or isinstance(value, Elsewhere):
        return value
    return known[id(value)] if id(value) in known else Elsewhere(value)


@contextmanager
def other_device() -> Iterator[torch.device]:
    """Make the other device known for a while."""
    with mock.patch.object(torch, "tensor", _tensor), _AnyDevice():
        yield OTHER
