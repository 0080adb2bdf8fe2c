"""Kernel regression: the volume at a point of the latent space from the images near it, at several bandwidths at once.

After Gilles & Singer, RECOVAR (PNAS 2025): an image at squared distance d weighs 1 - d / h^2 (Epanechnikov) within the
bandwidth h. The kernels are nested, so the images are taken in order of their distance and every image is
back-projected once, with its weight one and with its weight d; after the images up to h, the sums of the kernel of
bandwidth h are the first sum less the second over h^2. A last kernel is flat and holds all images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import ft_to_volume, volume_radius, volume_to_ft
from solvar_engine.imaging.masks import real_radius, sphere_mask
from solvar_engine.imaging.shells import fsc, radial_average, shells_to_volume
from solvar_engine.imaging.types import BatchSource
from solvar_engine.projectors.base import Projector, create_projector, images_per_call
from solvar_engine.projectors.grid import GridGeometry
from solvar_engine.reconstruction.mean import precision_from_fsc

_EDGE = 2.0  # px, of the ball that holds the molecule
_FLOOR = 1e-6  # of the best seen shell: keeps empty shells finite
_CHANNELS = 4  # an image and its squared transfer function, each with weight 1 and with weight d
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


def accumulate_kernels(
    source: BatchSource, index: Tensor, distance: Tensor, bandwidths: Tensor, *, interpolation: str = "trilinear"
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
    interpolation : {'trilinear', 'nearest'}

    Returns
    -------
    KernelSums
        Of one kernel more than there are bandwidths: the last one is flat.

    Raises
    ------
    ValueError
        If the bandwidths do not ascend from above zero, or the lengths of index and distance differ.
    """
    squared = bandwidths.double() ** 2
    if index.shape != distance.shape or not bool((torch.diff(squared, prepend=squared.new_zeros(1)) > 0).all()):
        raise ValueError(f"{index.shape[0]} particles, {distance.shape[0]} distances, bandwidths {bandwidths.tolist()}")
    limits = squared / squared[-1]
    relative = distance.double() / squared[-1]
    ring = torch.searchsorted(limits, relative)  # an image on the edge of a kernel has no weight in it
    projector = create_projector(source.box_size, source.disk, interpolation=interpolation)
    accumulator = projector.new_accumulator(_CHANNELS)
    shape = (len(limits) + 1, source.box_size, source.box_size, source.box_size // 2 + 1)
    sums = KernelSums(torch.empty(shape, dtype=torch.complex64), torch.empty(shape))
    ball, overlap = _ball(source.box_size), ball_overlap(source.box_size)
    for number, limit in enumerate([*limits.tolist(), torch.inf]):
        members = ring == number
        _add_images(source, index[members], relative[members].float(), projector, accumulator)
        volumes = projector.to_volumes(accumulator[..., :2] - accumulator[..., 2:] / limit)
        sums.right_side[number] = volume_to_ft(volumes[0] * ball)
        sums.density[number] = torch.maximum(*(volume_to_ft(volumes[1] * w).real for w in (torch.ones(()), overlap)))
    sums.density.clamp_(min=0)  # what rounding leaves of it where no image contributes
    sums.density.mul_(volume_radius(source.box_size) <= source.disk.shell_max)
    return sums


def _add_images(
    source: BatchSource, index: Tensor, distance: Tensor, projector: Projector, accumulator: Tensor
) -> None:
    """Add some images to the sums with weight 1 and with weight ``distance``."""
    if not len(index):
        return
    disk = source.disk
    size = images_per_call(projector, _CHANNELS)
    for batch, weight in zip(source.batches(index, disk, size), distance.split(size), strict=True):
        ctf = batch.ctf * batch.contrast[:, None]
        image = batch.images * (disk.weight * ctf)
        power = (disk.weight * ctf * ctf).to(image.dtype)
        far = weight[:, None]
        channels = torch.stack((image, power, far * image, far * power), dim=-1)
        projector.backproject(channels, batch.rotation, accumulator)


def _ball(box_size: int) -> Tensor:
    return sphere_mask(box_size, 0.5 * box_size - _EDGE, _EDGE)


def ball_overlap(box_size: int) -> Tensor:
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
    relative = real_radius(box_size, 3) / (box_size / 4)
    return torch.where(relative < 2, 1 - 0.75 * relative + relative**3 / 16, 0.0)


def accumulation_bytes(box_size: int, bandwidths: int, threads: int) -> float:
    """Memory that :func:`accumulate_kernels` takes, its result included, bytes."""
    planes, rows, columns, _ = GridGeometry(box_size, (box_size - 1) // 2, 2, "trilinear").shape(1)
    grids = 8.0 * planes * rows * columns * (_CHANNELS * threads + 6)
    return grids + (bandwidths + 1) * 12.0 * box_size**2 * (box_size // 2 + 1)


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
