"""Which rows of a particle list show one and the same particle, so that half-sets stay independent.

Lists hold a particle more than once after selections that overlap were joined, after symmetry expansion, or where a
particle was picked twice. Its noise in both half-sets makes them agree on noise.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.contract.words import counted
from solvar_engine.data.copies import find_copies, linked
from solvar_engine.data.metadata import micrograph_pixel_size
from solvar_engine.data.particles import ParticleStack

logger = logging.getLogger(__name__)

_TURNED = 20.0  # degrees, between the rows of an image, that are no refinement's
SAME_PLACE = 20.0  # Angstrom: molecules do not overlap by more, picks of one molecule do
_CORNER_PX = 1.0  # from the corner of a micrograph is no particle: coordinates are absent, or shares of the width
MOST_AT_ONE_PLACE = 60  # images, or a twentieth of all: more are at no real place, such as zeros
_LEAST_SHARED = 5  # particles at the very same places, that show two files to be one micrograph
_ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")
_COORDINATES = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Families:
    """Rows that show one particle.

    Attributes
    ----------
    label : ndarray of int64, shape (n,)
        The same for all rows of a family.
    reasons : tuple of str
        What was found, in words.
    """

    label: Labels
    reasons: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.label)

    @property
    def is_repeated(self) -> NDArray[np.bool_]:
        """Rows that share their particle with others, shape (n,)."""
        _, inverse, count = np.unique(self.label, return_inverse=True, return_counts=True)
        return np.asarray(count[inverse.reshape(-1)] > 1)

    def united(self, label: Labels, what: str) -> Families:
        """Join the families of rows that have the same label; `what` says in words why."""
        joined = _connected(self.label, label)
        added = Families(label).is_repeated
        if not added.any() or len(np.unique(joined)) == len(np.unique(self.label)):
            return self
        return Families(joined, (*self.reasons, f"{int(added.sum())} {what}"))

    def sentence(self, path: str) -> str:
        """Say what was found."""
        repeated = self.is_repeated
        particles = counted(len(np.unique(self.label[repeated])), "particle")
        return (
            f"{int(repeated.sum())} rows of {path} show only {particles}"
            f" ({', '.join(self.reasons)}): all rows of a particle go to one half-set; if that was not meant, list"
            " each once"
        )


def families_of(stack: ParticleStack) -> Families:
    """Find rows of the same image, and images from the same place of a micrograph.

    Parameters
    ----------
    stack : ParticleStack

    Returns
    -------
    Families
    """
    image = _of_images(stack)
    what = "of the same image of a stack"
    if _widest_turn(image, stack.pose.rotation.numpy()) > _TURNED:
        what += ", turned as by symmetry expansion: a component may show no more than what tells its positions apart"
    families = Families(np.arange(len(stack))).united(image, what)
    if stack.cryosparc is not None and stack.cryosparc.expanded_from is not None:
        families = families.united(stack.cryosparc.expanded_from, "of the same particle before symmetry expansion")
    place = _of_places(stack.star, np.asarray(stack.pixel_sizes)[stack.group.numpy()])
    if place is None:
        return families
    both = _connected(image, place)
    images_at_place = np.bincount(both[np.unique(image, return_index=True)[1]])
    if images_at_place.max() > max(MOST_AT_ONE_PLACE, len(stack) // 20):
        logger.info(
            "Coordinates of %s have up to %d images at one place: they are not used", stack.path, images_at_place.max()
        )
        return families
    return families.united(place, f"within {SAME_PLACE:g} Angstrom of another in one micrograph")


def with_equal_pixels(families: Families, digest: NDArray[np.int64]) -> Families:
    """Join the families of images that are equal pixel by pixel, by the digest of each, shape (n,)."""
    return families.united(np.unique(digest, return_inverse=True)[1].reshape(-1), "of equal pixels")


def with_equal_noise(families: Families, signature: Tensor) -> Families:
    """Join the families of images that hold the same noise, by the signature of each, shape (n, length)."""
    rows = torch.from_numpy(np.unique(families.label, return_index=True)[1])
    label = find_copies(signature, rows)
    return families if label is None else families.united(label, "of the same noise, as of particles extracted twice")


def _widest_turn(label: Labels, rotation: NDArray[np.float32]) -> float:
    """Largest angle, degrees, between the orientation (n, 3, 3) of a row and that of the first one of its label."""
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    rows = np.flatnonzero(first[inverse.reshape(-1)] != np.arange(len(label)))
    if not len(rows):
        return 0.0
    trace = np.einsum("nij,nij->n", rotation[rows], rotation[first[inverse.reshape(-1)][rows]])
    return float(np.degrees(np.arccos(np.clip((trace.min() - 1) / 2, -1, 1))))


def _of_images(stack: ParticleStack) -> Labels:
    """Number of each row's image: a stack that is named in two ways is one."""
    files = [path.resolve() for path in stack.index.paths]
    known = {path: number for number, path in enumerate(dict.fromkeys(files))}
    file = np.array([known[path] for path in files])[stack.index.stack]
    _, label = np.unique(np.stack([file, stack.index.image]), axis=1, return_inverse=True)
    return label.reshape(-1)


