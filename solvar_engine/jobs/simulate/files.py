"""Names of the files of a simulated data set, for the command that writes and the one that reads them."""

from __future__ import annotations

import os
from pathlib import Path

from solvar_engine.contract.errors import UserError


class TruthFiles:
    """The folder ``truth`` of a data set.

    Examples
    --------
    >>> TruthFiles("truth").volume(1).as_posix()
    'truth/volumes/state_0001.mrc'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @classmethod
    def find(cls, path: str | os.PathLike[str]) -> TruthFiles:
        """Accept the folder itself or the data set that contains it.

        Raises
        ------
        UserError
            If neither holds a table of states.
        """
        for folder in (Path(path), Path(path) / "truth"):
            if cls(folder).states.is_file():
                return cls(folder)
        raise UserError(f"{path} has no states.csv: give the folder truth/ of a simulated data set.")

    @property
    def particles(self) -> Path:
        """True poses."""
        return self.path / "particles.star"

    @property
    def states(self) -> Path:
        """State, contrast and coordinates of each particle, and whether its image is junk if there is any."""
        return self.path / "states.csv"

    @property
    def mean(self) -> Path:
        """Mean of the states, each weighted by its number of particles."""
        return self.path / "mean.mrc"

    @property
    def mask(self) -> Path:
        """Soft mask around all states."""
        return self.path / "mask.mrc"

    @property
    def volumes(self) -> Path:
        """Folder of the states' volumes."""
        return self.path / "volumes"

    def volume(self, state: int) -> Path:
        """Volume of one state, numbered from 1."""
        return self.volumes / f"state_{state:04d}.mrc"


class DataSetFiles:
    """The folder of a data set."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.truth = TruthFiles(self.path / "truth")

    @property
    def particles(self) -> Path:
        """Particles as a user would get them."""
        return self.path / "particles.star"

    @property
    def stack(self) -> Path:
        """Images."""
        return self.path / "particles.mrcs"

    @property
    def mask(self) -> Path:
        """Soft mask around all states."""
        return self.path / "mask.mrc"
