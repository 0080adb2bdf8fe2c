"""Kernel regression: the volume at a point of the latent space from the images near it, at several bandwidths at once.

After Gilles & Singer, RECOVAR (PNAS 2025): an image at squared distance d weighs 1 - d / h^2 (Epanechnikov) within the
bandwidth h. The kernels are nested, and their bandwidths cut the images into rings. Each ring is back-projected once,
and weighs in every kernel as its images do on average: kernels are staircases, whose sums are combinations of those of
the rings. A last kernel is flat and holds all images: its sums are the same for all points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import ft_to_volume, volume_radius, volume_to_ft
from solvar_engine.imaging.masks import real_radius, sphere_mask
from solvar_engine.imaging.shells import fsc, radial_average, shells_to_volume
from solvar_engine.imaging.types import BatchSource
from solvar_engine.projectors.base import Projector, images_per_call
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import DEFAULT_OPTIONS, SliceOptions
from solvar_engine.reconstruction.mean import precision_from_fsc

CHANNELS = 2
"""An image and its squared transfer function."""

_EDGE = 2.0  # px, of the ball that holds the molecule
_FLOOR = 1e-6  # of the best seen shell: keeps empty shells finite
_START = 1.0  # precision over average density, before the half-sets were compared


@dataclass(frozen=True)
class KernelSums:
    """Weighted sums over the images around one point, for each kernel.

    Attributes
    ----------
    right_side : Tensor, shape (kernels, z, y, x // 2 + 1), complex64
        Transform of sum_i w_i P_i* Y_i of whitened images, inside the ball of the box.
    density : Tensor, shape (kernels, z, y, x // 2 + 1), float32
        Diagonal of sum_i w_i P_i* P_i in the Fourier basis of the box, nowhere below what smoothing makes of it; zero
        beyond the band.
    """

    right_side: Tensor
    density: Tensor

    def __len__(self) -> int:
        return int(self.density.shape[0])

    @property
    def box_size(self) -> int:
        """Edge of the volumes, px."""
        return int(self.density.shape[-2])


@dataclass(frozen=True)
class Staircase:
    """Weights of images in nested kernels: bookkeeping of all particles, on the CPU.

    Attributes
    ----------
    ring : Tensor, shape (n,), int64
        Ring of each image; images of the last one are in no kernel but the flat one.
    weight : Tensor, shape (kernels, rings), float64
        Weight of each ring in each kernel; there are as many rings as kernels, the flat one included.
    """

    ring: Tensor
    weight: Tensor

    @staticmethod
    def create(distance: Tensor, bandwidths: Tensor) -> Staircase:
        """Cut images into rings.

        Parameters
        ----------
        distance : Tensor, shape (n,)
            Squared distance of each image from the point.
        bandwidths : Tensor, shape (bandwidths,)
            Ascending, in units of the square root of the distance.

        Raises
        ------
        ValueError
            If the bandwidths do not ascend from above zero.

        Examples
        --------
        >>> Staircase.create(torch.tensor([0.0, 1.0, 3.0, 9.0]), torch.tensor([1.0, 2.0])).weight
        tensor([[1.0000, 0.0000, 0.0000],
                [1.0000, 0.5000, 0.0000],
                [1.0000, 1.0000, 1.0000]], dtype=torch.float64)
        """
        squared = bandwidths.double() ** 2
        if not bool((torch.diff(squared, prepend=squared.new_zeros(1)) > 0).all()):
            raise ValueError(f"bandwidths are {bandwidths.tolist()}, expected them to ascend from above zero")
        far = distance.double()
        ring = torch.searchsorted(squared, far, right=True)  # an image on the edge of a kernel has no weight in it
        count = torch.bincount(ring, minlength=len(squared) + 1)
        average = torch.bincount(ring, weights=far, minlength=len(squared) + 1) / count.clamp_min(1)
        weight = torch.tril(1 - average / squared[:, None])
        return Staircase(ring, torch.cat((weight, torch.ones_like(weight[:1]))))

    def of_images(self) -> Tensor:
        """Weight of each image in each kernel, shape (kernels, n)."""
        return self.weight[:, self.ring]


def back_project(source: BatchSource, index: Tensor, options: SliceOptions = DEFAULT_OPTIONS) -> Tensor:
    """Back-project images and their squared transfer functions.

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
        Particles to use.
    options : SliceOptions

    Returns
    -------
    Tensor, shape (2, z, y, x), float32
        sum_i P_i* Y_i of whitened images, and the convolution kernel of sum_i P_i* P_i.
    """
    return _RingSums(source, options).add_up(index)


class _RingSums:
    """Sums over some images after others, in the same memory."""

    def __init__(self, source: BatchSource, options: SliceOptions) -> None:
        self._source = source
        self._projector = create_projector(source.box_size, source.disk, options)
        self._accumulator = self._projector.new_accumulator(CHANNELS)
        self._device = options.device

    def add_up(self, index: Tensor) -> Tensor:
        """See :func:`back_project`."""
        if not len(index):
            return torch.zeros(CHANNELS, *(self._source.box_size,) * 3, device=self._device)
        disk = self._source.disk
        self._accumulator.zero_()
        for batch in self._source.batches(index, disk, images_per_call(self._projector, CHANNELS)):
            ctf = batch.ctf * batch.contrast[:, None]
            image = batch.images * (disk.weight * ctf)
            power = (disk.weight * ctf * ctf * batch.kept_variance()).to(image.dtype)
            self._projector.backproject(torch.stack((image, power), dim=-1), batch.rotation, self._accumulator)
        return self._projector.to_volumes(self._accumulator)


def accumulate_kernels(
    source: BatchSource,
    index: Tensor,
    distance: Tensor,
    bandwidths: Tensor,
    everything: Tensor,
    options: SliceOptions = DEFAULT_OPTIONS,
) -> KernelSums:
    """Back-project the images around a point once, for all kernels.

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
        Particles to use.
    distance : Tensor, shape (n,)
        Squared distance of each of them from the point.
    bandwidths : Tensor, shape (bandwidths,)
        Ascending, in units of the square root of the distance.
    everything : Tensor, shape (2, z, y, x)
        Back-projection of all of them: the sums of the flat kernel.
    options : SliceOptions

    Returns
    -------
    KernelSums
        Of one kernel more than there are bandwidths: the last one is flat.

    Raises
    ------
    ValueError
        If the bandwidths do not ascend from above zero, or the lengths of index and distance differ.
    """
    if index.shape != distance.shape:
        raise ValueError(f"{index.shape[0]} particles, {distance.shape[0]} distances")
    stairs = Staircase.create(distance, bandwidths)
    rings, kernels = _RingSums(source, options), len(bandwidths)
    volumes = everything.new_zeros(kernels, *everything.shape)
    for ring in range(kernels):
        volume = rings.add_up(index[stairs.ring == ring])
        for kernel in range(ring, kernels):
            volumes[kernel].add_(volume, alpha=float(stairs.weight[kernel, ring]))
    del rings
    size = source.box_size
    shape = (kernels + 1, size, size, size // 2 + 1)
    sums = KernelSums(everything.new_empty(shape, dtype=torch.complex64), everything.new_empty(shape))
    ball, overlap = _ball(size, everything.device), ball_overlap(size, everything.device)
    for kernel, (image, power) in enumerate((*volumes, everything)):
        sums.right_side[kernel] = volume_to_ft(image * ball)
        sums.density[kernel] = torch.maximum(volume_to_ft(power).real, volume_to_ft(power * overlap).real)
    sums.density.clamp_(min=0)  # what rounding leaves of it where no image contributes
    sums.density.mul_(volume_radius(size, everything.device) <= source.disk.shell_max)
    return sums


def _ball(box_size: int, device: torch.device) -> Tensor:
    return sphere_mask(box_size, 0.5 * box_size - _EDGE, _EDGE, device)


def ball_overlap(box_size: int, device: torch.device | str = "cpu") -> Tensor:
    """Autocorrelation of a ball of half the width of the box, 1 at the centre.

    The convolution kernel of sum_i P_i* P_i, times this, has a transform that is smooth and positive, as the operator's
    diagonal is for volumes that do not fill the box. Without it, few images leave the diagonal oscillating through
    zero, and dividing by it makes more noise than volume.

    Returns
    -------
    Tensor, shape (z, y, x), float32

    Examples
    --------
    >>> ball_overlap(8)[4, 4, 4].item()
    1.0
    """
    relative = real_radius(box_size, 3, device) / (box_size / 4)
    return torch.where(relative < 2, 1 - 0.75 * relative + relative**3 / 16, 0.0)


def accumulation_bytes(projector: Projector, bandwidths: int, threads: int) -> float:
    """Memory that :func:`accumulate_kernels` takes for one half-set, its result included, bytes.

    Parameters
    ----------
    projector : Projector
        Of the box of the volumes.
    bandwidths, threads : int
    """
    # the accumulator, and its transform with two copies
    grids = projector.accumulator_bytes(CHANNELS, threads) + 3 * projector.grid_bytes(CHANNELS)
    voxels = float(projector.box_size**3)
    return max(grids, (bandwidths + 1) * 6.0 * voxels) + (bandwidths + 2) * 4.0 * CHANNELS * voxels


def levelled_estimate(right_side: Tensor, density: Tensor, precision: Tensor) -> Tensor:
    """Regularised solution whose shells are, on average, not shrunk.

    The diagonal solution b / (D + p) weighs directions by how well they are seen, as Wiener's filter does; dividing
    each shell by its average gain D / (D + p) leaves it to a later filter to shrink whole shells.

    Parameters
    ----------
    right_side : Tensor, shape (z, y, x // 2 + 1), complex
    density : Tensor, same shape
    precision : Tensor, shape (shells,)
        Inverse prior variance of each shell.

    Returns
    -------
    Tensor, shape (z, y, x // 2 + 1), complex
        Transform of the volume; zero beyond the last complete shell.
    """
    box_size = int(density.shape[-2])
    floor = _FLOOR * float(radial_average(density, box_size).max()) + torch.finfo(torch.float32).tiny
    weight = 1.0 / (density + shells_to_volume((precision + floor).float(), box_size, beyond=1.0))
    gain = radial_average(density * weight, box_size).clamp_min(1e-9)
    return right_side * (weight * shells_to_volume((1.0 / gain).float(), box_size))


def half_set_estimates(
    halves: tuple[KernelSums, KernelSums], offsets: tuple[Tensor, Tensor], kernel: int, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Volumes of both half-sets for one kernel, regularised by what they agree on.

    Parameters
    ----------
    halves : tuple of two KernelSums
        Of images less the projections of a model.
    offsets : tuple of two Tensors, shape (z, y, x // 2 + 1), complex
        Transforms of what that model says at the point, each half's own.
    kernel : int
    mask : Tensor, shape (z, y, x), optional
        Where the correlation of the halves is measured.

    Returns
    -------
    tuple of two Tensors, shape (z, y, x // 2 + 1), complex64
        Transforms of the volumes, not filtered.
    """
    box_size = halves[0].box_size
    densities = [radial_average(half.density[kernel], box_size) for half in halves]

    def estimates(precisions: list[Tensor]) -> tuple[Tensor, Tensor]:
        first, second = (
            offset + levelled_estimate(half.right_side[kernel], half.density[kernel], precision)
            for half, offset, precision in zip(halves, offsets, precisions, strict=True)
        )
        return first, second

    first, second = (ft_to_volume(half, box_size) for half in estimates([_START * known for known in densities]))
    correlation = fsc(first, second, mask)
    return estimates([precision_from_fsc(correlation, density) for density in densities])
