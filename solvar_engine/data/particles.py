"""A set of particles: poses, CTF and optics groups in memory, images on disk until they are asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import IMAGE_COLUMNS
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.words import counted
from solvar_engine.data.cryosparc.lists import CryosparcParticles, read_list
from solvar_engine.data.images import ImageIndex
from solvar_engine.data.metadata import ParticleMetadata, pose_columns, read_metadata
from solvar_engine.data.stacks import StackReader
from solvar_engine.imaging.aberrations import Aberrations
from solvar_engine.imaging.types import Ctf, Pose

logger = logging.getLogger(__name__)

OF_HEADERS = "The pixel size is "
"""How a caution begins that headers have another pixel size than the list."""

_OTHER_PIXEL_SIZE, _WRONG_PIXEL_SIZE = 0.01, 0.1  # a calibration, and what no calibration changes
_BINNINGS = (1.5, 8.0)  # from and to, by multiples of one half
_SMALLEST_EXTENT = 100.0  # Angstrom, of an image of a molecule
_SMALLEST_BOX, _EXTENTS = 32, (30.0, 20_000.0)  # px of images that can be fitted, and Angstrom of their edges
_UNKNOWN_PIXEL_SIZES = (1.0,)  # written by programs that do not know


@dataclass(frozen=True, eq=False)
class ParticleStack:
    """Particles of one list; made by `from_star` and never changed.

    Attributes
    ----------
    path : Path
        The STAR or `.cs` file.
    star : StarFile
        Its rows, to be written back.
    metadata : ParticleMetadata
        What the rows mean.
    index : ImageIndex
        Where the images are.
    cautions : tuple of str
        What is doubtful of the list, in sentences without full stop.
    files : tuple of Path
        That were read, images aside.
    cryosparc : CryosparcParticles or None
        All fields of a `.cs` file.
    list_row : ndarray of int64, shape (n,), or None
        Row of the list that each row was made from, by symmetry or as one more of it; None if they are the same.

    Examples
    --------
    >>> stack = ParticleStack.from_star("particles.star")  # doctest: +SKIP
    >>> stack.images(range(100)).shape  # doctest: +SKIP
    torch.Size([100, 64, 64])
    """

    path: Path
    star: StarFile
    metadata: ParticleMetadata
    index: ImageIndex
    _reader: StackReader
    cautions: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    cryosparc: CryosparcParticles | None = None
    list_row: NDArray[np.int64] | None = None

    @classmethod
    def from_star(
        cls,
        path: str | os.PathLike[str],
        root: str | os.PathLike[str] | None = None,
        allow_truncated: bool = False,
        with_poses: bool = True,
        passthrough: str | os.PathLike[str] | None = None,
    ) -> ParticleStack:
        """Read a STAR file of RELION 3.0 to 5, or a `.cs` file, and check the header of every stack it names.

        Parameters
        ----------
        path : path
            List with CTF, and with poses.
        root : path, optional
            Folder that relative stack paths start from; without it, the STAR file's folder, then the
            current one, or for a `.cs` file the folder of its project.
        allow_truncated : bool
            Take stacks that are cut off, too: images that are not there are among those of `images_with_faults`.
        with_poses : bool
            Without, poses in the file are ignored, if there are any, and those of the stack are zero.
        passthrough : path, optional
            `.cs` file with fields that the other one lacks.

        Returns
        -------
        ParticleStack

        Raises
        ------
        UserError
            If the file or a stack is absent, damaged or lacks what is needed; the text says what and where.
        """
        source = read_list(path, passthrough, with_poses)
        star, cryosparc = source.star, source.cryosparc
        metadata = read_metadata(star, with_poses)
        root = cryosparc.project if root is None and cryosparc is not None else root
        index = ImageIndex.create(star.particles, root, allow_truncated)
        _check_boxes(metadata, index, star.source)
        for caution in index.cautions:
            logger.warning(caution)
        of_sizes = _check_pixel_sizes(metadata, index, star.source)
        cautions = (*source.cautions, *metadata.cautions, *index.cautions, *of_sizes)
        _check_extents(metadata, index, star.source)
        _check_origins(metadata, index, star.source)
        reader = StackReader(index.paths, index.headers)
        return cls(Path(path), star, metadata, index, reader, cautions, source.files, cryosparc)

    def __len__(self) -> int:
        return len(self.metadata.group)

    @property
    def count_in_words(self) -> str:
        """How many particles there are, and in how many orientations if symmetry has made several of each."""
        if self.list_row is None:
            return counted(len(self), "particle")
        return f"{counted(len(np.unique(self.list_row)), 'particle')} in {len(self)} orientations"

    @property
    def box_size(self) -> int:
        """Edge of the images, px."""
        return self.index.headers[0].shape[-1]

    @property
    def pose(self) -> Pose:
        """Orientations and shifts."""
        return self.metadata.pose

    @property
    def ctf(self) -> Ctf:
        """Parameters of the contrast transfer function."""
        return self.metadata.ctf

    @property
    def aberrations(self) -> Aberrations:
        """Odd aberrations and magnification of each optics group."""
        return self.metadata.aberrations

    @property
    def group(self) -> Tensor:
        """Optics group of each particle, shape (n,), int64, a place in `group_names`."""
        return self.metadata.group

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the optics groups that have particles."""
        return self.metadata.group_names

    @property
    def pixel_sizes(self) -> tuple[float, ...]:
        """Pixel size of each optics group, Angstrom."""
        return self.metadata.pixel_sizes

    @property
    def pixel_size(self) -> float:
        """Pixel size of the first optics group, Angstrom."""
        return self.metadata.pixel_sizes[0]

    @property
    def random_subset(self) -> Tensor | None:
        """Half-set (1 or 2) of each particle, shape (n,), int64; None if the file does not split them."""
        return self.metadata.random_subset

    @property
    def image_names(self) -> list[str]:
        """Column rlnImageName, by which particles of two files are matched."""
        return self.star.particles.text("rlnImageName")

    def first_of_image(self) -> Tensor:
        """First row with the same image, shift and transfer function as each row, (n,): these are prepared alike."""
        return self._first_of_image

    @cached_property
    def _first_of_image(self) -> Tensor:
        names = np.stack([self.index.stack, self.index.image], axis=1)
        if len(np.unique(names, axis=0)) == len(self):
            return torch.arange(len(self))
        ctf = np.stack([self.ctf.defocus_u, self.ctf.defocus_v, self.ctf.defocus_angle], axis=1)
        alike = np.column_stack([names, self.group, self.pose.shift, ctf])
        _, first, inverse = np.unique(alike, axis=0, return_index=True, return_inverse=True)
        return torch.from_numpy(first[inverse.reshape(-1)])

    def each_image_once(self, rows: Tensor) -> Tensor:
        """Of some rows (m,), the first one of each image: others tell nothing new of its signal."""
        first = np.unique(self.first_of_image()[rows].numpy(), return_index=True)[1]
        return rows[torch.from_numpy(first).sort().values]

    def images(self, indices: Sequence[int] | np.ndarray | Tensor | slice) -> Tensor:
        """Read images as they are on disk.

        Parameters
        ----------
        indices : sequence of int, tensor or slice
            Rows of the particles, from 0.

        Returns
        -------
        Tensor, shape (m, y, x), float32
            In the order asked for.

        Raises
        ------
        UserError
            If an image is cut off, constant or has values that are not finite; file and index are named.
        IndexError
            If there is no such row.

        Examples
        --------
        >>> stack.images([0, 5, 2])  # doctest: +SKIP
        """
        rows = self._rows(indices)
        if len(rows) == 0:
            return torch.empty(0, self.box_size, self.box_size)
        return torch.from_numpy(self._reader.read(self.index.stack[rows], self.index.image[rows]))

    def images_with_faults(self, indices: Sequence[int] | np.ndarray) -> tuple[Tensor, dict[int, str]]:
        """Read images as `images`; those that cannot be used are zero.

        Returns
        -------
        images : Tensor, shape (m, y, x), float32
        faults : dict of int to str
            Fault in words by row of the particles.
        """
        rows = self._rows(indices)
        images, faults = self._reader.read_with_faults(self.index.stack[rows], self.index.image[rows])
        return torch.from_numpy(images), {int(rows[place]): fault for place, fault in faults.items()}

    def _rows(self, indices: Sequence[int] | np.ndarray | Tensor | slice) -> np.ndarray:
        rows = np.arange(len(self))[indices] if isinstance(indices, slice) else np.asarray(indices, dtype=np.int64)
        if len(rows) and not (0 <= rows.min() and rows.max() < len(self)):
            raise IndexError(f"asked for rows {rows.min()} to {rows.max()} of {len(self)} particles")
        return rows

    def name_of_image(self, row: int) -> str:
        """Name the image of a row in a sentence: its number from 1, and its file."""
        return f"Image {self.index.image[row] + 1} of {self.index.paths[self.index.stack[row]]}"

    def with_pose(self, pose: Pose) -> ParticleStack:
        """Same particles at other poses."""
        return replace(self, metadata=replace(self.metadata, pose=pose))

    def taken(self, rows: NDArray[np.int64]) -> ParticleStack:
        """Return the particles of some rows (m,), which may be some rows several times."""
        index, known = torch.from_numpy(rows), self.metadata
        metadata = replace(
            known,
            pose=known.pose[index],
            ctf=known.ctf[index],
            group=known.group[index],
            random_subset=None if known.random_subset is None else known.random_subset[index],
        )
        return replace(
            self,
            star=self.star.replace(self.star.particles, self.star.particles.only(rows.tolist())),
            metadata=metadata,
            index=replace(self.index, stack=self.index.stack[rows], image=self.index.image[rows]),
            cryosparc=None,
            list_row=self.rows_of_list[rows],
        )

    @property
    def rows_of_list(self) -> NDArray[np.int64]:
        """Row of the list, from 0, of each particle, shape (n,)."""
        return np.arange(len(self)) if self.list_row is None else self.list_row

    def rows_in_words(self, members: Tensor) -> str:
        """Name the rows of the list that some particles (n,), bool, are: the first and the last, and if any lack."""
        found = np.unique(self.rows_of_list[members.numpy()])
        if len(found) == 1:
            return f"row {found[0] + 1}"
        return f"rows {found[0] + 1} to {found[-1] + 1}" + ("" if len(found) == np.ptp(found) + 1 else ", with gaps")

    def pose_columns(self, pose: Pose) -> dict[str, np.ndarray]:
        """Poses as the columns of the file."""
        sizes = np.array(self.pixel_sizes)[self.group.numpy()]
        return pose_columns(pose, self.star, sizes, self.aberrations.magnification[self.group])

    def write_star(
        self,
        path: str | os.PathLike[str],
        extra_columns: Mapping[str, Sequence[Any] | np.ndarray | Tensor] | None = None,
        pose: Pose | None = None,
    ) -> None:
        """Write the input rows in input order; cells that are not replaced keep their text.

        What an earlier run has said of the images does not stay.

        Parameters
        ----------
        path : path
        extra_columns : mapping of str to sequence of length n, optional
            Added at the right, or replaced where the file has them.
        pose : Pose, optional
            Refined poses, written into the columns of the file.
        """
        columns: dict[str, Any] = {}
        if pose is not None:
            columns.update(self.pose_columns(pose))
        for name, values in (extra_columns or {}).items():
            columns[name] = values.cpu().numpy() if isinstance(values, Tensor) else values
        table = self.star.particles
        own = table.without(set(IMAGE_COLUMNS) - set(columns))
        self.star.replace(table, own.with_columns(columns) if columns else own).write(path)


