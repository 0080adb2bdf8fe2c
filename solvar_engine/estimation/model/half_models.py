"""A half-set's own version of a finished model, and what it leaves of the half-set's images.

Volumes of states are made for each half-set from its own images, its own mean and its own components, so that the two
are independent. Half-set components differ from those of all images by a mixture of small size, which the components of
all images determine: that, and no more, is shared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.expectation import posterior_pass
from solvar_engine.estimation.model.slices import slices_of_batch
from solvar_engine.estimation.model.statistics import Statistics
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.imaging.linear_algebra import inner_products, mix
from solvar_engine.imaging.types import BatchSource
from solvar_engine.projectors.base import images_per_call
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import DEFAULT_OPTIONS, SliceOptions

_RIDGE = 1e-6  # of the average information of an image's coordinates


@dataclass(frozen=True)
class HalfModel:
    """Mean and components of one half-set.

    Attributes
    ----------
    mean : Tensor, shape (z, y, x), float32
        In the units of the images that it is compared with.
    components : Tensor, shape (r, z, y, x), float32
        Change of the volume per unit of each latent coordinate; no longer orthogonal or of unit norm.
    variances : Tensor, shape (r,), float64
        Of the latent coordinates.
    """

    mean: Tensor
    components: Tensor
    variances: Tensor

    def at(self, point: Tensor) -> Tensor:
        """Volume (z, y, x) at latent coordinates (r,)."""
        return self.mean + torch.tensordot(point.to(self.components), self.components, dims=1)


def half_version(eigenvolumes: Tensor, factors: Tensor) -> Tensor:
    """Components of a half-set: the eigenvolumes of all images, projected onto the span of the half-set's factors.

    Parameters
    ----------
    eigenvolumes : Tensor, shape (r, z, y, x)
    factors : Tensor, shape (k, z, y, x)

    Returns
    -------
    Tensor, shape (r, z, y, x)
    """
    coefficients = torch.linalg.lstsq(inner_products(factors, factors), inner_products(factors, eigenvolumes)).solution
    return mix(factors, coefficients)


@dataclass(frozen=True)
class Explained:
    """Posterior of some images under a model, and the part of them that the model explains.

    Attributes
    ----------
    index : Tensor, shape (n,), int64
    z : Tensor, shape (n, r), float64
        Posterior mean of the latent coordinates.
    precision : Tensor, shape (n, r, r), float64
        Of the posterior, prior included.
    images : Tensor, shape (n, pixels), complex64
        Whitened coefficients of the model's projections at z, contrast and transfer function included.
    """

    index: Tensor
    z: Tensor
    precision: Tensor
    images: Tensor


def explain(
    source: BatchSource, index: Tensor, disk: HalfDisk, model: HalfModel, options: SliceOptions = DEFAULT_OPTIONS
) -> Iterator[Explained]:
    """Yield batch by batch what a model explains of images.

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
    disk : HalfDisk
        Band of the model, a prefix of the source's.
    model : HalfModel
    options : SliceOptions

    Yields
    ------
    Explained
    """
    deviation = model.variances.sqrt()
    factors = model.components * deviation.to(model.components)[:, None, None, None]
    band = _band_of(disk, model.mean, options)
    rank = factors.shape[0]
    identity = torch.eye(rank, dtype=torch.float64, device=factors.device)
    for batch, slices, joint, posterior in posterior_pass(source, index, band, factors):
        statistics = joint.integrate_out([rank])  # the column of the contrast, which is known: the band has no variance
        fitted = _least_squares(statistics).float()
        weights = torch.cat((fitted.new_ones(len(batch), 1), fitted), dim=1) * batch.contrast[:, None]
        images = torch.einsum("npr,nr->np", slices, weights.to(slices.dtype))
        # the prior of the scaled coordinates is the identity
        precision = (identity + statistics.gram) / (deviation[:, None] * deviation)
        yield Explained(batch.index, posterior.mean[:, :rank] * deviation, precision, images)


def _least_squares(statistics: Statistics) -> Tensor:
    """Coordinates without prior, shape (n, r); those that an image does not determine stay near zero."""
    gram = statistics.gram
    ridge = _RIDGE * torch.diagonal(gram, dim1=1, dim2=2).mean(dim=1) + torch.finfo(gram.dtype).tiny
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + ridge[:, None, None] * identity, statistics.inner)


def scale_to_images(
    source: BatchSource, index: Tensor, disk: HalfDisk, mean: Tensor, options: SliceOptions = DEFAULT_OPTIONS
) -> float:
    """Factor on a mean volume that fits images best; negative if their contrast is inverted.

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
    disk : HalfDisk
        Band of the mean.
    mean : Tensor, shape (z, y, x)
    options : SliceOptions

    Returns
    -------
    float
    """
    projector = create_projector(mean.shape[-1], disk, options)
    grid = projector.to_grid(mean[None])
    cross, power = torch.zeros(2, dtype=torch.float64, device=mean.device)
    for batch in source.batches(index, disk, images_per_call(projector, 2)):
        scaled = replace(batch, ctf=batch.ctf * batch.contrast[:, None])
        _, products, _ = slices_of_batch(projector, grid, scaled)
        cross += products[:, 0, 1].sum()
        power += products[:, 0, 0].sum()
    cross, power = source.world.total(cross, power)
    return float(cross) / max(float(power), 1e-30)


def _band_of(disk: HalfDisk, mean: Tensor, options: SliceOptions) -> Band:
    """Images of a mean whose contrasts and poses are known."""
    projector = create_projector(int(mean.shape[-1]), disk, options)
    return Band(disk, projector, mean, nuisance=mean.new_zeros(0, *mean.shape))
