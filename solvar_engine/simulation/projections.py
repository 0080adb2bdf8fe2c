"""Volumes and projections of Gaussian atoms in closed form: no grid is ever interpolated.

The transform of a Gaussian atom of mass m and standard deviation s at x is

    m exp(-2 pi^2 s^2 k^2) exp(-2 pi i k.x),

with x and s in fractions of the box and k in Fourier pixels. Its phase is a product over the axes, so a sum
over atoms is a matrix product of small phase matrices. Volumes and images are limited to the same band (the
last complete shell), so that every image is a projection of its volume to rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk, ft_to_volume, nyquist_shell

_NEGLIGIBLE = 1e-7
"""Relative amplitude below which an atom's transform is not evaluated: the rounding of single precision."""

_PLANES_TOGETHER = 8
"""Planes of a volume that are summed at once: some 10 MB."""


def atom_band(box_size: int, sigma: float) -> int:
    """Last shell at which atoms have something to say.

    Parameters
    ----------
    box_size : int
    sigma : float
        Standard deviation of the atoms, in fractions of the box.

    Returns
    -------
    int
        At most the last complete shell of the box.

    Examples
    --------
    >>> atom_band(64, 1 / 64), atom_band(256, 1 / 64)
    (31, 58)
    """
    last = math.sqrt(-math.log(_NEGLIGIBLE) / 2.0) / (math.pi * sigma)
    return min(nyquist_shell(box_size), math.ceil(last))


def project_atoms(atoms: Tensor, mass: Tensor, rotation: Tensor, disk: HalfDisk, sigma: float) -> Tensor:
    """Project sets of Gaussian atoms along z of the image frame.

    Parameters
    ----------
    atoms : Tensor, shape (n, atoms, 3)
        (x, y, z) in the volume's frame about the box centre, fractions of the box.
    mass : Tensor, shape (n, atoms)
        Sum over the voxels of each atom.
    rotation : Tensor, shape (n, 3, 3)
        Image to volume.
    disk : HalfDisk
    sigma : float
        Standard deviation of the atoms, in fractions of the box.

    Returns
    -------
    Tensor, shape (n, pixels), complex64
        Orthonormal transform of the projections (sums along z of :func:`atom_volume`).

    Examples
    --------
    >>> disk = HalfDisk.create(16)
    >>> one = project_atoms(torch.zeros(1, 1, 3), torch.ones(1, 1), torch.eye(3)[None], disk, 1 / 32)
    >>> one[0, 0].real.item()
    0.0625
    """
    band = min(disk.shell_max, atom_band(disk.box_size, sigma))
    inside = disk.prefix(band)
    in_image = (atoms.to(rotation.dtype) @ rotation)[..., :2].float()  # rows of R^T x
    # cosines and sines instead of complex exponentials: real products, and ky < 0 comes from ky > 0
    shell = torch.arange(band + 1, dtype=torch.float32, device=atoms.device)
    angle_rad = (2 * math.pi * in_image)[..., None] * shell
    waves = angle_rad.new_empty(*in_image.shape, 2 * (band + 1))
    torch.cos(angle_rad, out=waves[..., : band + 1])
    torch.sin(angle_rad, out=waves[..., band + 1 :])
    waves_x, waves_y = waves.unbind(2)
    sums = (waves_y * mass.float()[..., None]).transpose(1, 2) @ waves_x
    kx, ky = inside.pixels.to(atoms.device).unbind(1)
    row, column = ky.abs(), kx
    sine_row, sine_column = row + band + 1, column + band + 1
    sign = torch.sign(ky).float()
    real = sums[:, row, column] - sign * sums[:, sine_row, sine_column]
    imaginary = -sign * sums[:, sine_row, column] - sums[:, row, sine_column]
    envelope = _envelope((kx**2 + ky**2).float(), sigma) / disk.box_size
    slices = torch.zeros(len(atoms), len(disk), dtype=torch.complex64, device=atoms.device)
    slices[:, : len(inside)] = torch.complex(real, imaginary) * envelope
    return slices


def atom_volume(atoms: Tensor, mass: Tensor, box_size: int, sigma: float) -> Tensor:
    """Evaluate the density of Gaussian atoms on a grid, limited to the band of the images.

    Parameters
    ----------
    atoms : Tensor, shape (atoms, 3)
        (x, y, z) about the box centre, fractions of the box.
    mass : Tensor, shape (atoms,)
        Sum over the voxels of each atom.
    box_size : int
    sigma : float
        Standard deviation of the atoms, in fractions of the box.

    Returns
    -------
    Tensor, shape (z, y, x), float32

    Examples
    --------
    >>> round(atom_volume(torch.zeros(1, 3), torch.ones(1), 16, 1 / 16).sum().item(), 5)
    1.0
    """
    band = atom_band(box_size, sigma)
    shell = torch.arange(-band, band + 1, dtype=torch.float64, device=atoms.device)
    angle_rad = -2 * math.pi * atoms.double().T[..., None] * shell
    waves_x, waves_y, waves_z = torch.polar(torch.ones_like(angle_rad), angle_rad).to(torch.complex64)
    waves_x = waves_x[:, band:]
    weighted_y = (waves_y * mass.to(waves_y)[:, None]).T.contiguous()
    planes = [_planes(part, weighted_y, waves_x) for part in waves_z.T.split(_PLANES_TOGETHER)]
    squared = shell[:, None, None] ** 2 + shell[None, :, None] ** 2 + shell[None, None, band:] ** 2
    envelope = torch.where(squared <= band**2, _envelope(squared, sigma), 0.0) / box_size
    volume_ft = torch.zeros(box_size, box_size, box_size // 2 + 1, dtype=torch.complex64, device=atoms.device)
    middle = slice(box_size // 2 - band, box_size // 2 + band + 1)
    volume_ft[middle, middle, : band + 1] = torch.cat(planes) * envelope.float()
    return ft_to_volume(volume_ft, box_size)


def _planes(waves_z: Tensor, weighted_y: Tensor, waves_x: Tensor) -> Tensor:
    """Sums over atoms for some kz: (kz, atoms), (ky, atoms), (atoms, kx) -> (kz, ky, kx)."""
    return (waves_z[:, None, :] * weighted_y) @ waves_x


def _envelope(radius_squared: Tensor, sigma: float) -> Tensor:
    """Transform of a unit Gaussian at squared radii in Fourier pixels."""
    return torch.exp(-2 * math.pi**2 * sigma**2 * radius_squared)
