"""Slices that images are compared with: what they lack of a slow background, the slices lack, too."""

from __future__ import annotations

from torch import Tensor

from solvar_engine.imaging.types import Batch
from solvar_engine.projectors.base import Projector


def slices_of_batch(
    projector: Projector, grid: Tensor, batch: Batch
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Slice all channels at the poses of a batch, and correlate them with each other and with the images.

    Integrating out the coordinates of a background with a flat prior, columns U and U* U = 1, is the projection
    1 - U U* of everything: <A, B> becomes <A, B> - <A, U> <U, B>.

    Parameters
    ----------
    projector : Projector
    grid : Tensor
        From its ``to_grid``.
    batch : Batch

    Returns
    -------
    slices : Tensor, shape (n, pixels, channels), complex
    products : Tensor, shape (n, channels + 1, channels + 1), float64
        The image is the last channel.
    removed : Tensor, shape (n, k, channels), or None
        Coordinates of the background that the slices had; None if the images have none.
    """
    slices, products = projector.project_with_gram(grid, batch.rotation, batch.ctf, batch.images)
    if batch.background is None:
        return slices, products, None
    removed = batch.background.take_from(slices, projector.disk.weight.to(slices.device))
    wide = removed.double()
    products[:, :-1, :-1] -= wide.mT @ wide
    return slices, products, removed
