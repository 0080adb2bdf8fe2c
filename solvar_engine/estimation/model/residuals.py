"""Expected power of what the model leaves unexplained: the noise."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.expectation import posterior_pass
from solvar_engine.imaging.types import BatchSource


def residual_power(
    source: BatchSource, index: Tensor, band: Band, factors: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield |e - A m|^2 + (A S A^*)_kk of every coefficient: the M-step of the noise variance.

    Plain residuals |e|^2 would contain the heterogeneity. The error of the contrast is one of the columns of A.

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
    band : Band
    factors : Tensor, shape (r, z, y, x)
        In the gauge z ~ N(0, I).

    Yields
    ------
    index : Tensor, shape (m,), int64
    power : Tensor, shape (m, pixels), float32
        In units of the noise variance that whitened the images.
    """
    deviation = band.contrast_variance**0.5
    for batch, slices, _, posterior in posterior_pass(source, index, band, factors):
        contrast = batch.contrast[:, None, None]
        loadings = contrast * torch.cat((slices[:, :, 1:], deviation * slices[:, :, :1]), dim=2)
        explained = contrast[..., 0] * slices[:, :, 0]
        explained = explained + (loadings @ posterior.mean[..., None].to(loadings.dtype))[..., 0]
        spread = loadings @ torch.linalg.cholesky(posterior.covariance).to(loadings.dtype)
        yield batch.index, (batch.images - explained).abs() ** 2 + (spread.abs() ** 2).sum(dim=-1)
