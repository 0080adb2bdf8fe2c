"""Components that are not motions: errors of contrast, orientation and shift are reproducible, too."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.imaging.linear_algebra import inner_products, orthonormal_basis
from solvar_engine.imaging.pose_derivatives import pose_derivatives


def nuisance_overlap(eigenvolumes: Tensor, mean: Tensor) -> Tensor:
    """Share of each component that lies in the span of what contrast and pose errors make of the mean.

    The span is that of the mean itself (contrast), its three derivatives by translation and its three by rotation, and
    all their second derivatives: at three degrees the rim of a particle moves by as much as its features are wide, and
    a component of the second order is as reproducible as those of the first. It is that of the whole mean also where
    the components are confined to a region. Inside a tight mask around a domain, a wrong contrast or pose of the image
    looks like the domain that is absent in some particles or moves as a whole, which is what such a mask is there to
    find; a span confined alike would mark just that.

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
    # the other order of two steps differs by first derivatives only
    second = [pose_derivatives(moved)[number:] for number, moved in enumerate(first)]
    basis = orthonormal_basis(torch.cat((mean[None], first, *second)))
    return (inner_products(basis, eigenvolumes) ** 2).sum(dim=0).clamp(0, 1)


SLOW_OVERLAP = 0.5
"""Share of a component in the span of slow backgrounds beyond which it is taken for one of them.

Motions of simulated molecules of five kinds share at most 0.27 of their power with it, at box 32 and 64; what junk,
neighbours and coloured noise leave of a molecule that does not move, 0.65.
"""


def slow_overlap(volumes: Tensor, mean: Tensor) -> Tensor:
    """Share of volumes that a polynomial of second order can describe where the molecule is.

    That is what remains of backgrounds, neighbours and other particles look like when they are averaged over all views;
    a part that moves, comes or goes has a shape that varies faster.

    Parameters
    ----------
    volumes : Tensor, shape (r, z, y, x)
    mean : Tensor, shape (z, y, x)
        Zero where no molecule is.

    Returns
    -------
    Tensor, shape (r,), float64
        Between 0 and 1.
    """
    place = torch.linspace(-1, 1, mean.shape[-1], device=mean.device)
    z, y, x = torch.meshgrid(place, place, place, indexing="ij")
    inside = (mean != 0).to(mean.dtype)
    terms = torch.stack((torch.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z))
    basis = orthonormal_basis(inside * terms)
    power = volumes.flatten(1).double().square().sum(dim=1).clamp_min(1e-30)
    return ((inner_products(basis, volumes) ** 2).sum(dim=0) / power).clamp(0, 1)
