"""Small particle sets in memory whose images are known in closed form, and the exact slice operator as a matrix.

Atoms have fixed places; the mean and each factor are different masses on them. So an image is exactly linear in its
latent coordinates, and no projector has a hand in making it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.distributed.world import ALONE, World
from solvar_engine.imaging.fourier import HalfDisk, images_to_disk
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.imaging.types import Batch
from solvar_engine.simulation.projections import atom_volume, project_atoms


@dataclass(frozen=True)
class MemorySource:
    """Whitened particles in memory, as any algorithm sees them.

    batch_limit: never yield more images together, whatever the algorithm would like.
    """

    images: Tensor
    ctf: Tensor
    rotation: Tensor
    contrast: Tensor
    disk: HalfDisk
    box_size: int
    pixel_size: float = 3.0
    batch_limit: int | None = None
    world: World = ALONE

    def __len__(self) -> int:
        return int(self.images.shape[0])

    @property
    def everyone(self) -> Tensor:
        return torch.arange(len(self))

    def batches(self, index: Tensor, disk: HalfDisk, batch_size: int) -> Iterator[Batch]:
        pixels = slice(0, len(disk))
        for rows in index.split(min(batch_size, self.batch_limit or batch_size)):
            yield Batch(
                self.images[rows, pixels], self.ctf[rows, pixels], self.rotation[rows], self.contrast[rows], rows
            )

    def double(self) -> MemorySource:
        """Return the same numbers in double precision."""
        return replace(
            self,
            images=self.images.to(torch.complex128),
            ctf=self.ctf.double(),
            rotation=self.rotation.double(),
            contrast=self.contrast.double(),
        )


@dataclass(frozen=True)
class LinearPhantom:
    """Atoms (atoms, 3), in fractions of the box, whose masses are mean_mass + z @ factor_mass."""

    atoms: Tensor
    mean_mass: Tensor
    factor_mass: Tensor
    sigma: float

    @staticmethod
    def create(
        rank: int, *, strength: float = 1.0, atoms: int = 30, sigma: float = 0.05, seed: int = 0
    ) -> LinearPhantom:
        """Put atoms within a quarter of the box; factors are their random masses, each weaker than the one before."""
        generator = torch.Generator().manual_seed(seed)
        direction = torch.randn(atoms, 3, generator=generator)
        radius = 0.25 * torch.rand(atoms, 1, generator=generator) ** (1 / 3)
        place = direction / direction.norm(dim=1, keepdim=True) * radius
        mean_mass = 0.5 + torch.rand(atoms, generator=generator)
        weaker = 0.7 ** torch.arange(rank)[:, None]
        factor_mass = strength * weaker * torch.randn(rank, atoms, generator=generator)
        return LinearPhantom(place, mean_mass, factor_mass, sigma)

    def scaled(self, amount: float) -> LinearPhantom:
        """Multiply all masses."""
        return replace(self, mean_mass=amount * self.mean_mass, factor_mass=amount * self.factor_mass)

    def mean(self, box_size: int) -> Tensor:
        return atom_volume(self.atoms, self.mean_mass, box_size, self.sigma)

    def factors(self, box_size: int) -> Tensor:
        return torch.stack([atom_volume(self.atoms, mass, box_size, self.sigma) for mass in self.factor_mass])

    def slices(self, z: Tensor, rotation: Tensor, disk: HalfDisk) -> Tensor:
        """Project the states z (n, r) without transfer function, shape (n, pixels)."""
        mass = self.mean_mass + z @ self.factor_mass
        return project_atoms(self.atoms.expand(len(z), -1, -1), mass, rotation, disk, self.sigma)


@dataclass(frozen=True)
class Simulation:
    """A source with what made it: latent coordinates z (n, r) of unit variance."""

    source: MemorySource
    phantom: LinearPhantom
    z: Tensor


def simulate(
    phantom: LinearPhantom,
    count: int,
    box_size: int,
    *,
    noise: float = 1.0,
    contrast: Tensor | None = None,
    seed: int = 1,
    states: Tensor | None = None,
) -> Simulation:
    """Draw particles with random rotations, transfer functions without common zeros, and white noise.

    Latent coordinates are N(0, I), or those of one of the states (k, r).
    """
    generator = torch.Generator().manual_seed(seed)
    disk = HalfDisk.create(box_size)
    rotation = random_rotations(count, generator)
    z = torch.randn(count, len(phantom.factor_mass), generator=generator)
    if states is not None:
        z = states[torch.randint(len(states), (count,), generator=generator)]
    ctf = random_ctf(count, disk, generator)
    contrast = torch.ones(count) if contrast is None else contrast
    signal = phantom.slices(z, rotation, disk) * ctf * contrast[:, None]
    white = images_to_disk(torch.randn(count, box_size, box_size, generator=generator), disk)
    source = MemorySource(signal + noise * white, ctf, rotation, contrast, disk, box_size)
    return Simulation(source, phantom, z)


def random_ctf(count: int, disk: HalfDisk, generator: torch.Generator) -> Tensor:
    """Waves over the squared radius with a random start: every shell is seen equally well on average."""
    start, speed = torch.rand(2, count, 1, generator=generator)
    squared = (disk.pixels.float() / disk.shell_max).square().sum(dim=1)
    return torch.cos(2 * torch.pi * (start + speed * squared))


def exact_slices(source: MemorySource, rows: Tensor | None = None) -> Tensor:
    """Build the operator from volumes to slices by its definition, shape (n, pixels, voxels), complex128.

    A slice is the volume's transform, over the box size, at R (kx, ky, 0); no transfer function.
    """
    rows = source.everyone if rows is None else rows
    box_size = source.box_size
    axis = torch.arange(box_size, dtype=torch.float64) - box_size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    place = torch.stack((x.flatten(), y.flatten(), z.flatten()))
    pixels = source.disk.pixels.double()
    frequency = source.rotation[rows].double()[:, :, :2] @ pixels.T
    angle = -2 * torch.pi / box_size * (frequency.transpose(1, 2) @ place)
    return torch.polar(torch.ones_like(angle), angle) / box_size


def real_rows(coefficients: Tensor, disk: HalfDisk) -> Tensor:
    """Turn half-disk coefficients (..., pixels) into real numbers whose plain inner products are the full plane's.

    White noise of unit variance per coefficient becomes independent numbers of unit variance; the imaginary part of
    the origin, which real images do not have, is left out.
    """
    scaled = coefficients * disk.weight.to(coefficients.real.dtype).sqrt()
    return torch.cat((scaled.real, scaled.imag[..., 1:]), dim=-1)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def relative_error(value: Tensor, truth: Tensor) -> float:
    """Norm of the difference over the norm of the truth."""
    return float((value - truth).norm() / truth.norm())
