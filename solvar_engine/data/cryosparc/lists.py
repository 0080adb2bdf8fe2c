"""Lists of particles as users give them: a STAR file, or `.cs` files of cryoSPARC."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarFile
from solvar_engine.data.cryosparc.columns import star_of
from solvar_engine.data.cryosparc.tables import Table, find_passthrough, is_cryosparc, join, read_table

logger = logging.getLogger(__name__)

_NEEDED = ("blob/path", "ctf/df1_A")
_ALIGNMENTS = ("alignments3D/pose", "alignments3D_multi/pose")
_SOURCE = "sym_expand/src_uid"


@dataclass(frozen=True, eq=False)
class CryosparcParticles:
    """Particles of cryoSPARC, with all their fields.

    Attributes
    ----------
    table : ndarray of a structured type, shape (n,)
        Joined with what was passed through.
    project : str or None
        Folder that its paths start from, if it was found.
    """

    table: Table
    project: str | None

    @property
    def expanded_from(self) -> NDArray[np.int64] | None:
        """Number of the particle that each row was made from by symmetry expansion, shape (n,); None if none was."""
        if _SOURCE not in (self.table.dtype.names or ()):
            return None
        return np.unique(self.table[_SOURCE], return_inverse=True)[1].reshape(-1)


@dataclass(frozen=True, eq=False)
class ReadList:
    """A list of particles, and where it came from.

    Attributes
    ----------
    star : StarFile
    files : tuple of Path
        That were read.
    cryosparc : CryosparcParticles or None
        None of a STAR file.
    cautions : tuple of str
        What is doubtful, in sentences without full stop.
    """

    star: StarFile
    files: tuple[Path, ...]
    cryosparc: CryosparcParticles | None = None
    cautions: tuple[str, ...] = ()


def read_list(
    path: str | os.PathLike[str], passthrough: str | os.PathLike[str] | None = None, with_poses: bool = True
) -> ReadList:
    """Read a list of particles, whichever of both kinds it is.

    Parameters
    ----------
    path : path
        STAR file, or `.cs` file.
    passthrough : path, optional
        `.cs` file with fields that the other one lacks; without it, the one that cryoSPARC has written beside it.
    with_poses : bool
        Whether poses are needed.

    Returns
    -------
    ReadList

    Raises
    ------
    UserError
        If a file is absent, damaged or lacks what is needed; the text says what and where.
    """
    if not is_cryosparc(path):
        if passthrough is not None:
            raise UserError(f"--passthrough belongs to a .cs file of cryoSPARC, which {path} is not: leave it out.")
        return ReadList(StarFile.read(path), (Path(path),))
    table, files = read_table(path), [Path(path)]
    if not len(table):
        raise UserError(f"{path} has no particles.")
    if passthrough is not None:
        table = join(table, read_table(passthrough), passthrough)
        files.append(Path(passthrough))
    else:
        table, found = _with_what_is_beside(table, Path(path), with_poses)
        files += found
    star, cautions = star_of(table, os.fspath(path), with_poses)
    for caution in cautions:
        logger.warning(caution)
    first = next(star.particles.cells("rlnImageName")).partition("@")[2]
    return ReadList(star, tuple(files), CryosparcParticles(table, _project_of(Path(path), first)), tuple(cautions))


def _with_what_is_beside(table: Table, path: Path, with_poses: bool) -> tuple[Table, list[Path]]:
    """Add the fields of the passthrough beside the file; that it does not fit matters only if it is needed."""
    names = table.dtype.names or ()
    is_complete = all(name in names for name in _NEEDED)
    is_complete = is_complete and (not with_poses or any(name in names for name in _ALIGNMENTS))
    found = find_passthrough(path)
    if len(found) > 1 and not is_complete:
        several = ", ".join(other.name for other in found)
        raise UserError(f"{path} lacks fields that several files may have ({several}): name one with --passthrough.")
    if len(found) != 1:
        return table, []
    try:
        joined = join(table, read_table(found[0]), found[0])
    except UserError as error:
        if not is_complete:
            raise
        logger.info("%s is not used: %s", found[0], error)
        return table, []
    logger.info("What %s lacks is taken from %s", path, found[0])
    return joined, found


def _project_of(path: Path, first: str) -> str | None:
    """Folder, upwards from a `.cs` file, that the path of its first image starts from."""
    folders = dict.fromkeys((*path.absolute().parents, *path.resolve().parents))
    return next((str(folder) for folder in folders if (folder / first).is_file()), None)
