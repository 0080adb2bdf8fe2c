"""Slow backgrounds: gradients of ice thickness and illumination, which the contrast transfer does not touch.

With u and v the distances of a pixel from the box centre along x and y, in box edges (-1/2 to 1/2), an image's
background is

    o + a u + b v + 4 (p u^2 + q v^2 + r u v),

so a and b are the differences between opposite edges, and p and q those between an edge and the centre. All are normal
with mean 0; o, a and b have the strength of the background for their standard deviation, p, q and r a quarter of it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from solvar_engine.simulation.streams import Purpose, stream

SECOND_ORDER = 0.25
"""Standard deviation of the coefficients of second order over that of the slopes."""


class Backgrounds:
    """Backgrounds of images.

    Parameters
    ----------
    count : int
        Number of images.
    strength : float
        Standard deviation of the ramp from edge to edge, in the units of the images.
    box_size : int
    seed : int
    device : torch.device or str, optional
        Where they are evaluated.
    """

    def __init__(
        self, count: int, strength: float, box_size: int, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        scale = strength * np.array([1.0, 1.0, 1.0, SECOND_ORDER, SECOND_ORDER, SECOND_ORDER])
        drawn = stream(seed, Purpose.BACKGROUND).standard_normal((count, len(scale)))
        self._coefficients = torch.from_numpy((scale * drawn).astype(np.float32))
        self._terms = _terms(box_size).to(device)

    def __call__(self, rows: slice) -> Tensor:
        """Evaluate the backgrounds of some images: (m, y, x), float32."""
        return torch.tensordot(self._coefficients[rows].to(self._terms.device), self._terms, dims=1)


def _terms(box_size: int) -> Tensor:
    """What the six coefficients multiply: (6, y, x)."""
    place = (torch.arange(box_size, dtype=torch.float32) - box_size // 2) / box_size
    v, u = torch.meshgrid(place, place, indexing="ij")
    return torch.stack((torch.ones_like(u), u, v, 4.0 * u**2, 4.0 * v**2, 4.0 * u * v))
