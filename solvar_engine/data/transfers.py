"""Images on their way to the device that computes on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def brought_to(device: torch.device, parts: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield tensors on a device; to a GPU each is copied while there is computed on the one before.

    Parameters
    ----------
    device : torch.device
    parts : iterable of Tensors
        On the CPU, or on the device already. They are taken one ahead.

    Yields
    ------
    Tensor
    """
    if device.type != "cuda":
        for part in parts:
            yield part.to(device)
        return
    copying = torch.Stream(device=device)
    following: Tensor | None = None
    for part in parts:
        ready, following = following, _started(part, device, copying)
        if ready is not None:
            yield _arrived(ready, copying)
    if following is not None:
        yield _arrived(following, copying)


def _started(part: Tensor, device: torch.device, copying: torch.Stream) -> Tensor:
    if part.device == device:
        return part
    with copying:
        return part.pin_memory().to(device, non_blocking=True)


def _arrived(part: Tensor, copying: torch.Stream) -> Tensor:
    """Have what is computed from now on wait for the copy, and the copy's memory for what is computed."""
    computing = torch.accelerator.current_stream(part.device)
    computing.wait_stream(copying)
    part.record_stream(computing)
    return part
