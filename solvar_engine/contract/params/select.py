"""Options of `select`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Sequence

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params.options import Params, option

NEAREST = 1000
"""Particles that --near takes without --number."""


@dataclass(frozen=True)
class SelectParams(Params):
    """Options of `select`."""

    command: ClassVar[str] = "select"
    summary: ClassVar[str] = "write some particles of a run as a STAR file"

    run: str = option(str, help="folder of a finished fit", positional=True, metavar="RUN", is_path=True)
    output: str = option(
        str, help="STAR file to write; of cryoSPARC's particles also FILE.cs and FILE.csg", metavar="FILE.star",
        is_path=True,
    )
    name: str | None = option(
        str, None, help="the particles of this selection of the explorer", metavar="NAME", one_of="what"
    )
    clusters: str | None = option(
        str, None, help="the particles of these clusters of `analyze`, with commas between them", metavar="1,3",
        one_of="what",
    )
    near: Sequence[float] | None = option(
        float, None, help="the particles nearest to this point: one coordinate for each component", metavar="Z",
        is_list=True, one_of="what",
    )
    number: int = option(int, NEAREST, help="number of particles that --near takes", minimum=1, metavar="N")
    no_outliers: bool = option(bool, False, help="leave out particles that are flagged as outliers")

    def validate(self) -> None:
        """Check every value, and that no option is given that would be ignored."""
        super().validate()
        if self.near is None and self.changed("number"):
            raise UserError("--number belongs to --near: leave it out, or give a point.")
        if self.clusters is not None:
            self.cluster_numbers()

    def cluster_numbers(self) -> list[int]:
        """Return the numbers of the clusters.

        Raises
        ------
        UserError
            If they are no whole numbers of at least 1.
        """
        words = [word.strip() for word in (self.clusters or "").split(",")]
        if not all(word.isdecimal() and len(word) < 10 and int(word) >= 1 for word in words):
            raise UserError(f"--clusters is {self.clusters!r} but must be numbers of clusters, such as 1,3.")
        return [int(word) for word in words]
