"""Preferred orientations: molecules that lie on the film or the water's surface in a few ways.

The direction from which a particle is seen, the third column of its rotation, is drawn near one of three
perpendicular axes by the distribution of von Mises and Fisher, whose density is proportional to
exp(concentration x cosine of the angle to the axis). In-plane angles stay uniform.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from solvar_engine.imaging.rotation import random_rotations, rotvec_to_rotation
from solvar_engine.simulation.streams import Purpose, drawn_share, stream, torch_stream

CONCENTRATION = 10.0
"""Of the views about their axis: 18 degrees of standard deviation along either direction."""

AXIS_SHARES = (0.6, 0.3, 0.1)
"""How often each axis is preferred."""


def with_preferred_views(rotation: Tensor, share: float, seed: int) -> Tensor:
    """Draw the orientations of a share of the particles anew, from near the preferred directions.

    Parameters
    ----------
    rotation : Tensor, shape (n, 3, 3)
        Image to volume.
    share : float
        0 to 1.
    seed : int
        Decides on the axes, too.

    Returns
    -------
    Tensor, shape (n, 3, 3), float32
        The other rows are as they were.

    Examples
    --------
    >>> with_preferred_views(torch.eye(3)[None].repeat(4, 1, 1), 0.5, seed=0).shape
    torch.Size([4, 3, 3])
    """
    count = len(rotation)
    rng = stream(seed, Purpose.VIEW)
    rows = drawn_share(count, share, rng)
    axis = rng.choice(len(AXIS_SHARES), size=count, p=AXIS_SHARES)
    cosine = _cosines(rng.random(count))
    longitude, in_plane = 2 * np.pi * rng.random((2, count))
    tilt = np.arccos(cosine)
    # the axes are the columns of a random rotation; z of each frame is turned onto its axis
    frame = random_rotations(1, torch_stream(seed, Purpose.VIEW))[0]
    frames = torch.stack([frame.roll(-number, dims=1) for number in (1, 2, 0)])
    near_z = _turns(longitude, 2) @ _turns(tilt, 1) @ _turns(in_plane, 2)
    preferred = (frames[torch.from_numpy(axis)].double() @ near_z).float()
    result = rotation.clone()
    result[torch.from_numpy(rows)] = preferred[torch.from_numpy(rows)]
    return result


def _cosines(uniform: np.ndarray) -> np.ndarray:
    """Turn uniform numbers into cosines of the angle to the axis, by the inverse of their distribution."""
    smallest = np.exp(-2.0 * CONCENTRATION)
    return np.clip(1.0 + np.log(smallest + (1.0 - smallest) * uniform) / CONCENTRATION, -1.0, 1.0)


def _turns(angle: np.ndarray, axis: int) -> Tensor:
    """Rotations (n, 3, 3) by angles (n,), radians, about one of the axes x, y and z."""
    vector = torch.zeros(len(angle), 3, dtype=torch.float64)
    vector[:, axis] = torch.from_numpy(angle)
    return rotvec_to_rotation(vector)
