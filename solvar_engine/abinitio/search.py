"""Search of all images at all poses under maps of low resolution, and the verdict whether there is a structure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import Mixture, images_at_once, low_batches, low_box
from solvar_engine.estimation.pose_scores import Posterior, separated_modes
from solvar_engine.imaging.so3_grid import rotation_grid, spacing_for_shell
from solvar_engine.imaging.types import ParticleSource
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import SliceOptions

_MODES, _SEPARATION_DEG = 4, 30.0
_SIGNIFICANT = 4.0  # standard errors of the mean gain
_TYPICAL = 0.1  # of the mean gain, that most images must reach
_LEAST_GAIN = 0.5  # of an image, below which it says nothing of its pose, however certain the mean is
_CAP_DEG = 12.0  # within which views count for a direction
_SEEN = 0.1  # of the views that an even spread has in a cap
_DIRECTIONS = 1_000
_MOST_UNSEEN = 0.5  # of the frequencies


@dataclass(frozen=True)
class Modes:
    """What a search found for n images: up to M poses each, the most likely first.

    Attributes
    ----------
    rotation : Tensor, shape (n, M, 3, 3), float32
    shift_px : Tensor, shape (n, M, 2), float32
    map_of : Tensor, shape (n, M), int64
        Which map each pose is of; -1 where there are fewer poses.
    gain : Tensor, shape (n,), float64
        Log-likelihood under the maps, poses integrated out, over that under their radially symmetric parts.
    not_junk : Tensor, shape (n,), float64
        Posterior probability that the image shows one of the maps.
    """

    rotation: Tensor
    shift_px: Tensor
    map_of: Tensor
    gain: Tensor
    not_junk: Tensor


def search_all(
    source: ParticleSource,
    mixture: Mixture,
    shell: int,
    operators: Tensor,
    options: SliceOptions,
    progress: Callable[[float], None],
) -> Modes:
    """Score every image of a source against all poses of a grid.

    Parameters
    ----------
    source : ParticleSource
        Whose images are where they are on disk.
    mixture : Mixture
    shell : int
    operators : Tensor, shape (g, 3, 3)
    options : SliceOptions
    progress : callable
        Called with the share that is done.
    """
    disk = source.disk.prefix(shell)
    projector = create_projector(low_box(disk), disk, options)
    device = disk.weight.device
    rotation = rotation_grid(spacing_for_shell(shell), operators).float().to(device)
    grid = mixture.pose_grid(projector, rotation)
    maps, count = len(mixture.volumes), len(source)
    modes = _MODES + 2 * (maps - 1)
    of_maps = slice(0, maps * len(rotation))
    of_radial = slice(of_maps.stop, of_maps.stop + maps)
    share_of_maps, share_of_radial = mixture.shares[:maps].sum().log(), mixture.shares[maps].log()
    found = Modes(
        torch.zeros(count, modes, 3, 3),
        torch.zeros(count, modes, 2),
        torch.full((count, modes), -1),
        torch.zeros(count, dtype=torch.float64),
        torch.zeros(count, dtype=torch.float64),
    )
    done = 0
    for index, images in low_batches(source, torch.arange(count), shell):
        for rows in torch.arange(len(index)).split(images_at_once(grid)):
            part, place = images[rows], index[rows]
            joint = grid.log_joint(grid.shifted(part.images, part.ctf), part.ctf)
            under_maps = Posterior.of(joint[:, :, of_maps]).evidence
            under_radial = Posterior.of(joint[:, :, of_radial]).evidence
            under_junk = Posterior.of(joint[:, :, of_maps.stop :]).evidence
            found.not_junk[place] = torch.sigmoid(under_maps - under_junk).cpu()
            found.gain[place] = (under_maps - share_of_maps - under_radial + share_of_radial).cpu()
            column, shift, _ = separated_modes(joint[:, :, of_maps], rotation, operators, modes, _SEPARATION_DEG)
            found.rotation[place] = rotation[column.clamp_min(0) % len(rotation)].cpu()
            found.shift_px[place] = grid.shift_px[shift].cpu()
            found.map_of[place] = torch.where(column < 0, -1, column // len(rotation)).cpu()
        done += len(index)
        progress(done / count)
    return found


def is_real(gain: Tensor) -> tuple[float, float, bool]:
    """Mean of the gains (n,) of held-out images, its standard error, and whether most images tell of a structure.

    In a bag of junk a few images that are alike make a map, and gain much by it; the others do not, or next to nothing.
    """
    mean, error = float(gain.mean()), float(gain.std() / len(gain) ** 0.5)
    is_typical = float(gain.median()) > _TYPICAL * mean
    return mean, error, mean > max(_LEAST_GAIN, _SIGNIFICANT * error) and is_typical


def missing_views(rotation: Tensor, operators: Tensor) -> tuple[Tensor | None, float, float]:
    """Find directions that are not looked from.

    A view and its opposite count as one: they are mirror images.

    Parameters
    ----------
    rotation : Tensor, shape (n, 3, 3)
    operators : Tensor, shape (g, 3, 3)

    Returns
    -------
    centre : Tensor or None, shape (3,), float64
        Of the largest cap without views; None if there is none.
    radius_deg : float
        Of that cap.
    unseen : float
        Share of the directions of frequencies that no view shows, as far as views are counted.
    """
    direction = _even_directions(_DIRECTIONS)
    cosine = math.cos(math.radians(_CAP_DEG))
    count = torch.zeros(len(direction), dtype=torch.float64)
    for operator in operators:
        views = rotation.double()[:, :, 2] @ operator.T
        for part in views.split(10_000):
            count += ((direction @ part.T).abs() > cosine).sum(dim=1)
    expected = len(rotation) * len(operators) * (1 - cosine)
    is_covered = count >= max(1.0, _SEEN * expected)
    covered = direction[is_covered]
    if not len(covered):
        return direction[0], 90.0, 1.0
    nearest = (direction @ covered.T).abs().max(dim=1).values.clamp_max(1)
    width = math.sin(math.radians(_CAP_DEG / 4))  # a cap that is covered reaches beyond its views already
    unseen = float(((direction @ covered.T).abs().min(dim=1).values > width).double().mean())
    if bool(is_covered.all()):
        return None, 0.0, unseen
    farthest = int(nearest.argmin())
    return direction[farthest], math.degrees(math.acos(float(nearest[farthest]))), unseen


def views_suffice(unseen: float) -> bool:
    """Whether a map is determined by views that leave out this share of the frequencies."""
    return unseen < _MOST_UNSEEN


def _even_directions(count: int) -> Tensor:
    """Unit vectors on a Fibonacci spiral over half the sphere, (count, 3), float64."""
    step = torch.arange(count, dtype=torch.float64) + 0.5
    z = step / count
    angle = math.pi * (1 + math.sqrt(5)) * step
    radius = (1 - z * z).sqrt()
    return torch.stack((radius * angle.cos(), radius * angle.sin(), z), dim=1)
