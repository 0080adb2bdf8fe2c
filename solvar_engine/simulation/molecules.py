"""What a simulation needs to know about a molecule, whatever it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk


@dataclass(frozen=True)
class Cost:
    """What it takes to evaluate the images of a molecule at one box.

    Attributes
    ----------
    seconds_per_image : float
        On one core.
    memory_bytes : float
        Besides what all simulations need.
    """

    seconds_per_image: float
    memory_bytes: float


class Molecule(Protocol):
    """A molecule in a finite number of states.

    Attributes
    ----------
    name : str
        What messages call it.
    coordinates : ndarray, shape (states, d), float64
        What varies between the states (d may be 0).
    population : ndarray, shape (states,), float64
        Share of the particles in each state; sums to 1.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def coordinates(self) -> np.ndarray: ...  # noqa: D102

    @property
    def population(self) -> np.ndarray: ...  # noqa: D102

    @property
    def device(self) -> torch.device:
        """Where it is projected: states and rotations, disks apart, are to be there."""
        ...

    def band(self, box_size: int) -> int:
        """Last shell at which the molecule has a signal."""
        ...

    def project(self, state: Tensor, rotation: Tensor, disk: HalfDisk) -> Tensor:
        """Project states along z of the image frame.

        Parameters
        ----------
        state : Tensor, shape (n,), int64
            0-based state of each image.
        rotation : Tensor, shape (n, 3, 3)
            Image to volume.
        disk : HalfDisk

        Returns
        -------
        Tensor, shape (n, pixels), complex64
            Orthonormal transform of the projections of :meth:`volume`.
        """
        ...

    def project_padded(self, state: Tensor, rotation: Tensor, disk: HalfDisk, factor: int) -> Tensor:
        """Project states in a field that is larger than their box and empty around it.

        Parameters
        ----------
        state : Tensor, shape (n,), int64
        rotation : Tensor, shape (n, 3, 3)
        disk : HalfDisk
            Of the field, whose edge is `factor` boxes.
        factor : int

        Returns
        -------
        Tensor, shape (n, pixels), complex64
            Orthonormal transform of the projections in the field, whose centre is that of the box.
        """
        ...

    def volume(self, state: int, box_size: int) -> Tensor:
        """Density of a state (z, y, x), float32, limited to the band of the images."""
        ...

    def mask(self, box_size: int) -> Tensor:
        """Soft mask (z, y, x), float32, that contains all states."""
        ...

    def images_per_batch(self, disk: HalfDisk) -> int:
        """Number of images that are best projected together."""
        ...

    def cost(self, box_size: int) -> Cost:
        """What the images cost."""
        ...
