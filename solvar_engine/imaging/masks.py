"""Real-space masks: spheres, soft edges and the automatic mask of a density."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from solvar_engine.imaging.fourier import low_pass

BALL = 0.42
"""Radius over the box of the ball that stands in for a mask where there is none: molecules reach no farther."""


def real_radius(box_size: int, dimensions: int, device: torch.device | str = "cpu") -> Tensor:
    """Distance of each pixel or voxel from the centre, px, float32."""
    axis = torch.arange(box_size, dtype=torch.float32, device=device) - box_size // 2
    grids = torch.meshgrid(*[axis] * dimensions, indexing="ij")
    return torch.stack([grid**2 for grid in grids]).sum(dim=0).sqrt()


def sphere_mask(
    box_size: int, radius_px: float, edge_px: float = 3.0, device: torch.device | str = "cpu"
) -> Tensor:
    """Ball of ones with a raised-cosine edge outside ``radius_px``.

    Returns
    -------
    Tensor, shape (z, y, x), float32, between 0 and 1

    Examples
    --------
    >>> sphere_mask(8, 3)[4, 4, 4].item()
    1.0
    """
    return _raised_cosine(real_radius(box_size, 3, device) - radius_px, edge_px)


def soft_edge(binary: Tensor, edge_px: float) -> Tensor:
    """Give a binary mask a raised-cosine edge on its outside.

    Parameters
    ----------
    binary : Tensor, shape (z, y, x), bool
    edge_px : float
        Width of the edge, pixels.

    Returns
    -------
    Tensor, shape (z, y, x), float32, between 0 and 1
    """
    distance = ndimage.distance_transform_edt(~binary.cpu().numpy()).astype(np.float32)
    return _raised_cosine(torch.from_numpy(distance).to(binary.device), edge_px)


def automatic_mask(volume: Tensor, pixel_size: float) -> Tensor:
    """Find the molecule in a density and put a soft mask around it.

    The map is low-passed to about 15 Angstrom (at least an eighth of the box's Nyquist), cut at the level that the
    strongest density and the noise of the corners suggest, reduced to its connected bodies of relevant size, grown by
    a margin that leaves room for motion, and given a soft edge.

    Parameters
    ----------
    volume : Tensor, shape (z, y, x), float32
        Positive density.
    pixel_size : float
        Angstrom.

    Returns
    -------
    Tensor, shape (z, y, x), float32, between 0 and 1

    Raises
    ------
    ValueError
        If the map holds nothing that stands out.
    """
    box_size = volume.shape[-1]
    bodies = _bodies(*_smooth_density(volume, pixel_size))
    if not bool(bodies.any()):
        raise ValueError("no density stands out in the mean volume, so no mask can be made: pass --mask")
    margin = 0.05 * box_size
    grown = torch.from_numpy(ndimage.distance_transform_edt(~bodies.numpy()) <= margin)
    mask = soft_edge(torch.from_numpy(ndimage.binary_fill_holes(grown.numpy())), 0.05 * box_size)
    return (mask * sphere_mask(box_size, 0.47 * box_size, 0.03 * box_size)).to(volume.device)


def share_of_density(volume: Tensor, mask: Tensor, pixel_size: float) -> float:
    """Part of a molecule's density that a mask holds, the density being what `automatic_mask` starts from.

    Parameters
    ----------
    volume : Tensor, shape (z, y, x), float32
        Positive density.
    mask : Tensor, same shape
    pixel_size : float
        Angstrom.

    Returns
    -------
    float
        From 0 to 1; 1 if the map holds nothing that stands out.
    """
    density = _standing_out(volume, pixel_size)
    return float((density * mask.to(density)).sum() / density.sum()) if bool(density.any()) else 1.0


def largest_turned_share(volume: Tensor, mask: Tensor, pixel_size: float) -> float:
    """As `share_of_density`, the largest of a mask whose axes are exchanged or reversed about the centre."""
    density, mask = _standing_out(volume, pixel_size), mask.to(torch.float64)
    size = mask.shape[0]
    reverse = (2 * (size // 2) - torch.arange(size)) % size
    shares = [0.0 if bool(density.any()) else 1.0]
    for axes in permutations(range(3)):
        turned = mask.permute(axes).to(density)
        for reversed_axes in product((False, True), repeat=3):
            part = turned
            for axis in range(3):
                if reversed_axes[axis]:
                    part = part.index_select(axis, reverse.to(part.device))
            shares.append(float((density * part).sum() / density.sum().clamp_min(1e-30)))
    return max(shares)


def _standing_out(volume: Tensor, pixel_size: float) -> Tensor:
    smooth, level = _smooth_density(volume, pixel_size)
    return (smooth * _bodies(smooth, level).to(smooth.device)).double()


def grown(mask: Tensor, margin_px: float) -> Tensor:
    """All that is inside a mask (z, y, x), or no farther from it than a margin; zeros and ones, float32."""
    distance = ndimage.distance_transform_edt(mask.cpu().numpy() < 0.5)
    return torch.from_numpy((distance <= margin_px).astype(np.float32)).to(mask.device)


def distance_of_centres(volume: Tensor, mask: Tensor, pixel_size: float) -> float:
    """Distance, Angstrom, from the centre of a mask to that of a molecule's density; as `share_of_density`."""
    density = _dense_bodies(volume, pixel_size)
    centres = [np.array(ndimage.center_of_mass(values)) for values in (density, mask.cpu().double().numpy())]
    return float(np.linalg.norm(centres[0] - centres[1])) * pixel_size


def is_off_centre(volume: Tensor, pixel_size: float) -> bool:
    """Whether a density (z, y, x) is farther from the middle of its box than it is large (radius of gyration)."""
    density = _dense_bodies(volume, pixel_size)
    weight = density / max(float(density.sum()), 1e-30)
    place = np.stack(np.meshgrid(*[np.arange(len(volume)) - len(volume) // 2] * 3, indexing="ij"))
    centre = (place * weight).sum(axis=(1, 2, 3))
    spread = float((((place - centre[:, None, None, None]) ** 2).sum(axis=0) * weight).sum())
    return float((centre**2).sum()) > spread


def _dense_bodies(volume: Tensor, pixel_size: float) -> NDArray[np.float64]:
    """The density at low resolution, of bodies of relevant size; nothing elsewhere."""
    smooth, level = _smooth_density(volume, pixel_size)
    return (smooth * _bodies(smooth, level).to(smooth.device)).cpu().double().numpy()


def _smooth_density(volume: Tensor, pixel_size: float) -> tuple[Tensor, float]:
    """A density at low resolution, and the level above which it is no noise."""
    box_size = volume.shape[-1]
    cutoff = min(max(box_size * pixel_size / 15.0, box_size / 8), box_size / 2 - 1)
    smooth = low_pass(volume, cutoff)
    radius = real_radius(box_size, 3, volume.device)
    inside = radius < box_size / 2 - 1
    background = smooth[inside & (radius > 0.42 * box_size)]
    peak = torch.quantile(smooth[inside & (radius < 0.4 * box_size)], 0.999)
    return smooth, max(0.12 * float(peak), float(background.mean() + 4 * background.std()))


def _bodies(smooth: Tensor, level: float) -> Tensor:
    """Connected bodies of relevant size above a level, shape (z, y, x), bool, on the CPU as SciPy works there."""
    box_size = smooth.shape[-1]
    inside = real_radius(box_size, 3, smooth.device) < box_size / 2 - 1
    return _relevant_bodies(((smooth > level) & inside).cpu())


def _relevant_bodies(binary: Tensor) -> Tensor:
    """Keep connected bodies of at least a twentieth of the largest one."""
    labels, count = ndimage.label(binary.numpy())
    if count == 0:
        return binary
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return torch.from_numpy((sizes >= 0.05 * sizes.max())[labels])


def _raised_cosine(distance_px: Tensor, edge_px: float) -> Tensor:
    position = (distance_px / max(edge_px, 1e-6)).clamp(0, 1)
    return 0.5 + 0.5 * torch.cos(torch.pi * position)
