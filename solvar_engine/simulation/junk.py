"""Images that do not show the molecule: half are empty, a quarter show ice and a quarter another molecule."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.imaging.fourier import HalfDisk, disk_to_images, shift_phases
from solvar_engine.imaging.types import Ctf, Pose
from solvar_engine.simulation.phantoms import contaminant_phantom
from solvar_engine.simulation.projections import project_atoms
from solvar_engine.simulation.streams import Purpose, drawn_share, stream

ICE_VARIANCE = 10.0
"""Variance of an image of ice over that of the molecule's images."""

OTHER_VARIANCE = 1.0
"""Variance of an image of another molecule over that of the molecule's images."""

ICE_BLOBS = 6
ICE_BLOB_SIGMA = 0.08
ICE_SPREAD = 0.1
"""Number of Gaussians that a piece of ice is made of, their standard deviation, and that of their centres along each
axis; in fractions of the box."""


class JunkKind(IntEnum):
    """What an image shows."""

    NONE = 0
    """The molecule: no junk."""

    EMPTY = 1
    """Nothing but noise and background."""

    ICE = 2
    """A bright smooth blob."""

    OTHER = 3
    """One of a few unrelated globules."""


def draw_junk(count: int, share: float, seed: int) -> Tensor:
    """Draw which images are junk, and of which kind.

    Parameters
    ----------
    count : int
        Number of images.
    share : float
        Of junk, 0 to 1; one image at least shows the molecule.
    seed : int

    Returns
    -------
    Tensor, shape (count,), int64
        A :class:`JunkKind` for each image.

    Examples
    --------
    >>> int((draw_junk(100, 0.2, seed=0) > 0).sum())
    20
    """
    rows = drawn_share(count, share, stream(seed, Purpose.JUNK_ROWS))[: count - 1]
    kinds = np.array([JunkKind.EMPTY, JunkKind.ICE, JunkKind.EMPTY, JunkKind.OTHER])
    junk = np.zeros(count, dtype=np.int64)
    junk[rows] = kinds[np.arange(len(rows)) % len(kinds)]
    return torch.from_numpy(junk)


class JunkImages:
    """What junk shows.

    Parameters
    ----------
    kind : Tensor, shape (n,), int64
        :class:`JunkKind` of each image.
    pose : Pose
        Another molecule is seen in the pose that was drawn for the particle.
    ctf : Ctf
    box_size : int
    pixel_size : float
        Angstrom.
    signal_variance : float
        Of the molecule's images, in the square of the units of the images.
    seed : int
    device : torch.device or str, optional
        Where they are evaluated.
    """

    def __init__(
        self,
        kind: Tensor,
        pose: Pose,
        ctf: Ctf,
        box_size: int,
        pixel_size: float,
        *,
        signal_variance: float,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._kind, self._pose, self._ctf = kind, pose, ctf
        self._box_size, self._pixel_size, self._variance = box_size, pixel_size, signal_variance
        self._disk, self._device = HalfDisk.create(box_size).to(device), device
        self._contaminant = contaminant_phantom().to(device)
        rng = stream(seed, Purpose.JUNK_IMAGES)
        self._molecule = torch.from_numpy(rng.integers(self._contaminant.n_states, size=len(kind)))
        self._blobs = torch.from_numpy(ICE_SPREAD * rng.standard_normal((len(kind), ICE_BLOBS, 3)))
        self._mass = torch.from_numpy(0.5 + rng.random((len(kind), ICE_BLOBS)))

    def __call__(self, rows: slice) -> Tensor:
        """Evaluate some images (m, y, x), float32, without noise; those of the molecule are zero here."""
        images = torch.zeros(rows.stop - rows.start, self._box_size, self._box_size, device=self._device)
        kind = self._kind[rows]
        for wanted, evaluate, variance in (
            (JunkKind.ICE, self._ice, ICE_VARIANCE),
            (JunkKind.OTHER, self._other, OTHER_VARIANCE),
        ):
            shown = kind == wanted
            if shown.any():
                index = rows.start + shown.nonzero()[:, 0]
                images[shown] = self._as_strong_as(variance * self._variance, evaluate(index), index)
        return images

    def _ice(self, index: Tensor) -> Tensor:
        upright = torch.eye(3, device=self._device).expand(len(index), 3, 3)
        blobs, mass = self._blobs[index].to(self._device), self._mass[index].to(self._device)
        return project_atoms(blobs, mass, upright, self._disk, ICE_BLOB_SIGMA)

    def _other(self, index: Tensor) -> Tensor:
        pose = self._pose[index].to(self._device)
        slices = self._contaminant.project(self._molecule[index].to(self._device), pose.rotation, self._disk)
        return slices * shift_phases(self._disk, -pose.shift / self._pixel_size, self._box_size)

    def _as_strong_as(self, variance: float, slices: Tensor, index: Tensor) -> Tensor:
        """Images of slices with the contrast transfer, each scaled to a variance over the box."""
        slices = slices * ctf_values(self._ctf[index].to(self._device), self._disk, self._pixel_size)
        images = disk_to_images(slices, self._disk, self._box_size)
        return images * (variance / images.var(dim=(1, 2), correction=0)).sqrt()[:, None, None]
