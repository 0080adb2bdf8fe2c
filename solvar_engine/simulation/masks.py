"""The soft mask that contains a molecule in all its states."""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import Tensor

from solvar_engine.imaging.masks import soft_edge

MARGIN = 3.0
"""Distance from the atoms at which the mask begins to fall, in standard deviations of an atom."""

EDGE = 4.0
"""Width of the soft edge, in standard deviations of an atom."""


def atom_mask(atoms: Tensor, sigma: float, box_size: int) -> Tensor:
    """Mask all voxels that Gaussian atoms reach.

    Parameters
    ----------
    atoms : Tensor, shape (atoms, 3)
        (x, y, z) about the box centre, fractions of the box; those of all states together.
    sigma : float
        Standard deviation of the atoms, in fractions of the box.
    box_size : int

    Returns
    -------
    Tensor, shape (z, y, x), float32, between 0 and 1
        1 within three standard deviations of an atom, then a raised-cosine edge.

    Examples
    --------
    >>> atom_mask(torch.zeros(1, 3), 1 / 32, 32).sum().item() < 2000
    True
    """
    x, y, z = (atoms * box_size).round().long().T + box_size // 2
    is_atom = torch.zeros(box_size, box_size, box_size, dtype=torch.bool)
    is_atom[z, y, x] = True
    sigma_px = sigma * box_size
    reached = ndimage.distance_transform_edt(~is_atom.numpy()) <= MARGIN * sigma_px
    return soft_edge(torch.from_numpy(ndimage.binary_fill_holes(reached)), EDGE * sigma_px)
