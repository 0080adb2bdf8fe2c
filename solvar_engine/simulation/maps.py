"""A molecule given by density maps, one for each state, projected without interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from solvar_engine.imaging.fourier import HalfDisk, disk_to_images, images_to_disk, low_pass, nyquist_shell
from solvar_engine.imaging.masks import automatic_mask
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import SliceOptions, can_be_imported
from solvar_engine.simulation.molecules import Cost

_BATCH_BYTES = 128e6
"""Slices that are evaluated together: each state is transformed once a batch, so there are not to be many batches."""


def can_project_maps(device: str) -> bool:
    """Whether maps can be projected on a device: a GPU needs cuFINUFFT for it, and a warning says so."""
    return torch.device(device).type == "cpu" or can_be_imported("cufinufft")


@dataclass(frozen=True)
class MapMolecule:
    """Maps as the equally populated states of a molecule; see :class:`~.molecules.Molecule`.

    Attributes
    ----------
    name : str
    volumes : Tensor, shape (states, z, y, x), float32
        Limited to the band of the images.
    pixel_size : float
        Angstrom.
    """

    name: str
    volumes: Tensor
    pixel_size: float

    @classmethod
    def from_maps(cls, name: str, maps: Sequence[Tensor], pixel_size: float) -> MapMolecule:
        """Limit maps (z, y, x) of one box to the last complete shell, so that every image is a projection of them.

        Examples
        --------
        >>> MapMolecule.from_maps("noise", [torch.randn(8, 8, 8)], 3.0).volumes.shape
        torch.Size([1, 8, 8, 8])
        """
        volumes = torch.stack(list(maps)).float()
        return cls(name, low_pass(volumes, nyquist_shell(volumes.shape[-1])), pixel_size)

    @property
    def box_size(self) -> int:
        """Edge of the maps, px."""
        return int(self.volumes.shape[-1])

    @property
    def device(self) -> torch.device:
        """See :attr:`~.molecules.Molecule.device`."""
        return self.volumes.device

    @property
    def coordinates(self) -> np.ndarray:
        """None: nothing is known about how the states relate."""
        return np.zeros((len(self.volumes), 0))

    @property
    def population(self) -> np.ndarray:
        """Equal shares."""
        return np.full(len(self.volumes), 1.0 / len(self.volumes))

    def band(self, box_size: int) -> int:
        """See :meth:`~.molecules.Molecule.band`."""
        return nyquist_shell(box_size)

    def project(self, state: Tensor, rotation: Tensor, disk: HalfDisk) -> Tensor:
        """See :meth:`~.molecules.Molecule.project`."""
        projector = create_projector(self.box_size, disk, SliceOptions("nufft", device=str(self.volumes.device)))
        slices = torch.empty(len(state), len(disk), dtype=torch.complex64, device=self.volumes.device)
        for number in state.unique():
            rows = state == number
            grid = projector.to_grid(self.volumes[number][None])
            slices[rows] = projector.project(grid, rotation[rows])[..., 0]
        return slices

    def project_padded(self, state: Tensor, rotation: Tensor, disk: HalfDisk, factor: int) -> Tensor:
        """See :meth:`~.molecules.Molecule.project_padded`."""
        own = HalfDisk.create(self.box_size)
        images = disk_to_images(self.project(state, rotation, own), own, self.box_size)
        before = disk.box_size // 2 - self.box_size // 2
        after = disk.box_size - self.box_size - before
        return images_to_disk(pad(images, (before, after, before, after)), disk)

    def volume(self, state: int, box_size: int) -> Tensor:
        """See :meth:`~.molecules.Molecule.volume`; maps exist at their own box only."""
        if box_size != self.box_size:
            raise ValueError(f"box_size is {box_size}, but the maps have {self.box_size} voxels per edge")
        return self.volumes[state]

    def mask(self, box_size: int) -> Tensor:
        """See :meth:`~.molecules.Molecule.mask`; the union of the masks that a fit would make of each map.

        Raises
        ------
        ValueError
            If a map holds nothing that stands out.
        """
        union = self.volumes.new_zeros((box_size,) * 3)
        for state in range(len(self.volumes)):
            try:
                mask = automatic_mask(self.volume(state, box_size), self.pixel_size)
            except ValueError as error:
                raise ValueError(f"no bright density stands out in map {state + 1} of {self.name}") from error
            union = torch.maximum(union, mask)
        return union

    def images_per_batch(self, disk: HalfDisk) -> int:
        """See :meth:`~.molecules.Molecule.images_per_batch`."""
        return max(1, int(_BATCH_BYTES // (64 * len(disk))))

    def cost(self, box_size: int) -> Cost:
        """See :meth:`~.molecules.Molecule.cost`; measured on one core."""
        disk = HalfDisk.create(box_size)
        transform = 1e-7 * (2 * box_size) ** 3  # of one state, once a batch
        seconds = 2e-7 * len(disk) + transform * len(self.volumes) / self.images_per_batch(disk)
        return Cost(seconds, 2 * _BATCH_BYTES + 16.0 * (2 * box_size) ** 3 + 4.0 * self.volumes.numel())
