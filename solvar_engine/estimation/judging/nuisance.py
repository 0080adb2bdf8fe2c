"""Components that are not motions: errors of contrast, orientation and shift are reproducible, too."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.imaging.linear_algebra import inner_products, orthonormal_basis
from solvar_engine.imaging.pose_derivatives import pose_derivatives


def nuisance_overlap(eigenvolumes: Tensor, mean: Tensor) -> Tensor:
    """Share of each component that lies in the span of what contrast and pose errors make of the mean.

    The span is that of the mean itself (contrast), its three derivatives by translation and its three by rotation, and
    the second derivatives by rotation: at three degrees the rim of a particle moves by as much as its features are
    wide, and a component of the second order is as reproducible as those of the first. It is that of
    the whole mean also where the components are confined to a region. Inside a tight mask around a domain, a wrong
    contrast or pose of the image looks like the domain that is absent in some particles or moves as a whole, which is
    what such a mask is there to find; a span confined alike would mark just that.

    Parameters
    ----------
    eigenvolumes : Tensor, shape (r, z, y, x)
        Unit norm.
    mean : Tensor, shape (z, y, x)

    Returns
    -------
    Tensor, shape (r,), float64
        Between 0 and 1.
    """
    first = pose_derivatives(mean)
    second = [pose_derivatives(turned)[3:] for turned in first[3:]]
    basis = orthonormal_basis(torch.cat((mean[None], first, *second)))
    return (inner_products(basis, eigenvolumes) ** 2).sum(dim=0).clamp(0, 1)
