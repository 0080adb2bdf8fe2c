"""The device that a command computes on."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from solvar_engine.contract.params import SUPPORTED_DEVICES, Params

T = TypeVar("T")

_SHARE_OF_FREE_MEMORY = 0.9  # others, and fragments, need some


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


def device_name(device: str) -> str:
    """Name of a device for people.

    Examples
    --------
    >>> device_name("cpu")
    'the CPU'
    """
    if torch.device(device).type != "cuda":
        return "the CPU" if device == "cpu" else device
    return f"{torch.cuda.get_device_name(device)} ({device})"


def usable_memory(device: str, limit_gb: float | None) -> float:
    """Memory of a GPU that a command may use, bytes, from now on no more than a limit; infinite on others."""
    if torch.device(device).type != "cuda":
        return float("inf") if limit_gb is None else 1e9 * limit_gb
    free, total = torch.cuda.mem_get_info(device)
    if limit_gb is None:
        return _SHARE_OF_FREE_MEMORY * free
    torch.cuda.set_per_process_memory_fraction(min(1.0, 1e9 * limit_gb / total), device)
    return min(1e9 * limit_gb, _SHARE_OF_FREE_MEMORY * free)


def release_memory(device: str) -> None:
    """Give memory that is no longer in use back to a GPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def on_cpu(value: T) -> T:
    """Copy of tensors, and of tuples and dataclasses of them, on the CPU, where files are written from."""
    return _on_cpu(value)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, tuple):
        return tuple(_on_cpu(part) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{part.name: _on_cpu(getattr(value, part.name)) for part in fields(value)})
    return value
