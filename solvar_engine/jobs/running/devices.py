"""The device that a command computes on."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

from solvar_engine.contract.params import SUPPORTED_DEVICES, Params

T = TypeVar("T")


def compute_device(params: Params) -> str:
    """Name of the device for PyTorch.

    The command line settles ``auto`` before a command starts; a program that calls it without one may leave that in.

    Examples
    --------
    >>> from solvar_engine.contract.params import AnalyzeParams
    >>> compute_device(AnalyzeParams(run="hinge/run"))
    'cpu'
    """
    return SUPPORTED_DEVICES[0] if params.device == "auto" else params.device


def on_cpu(value: T) -> T:
    """Copy of tensors, and of tuples and dataclasses of them, on the CPU, where files are written from."""
    return _on_cpu(value)  # type: ignore[no-any-return]


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, tuple):
        return tuple(_on_cpu(part) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{part.name: _on_cpu(getattr(value, part.name)) for part in fields(value)})
    return value
