"""From images without poses to a structure, and the verdict whether there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from solvar_engine.imaging.types import ParticleSource, Pose
from solvar_engine.projectors.options import DEFAULT_OPTIONS, SliceOptions

Report = Callable[[str, float, str], None]
"""Called with the stage, the share of the whole work that is done, and a sentence."""


@dataclass(frozen=True)
class AbinitioOptions:
    """What is known beforehand.

    Attributes
    ----------
    max_shell : int or None
        Last shell that poses are refined to, Fourier pixels of the working box; None for all that half-maps agree on.
    shift_std_px : float or None
        Standard deviation per axis of the particles' offsets from the centre, px of the working box; None to estimate
        it.
    symmetry : str
        Point group, see `imaging.symmetry`.
    classes : int
        Number of structures.
    seed : int
        Of everything that is random.
    flip_hand : bool
        Return the other hand, which images do not tell apart.
    """

    max_shell: int | None = None
    shift_std_px: float | None = None
    symmetry: str = "C1"
    classes: int = 1
    seed: int = 0
    flip_hand: bool = False


@dataclass(frozen=True)
class Verdict:
    """Whether images that took no part in it prefer a map to its radially symmetric part.

    Attributes
    ----------
    gain, error : float
        Mean gain of the log-likelihood of a held-out image, poses integrated out, and its standard error.
    per_image : Tensor, shape (n_held_out,), float64
    found : bool
        There is a structure: the gain is real, and views are not all alike.
    missing_views : Tensor or None, shape (3,)
        Unit vector in the frame of the map: centre of the largest cap without views (a view and its opposite count as
        one); None if views cover the sphere.
    hole_deg : float
        Radius of that cap.
    """

    gain: float
    error: float
    per_image: Tensor
    found: bool
    missing_views: Tensor | None
    hole_deg: float


@dataclass(frozen=True)
class Structure:
    """What was found; of n particles, K classes.

    Attributes
    ----------
    pose : Pose
        Of all particles; the shift is from where the images are on disk.
    rotation_std_deg : Tensor, shape (n,)
        Standard deviation of the orientation, root mean square of three axes, degrees.
    class_of : Tensor, shape (n,), int64
    populations : Tensor, shape (K,)
        Shares of the classes, junk left out.
    volumes : Tensor, shape (K, z, y, x)
        In the units of the images, at the working box.
    half_volumes : list of K pairs of Tensors, shape (z, y, x)
        Of halves of the particles, which share the search for poses: their correlation flatters.
    log_likelihood : Tensor, shape (n,), float64
        Of each image at its pose, relative to an empty image.
    contrast_sign : int
        -1 if the molecule is dark in the images, else 1.
    shift_std_px : float
        As given or estimated.
    is_junk : Tensor, shape (n,), bool
        Images that the map explains no better than its radially symmetric part or nothing at all does.
    verdict : Verdict
    """

    pose: Pose
    rotation_std_deg: Tensor
    class_of: Tensor
    populations: Tensor
    volumes: Tensor
    half_volumes: list[tuple[Tensor, Tensor]]
    log_likelihood: Tensor
    contrast_sign: int
    shift_std_px: float
    is_junk: Tensor
    verdict: Verdict


class Checkpoint(Protocol):
    """Where a run keeps what it has done, so that a killed one goes on from there."""

    def load(self, name: str) -> Mapping[str, Tensor] | None:
        """Tensors that were saved under a name; None if there are none."""
        ...

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors under a name."""
        ...


def find_structure(
    source: ParticleSource,
    options: AbinitioOptions,
    report: Report,
    checkpoint: Checkpoint | None = None,
    *,
    slices: SliceOptions = DEFAULT_OPTIONS,
) -> Structure:
    """Find the structure that images show, whose poses are not looked at.

    If the verdict is that there is none, what is returned is what the verdict was given on: poses of a failed search.

    Parameters
    ----------
    source : ParticleSource
    options : AbinitioOptions
    report : callable
    checkpoint : Checkpoint, optional
    slices : SliceOptions
        How slices are taken, and where.

    Returns
    -------
    Structure

    Raises
    ------
    ValueError
        If the symmetry does not parse, there are too few images, or the last shell is out of reach.
    """
    raise NotImplementedError
