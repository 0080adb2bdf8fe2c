"""Images that cannot be used: all of them named at once, and left out if that is asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import write_csv
from solvar_engine.data.particles import ParticleStack

logger = logging.getLogger(__name__)

MASKED = "is constant outside the particle, as if it was masked"
_SHOWN_ROWS = 5
_MOST_LEFT_OUT = 0.5  # of the images


@dataclass(frozen=True)
class BadImages:
    """What to do about images that cannot be used.

    Attributes
    ----------
    leave_out : bool
        Go on without them; otherwise they are an error.
    listing : Path or None
        Table that lists them all, written if there is more than one.
    unused : ndarray of bool, shape (n,), or None
        Rows that take no part in what follows, whose faults do not matter.
    """

    leave_out: bool = False
    listing: Path | None = None
    unused: NDArray[np.bool_] | None = None

    def settle(self, stack: ParticleStack, faults: Mapping[int, str]) -> None:
        """Say which images cannot be used.

        Parameters
        ----------
        stack : ParticleStack
        faults : mapping of int to str
            Fault in words by row.

        Raises
        ------
        UserError
            If there are any that matter, unless they are to be left out; or if they are most of all.
        """
        list_row = stack.rows_of_list
        rows = sorted(row for row in faults if self.unused is None or not self.unused[row])
        # each row of the list once, whatever symmetry has made of it
        listed = list_row[rows]
        rows = [rows[first] for first in np.unique(listed, return_index=True)[1]]
        if not rows:
            return
        number, count = (list_row + 1).tolist(), len(np.unique(list_row))
        where = self._list(stack, rows, number, faults)
        first = f"{stack.name_of_image(rows[0])} {faults[rows[0]]}"
        is_most = len(rows) > _MOST_LEFT_OUT * count
        remedy = "give unmasked images" if faults[rows[0]] == MASKED else "extract it again"
        remedy += ", or leave it out with --skip-bad-images"
        if len(rows) > 1:
            shown = ", ".join(str(number[row]) for row in rows[:_SHOWN_ROWS])
            shown += " ..." if len(rows) > _SHOWN_ROWS else ""
            first += f", and {len(rows)} of {count} images cannot be used (rows {shown}{where})"
            remedy = "extract them again" + ("" if is_most else ", or leave them out with --skip-bad-images")
        if not self.leave_out:
            raise UserError(f"{first}: {remedy}.")
        if is_most:
            raise UserError(f"{first}: too many to leave out; extract them again.")
        logger.warning("%s: left out, as outliers", first)

    def _list(self, stack: ParticleStack, rows: list[int], number: list[int], faults: Mapping[int, str]) -> str:
        if self.listing is None or len(rows) < 2:
            return ""
        names = stack.image_names
        columns = {"row": [number[row] for row in rows], "image": [names[row] for row in rows]}
        write_csv(self.listing, {**columns, "fault": [faults[row] for row in rows]})
        return f"; all are in {self.listing}"


REFUSE_BAD_IMAGES = BadImages()
"""Images that cannot be used are an error."""
