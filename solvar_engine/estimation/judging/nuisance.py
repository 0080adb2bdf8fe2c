"""Components that are not motions: errors of contrast, orientation and shift are reproducible, too."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.imaging.linear_algebra import inner_products, mix, orthonormal_basis
from solvar_engine.imaging.masks import real_radius
from solvar_engine.imaging.pose_derivatives import pose_derivatives

NUISANCE_OVERLAP = 0.5
"""Share of what is reproducible in a component, beyond which errors may be all that it is."""

LEAST_AGREEMENT = 0.5
"""Of half-sets: below, a component is mostly noise, and how much of the rest is a nuisance cannot be told."""

_MARGIN = 4.0
"""Of the variance that errors may have to second order: a quarter of it is missed where half of their size is."""


def nuisance_overlap(eigenvolumes: Tensor, eigenvalues: Tensor, mean: Tensor) -> Tensor:
    """Share of each component that lies in the span of what contrast and pose errors make of the mean.

    The span is that of the mean itself (contrast), its three derivatives by translation and its three by rotation, and
    all their second derivatives: at three degrees the rim of a particle moves by as much as its features are wide, and
    a component of the second order is as reproducible as those of the first. It is that of the whole mean also where
    the components are confined to a region. Inside a tight mask around a domain, a wrong contrast or pose of the image
    looks like the domain that is absent in some particles or moves as a whole, which is what such a mask is there to
    find; a span confined alike would mark just that.

    Second derivatives describe much of any map, so they count by no more than the errors that the components show to
    first order allow. With D the derivatives, x = D^+ sum_k z_k e_k has the covariance C if all of it were errors, and
    the second order, sum_ab x_a x_b d_ab mu / 2, varies along e_k by tr(M C M C) / 2, M_ab = <d_ab mu, e_k>.

    Parameters
    ----------
    eigenvolumes : Tensor, shape (r, z, y, x)
        Unit norm.
    eigenvalues : Tensor, shape (r,)
    mean : Tensor, shape (z, y, x)

    Returns
    -------
    Tensor, shape (r,), float64
        Between 0 and 1.
    """
    first, second = _derivatives(mean)
    of_first = _share_in(torch.cat((mean[None], first)), eigenvolumes)
    # the other order of two steps differs by first derivatives only
    upper = [moved[number:] for number, moved in enumerate(second)]
    of_second = _share_in(torch.cat((mean[None], first, *upper)), eigenvolumes) - of_first
    variance = _second_order_variance(first, second, eigenvolumes, eigenvalues.double())
    allowed = _MARGIN * variance / eigenvalues.double().clamp_min(1e-30)
    return (of_first + torch.minimum(of_second.clamp_min(0), allowed)).clamp(0, 1)


def _share_in(span: Tensor, eigenvolumes: Tensor) -> Tensor:
    return (inner_products(orthonormal_basis(span), eigenvolumes) ** 2).sum(dim=0)


def _derivatives(mean: Tensor) -> tuple[Tensor, list[Tensor]]:
    """By the pose, (6, z, y, x), and of each of these again."""
    first = pose_derivatives(mean)
    return first, [pose_derivatives(moved) for moved in first]


def _covariance_of_errors(first: Tensor, eigenvolumes: Tensor, eigenvalues: Tensor) -> Tensor:
    """Covariance (6, 6) of the errors that make the components, if these are errors to first order."""
    steps = torch.linalg.pinv(inner_products(first, first), hermitian=True) @ inner_products(first, eigenvolumes)
    return (steps * eigenvalues) @ steps.T


def error_volumes(eigenvolumes: Tensor, eigenvalues: Tensor, mean: Tensor) -> Tensor:
    """What errors of the pose make of the mean, to first and second order, if they are all that the components are.

    Parameters
    ----------
    eigenvolumes, eigenvalues, mean
        As for :func:`nuisance_overlap`.

    Returns
    -------
    Tensor, shape (27, z, y, x)
        Each times a coordinate of variance one: D L with L L^T = C, and d_ab mu times the deviation of x_a x_b, half of
        it for a = b, as if these were independent.
    """
    first, second = _derivatives(mean)
    errors = _covariance_of_errors(first, eigenvolumes, eigenvalues.double())
    values, vectors = torch.linalg.eigh(errors)
    volumes = [mix(first, vectors * values.clamp_min(0).sqrt())]
    variance = errors.diagonal()
    deviation = (variance[:, None] * variance[None, :] + errors**2).sqrt()
    for a, moved in enumerate(second):
        scale = deviation[a, a:].clone()
        scale[0] *= 0.5
        volumes.append(moved[a:] * scale.to(moved)[:, None, None, None])
    return torch.cat(volumes)


def looks_like_error(overlap: Tensor, agreement: Tensor) -> Tensor:
    """Components (r,) of which more than half of what is reproducible is what errors may make.

    Where half-sets agree by a, a component of all images has a share 2 a / (1 + a) of its power from what is there
    (Spearman-Brown), and the rest from noise.
    """
    agreement = agreement.clamp_min(LEAST_AGREEMENT)
    return overlap > NUISANCE_OVERLAP * 2 * agreement / (1 + agreement)


def _second_order_variance(first: Tensor, second: list[Tensor], eigenvolumes: Tensor, eigenvalues: Tensor) -> Tensor:
    """Variance (r,) along each component of what errors do to second order, if the components are errors to first."""
    errors = _covariance_of_errors(first, eigenvolumes, eigenvalues)
    bends = torch.stack([inner_products(eigenvolumes, moved) for moved in second], dim=1)  # (r, 6, 6)
    turned = 0.5 * (bends + bends.mT) @ errors
    return 0.5 * (turned @ turned).diagonal(dim1=1, dim2=2).sum(dim=1)


SLOW_OVERLAP = 0.5
"""Share of a component that is slow beyond which it may be a remain of backgrounds.

