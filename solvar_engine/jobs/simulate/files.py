"""Names of the files of a simulated data set, for the command that writes and the one that reads them."""

from __future__ import annotations

import os
from pathlib import Path

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import FileIn


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

    particles = FileIn("particles.star", "True poses")
    states = FileIn("states.csv", "State, contrast and coordinates of each particle, and whether its image is junk")
    mean = FileIn("mean.mrc", "Mean of the states, each weighted by its number of particles")
    mask = FileIn("mask.mrc", "Soft mask around all states")
    volumes = FileIn("volumes", "Folder of the states' volumes")

    def volume(self, state: int) -> Path:
        """Volume of one state, numbered from 1."""
        return self.volumes / f"state_{state:04d}.mrc"


class DataSetFiles:
    """The folder of a data set."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.truth = TruthFiles(self.path / "truth")

    particles = FileIn("particles.star", "Particles as a user would get them")
    stack = FileIn("particles.mrcs", "Images")
    mask = FileIn("mask.mrc", "Soft mask around all states")