def _check_boxes(metadata: ParticleMetadata, index: ImageIndex, source: str) -> None:
    """Refuse stacks of different box, and boxes other than what the optics group announces."""
    box_size = index.headers[0].shape[-1]
    for path, header in zip(index.paths, index.headers, strict=True):
        if header.shape[-1] != box_size:
            raise UserError(
                f"The images of {source} differ in box: {index.paths[0]} has {box_size} px, {path} has"
                f" {header.shape[-1]} px; bring them to one box size first."
            )
    for name, size in zip(metadata.group_names, metadata.image_sizes, strict=True):
        if size is not None and size != box_size:
            raise UserError(
                f"Optics group {name} of {source} has rlnImageSize {size}, but its images have {box_size} px:"
                " correct it, and rlnImagePixelSize with it, or bring all groups to one box size."
            )


def _check_pixel_sizes(metadata: ParticleMetadata, index: ImageIndex, source: str) -> list[str]:
    """Say if headers have another pixel size than the list, and refuse them if all are as if images were binned.

    Headers that say nothing, or 1 as programs do that do not know, are not believed. Others may be out of date, but if
    they are as of another binning and no other stack agrees with the list, that may be the one of the images before or
    after binning. A stack may have images of several groups, and agrees with all if it does with one.
    """
    known = np.array([header.voxel_size[0] for header in index.headers])
    says = (known > 0) & ~np.isin(known, _UNKNOWN_PIXEL_SIZES)
    given = np.array(metadata.pixel_sizes)[metadata.group.numpy()]
    ratio = np.abs(given / np.where(says, known, 1.0)[index.stack] - 1)
    differs = np.full(len(known), np.inf)
    np.minimum.at(differs, index.stack, ratio)
    worst = int(np.where(says, differs, 0.0).argmax())
    if not says[worst] or differs[worst] <= _OTHER_PIXEL_SIZE:
        return []
    size, path = given[index.stack == worst][0], index.paths[worst]
    found = f"{OF_HEADERS}{size:g} Angstrom in {source}, but {known[worst]:g} in the header of {path}"
    others = int((says & (differs > _OTHER_PIXEL_SIZE)).sum()) - 1
    found += f", and so in {counted(others, 'other stack')}" if others else ""
    caution = f"{found}: that of the list is used"
    if differs[worst] > _WRONG_PIXEL_SIZE:
        caution += "; if it is wrong, so are transfer functions and resolutions"
    is_wrong = differs[worst] > _WRONG_PIXEL_SIZE and _is_binning(size / known[worst])
    if is_wrong and not (says & (differs <= _WRONG_PIXEL_SIZE)).any():
        raise UserError(
            f"{found}, as before or after binning: one of them is wrong; correct the list (rlnImagePixelSize, or"
            " rlnMagnification where there is none), or the header (relion_image_handler --angpix)."
        )
    logger.warning(caution)
    return [caution]


