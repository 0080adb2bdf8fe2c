"""A map as numbers of its Hartley transform, and slices of it that have gradients by map and rotation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors import gather
from solvar_engine.projectors.grid import GridGeometry

_LEAST = 1e-3  # of the root mean square of a map's numbers, below which the exponent does not follow them


class HartleyVolume(nn.Module):
    """Explicit map: mantissa times exp(exponent) at each cell of a grid (equation 8 of Shekarforoush et al., 2024).

    The Hartley transform of a real map is real, H(k) = Re F(k) - Im F(k) (equation 7, which has an i too many), and
    tells the Fourier transform: Re F is its even part, Im F minus its odd one.

    Parameters
    ----------
    geometry : GridGeometry
        Of the grid that slices are read off; interpolation 'trilinear'.

    Attributes
    ----------
    mantissa, exponent : Parameter, shape (z, y, x)
        Over a cube centred at frequency nought.
    """

    def __init__(self, geometry: GridGeometry, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.geometry = geometry
        shape = (2 * geometry.centre + 1,) * 3
        self.mantissa = nn.Parameter(torch.zeros(shape, dtype=dtype))
        self.exponent = nn.Parameter(torch.zeros(shape, dtype=dtype))

    @staticmethod
    def of(volume: Tensor, geometry: GridGeometry) -> HartleyVolume:
        """Parameters of a real map (z, y, x), whose exponents are the logarithms of its strength at each radius."""
        made = HartleyVolume(geometry, volume.dtype).to(volume.device)
        half = geometry.to_grid(volume[None])[..., 0]
        whole = torch.cat((half[:, :, 1:].conj().flip(0, 1, 2), half), dim=2)
        numbers = whole.real - whole.imag
        with torch.no_grad():
            made.exponent.copy_(_strength(numbers).log())
            made.mantissa.copy_(numbers / made.exponent.exp())
        return made

    def grid(self) -> Tensor:
        """Fourier transform on the half kx >= 0, (z, y, x, 1), complex, as projectors have it."""
        numbers = self.mantissa * self.exponent.exp()
        opposite = numbers.flip(0, 1, 2)
        half = slice(self.geometry.centre, None)
        real, imaginary = (numbers + opposite) / 2, (opposite - numbers) / 2
        return torch.complex(real[:, :, half], imaginary[:, :, half])[..., None]

    def volume(self) -> Tensor:
        """Real map (z, y, x) of these numbers, cut to the box."""
        known = self.geometry
        grid = self.grid()
        mates = torch.full((grid.shape[2], 1), 2.0, dtype=self.mantissa.dtype, device=grid.device)
        mates[0] = 1.0  # the plane kx = 0 has both of each pair
        correction = known.gridding_correction(self.mantissa.dtype, grid.device)
        # the adjoint of `to_grid` divides by what the inverse multiplies with
        adjoint = known.to_volumes(grid * mates)[0]
        return adjoint * correction.square() * (known.box_size**2 / known.padded_size**3)


def read_slices(grid: Tensor, geometry: GridGeometry, disk: HalfDisk, rotation: Tensor) -> Tensor:
    """Interpolate central slices, with gradients by map and rotation.

    Parameters
    ----------
    grid : Tensor, shape (z, y, x >= 0, 1), complex
        Of :meth:`HartleyVolume.grid` or a projector.
    geometry : GridGeometry
    disk : HalfDisk
    rotation : Tensor, shape (n, 3, 3)
        Image to map.

    Returns
    -------
    Tensor, shape (n, pixels), complex
    """
    cells = disk.pixels.to(rotation) * geometry.oversampling
    places = torch.einsum("nij,pj->npi", rotation[:, :, :2], cells)
    return gather.read(grid, geometry, places)[..., 0]


def _strength(numbers: Tensor) -> Tensor:
    """Root mean square of numbers (z, y, x) at each distance from the centre, as a field of the same shape."""
    axis = torch.arange(len(numbers), device=numbers.device) - len(numbers) // 2
    squared = axis.square()
    radius = (squared[:, None, None] + squared[:, None] + squared).double().sqrt().round().long()
    count = torch.bincount(radius.flatten()).clamp_min(1)
    total = torch.zeros(len(count), dtype=torch.float64, device=numbers.device)
    total.index_add_(0, radius.flatten(), numbers.double().square().flatten())
    strength = (total / count).sqrt()
    least = _LEAST * float(numbers.double().square().mean().sqrt())
    return strength.clamp_min(max(least, torch.finfo(torch.float32).tiny)).to(numbers.dtype)[radius]
