"""Expectation maximisation on small batches, from random orientations to a map of low resolution.

Each step scores a batch of images against all rotations and shifts of a grid that is turned at random, adds the
posterior-weighted images to running normal equations, and solves these. The prior of the map is fixed from the power of
the images themselves: with that of the present map instead, a weak map weakens its own prior and vanishes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import LowImages, Mixture, centred, free_axes, images_at_once, low_box
from solvar_engine.estimation.model.bands import change_box
from solvar_engine.estimation.pose_scores import Posterior, posterior_sums
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.imaging.shells import shell_count, shell_means, shells_to_volume
from solvar_engine.imaging.so3_grid import rotation_grid, spacing_for_shell
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.mean import density_skewness, weak_precision
from solvar_engine.reconstruction.normal_equations import (
    NormalEquations,
    normal_equations,
    rotations_of_group,
    solve,
)

_START_IMAGES = 100  # of each random map
_BATCH = 200  # images of each class in a step
_MEMORY = 0.3  # weight of a batch in running means
_ITERATIONS = 6  # of conjugate gradients
_LEAST_NOISE = 0.9
_LEAST_POWER = 1e-3  # of the signal, over the noise
_EDGE = 2.0  # voxels
_FIRST_SHIFT_STD, _SHIFT_STD_RANGE = 0.04, (0.025, 0.12)  # of the box; not less than half a step of the grid
_FIRST_JUNK, _LEAST_SHARE, _MOST_JUNK = 0.05, 0.002, 0.5
_SIGN_IMAGES = 2_000
_WEAK_START = 0.1  # of the density


@dataclass(frozen=True)
class Level:
    """One stage of the search.

    Attributes
    ----------
    shell : int
        Last one that counts, Fourier pixels.
    steps : int
        Batches.
    knows_junk : bool
        Whether images may show no map; before there is one, none does better than its radially symmetric part.
    """

    shell: int
    steps: int
    knows_junk: bool = False


LEVELS = (Level(5, 40), Level(6, 30), Level(8, 20, knows_junk=True))
"""25, 20 and 15 degrees between rotations."""


def random_reconstruction(
    images: LowImages, generator: torch.Generator, options: SliceOptions, operators: Tensor
) -> Tensor:
    """Map from images at random orientations, (z, y, x): little more than the radially symmetric part."""
    box_size = low_box(images.disk)
    sums = create_projector(box_size, images.disk, options).convolution_sums()
    weighted = images.disk.weight * images.ctf
    slices, power = images.images * weighted, (images.ctf * weighted).to(images.images.dtype)
    rotation = random_rotations(len(images), generator).to(images.ctf.device)
    for turned in rotations_of_group(rotation, operators):
        sums.add(slices, power, turned)
    normal = normal_equations(sums, box_size, images.disk.shell_max)
    return solve(normal, weak_precision(normal, _WEAK_START), iterations=_ITERATIONS)


def contrast_sign(images: LowImages, generator: torch.Generator, options: SliceOptions) -> int:
    """-1 if the molecule is dark in the images, else 1; density is compact, and a map of random orientations tells."""
    no_symmetry = torch.eye(3, dtype=torch.float64)[None]
    mean = random_reconstruction(images[:_SIGN_IMAGES], generator, options, no_symmetry)
    return -1 if density_skewness(mean) < 0 else 1


def first_mixture(
    images: LowImages,
    classes: int,
    shift_std_px: float | None,
    operators: Tensor,
    generator: torch.Generator,
    options: SliceOptions,
) -> Mixture:
    """Random maps, at the first level."""
    low = images.cut(min(LEVELS[0].shell, images.disk.shell_max))
    volumes = []
    for _ in range(classes):
        rows = torch.randperm(len(low), generator=generator)[:_START_IMAGES]
        volumes.append(finished(random_reconstruction(low[rows], generator, options, operators)))
    shares = torch.tensor([1 / classes] * classes + [0.0, 0.0], dtype=torch.float64)
    shift = first_shift_std(shift_std_px, low.disk.box_size)
    return Mixture(torch.stack(volumes), shares, torch.ones(0, dtype=torch.float64), shift)


def first_shift_std(given_px: float | None, box_size: int) -> float:
    """Standard deviation of the shifts, px, as it is given or, where it is not known, taken to be at first."""
    return _FIRST_SHIFT_STD * box_size if given_px is None else given_px


def of_one_map(volume: Tensor, shift_std_px: float, shell_max: int, operators: Tensor) -> Mixture:
    """What a search that went another way hands on: its map (z, y, x), centred, and images some of which are junk."""
    shares = _with_junk(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    noise = torch.ones(shell_max + 1, dtype=torch.float64)
    return recentred(Mixture(volume[None], shares, noise, shift_std_px), operators)


def improved(
    mixture: Mixture,
    images: LowImages,
    level: Level,
    operators: Tensor,
    generator: torch.Generator,
    options: SliceOptions,
    *,
    fits_shifts: bool,
) -> Iterator[Mixture]:
    """Yield the mixture after each step of a level.

    Parameters
    ----------
    mixture : Mixture
        After the level before.
    images : LowImages
        All that may be used.
    level : Level
    operators : Tensor, shape (g, 3, 3)
    generator : torch.Generator
    options : SliceOptions
    fits_shifts : bool
        Whether the spread of the shifts is to be estimated.
    """
    low = images.cut(level.shell)
    disk, count, maps = low.disk, len(low), len(mixture.volumes)
    box_size = low_box(disk)
    projector = create_projector(box_size, disk, options)
    rotation = rotation_grid(spacing_for_shell(level.shell), operators)
    power = shell_means(low.images.abs().square().mean(dim=0), disk).cpu()
    transfer = shell_means(low.ctf.square().mean(dim=0), disk).cpu()
    precision = prior_precision(power, transfer, box_size)
    noise = power.clamp_min(_LEAST_NOISE)
    noise[: len(mixture.noise)] = mixture.noise
    shares = _with_junk(mixture.shares) if level.knows_junk else mixture.shares
    mixture = replace(mixture, volumes=change_box(mixture.volumes, box_size), noise=noise, shares=shares)
    normals: list[NormalEquations | None] = [None] * maps
    batch_size = min(_BATCH * maps, count)
    order = torch.randperm(count, generator=generator)
    for _ in range(level.steps):
        if len(order) < batch_size:
            order = torch.randperm(count, generator=generator)
        rows, order = order[:batch_size], order[batch_size:]
        turned = (rotation @ random_rotations(1, generator)[0].double()).float().to(low.ctf.device)
        grid = mixture.pose_grid(projector, turned)
        sums = [projector.convolution_sums() for _ in range(maps)]
        residual = torch.zeros(len(disk), dtype=torch.float64)
        mass, squared_shift = torch.zeros(len(grid.slices), dtype=torch.float64), 0.0
        for part in rows.split(images_at_once(grid)):
            of_part = low[part]
            shifted = grid.shifted(of_part.images, of_part.ctf)
            posterior = Posterior.of(grid.log_joint(shifted, of_part.ctf))
            found = posterior_sums(grid, posterior, shifted, of_part.images, of_part.ctf)
            for number in range(maps):
                mine = posterior.used // len(turned) == number
                if not bool(mine.any()):
                    continue
                slices = found.images[mine] * grid.weight
                power_of = (found.power[mine] * grid.weight).to(slices.dtype)
                for orientation in rotations_of_group(turned[posterior.used[mine] % len(turned)], operators):
                    sums[number].add(slices, power_of, orientation.contiguous())
            residual += found.residual.cpu()
            mass[posterior.used.cpu()] += found.mass.cpu()
            squared_shift += found.squared_shift
        volumes = []
        for number, of_map in enumerate(sums):
            normal = running(normals[number], normal_equations(of_map, box_size, level.shell), _MEMORY)
            normals[number] = normal
            volumes.append(finished(solve(normal, precision.to(normal.right_side), iterations=_ITERATIONS)))
        left = shell_means(residual / batch_size, disk)
        shift_std = mixture.shift_std_px
        if fits_shifts:
            variance = (1 - _MEMORY) * shift_std**2 + _MEMORY * squared_shift / (2 * batch_size)
            least, most = (limit * disk.box_size for limit in _SHIFT_STD_RANGE)
            shift_std = min(max(variance**0.5, least), most)
        mixture = Mixture(
            torch.stack(volumes),
            _new_shares(mixture.shares, mass / batch_size, len(turned), level.knows_junk),
            ((1 - _MEMORY) * mixture.noise + _MEMORY * left).clamp_min(_LEAST_NOISE),
            shift_std,
        )
        yield mixture


def recentred(mixture: Mixture, operators: Tensor) -> Mixture:
    """Each map at the centre of its box, as far as its symmetry leaves that open."""
    free = free_axes(operators)
    return replace(mixture, volumes=torch.stack([centred(volume, free) for volume in mixture.volumes]))


def prior_precision(power: Tensor, transfer: Tensor, box_size: int) -> Tensor:
    """Inverse variance of the coefficients of the map: what is beyond noise in the images, over their transfer.

    Parameters
    ----------
    power, transfer : Tensor, shape (shells,)
        Of whitened images, and of their transfer functions squared.
    box_size : int
        Of the map, px.

    Returns
    -------
    Tensor, shape (z, y, x // 2 + 1)
    """
    variance = (power - 1).clamp_min(_LEAST_POWER) / transfer.clamp_min(1e-12)
    variance[0] = variance[1]  # hardly anything is known of the origin
    precision = box_size / variance
    last = precision[-1:].expand(max(0, shell_count(box_size) - len(precision)))
    inside = torch.cat((precision, last))[: shell_count(box_size)]
    return shells_to_volume(inside, box_size, beyond=float(precision[-1]))


def running(before: NormalEquations | None, now: NormalEquations, memory: float) -> NormalEquations:
    """Mean of the equations of batches, in which the last one has the weight ``memory``."""
    if before is None:
        return now
    return NormalEquations(
        (1 - memory) * before.right_side + memory * now.right_side,
        (1 - memory) * before.kernel_ft + memory * now.kernel_ft,
        now.shell_max,
    )


def finished(volume: Tensor) -> Tensor:
    """Density is positive, and inside the ball."""
    box_size = len(volume)
    return (volume * sphere_mask(box_size, 0.5 * box_size - _EDGE, _EDGE, volume.device)).clamp_min(0)


def _with_junk(shares: Tensor) -> Tensor:
    """Shares with a first guess of the images that show no map."""
    if float(shares[-2:].sum()) > 0:
        return shares
    return torch.cat((shares[:-2] * (1 - 2 * _FIRST_JUNK), shares.new_full((2,), _FIRST_JUNK)))


def _new_shares(shares: Tensor, mass: Tensor, rotations: int, knows_junk: bool) -> Tensor:
    maps = len(shares) - 2
    columns = mass[: maps * rotations].unflatten(0, (maps, rotations)).sum(dim=1)
    now = torch.cat((columns, mass[maps * rotations : -1].sum()[None], mass[-1:])).clamp_min(_LEAST_SHARE)
    mean = (1 - _MEMORY) * shares + _MEMORY * now
    if not knows_junk:
        mean[-2:] = 0
    junk = float(mean[-2:].sum() / mean.sum())
    if junk > _MOST_JUNK:
        mean[-2:] *= (1 - junk) / junk * _MOST_JUNK / (1 - _MOST_JUNK)
    return mean / mean.sum()
