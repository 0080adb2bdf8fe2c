"""Least-squares reconstruction from one pass over the images.

The normal operator sum_i P_i* P_i of Fourier slices is a convolution. One pass back-projects the images and the squared
transfer functions; after that, every iteration of conjugate gradients costs two transforms and reads no image
(Wang, Shkolnisky & Singer, IEEE Trans. Image Process. 2013, section 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.distributed.world import ALONE, World
from solvar_engine.imaging.background import support
from solvar_engine.imaging.fourier import (
    HalfDisk,
    convolve,
    ft_to_volume,
    low_pass,
    padded_rfft3,
    resize_volume_ft,
    volume_radius,
    volume_to_ft,
)
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.imaging.types import Batch, BatchSource
from solvar_engine.projectors.base import ConvolutionSums, images_per_call
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import DEFAULT_OPTIONS, SliceOptions

_EDGE = 2.0  # px, of the ball that holds the molecule
_OVERSAMPLING = 2  # the kernel of the convolution needs exactly twice the box


@dataclass(frozen=True)
class NormalEquations:
    """Right-hand side and operator of a least-squares reconstruction.

    Attributes
    ----------
    right_side : Tensor, shape (z, y, x), float32
        sum_i P_i* Y_i of whitened images.
    kernel_ft : Tensor, shape (2 z, 2 y, x + 1), float32
        Transform of the convolution kernel of sum_i P_i* P_i.
    shell_max : int
        Band of the images.
    """

    right_side: Tensor
    kernel_ft: Tensor
    shell_max: int

    @property
    def box_size(self) -> int:
        """Edge of the volume, px."""
        return int(self.right_side.shape[-1])

    def __add__(self, other: NormalEquations) -> NormalEquations:
        return NormalEquations(
            self.right_side + other.right_side, self.kernel_ft + other.kernel_ft, self.shell_max
        )

    def scaled(self, factor: float) -> NormalEquations:
        """Of the same images with all values multiplied by a factor."""
        return replace(self, right_side=factor * self.right_side)

    def apply(self, volume: Tensor) -> Tensor:
        """Apply sum_i P_i* P_i to a volume (z, y, x)."""
        return convolve(volume[None], self.kernel_ft)[0]

    def density(self) -> Tensor:
        """Diagonal D(k) of the operator in the Fourier basis of the box.

        Returns
        -------
        Tensor, shape (z, y, x // 2 + 1), float32
            D with ``apply(v)`` close to the inverse transform of D times the transform of v; zero beyond the band, and
            never negative, as rounding makes it where few images contribute.
        """
        box_size = self.box_size
        kernel = self.right_side.new_zeros(box_size, box_size, box_size)
        kernel[(box_size // 2,) * 3] = 1.0
        # The response to a central delta is the kernel, cropped to the box.
        response = self.apply(kernel)
        density = volume_to_ft(response).real * box_size
        return density.clamp_min(0) * (volume_radius(box_size, density.device) <= self.shell_max)


def accumulate_normal_equations(
    source: BatchSource,
    index: Tensor,
    options: SliceOptions = DEFAULT_OPTIONS,
    *,
    mean: Tensor | None = None,
    operators: Tensor | None = None,
    batch_size: int | None = None,
) -> NormalEquations:
    """Back-project images and squared transfer functions in one pass.

    Slow backgrounds are integrated out, columns U. The normal operator is then P* (1 - U U*) P, which is no
    convolution; expectation maximisation gets on with P* P, for images whose lost part is that of an earlier mean:
    P* ((1 - U U*) Y + U U* P mean). Without one they keep what they came with, which is free of bias.

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
        Particles to use.
    options : SliceOptions
        Whose oversampling does not count: the operator needs exactly twice the box.
    mean : Tensor, shape (z, y, x), optional
        As it is known so far.
    operators : Tensor, shape (g, 3, 3), optional
        Point group of the volume: each image is an image at g orientations.
    batch_size : int, optional
        Images per batch, as many as the projector likes best without it; the result does not depend on it beyond
        rounding.
    """
    disk = source.disk
    projector = create_projector(source.box_size, disk, replace(options, oversampling=_OVERSAMPLING))
    sums = projector.convolution_sums()
    expected = None if mean is None else _ExpectedBackground(disk, mean, options)
    for batch in source.batches(index, disk, batch_size or images_per_call(projector, 2)):
        ctf = batch.ctf * batch.contrast[:, None]
        weighted = disk.weight * ctf
        images = batch.with_background(None if expected is None else expected.coordinates(batch))
        slices, power = images * weighted, (ctf * weighted).to(batch.images.dtype)
        for turned in rotations_of_group(batch.rotation, operators):
            sums.add(slices, power, turned)
    return normal_equations(sums, source.box_size, disk.shell_max, source.world)


def rotations_of_group(rotation: Tensor, operators: Tensor | None) -> Iterator[Tensor]:
    """Yield orientations (n, 3, 3), float32, that a point group (g, 3, 3) makes equal; None stands for no symmetry."""
    if operators is None:
        yield rotation
        return
    for operator in operators.to(rotation.device):
        yield (operator @ rotation.double()).float()


def normal_equations(sums: ConvolutionSums, box_size: int, shell_max: int, world: World = ALONE) -> NormalEquations:
    """Normal equations of sums over images, of all processes that share these."""
    # A backprojection to twice the box divides by that box once; the operator P* P carries 1 / box_size twice.
    right_side, kernel = world.total(sums.right_side(), sums.kernel() * (_OVERSAMPLING / box_size))
    kernel_ft = padded_rfft3(kernel[None], kernel.shape[-1])[0].real
    return NormalEquations(right_side, kernel_ft, shell_max)


class _ExpectedBackground:
    """What a mean volume shows of slow backgrounds."""

    def __init__(self, disk: HalfDisk, mean: Tensor, options: SliceOptions) -> None:
        self._disk = support(disk)
        self._projector = create_projector(int(mean.shape[-1]), self._disk, options)
        self._grid = self._projector.to_grid(mean[None])

    def coordinates(self, batch: Batch) -> Tensor | None:
        """Coordinates (n, k) of the background of its slices; None if the images have none."""
        if batch.background is None:
            return None
        ctf = batch.ctf[:, : len(self._disk)] * batch.contrast[:, None]
        slices = self._projector.project(self._grid, batch.rotation, ctf)
        return batch.background.coordinates_of(slices, self._disk.weight.to(slices.device))[..., 0]


def solve(
    normal: NormalEquations,
    precision: Tensor,
    *,
    iterations: int = 25,
    tolerance: float = 1e-4,
) -> Tensor:
    """Solve (sum_i P_i* P_i + precision) v = sum_i P_i* Y_i in the ball of the box by preconditioned CG.

    The kernel of an interpolation is least accurate for voxels at opposite ends of the box; inside the ball, outside
    which no molecule reaches, it is good enough to keep the operator positive.

    Parameters
    ----------
    normal : NormalEquations
    precision : Tensor, shape (z, y, x // 2 + 1)
        Inverse prior variance of each Fourier coefficient, in the units of :meth:`NormalEquations.density`; positive
        wherever the density may vanish.
    iterations : int
        At most.
    tolerance : float
        Relative size of the preconditioned residual at which to stop.

    Returns
    -------
    Tensor, shape (z, y, x), float32
        Band-limited to the images' band, and inside the ball up to that.
    """
    box_size = normal.box_size
    device = normal.right_side.device
    band = volume_radius(box_size, device) <= normal.shell_max
    root = sphere_mask(box_size, 0.5 * box_size - _EDGE, _EDGE, device).sqrt()
    # Divided by the dip at the origin alone, iterations multiply rounding errors by ten thousand.
    spectrum = bounded_spectrum(normal.density() + precision, mask_overlap(root))
    inverse = torch.where(band, 1.0 / spectrum.clamp_min(1e-20), 0.0)

    def operator(volume: Tensor) -> Tensor:
        inside = root * volume
        pulled = ft_to_volume(precision * volume_to_ft(inside), box_size)
        return root * (normal.apply(inside) + pulled)

    def precondition(residual: Tensor) -> Tensor:
        return ft_to_volume(inverse * volume_to_ft(residual), box_size)

    volume = torch.zeros_like(normal.right_side)
    residual = root * normal.right_side
    direction = precondition(residual)
    energy = start_energy = torch.sum(residual * direction)
    conjugate = direction.clone()
    for _ in range(iterations):
        if float(energy) <= tolerance**2 * float(start_energy):
            break
        image = operator(conjugate)
        curvature = torch.sum(conjugate * image)
        if not float(curvature) > 0:
            # The kernel of an interpolation is accurate to about a percent: along directions that hardly any image
            # sees, the operator may come out negative. What has been found so far is the answer.
            break
        step = energy / curvature
        volume += step * conjugate
        residual -= step * image
        direction = precondition(residual)
        new_energy = torch.sum(residual * direction)
        conjugate = direction + (new_energy / energy) * conjugate
        energy = new_energy
    return low_pass(root * volume, normal.shell_max)


def mask_overlap(mask_root: Tensor) -> Tensor:
    """Normalised autocorrelation of a mask (z, y, x); multiplying by it smooths a spectrum as the mask does."""
    overlap = ft_to_volume((volume_to_ft(mask_root).abs() ** 2).to(torch.complex64), mask_root.shape[-1])
    return overlap / overlap.max()


def bounded_spectrum(spectrum: Tensor, overlap: Tensor) -> Tensor:
    """Raise the spectrum of an operator to what a mask on both sides makes of it.

    Inside a mask neighbouring frequencies mix: where the spectrum dips (at the origin, between shells of a prior), the
    masked operator sees the average of the surroundings, and a step that is divided by the dip overshoots.

    Parameters
    ----------
    spectrum : Tensor, shape (..., z, y, x // 2 + 1), real, positive
    overlap : Tensor, shape (z, y, x)
        From :func:`mask_overlap`.

    Returns
    -------
    Tensor, same shape
    """
    smooth_ft = volume_to_ft(ft_to_volume(spectrum.to(torch.complex64), overlap.shape[-1]) * overlap)
    return torch.maximum(spectrum, smooth_ft.real)


def crop_density(density: Tensor, box_size: int, new_size: int) -> Tensor:
    """Carry a density (or precision), (..., z, y, x // 2 + 1), over to the smaller box of a lower band.

    With Fourier coefficients kept, the energy of a volume over its sum of squares changes with the box; D / box_size is
    what stays.
    """
    return resize_volume_ft(density, box_size, new_size) * (new_size / box_size)
