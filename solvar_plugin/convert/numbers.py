"""Numbers that a user types into a form."""

from __future__ import annotations

import math
import re

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.words import counted

_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")
_LARGEST_RANGE = 100_000


def whole_numbers(text: str, what: str) -> list[int]:
    """Read whole numbers and ranges, in the order in which they stand.

    Parameters
    ----------
    text : str
        Such as ``1, 3 5-7``.
    what : str
        The label of the form, for messages.

    Raises
    ------
    UserError
        If there are none, or something else stands there.

    Examples
    --------
    >>> whole_numbers("1, 3 5-7", "Clusters")
    [1, 3, 5, 6, 7]
    """
    found: list[int] = []
    for word in _RANGE.sub(r"\1-\2", text).replace(",", " ").split():
        limits = word.split("-")
        if len(limits) > 2 or not all(limit.isdecimal() for limit in limits):
            raise UserError(f"'{what}' has {word!r}, which is not a whole number or a range such as 2-5.")
        first, last = int(limits[0]), int(limits[-1])
        if last - first > _LARGEST_RANGE or last < first:
            raise UserError(f"'{what}' has the range {word!r}: give the smaller number first, and not too many.")
        found += range(first, last + 1)
    if not found:
        raise UserError(f"'{what}' is empty: give numbers such as 1, 3 or 2-5.")
    return found


def points_of(text: str, rank: int, what: str) -> np.ndarray:
    r"""Read points of the latent space, one in a line.

    Parameters
    ----------
    text : str
        Lines of numbers with commas or blanks between them; lines without any are left out.
    rank : int
        How many coordinates a point has.
    what : str
        The label of the form, for messages.

    Returns
    -------
    ndarray, shape (points, rank)

    Raises
    ------
    UserError
        If there are none, or a line has other than `rank` numbers.

    Examples
    --------
    >>> points_of("1, 2\n 0 -3.5", 2, "Points").tolist()
    [[1.0, 2.0], [0.0, -3.5]]
    """
    points = []
    for number, line in enumerate((text or "").splitlines(), start=1):
        words = re.split(r"[,;\s]+", line.strip())
        if words == [""]:
            continue
        if len(words) != rank:
            raise UserError(
                f"Line {number} of '{what}' has {counted(len(words), 'number')}, but the run has "
                f"{counted(rank, 'component')}: give one number for each."
            )
        points.append([_number(word, number, what) for word in words])
    if not points:
        raise UserError(f"'{what}' is empty: give one line of {rank} numbers for each point.")
    return np.array(points)


def _number(word: str, line: int, what: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"Line {line} of '{what}' has {word!r}, which is not a finite number.")
    return value
