"""What a microscope does to all images of an optics group beside the CTF: odd aberrations and distortion, as in RELION.

Zernike polynomials are those of Zivanov, Nakane & Scheres (IUCrJ 2020, 7, 253), of frequencies in 1/Angstrom that are
not scaled to a unit disk. Even ones are part of the argument of the CTF (`solvar_engine.imaging.ctf`); odd ones are a
phase, which is taken from the images once and leaves their noise as it is.

Magnification, stated once: an image's coefficient at its own frequency k is that of the molecule's projection, and of
the CTF, at M k. Images are sampled where M k lies on the grid, so that all that follows knows of no distortion; shifts
of images by s are shifts by M^-T s there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk, images_to_disk, images_to_distorted_disk, images_to_scaled_disk

_SAME = 1e-6  # of frequencies, relative


@dataclass(frozen=True)
class Aberrations:
    """Odd aberrations and distortion of each optics group.

    Attributes
    ----------
    magnification : Tensor, shape (groups, 2, 2), float64
        M, applied to (kx, ky).
    odd_zernike : Tensor, shape (groups, terms), float64
        Radian; see `odd_zernike`.
    """

    magnification: Tensor
    odd_zernike: Tensor

    @staticmethod
    def none(groups: int) -> Aberrations:
        """Of a perfect microscope."""
        identity = torch.eye(2, dtype=torch.float64).expand(groups, 2, 2)
        return Aberrations(identity.clone(), torch.zeros(groups, 0, dtype=torch.float64))

    @property
    def table(self) -> Tensor:
        """All numbers of each group, (groups, k)."""
        return torch.cat((self.magnification.flatten(1), self.odd_zernike), dim=1)

    def sampling(self, frequency_ratio: Tensor) -> Tensor:
        """Matrices (groups, 2, 2) that take a pixel of the disk to where it lies in the transform of images, in px.

        ``frequency_ratio`` (groups,) is that of :func:`~.fourier.images_to_scaled_disk`.
        """
        return frequency_ratio.to(self.magnification)[:, None, None] * torch.linalg.inv(self.magnification)

    def corrected(self, images: Tensor, disk: HalfDisk, group: int, frequency_ratio: float, extent: float) -> Tensor:
        """Coefficients as of a perfect microscope, of images of one optics group.

        Parameters
        ----------
        images : Tensor, shape (n, y, x), real
        disk : HalfDisk
        group : int
        frequency_ratio : float
            See :func:`~.fourier.images_to_scaled_disk`.
        extent : float
            Edge of the disk's box, Angstrom.

        Returns
        -------
        Tensor, shape (n, pixels), complex
            In the scale of the orthonormal transform of the images; zero beyond their own Nyquist.
        """
        matrix = frequency_ratio * torch.linalg.inv(self.magnification[group])
        identity = torch.eye(2, dtype=torch.float64)
        if float((matrix - identity).abs().max()) < _SAME:
            coefficients = images_to_disk(images, disk)
        elif float((matrix - frequency_ratio * identity).abs().max()) < _SAME:
            coefficients = images_to_scaled_disk(images, disk, frequency_ratio)
        else:
            coefficients = images_to_distorted_disk(images, disk, matrix)
        odd = self.odd_zernike[group]
        if bool((odd != 0).any()):
            factors = odd_phase_factors(odd.to(images.device), disk, extent)
            coefficients = coefficients * factors.conj().to(coefficients.dtype)
        return coefficients


def even_zernike(frequency: Tensor, terms: int) -> Tensor:
    """Even Zernike polynomials at frequencies (pixels, 2), 1/Angstrom, in RELION's order; (terms, pixels), float64.

    Number i = q^2 + q + m / 2 has n = 2 q, and m = -n, -n + 2, ..., n: the constant first.

    Examples
    --------
    >>> even_zernike(torch.tensor([[0.5, 0.0]]), 4)[:, 0].tolist()
    [1.0, 0.0, -0.5, 0.25]
    """
    orders = [(2 * q, m) for q in range(math.isqrt(max(terms - 1, 0)) + 1) for m in range(-2 * q, 2 * q + 1, 2)]
    return _polynomials(frequency, orders[:terms])


def odd_zernike(frequency: Tensor, terms: int) -> Tensor:
    """Odd Zernike polynomials at frequencies (pixels, 2), 1/Angstrom, in RELION's order; (terms, pixels), float64.

    First y and x, then n = 3 with m = -3, -1, 1, 3, and so on.

    Examples
    --------
    >>> odd_zernike(torch.tensor([[0.5, 0.0]]), 6)[:, 0].tolist()
    [0.0, 0.5, 0.0, 0.0, -0.625, 0.125]
    """
    orders: list[tuple[int, int]] = []
    while len(orders) < terms:
        n = 1 if not orders else orders[-1][0] + 2
        orders.extend((n, m) for m in range(-n, n + 1, 2))
    return _polynomials(frequency, orders[:terms])


def odd_phase_factors(odd: Tensor, disk: HalfDisk, extent: float) -> Tensor:
    """What odd coefficients (..., terms) multiply the pixels of a disk with, of a box of some extent in Angstrom."""
    phase = odd @ odd_zernike(disk.pixels.double().to(odd.device) / extent, odd.shape[-1])
    return torch.polar(torch.ones_like(phase), phase)


def beam_tilt_zernike(tilt_mrad: Tensor, cs_mm: Tensor, wavelength: Tensor) -> Tensor:
    """Odd Zernike coefficients (groups, 6) of a beam tilt's coma: the phase -2 pi Cs lambda^2 s^2 (s . tilt).

    A tilt t moves what lies at s by Cs lambda^2 s^2 t (Glaeser et al., J. Struct. Biol. 2011, 174, 1); sign as RELION.

    Parameters
    ----------
    tilt_mrad : Tensor, shape (groups, 2)
    cs_mm : Tensor, shape (groups,)
    wavelength : Tensor, shape (groups,)
        Angstrom.
    """
    cubic = -2e4 * torch.pi * (cs_mm * wavelength**2)[:, None] * tilt_mrad.flip(1)  # y first; mm by mrad in Angstrom
    zero = torch.zeros_like(cubic[:, :1])
    # s^2 x = ((3 s^3 - 2 s) + 2 s) x / (3 s)
    return torch.cat((2 * cubic / 3, zero, cubic / 3, zero), dim=1)


def undistorted_shift(shift: Tensor, magnification: Tensor) -> Tensor:
    """Shifts (n, 2) of images that were distorted by M (n, 2, 2) as shifts of what they are without: M^-T s."""
    return torch.linalg.solve(magnification.mT, shift[:, :, None])[:, :, 0]


def distorted_shift(shift: Tensor, magnification: Tensor) -> Tensor:
    """Inverse of :func:`undistorted_shift`."""
    return (magnification.mT @ shift[:, :, None])[:, :, 0]


def _polynomials(frequency: Tensor, orders: list[tuple[int, int]]) -> Tensor:
    x, y = frequency.double().unbind(1)
    squared, turn = x * x + y * y, torch.complex(x, y)
    found = [torch.zeros(0, len(x), dtype=torch.float64, device=x.device)]
    for n, m in orders:
        radial = torch.zeros_like(squared)
        for k in range((n - abs(m)) // 2 + 1):
            factor = math.factorial(n - k) // (math.factorial(k) * math.factorial((n + abs(m)) // 2 - k))
            factor //= math.factorial((n - abs(m)) // 2 - k)
            radial += (-1) ** k * factor * squared ** ((n - abs(m)) // 2 - k)
        angular = turn ** abs(m)  # holds s^|m|
        found.append((radial * (angular.real if m >= 0 else angular.imag))[None])
    return torch.cat(found)
