"""Images at low frequencies, and what each says of how strong a mean is in it.

<P mu, Y> / |P mu|^2 is the scale of the signal in an image Y, with the variance 1 / |P mu|^2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.distributed.world import World
from solvar_engine.estimation.model.bands import band_box
from solvar_engine.estimation.model.slices import slices_of_batch
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.imaging.types import Batch, BatchSource
from solvar_engine.projectors.base import images_per_call
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import DEFAULT_OPTIONS, SliceOptions
from solvar_engine.reconstruction.mean import weak_precision
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations, solve

_SHELL = 16  # up to which images are compared
_ITERATIONS = 4  # of conjugate gradients: low frequencies are seen evenly


@dataclass(frozen=True)
class LowBand:
    """The first shells of images, on the smallest box that holds them, with scales (n,) of their signal."""

    source: BatchSource
    disk: HalfDisk
    box_size: int
    scale: Tensor | None = None

    @staticmethod
    def of(source: BatchSource) -> LowBand:
        """Cut a source."""
        return LowBand(source, source.disk, source.box_size).cut(_SHELL)

    def cut(self, shell: int) -> LowBand:
        """To a lower band."""
        shell_max = min(shell, self.disk.shell_max)
        box_size = band_box(shell_max, self.source.box_size)
        return replace(self, disk=self.source.disk.prefix(shell_max), box_size=box_size)

    def scaled(self, scale: Tensor) -> LowBand:
        """With these scales (n,) of the signal."""
        return replace(self, scale=scale)

    @property
    def pixel_size(self) -> float:
        """Of the box, Angstrom."""
        return self.source.pixel_size * self.source.box_size / self.box_size

    @property
    def world(self) -> World:
        """Processes that share the images."""
        return self.source.world

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, index: Tensor, disk: HalfDisk, batch_size: int) -> Iterator[Batch]:
        """See :meth:`solvar_engine.imaging.types.BatchSource.batches`."""
        for batch in self.source.batches(index, disk, batch_size):
            if self.scale is None:
                yield batch
            else:
                yield replace(batch, contrast=self.scale[batch.index].to(batch.contrast))


def rough_mean(source: LowBand, index: Tensor, options: SliceOptions) -> Tensor:
    """Mean (z, y, x) of some images, hardly regularised; nothing of none."""
    equations = accumulate_normal_equations(source, index, options)
    return solve(equations, weak_precision(equations), iterations=_ITERATIONS)


def scale_evidence(
    source: BatchSource, index: Tensor, disk: HalfDisk, mean: Tensor, options: SliceOptions = DEFAULT_OPTIONS
) -> Tensor:
    """What each image says of the scale of a mean in it: |P mu|^2 and <P mu, Y>, shape (n, 2), float64.

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
    disk : HalfDisk
        Band of the mean, a prefix of the source's.
    mean : Tensor, shape (z, y, x)
    options : SliceOptions
    """
    return evidence_of_means(source, index, disk, mean[None], options)[:, 0]


def evidence_of_means(
    source: BatchSource, index: Tensor, disk: HalfDisk, means: Tensor, options: SliceOptions = DEFAULT_OPTIONS
) -> Tensor:
    """The same of several means (k, z, y, x), shape (n, k, 2)."""
    projector, count = create_projector(int(means.shape[-1]), disk, options), len(means)
    grid, evidence = projector.to_grid(means), torch.zeros(len(source), count, 2, dtype=torch.float64)
    for batch in source.batches(index, disk, images_per_call(projector, count + 1)):
        _, products, _ = slices_of_batch(projector, grid, batch)
        power, cross = products.diagonal(dim1=1, dim2=2)[:, :-1], products[:, :-1, -1]
        evidence[batch.index] = torch.stack((power, cross), dim=2).double().cpu()
    (evidence,) = source.world.total(evidence)
    return evidence[index]