def _is_binning(ratio: float) -> bool:
    """Whether a ratio of pixel sizes, either way, is a multiple of one half as images are binned by."""
    factor = max(ratio, 1 / ratio)
    lowest, highest = _BINNINGS
    if not lowest * (1 - _OTHER_PIXEL_SIZE) <= factor <= highest * (1 + _OTHER_PIXEL_SIZE):
        return False
    return abs(2 * factor - round(2 * factor)) <= 2 * factor * _OTHER_PIXEL_SIZE


def _check_extents(metadata: ParticleMetadata, index: ImageIndex, source: str) -> None:
    """Refuse pixel sizes with which images are smaller, or larger, than those of any molecule."""
    box_size, (lowest, highest) = index.headers[0].shape[-1], _EXTENTS
    for name, size in zip(metadata.group_names, metadata.pixel_sizes, strict=True):
        if box_size >= _SMALLEST_BOX and not lowest <= size * box_size <= highest:
            raise UserError(
                f"Images of {box_size} px of {size:g} Angstrom (optics group {name} of {source}) are"
                f" {size * box_size:g} Angstrom wide, which no images of molecules are: is the pixel size in Angstrom?"
            )


def _check_origins(metadata: ParticleMetadata, index: ImageIndex, source: str) -> None:
    """Refuse origins beyond the box: in another unit, or of other images."""
    extent = np.array(metadata.pixel_sizes)[metadata.group.numpy()] * index.headers[0].shape[-1]
    largest = metadata.pose.shift.abs().max(dim=1).values.numpy()
    outside = np.flatnonzero(largest > np.maximum(extent, _SMALLEST_EXTENT))
    if len(outside):
        row = int(outside[0])
        raise UserError(
            f"The origin in row {row + 1} of {source} is {largest[row]:g} Angstrom, but its image is only"
            f" {extent[row]:g} Angstrom wide ({len(outside)} such rows): is it in other pixels than rlnImagePixelSize?"
            " Correct it."
        )
