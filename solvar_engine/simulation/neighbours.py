"""Parts of neighbouring particles at the edge of the box."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.imaging.fourier import HalfDisk, disk_to_images, shift_phases
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.simulation.molecules import Molecule
from solvar_engine.simulation.particles import SimulatedParticles
from solvar_engine.simulation.streams import Purpose, drawn_share, stream, torch_stream

DISTANCE_RANGE = (0.9, 1.3)
"""Distance between the centres of two neighbours, in diameters of the molecule."""

_LARGER = 2
"""Edge of the field that is imaged, in edges of the box: a neighbour must not come back in at the other side."""


def equivalent_diameter(mask: Tensor) -> float:
    """Diameter of the ball that has the volume of a mask.

    Parameters
    ----------
    mask : Tensor, shape (z, y, x)
        0 to 1.

    Returns
    -------
    float
        In fractions of the box.

    Examples
    --------
    >>> round(equivalent_diameter(torch.ones(4, 4, 4)), 3)
    1.241
    """
    return (6.0 / math.pi * float(mask.double().mean())) ** (1.0 / 3.0)


class Neighbours:
    """Neighbours of particles: other projections with the same contrast and contrast transfer, beside the particle.

    Parameters
    ----------
    molecule : Molecule
    particles : SimulatedParticles
    share : float
        Of the images that have a neighbour, 0 to 1; junk has none.
    box_size : int
    pixel_size : float
        Angstrom.
    diameter : float
        Of the molecule, in fractions of the box.
    scale : float
        Unit of the molecule, in the units of the images.
    seed : int

    Attributes
    ----------
    is_shown : Tensor, shape (n,), bool
        Images that have a neighbour.
    state : Tensor, shape (n,), int64
        0-based state of the neighbour.
    rotation : Tensor, shape (n, 3, 3), float32
        Its orientation, image to volume.
    displacement_px : Tensor, shape (n, 2), float32
        (x, y) from the particle's centre to that of the neighbour.
    """

    def __init__(
        self,
        molecule: Molecule,
        particles: SimulatedParticles,
        share: float,
        box_size: int,
        pixel_size: float,
        *,
        diameter: float,
        scale: float,
        seed: int,
    ) -> None:
        self._molecule, self._particles, self._scale = molecule, particles, scale
        self._box_size, self._pixel_size = box_size, pixel_size
        self._disk = HalfDisk.create(_LARGER * box_size).to(molecule.device)
        count, rng = len(particles), stream(seed, Purpose.NEIGHBOUR)
        has_neighbour = torch.zeros(count, dtype=torch.bool)
        has_neighbour[torch.from_numpy(drawn_share(count, share, rng))] = True
        self.is_shown = has_neighbour & ~particles.is_junk
        self.state = torch.from_numpy(rng.choice(len(molecule.population), size=count, p=molecule.population))
        self.rotation = random_rotations(count, torch_stream(seed, Purpose.NEIGHBOUR))
        self.displacement_px = _displacements(count, diameter * box_size, rng)

    def __call__(self, rows: slice) -> Tensor:
        """Evaluate what some images show of neighbours: (m, y, x), float32, where the molecule is."""
        box_size = self._box_size
        images = torch.zeros(rows.stop - rows.start, box_size, box_size, device=self._molecule.device)
        shown = self.is_shown[rows]
        if shown.any():
            images[shown] = self._evaluate(rows.start + shown.nonzero()[:, 0])
        return images

    def _evaluate(self, index: Tensor) -> Tensor:
        """Contrast x ctf x displaced projection in the larger field, of which the box is the middle."""
        box_size, disk = self._box_size, self._disk
        field = _LARGER * box_size
        device, shift = self._molecule.device, self._particles.pose.shift[index]
        contrast = self._particles.contrast[index].to(device)
        state, rotation = self.state[index].to(device), self.rotation[index].to(device)
        slices = self._molecule.project_padded(state, rotation, disk, _LARGER)
        centre_px = self.displacement_px[index] - shift / self._pixel_size
        slices *= shift_phases(disk, centre_px.to(device), field)
        slices *= ctf_values(self._particles.ctf[index].to(device), disk, self._pixel_size)
        start = field // 2 - box_size // 2
        box = slice(start, start + box_size)
        return disk_to_images(self._scale * contrast[:, None] * slices, disk, field)[:, box, box]


def _displacements(count: int, diameter_px: float, rng: np.random.Generator) -> Tensor:
    """Draw vectors (count, 2) from a particle to its neighbour, px, in random directions."""
    low, high = DISTANCE_RANGE
    length = diameter_px * (low + (high - low) * rng.random(count))
    angle = 2.0 * np.pi * rng.random(count)
    vectors = length[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=1)
    return torch.from_numpy(vectors.astype(np.float32))
