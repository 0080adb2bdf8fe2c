"""The soft mask that contains a phantom in all its states."""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import Tensor

from solvar_engine.imaging.masks import soft_edge
from solvar_engine.simulation.phantoms import Phantom

MARGIN = 3.0
"""Distance from the atoms at which the mask begins to fall, in standard deviations of an atom."""

EDGE = 4.0
"""Width of the soft edge, in standard deviations of an atom."""


def union_mask(phantom: Phantom, box_size: int) -> Tensor:
    """Mask all voxels that any state's atoms reach.

    Parameters
    ----------
    phantom : Phantom
    box_size : int

    Returns
    -------
    Tensor, shape (z, y, x), float32, between 0 and 1
        1 within three standard deviations of an atom of any state, then a raised-cosine edge.

    Examples
    --------
    >>> from solvar_engine.simulation.phantoms import make_phantom
    >>> union_mask(make_phantom("static"), 32).max().item()
    1.0
    """
    present = phantom.atoms[phantom.mass > 0]
    x, y, z = (present * box_size).round().long().T + box_size // 2
    is_atom = torch.zeros(box_size, box_size, box_size, dtype=torch.bool)
    is_atom[z, y, x] = True
    sigma_px = phantom.sigma * box_size
    reached = ndimage.distance_transform_edt(~is_atom.numpy()) <= MARGIN * sigma_px
    return soft_edge(torch.from_numpy(ndimage.binary_fill_holes(reached)), EDGE * sigma_px)