def _of_places(star: StarFile, pixel_size: NDArray[np.float64]) -> Labels | None:
    """Number of each row's place in its micrograph; None if the list has no coordinates."""
    table = star.particles
    columns = [name for name in _COORDINATES if name in table]
    if "rlnMicrographName" not in table or len(columns) < 2:
        return None
    place = np.stack(list(table.numbers(*columns).values()), axis=1)
    is_known = np.abs(place[:, :2]).max(axis=1) > _CORNER_PX
    unit = micrograph_pixel_size(star)
    if unit is not None and all(name in table for name in _ORIGINS):
        place[:, :2] -= np.stack(list(table.numbers(*_ORIGINS).values()), axis=1) / unit
    size = pixel_size if unit is None else np.full(len(table), unit)
    file, micrograph = _micrographs(table, place)
    apart = 8 * SAME_PLACE * micrograph  # another dimension keeps micrographs apart
    rows = np.flatnonzero(is_known)
    points = place * size[:, None]
    tree = cKDTree(np.column_stack([points, apart])[rows])
    pairs = rows[tree.query_pairs(2 * SAME_PLACE, output_type="ndarray")]
    is_near = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1) <= SAME_PLACE
    folders = np.array([str(PurePath(name).parent) for name in table.cells("rlnMicrographName")], dtype=object)
    pairs = pairs[is_near & ~_are_by_chance(pairs, is_near, file, np.unique(folders, return_inverse=True)[1])]
    return linked(pairs, len(table))


def _are_by_chance(
    pairs: NDArray[np.int64], is_near: NDArray[np.bool_], file: Labels, folder: Labels
) -> NDArray[np.bool_]:
    """Whether pairs (m, 2) are of two micrographs whose files, in two folders, happen to have one name.

    Where one micrograph is in both, its particles are near themselves; else there are three times as many within twice
    the distance but not as near.
    """
    is_crossing = file[pairs[:, 0]] != file[pairs[:, 1]]
    of_pair = np.sort(folder[pairs], axis=1)
    _, kind = np.unique(of_pair, axis=0, return_inverse=True)
    kind = kind.reshape(-1)
    near, around = (
        np.bincount(kind, weights=is_crossing & is_it, minlength=1) for is_it in (is_near, ~is_near)
    )
    return np.asarray(is_crossing & (near < around)[kind], dtype=np.bool_)


def _micrographs(table: StarTable, place: NDArray[np.float64]) -> tuple[Labels, Labels]:
    """Number of each row's file, and of its micrograph, which may have several files.

    Files of one name may be one micrograph; those are whose particles, or most of them, have the very same places.
    """
    paths = [str(PurePath(name)) for name in table.cells("rlnMicrographName")]
    names = [PurePath(name).name for name in paths]
    file, name = (np.unique(np.array(one, dtype=object), return_inverse=True)[1].reshape(-1) for one in (paths, names))
    rows = np.flatnonzero(np.abs(place[:, :2]).max(axis=1) > _CORNER_PX)
    _, spot = np.unique(place[rows], axis=0, return_inverse=True)
    of_spot = np.unique(np.column_stack([spot.reshape(-1), file[rows]]), axis=0)  # in the order of the spots
    follows = np.flatnonzero(of_spot[1:, 0] == of_spot[:-1, 0])
    pairs, shared = np.unique(
        np.column_stack([of_spot[follows, 1], of_spot[follows + 1, 1]]), axis=0, return_counts=True
    )
    size = np.bincount(file)
    pairs = pairs[shared >= np.maximum(_LEAST_SHARED, 0.5 * size[pairs].min(axis=1))]
    return file, _connected(name, linked(pairs, len(size))[file])


def _connected(first: Labels, second: Labels) -> Labels:
    """Label rows that are connected through equal labels in either array."""
    count = len(first)
    _, first = np.unique(first, return_inverse=True)
    _, second = np.unique(second, return_inverse=True)
    rows = np.arange(count)
    nodes = 2 * count + int(second.max(initial=0)) + 1
    # every row is tied to its two labels, which are nodes of their own
    ends = np.concatenate([count + first.reshape(-1), 2 * count + second.reshape(-1)])
    label = linked(np.column_stack([np.concatenate([rows, rows]), ends]), nodes)[:count]
    return np.unique(label, return_inverse=True)[1].reshape(-1)
