"""What an image has of itself in the components that it helped to find, and latent coordinates without that.

Maximum likelihood adds to the factors, for each image, what its residual and its coordinates m suggest; where it meets
its own part again, the inner product b of an image with component k is too large by h_k m_k on average. h_k, the
leverage of the images in a linear regression (Cook & Weisberg, Technometrics 1980), is the number of parameters of the
component that the images determine over the number of images: 0.3 for 3,000 images of 32 pixels, 0.01 for 100,000.
With the posterior covariance P of an image, m = P b in units of the prior, so its coordinates are too far out by P h m,
signal and noise alike, and least known coordinates most: by a third where they have only half of their variance.

The half-sets tell h: a half-set's images see it in their own factors, and do not in those of the other half.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.estimation.judging.components import Components, LatentBatch, latent_coordinates
from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.half_models import half_version
from solvar_engine.estimation.model.mixture import LIVE_SHARE
from solvar_engine.estimation.solver.agreement import factor_fsc
from solvar_engine.imaging.sampling import sample_of
from solvar_engine.imaging.shells import coefficients_per_shell
from solvar_engine.imaging.types import BatchSource

_PARTICLES = 10_000  # of each half, at most
_CHUNK = 4096  # images


@dataclass(frozen=True)
class _Moments:
    """Sums over images, each of shape (r,), float64.

    Attributes
    ----------
    in_sample, held_out : Tensor
        Of m^2, under the factors of an image's own half-set and of the other.
    linear, square : Tensor
        Of P m^2 and of P^2 m^2, in sample; P is the posterior variance of each coordinate, in units of the prior's.
    """

    in_sample: Tensor
    held_out: Tensor
    linear: Tensor
    square: Tensor

    def influence(self) -> Tensor:
        """The h for which the sum of ((1 - P h) m)^2 is that of held-out images; zero where it is no more."""
        excess = (self.in_sample - self.held_out).clamp_min(0)
        root = (self.linear.square() - self.square * excess).clamp_min(0).sqrt()
        return (self.linear - root) / self.square.clamp_min(1e-30)


def measure_own_influence(
    source: BatchSource,
    halves: tuple[Tensor, Tensor],
    band: Band,
    components: Components,
    factors: tuple[Tensor, Tensor],
    contrast_variance: float = 0.0,
) -> Tensor:
    """Find how much of themselves the images have in the components of all of them.

    Parameters
    ----------
    source : BatchSource
    halves : tuple of two Tensors, int64
        Images that the factors of the half-sets were fitted to.
    band, contrast_variance
        As for `latent_coordinates`.
    components : Components
    factors : tuple of two Tensors, shape (k, z, y, x)
        Of the half-sets, masked.

    Returns
    -------
    Tensor, shape (r,), float64
        h; zero for components that hold nothing.
    """
    eigenvalues = components.eigenvalues
    live = eigenvalues > LIVE_SHARE * eigenvalues.max()
    if not live.any():
        return torch.zeros_like(eigenvalues)
    first, second = (half_version(components.eigenvolumes, of_half) for of_half in factors)
    versions = tuple(replace(components, eigenvolumes=volumes.float()) for volumes in (first, second))
    sums = source.world.of_halves(
        lambda half: _sums(
            source, sample_of(halves[half], _PARTICLES), band, versions[half], versions[1 - half], contrast_variance
        )
    )
    total = _Moments(*(sums[0] + sums[1]))
    return torch.where(live, total.influence() * _share_of_all_images(first, second), 0.0)


def without_own_influence(latents: LatentBatch, rows: Tensor, eigenvalues: Tensor, influence: Tensor) -> LatentBatch:
    """Latent coordinates as if the components had been found without the image itself: m - P h m.

    Parameters
    ----------
    latents : LatentBatch
        Of all particles.
    rows : Tensor, shape (m,), int64
        Those that the components were fitted to.
    eigenvalues : Tensor, shape (r,), float64
        Priors of the coordinates.
    influence : Tensor, shape (r,), float64

    Returns
    -------
    LatentBatch
    """
    z = latents.z.clone()
    pull = influence / eigenvalues  # of z, as h is in units of the prior
    for chunk in rows.split(_CHUNK):
        wanted = (pull * latents.z[chunk].double())[..., None]
        z[chunk] -= torch.linalg.solve(latents.precision[chunk].double(), wanted)[..., 0].float()
    return replace(latents, z=z)


def _sums(
    source: BatchSource, index: Tensor, band: Band, own: Components, other: Components, contrast_variance: float
) -> Tensor:
    """The sums of `_Moments`, shape (4, r), over images of one half-set."""
    variance = own.eigenvalues
    sums = torch.zeros(4, len(variance), dtype=torch.float64, device=variance.device)
    in_sample, held_out = (
        latent_coordinates(source, index, band, version, contrast_variance) for version in (own, other)
    )
    for batch, without in zip(in_sample, held_out, strict=True):
        of_posterior = torch.linalg.inv(batch.precision.double()).diagonal(dim1=1, dim2=2) / variance
        power, expected = (found.z.double().square() / variance for found in (batch, without))
        sums += torch.stack([power, expected, of_posterior * power, of_posterior.square() * power]).sum(dim=1)
    (total,) = source.world.total(sums)
    return total


def _share_of_all_images(first: Tensor, second: Tensor) -> Tensor:
    """By how much h is less in components of all images than in those of half of them, shape (r,).

    Where half-sets correlate by F, the prior leaves a share F of what each determines of a coefficient, and
    2 F / (1 + F) of what both do; these are twice as many images, so h falls to 1 / (1 + F).
    """
    correlation = factor_fsc(first, second).clamp(1e-6, 1)
    known = correlation * coefficients_per_shell(first.shape[-1]).to(correlation)
    return (known / (1 + correlation)).sum(dim=1) / known.sum(dim=1)
