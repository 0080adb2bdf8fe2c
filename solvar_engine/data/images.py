"""Where the images of a particle list are: names like 000001@stack.mrcs, folders, and stack headers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarTable
from solvar_engine.contract.words import counted
from solvar_engine.data.header_doubts import sentences_of_doubts, settled_header
from solvar_engine.data.mrc import MrcHeader, describe_shortfall, read_header

# on network file systems looking at a file is waiting; far below the limit of open files
_THREADS = 16
_NAME_COLUMN = "rlnImageName"


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """The place of every image of a particle list, checked against the headers of all stacks.

    Attributes
    ----------
    stack : ndarray, shape (n,), int32
        Place of each particle's stack in `paths`.
    image : ndarray, shape (n,), int32
        Place of each particle in its stack, from 0.
    paths : tuple of Path
        The stacks, in order of first use.
    headers : tuple of MrcHeader
        One per stack.
    cautions : tuple of str
        Sentences on headers that contradict their files.
    """

    stack: np.ndarray
    image: np.ndarray
    paths: tuple[Path, ...]
    headers: tuple[MrcHeader, ...]
    cautions: tuple[str, ...] = ()

    @classmethod
    def create(
        cls, particles: StarTable, root: str | os.PathLike[str] | None = None, allow_truncated: bool = False
    ) -> ImageIndex:
        """Find all stacks of a particle table and check them.

        Parameters
        ----------
        particles : StarTable
            With the column rlnImageName.
        root : path, optional
            Folder that relative paths start from; without it, the STAR file's folder, then the current one.
        allow_truncated : bool
            Take stacks that are cut off, too.

        Raises
        ------
        UserError
            If a name is not understood, a stack is absent, is not an MRC stack of square images, is
            truncated, or has fewer images than a row asks for.
        """
        stack, image, names = _parse_names(particles)
        paths = _find_stacks(names, particles.source, root)
        headers, doubts = zip(*_read_headers(paths), strict=True)
        for name, path, header in zip(names, paths, headers, strict=True):
            _check_stack(path, header, not _is_numbered(name), allow_truncated)
        _check_range(particles, stack, image, paths, headers)
        return cls(stack, image, tuple(paths), headers, tuple(sentences_of_doubts(paths, doubts)))


def _parse_names(particles: StarTable) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Split image names into stack and place; the third value holds the stacks as they are written.

    A name without number stands for the only image of its file; it keeps a mark (see `_is_numbered`).
    """
    known: dict[str, int] = {}
    stack = np.empty(len(particles), dtype=np.int32)
    image = np.empty(len(particles), dtype=np.int32)
    for row, cell in enumerate(particles.cells(_NAME_COLUMN)):
        number, at, name = cell.partition("@")
        if at and not (number.isdecimal() and 0 < int(number) < 2**31):
            place = particles.place(row, _NAME_COLUMN)
            remedy = "correct it, or all if they count from 0"
            raise UserError(f"{cell!r} in {place} has no image number from 1 before the @: {remedy}.")
        image[row] = int(number) - 1 if at else 0
        stack[row] = known.setdefault(at + name if at else cell, len(known))
    return stack, image, list(known)


def _is_numbered(name: str) -> bool:
    return name.startswith("@")


def _find_stacks(names: Sequence[str], source: str, root: str | os.PathLike[str] | None) -> list[Path]:
    # cryoSPARC marks paths within its project with >
    folders = [Path(root)] if root is not None else [Path(source).parent, Path()]
    relative = [Path(name.removeprefix("@").removeprefix(">")) for name in names]
    with ThreadPoolExecutor(_THREADS) as pool:
        paths = list(pool.map(lambda path: _first_existing(path, folders), relative))
    missing = [path for path, found in zip(relative, paths, strict=True) if found is None]
    if missing:
        raise UserError(_describe_missing(missing, source, folders))
    return [path for path in paths if path is not None]


def _first_existing(path: Path, folders: Sequence[Path]) -> Path | None:
    # an absolute path stays itself when it is joined to a folder
    return next((folder / path for folder in folders if (folder / path).is_file()), None)


def _describe_missing(missing: Sequence[Path], source: str, folders: Sequence[Path]) -> str:
    others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    text = f"Stack {missing[0]}{others}, named in {source}, does not exist"
    if missing[0].is_absolute():
        return f"{text}: copy or link it there."
    places = " and ".join(str(folder.resolve()) for folder in dict.fromkeys(folders))
    parents = Path(source).resolve().parents
    found = next((folder for folder in parents if (folder / missing[0]).is_file()), None)
    advice = f"give --root {found}" if found else "give the folder that the paths start from with --root"
    return f"{text} (looked in {places}): {advice}."


def _read_headers(paths: Sequence[Path]) -> list[tuple[MrcHeader, str]]:
    """Headers, and what is wrong with each."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda path: settled_header(path, read_header(path)), paths))


def _check_stack(path: Path, header: MrcHeader, is_single_image: bool, allow_truncated: bool) -> None:
    images, rows, columns = header.shape
    if header.is_volume_stack:
        raise UserError(f"{path} is a stack of volumes: give two-dimensional images.")
    if is_single_image and images > 1:
        raise UserError(
            f"{path} holds {images} images or a volume: name one image, such as 000001@{path.name},"
            f" in {_NAME_COLUMN}."
        )
    if rows != columns:
        raise UserError(f"The images of {path} are not square ({columns} x {rows} px): extract square ones.")
    if header.whole_sections < images and not allow_truncated:
        raise UserError(describe_shortfall(path, header))


def _check_range(
    particles: StarTable,
    stack: np.ndarray,
    image: np.ndarray,
    paths: Sequence[Path],
    headers: Sequence[MrcHeader],
) -> None:
    counts = np.array([header.shape[0] for header in headers])
    outside = np.flatnonzero(image >= counts[stack])
    if len(outside):
        row = int(outside[0])
        path, header = paths[stack[row]], headers[stack[row]]
        found, remedy = f"has {counted(header.shape[0], 'image')}", "give the stack that belongs to the list"
        if image[row] < header.room:
            found = f"announces {counted(header.shape[0], 'image')} in its header, but is long enough for {header.room}"
            remedy = "correct the number of sections (nz) in its header, which is out of date, or extract it again"
        raise UserError(
            f"Image {image[row] + 1} in {particles.place(row, _NAME_COLUMN)} does not exist: {path} {found}; {remedy}."
        )
