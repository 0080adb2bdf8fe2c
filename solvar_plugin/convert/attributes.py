"""Numbers as Scipion keeps them with an item of a set."""

from __future__ import annotations

from typing import Sequence

from pyworkflow.object import CsvList


def csv_list(values: Sequence[float]) -> CsvList:
    """Return numbers as Scipion stores several of them in one attribute; seven digits, as float32 has."""
    numbers = CsvList(pType=float)
    for value in values:
        numbers.append(float(f"{float(value):.7g}"))
    return numbers