Motions of simulated molecules of five kinds share at most 0.27 of their power with polynomials, at box 32 and 64, but a
large domain that comes and goes up to 0.7.
"""

MISSED_SHARE = 0.2
"""Of images without the particle, at most, that are not found: what varies more than they make it is there."""


def is_slow_background(volumes: Tensor, eigenvalues: Tensor, mean: Tensor) -> Tensor:
    """Components that may be what backgrounds, neighbours and images without the particle leave.

    Averaged over all views, these have no features: most of such a component is slow (`slow_overlap`). So is a large
    part of the molecule that comes and goes, but that varies more. A share p of images without the particle, whose mean
    along a component is m, makes it vary by m^2 p / (1 - p); a slow component that varies more is left alone.

    Parameters
    ----------
    volumes : Tensor, shape (r, z, y, x)
    eigenvalues : Tensor, shape (r,)
        Variances along them, at unit norm.
    mean : Tensor, shape (z, y, x)
        Zero where no molecule is.

    Returns
    -------
    Tensor, shape (r,), bool
    """
    along = inner_products(mean[None], volumes)[0].square() / volumes.flatten(1).double().square().sum(dim=1)
    is_weak = eigenvalues < along * MISSED_SHARE / (1 - MISSED_SHARE)
    return is_weak & (slow_overlap(volumes, mean) > SLOW_OVERLAP)


def slow_overlap(volumes: Tensor, mean: Tensor) -> Tensor:
    """Share of volumes that a polynomial of second order can describe where the molecule is, or that is a function of
    the distance from the centre, whichever is more.

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
    of_polynomials = (inner_products(basis, volumes) ** 2).sum(dim=0)
    distance = real_radius(mean.shape[-1], 3, mean.device).round().long().flatten()
    count = distance.bincount().double()
    sums = count.new_zeros(len(volumes), len(count)).index_add_(1, distance, volumes.flatten(1).double())
    of_distance = (sums.square() / count.clamp_min(1)).sum(dim=1)
    power = volumes.flatten(1).double().square().sum(dim=1).clamp_min(1e-30)
    return (torch.maximum(of_polynomials, of_distance) / power).clamp(0, 1)
