"""First and second moment of noisy images, summed in one pass, in blocks that in-plane rotations do not mix.

Images Y and transfer functions C are interpolated from the grid of the images to rings. With Z = C Y, the means over
in-plane angles and images are

    M1(k) = sum Z / sum C^2,
    M2(k, k', angle) = (sum Z Z'^* - noise) / sum C^2 C'^2,

where unprimed letters stand at (k, phi + angle) and primed ones at (k', phi), and the noise is that of the interpolated
images, which is known. Each sum over phi is a product of Fourier coefficients on the rings: a block for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import LowImages
from solvar_engine.abinitio.moments.analytic import MomentPair, angles_of, at_angles
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.imaging.masks import real_radius

PADDING = 5
"""Shells beyond the last ring that interpolation needs."""

_FIRST_RING = 2  # what the origin holds is hardly known, and interpolation reaches a pixel around it
_MASK_EDGE = 1 / 6  # of the box
_LEAST_WEIGHT = 1e-4  # of the largest


@dataclass(frozen=True)
class EmpiricalMoments:
    """Moments of images, as if there were neither noise nor transfer functions.

    Attributes
    ----------
    ring : Tensor, shape (rings,), float64
        Fourier pixels.
    moments : MomentPair
        Shifts are in them.
    weight : Tensor, shape (rings, rings), float64
        How surely the second moment is known: mean of C^2 C'^2 over its largest value, 0 where there is too little.
    count : int
        Images.
    half_difference : Tensor, optional, shape (rings, rings, angles)
        Half of that of the second moments of two halves of the images: as large as the error of that of all.
    """

    ring: Tensor
    moments: MomentPair
    weight: Tensor
    count: int
    half_difference: Tensor | None = None


class RingInterpolation:
    """From half-disk pixels to rings, for images that end within a ball of the box.

    Parameters
    ----------
    disk : HalfDisk
        Pixels of the images, `PADDING` shells beyond the last ring.
    ring : Tensor, shape (rings,)
        Fourier pixels.
    """

    def __init__(self, disk: HalfDisk, ring: Tensor) -> None:
        self.ring = ring.double()
        # an image that ends at a radius of half a box has so many angular frequencies on the last ring
        self.angles = 4 * math.ceil((math.pi * float(ring.max()) + 3) / 2)
        phi = angles_of(self.angles)[: self.angles // 2]  # the other half of the circle is the conjugate
        circle = torch.stack((phi.cos(), phi.sin()), dim=1)
        places = (self.ring[:, None, None] * circle).reshape(-1, 2)
        pixels = disk.pixels.to("cpu", torch.float64)
        direct, mirrored = (_transform_of_mask(places, sign * pixels, disk.box_size) for sign in (1, -1))
        # images are conjugate at opposite frequencies; the origin is its own
        weight = disk.weight.to("cpu", torch.float64)
        even, odd = (direct + mirrored) * (weight / 2), direct - mirrored
        self._even, self._odd = even.to(disk.weight), odd.to(disk.weight)
        frequency = torch.arange(self.angles // 2 + 1)[:, None] * phi
        dft = torch.polar(torch.ones_like(frequency), -frequency) * (2 / self.angles)
        self._dft = dft.to(disk.weight.device, torch.complex64)
        by_angle = (part.unflatten(0, (len(self.ring), -1)).transpose(0, 1).flatten(1) for part in (even, odd))
        blocks = torch.empty(len(dft), len(self.ring), len(self.ring), dtype=torch.complex128)
        for parity, part in enumerate(by_angle):
            coefficients = _real_product(part.T, dft[parity::2]).unflatten(0, (len(self.ring), -1)).movedim(2, 0)
            blocks[parity::2] = (coefficients / weight) @ coefficients.mH
        self._noise = at_angles(blocks, angles_of(self.angles))

    @property
    def noise(self) -> Tensor:
        """Covariance of white noise of variance one on rings, (rings, rings, angles), mean over directions."""
        return self._noise

    def images(self, half_disk: Tensor) -> Tensor:
        """Coefficients (n, rings, angles / 2), complex, on half of the rings, of images (n, pixels)."""
        on_rings = torch.complex(half_disk.real @ self._even.T, half_disk.imag @ self._odd.T)
        return on_rings.unflatten(1, (len(self.ring), -1))

    def transfer(self, half_disk: Tensor) -> Tensor:
        """The same of real functions that are alike at opposite frequencies, real."""
        return (half_disk @ self._even.T).unflatten(1, (len(self.ring), -1))

    def coefficients(self, half_rings: Tensor) -> Tensor:
        """Fourier coefficients (n, rings, angles / 2 + 1), complex, of rings of which half is given."""
        if half_rings.is_complex():  # even ones are those of the real part, odd ones those of the imaginary part
            found = half_rings.new_empty(*half_rings.shape[:2], len(self._dft))
            found[..., ::2] = _real_product(half_rings.real, self._dft[::2])
            found[..., 1::2] = 1j * _real_product(half_rings.imag, self._dft[1::2])
            return found
        found = half_rings.new_zeros(*half_rings.shape[:2], len(self._dft), dtype=torch.complex64)
        found[..., ::2] = _real_product(half_rings, self._dft[::2])
        return found


class MomentSums:
    """Sums over images; their size does not depend on how many these are.

    Parameters
    ----------
    interpolation : RingInterpolation
    """

    def __init__(self, interpolation: RingInterpolation) -> None:
        self._interpolation = interpolation
        rings, blocks = len(interpolation.ring), interpolation.angles // 2 + 1
        self._signal, self._power, self._noise = (
            torch.zeros(blocks, rings, rings, dtype=torch.complex128) for _ in range(3)
        )
        self._first, self._first_power = (torch.zeros(rings, dtype=torch.float64) for _ in range(2))
        self.count = 0

    def add(self, images: LowImages) -> None:
        """Add whitened images."""
        to = self._interpolation
        transfer = to.transfer(images.ctf)
        signal = to.coefficients(transfer * to.images(images.images))
        power, once = to.coefficients(transfer.square()), to.coefficients(transfer)
        for sums, values in ((self._signal, signal), (self._power, power), (self._noise, once)):
            by_block = values.movedim(0, 2).movedim(1, 0)  # (blocks, rings, n)
            sums += (by_block @ by_block.mH).cpu()
        self._first += signal[:, :, 0].real.double().sum(dim=0).cpu()
        self._first_power += power[:, :, 0].real.double().sum(dim=0).cpu()
        self.count += len(images)

    def __add__(self, other: MomentSums) -> MomentSums:
        """Sums over the images of both."""
        both = MomentSums(self._interpolation)
        for one in (self, other):
            both._signal += one._signal
            both._power += one._power
            both._noise += one._noise
            both._first += one._first
            both._first_power += one._first_power
            both.count += one.count
        return both

    def moments(self) -> EmpiricalMoments:
        """Moments without the noise and the transfer functions.

        Raises
        ------
        ValueError
            If there was no image, or none with any transfer.
        """
        angles = angles_of(self._interpolation.angles)
        signal, power, noise = (at_angles(sums, angles) for sums in (self._signal, self._power, self._noise))
        mean_power = power.mean(dim=2)
        if not float(mean_power.max()) > 0:
            raise ValueError("there are no images with a contrast transfer of which moments could be taken")
        weight = mean_power / mean_power.max()
        is_known = weight > _LEAST_WEIGHT
        least = _LEAST_WEIGHT * mean_power.max()
        second = (signal - noise * self._interpolation.noise) / power.clamp_min(float(least) / 2)
        first = self._first / self._first_power.clamp_min(1e-30)
        return EmpiricalMoments(
            self._interpolation.ring,
            MomentPair(first, torch.where(is_known[:, :, None], second, 0.0)),
            torch.where(is_known, weight, 0.0),
            self.count,
        )


def moments_of(batches: Iterable[LowImages], shell: int) -> EmpiricalMoments:
    """Moments up to a shell, in one pass.

    Parameters
    ----------
    batches : iterable of LowImages
        Whitened, cut `PADDING` shells beyond the last ring.
    shell : int
        Last ring.

    Raises
    ------
    ValueError
        If there is no image.
    """
    halves: list[MomentSums] = []
    for images in batches:
        if not halves:
            interpolation = RingInterpolation(images.disk, torch.arange(_FIRST_RING, shell + 1, dtype=torch.float64))
            halves = [MomentSums(interpolation), MomentSums(interpolation)]
        for start, half in enumerate(halves):
            half.add(images[start::2])
    if not halves:
        raise ValueError("there are no images of which moments could be taken")
    found, one, other = (sums.moments() for sums in (halves[0] + halves[1], *halves))
    return replace(found, half_difference=(one.moments.second - other.moments.second) / 2)


def _transform_of_mask(places: Tensor, pixels: Tensor, box_size: int) -> Tensor:
    """Transform of a round mask at places (m, 2) less pixels (p, 2), over the area of the box; (m, p), float64."""
    axis = torch.arange(box_size, dtype=torch.float64) - box_size // 2
    edge = _MASK_EDGE * box_size
    beyond = (real_radius(box_size, 2).double() - 0.5 * box_size) / edge + 1
    mask = 0.5 + 0.5 * (math.pi * beyond.clamp(0, 1)).cos()
    # of an even box the first row and column have no mates; the mask is 0 there, so that its transform is real
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = mask > 0
    points = torch.stack((x[inside], y[inside])) * (2 * math.pi / box_size)
    at_places, at_pixels = places @ points, pixels @ points
    weighted = mask[inside] / box_size**2
    return (at_places.cos() * weighted) @ at_pixels.cos().T + (at_places.sin() * weighted) @ at_pixels.sin().T


def _real_product(values: Tensor, matrix: Tensor) -> Tensor:
    """Product of real values (..., n) and a complex matrix (m, n): (..., m)."""
    return torch.complex(values @ matrix.real.T, values @ matrix.imag.T)
