"""Values of a particle list that only a wrong unit, or a damaged file, can give: in single rows, and in many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.words import counted

Values = NDArray[np.float64]
Rows = NDArray[np.int64]


class ColumnsOfParticles(Protocol):
    """Columns by name, one value per particle, and what is to be said of them."""

    source: str

    def find(self, column: str) -> Values | None:
        """One value per particle, shape (n,); None if there are none."""

    def get(self, column: str) -> Values:
        """The same; UserError if there are none."""

    def part_of(self, rows: Rows) -> str:
        """Name some rows in a sentence."""

    def doubt(self, sentence: str) -> None:
        """Take note of a sentence, without full stop."""

    def optics_groups(self) -> NDArray[np.int64] | None:
        """Optics group of each particle, shape (n,); None if there are none."""


@dataclass(frozen=True)
class Limits:
    """Range of a physical value, beyond which only a wrong unit or a damaged file can lie.

    Attributes
    ----------
    lowest, highest : float
        Inclusive.
    unit : str
    below, above : str
        What a value beyond an end may be.
    never : tuple of two floats, optional
        Range inside the other one in which no value can lie, either.
    """

    lowest: float
    highest: float
    unit: str
    below: str = ""
    above: str = ""
    never: tuple[float, float] = (np.inf, -np.inf)

    def refuse_outside(self, values: Values, place: Callable[[int], str]) -> None:
        """Refuse values beyond the ends.

        Parameters
        ----------
        values : ndarray, shape (n,)
        place : function
            Says where the value of a row is.

        Raises
        ------
        UserError
            If there are any; the first one is named.
        """
        is_never = (values > self.never[0]) & (values < self.never[1])
        outside = np.flatnonzero((values < self.lowest) | (values > self.highest) | is_never)
        if not len(outside):
            return
        row = int(outside[0])
        found = " ".join(text for text in (f"{values[row]:g}", self.unit) if text)
        hint = self.below if values[row] < max(self.lowest, self.never[1]) else self.above
        why = f"outside {self.lowest:g} to {self.highest:g}"
        if is_never[row]:
            why = f"between {self.never[0]:g} and {self.never[1]:g}"
        correct = "correct it" + (f" and {counted(len(outside) - 1, 'other')}" if len(outside) > 1 else "")
        raise UserError(f"{found} in {place(row)} is {why}: {' '.join(text for text in (hint, correct) if text)}.")


PIXEL_SIZE = Limits(0.05, 200.0, "Angstrom", "is it in metres, or nm?", "is it in pm?")
_ANGLE = Limits(-36_000.0, 36_000.0, "degrees")
_DEFOCUS = Limits(-1e6, 1e6, "Angstrom", "is it in pm?", "is it in pm?")
_ORIGIN = Limits(-1e5, 1e5, "", "is it in pm?", "is it in pm?")
ANGLE_COLUMNS = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
SHIFT_COLUMNS = ("rlnOriginXAngst", "rlnOriginYAngst")
SHIFT_COLUMNS_PX = ("rlnOriginX", "rlnOriginY")
DEFOCUS_COLUMNS = ("rlnDefocusU", "rlnDefocusV")
PHASE_FLIPPED = "rlnCtfDataArePhaseFlipped"
PREMULTIPLIED = "rlnCtfDataAreCtfPremultiplied"
LIMITS = {
    "rlnVoltage": Limits(10.0, 4000.0, "kV", "is it in MV?", "is it in V?"),
    # 1 to 5 mm in metres; correctors leave less than that, or much more
    "rlnSphericalAberration": Limits(
        -20.0, 100.0, "mm", "is it in m, or um? (of a corrected microscope give 0)", "is it in um, nm or Angstrom?",
        never=(0.00105, 0.00495),
    ),
    "rlnAmplitudeContrast": Limits(0.0, 1.0, "", "", "is it in percent?"),
    "rlnImagePixelSize": PIXEL_SIZE,
    "rlnPixelSize": PIXEL_SIZE,
    "rlnDetectorPixelSize": Limits(0.01, 1000.0, "um", "is it in mm?", "is it in nm?"),
    "rlnMagnification": Limits(100.0, 1e8, "", "is it in thousands?"),
    PHASE_FLIPPED: Limits(0.0, 1.0, ""),
    PREMULTIPLIED: Limits(0.0, 1.0, ""),
    **dict.fromkeys(DEFOCUS_COLUMNS, _DEFOCUS),
    "rlnDefocusAngle": _ANGLE,
    **dict.fromkeys(ANGLE_COLUMNS, _ANGLE),
    **dict.fromkeys((*SHIFT_COLUMNS, *SHIFT_COLUMNS_PX), _ORIGIN),
    "rlnPhaseShift": Limits(-720.0, 720.0, "degrees", "is it in mrad?", "is it in mrad?"),
    "rlnCtfBfactor": Limits(-5000.0, 5000.0, "Angstrom^2", "is it of another column?", "is it of another column?"),
    "rlnCtfScalefactor": Limits(0.0, 10.0, "", "", "is it in percent?"),
}
"""Of columns, by name."""

_FEW = 10  # rows that may be strange by themselves
_MANY = 50  # particles, whose angles spread
_MORE = 4.0  # times as many as in the gap beside them: right values are spread more evenly
_SMALLEST_UM, _LARGEST_UM, _GAP_UM = 0.05, 30.0, 300.0  # of defocus in micrographs, which in Angstrom would be none
_SMALLEST_DEFOCUS = 1_000.0  # Angstrom, of all images of a set; micrographs are not taken closer to focus
_SMALL_DEFOCUS = 3_500.0  # Angstrom, that micrographs seldom have, and that in nm would be ordinary
_OVERFOCUS = -500.0  # Angstrom
_NEAR_FOCUS = 2_000.0  # Angstrom, which some micrographs have where others have more
_FULL_CONTRAST = 0.5  # amplitude contrast of images that were simulated without defocus
_EVEN, _NEARLY_ALL = (0.42, 0.6), 0.9  # of directions that are all as frequent: in the upper half of their range, in it
_NOTABLE_ASTIGMATISM = 100.0  # Angstrom
_LIKE = 0.7  # of the median, and of the standard deviation, of values that are of one kind
_GAP = 1.5  # of neighbours in order, where there are two kinds


def refuse_units_of_many(columns: ColumnsOfParticles) -> None:
    """Refuse units that show in many rows only, or tell them where right values may look the same.

    Defocus in um or nm, overfocus, angles in radians, a scale of zero; in all rows, or in a part of them that was
    joined with others. Values of another unit leave a gap beside them that right ones, which are spread evenly, fill.

    Raises
    ------
    UserError
        The text says which rows, if not all.
    """
    for name in DEFOCUS_COLUMNS:
        _refuse_defocus(columns, name)
    _judge_small_defocus(columns)
    _refuse_radians(columns)
    _judge_astigmatism(columns)
    phase_shift = columns.find("rlnPhaseShift")
    if phase_shift is not None:
        _refuse_some(columns, "rlnPhaseShift", _among(np.abs(phase_shift), 0.1, np.pi + 1e-3, 2 * np.pi), "radians")
    none = np.flatnonzero((columns.get("rlnAmplitudeContrast") == 0) & (phase_shift is None or phase_shift == 0))
    if len(none):
        columns.doubt(
            f"rlnAmplitudeContrast of {columns.source} is 0 in {columns.part_of(none)}, and 0.07 to 0.1 as a rule: was"
            " it never filled?"
        )
    scale = columns.find("rlnCtfScalefactor")
    if scale is not None and not scale.any():
        raise UserError(
            f"rlnCtfScalefactor of {columns.source} is 0 in all rows, which leaves no signal: fill it or remove it."
        )
    if scale is not None and not scale.all():
        shown = counted(int((scale == 0).sum()), "row, whose image shows", "rows, whose images show")
        columns.doubt(f"rlnCtfScalefactor of {columns.source} is 0 in {shown} nothing then: fill it or remove it")


def _among(magnitude: Values, lowest: float, highest: float, gap: float) -> Rows:
    """Rows within a range that right values leave nearly empty, if there are more of them than in the gap above."""
    found = np.flatnonzero((magnitude >= lowest) & (magnitude <= highest))
    beside = np.count_nonzero((magnitude > highest) & (magnitude <= gap))
    return found if len(found) >= _FEW and len(found) > _MORE * beside else found[:0]


def _refuse_some(columns: ColumnsOfParticles, name: str, rows: Rows, unit: str) -> None:
    """Refuse a column whose values in some rows are of another unit."""
    if not len(rows):
        return
    values, right = columns.get(name), LIMITS[name].unit
    others = np.delete(values, rows)
    beside = f", and up to {np.abs(others).max():g} in the others" if others.any() else ""
    raise UserError(
        f"Column {name} of {columns.source} is {values[rows].min():g} to {values[rows].max():g} in"
        f" {columns.part_of(rows)}{beside}: it seems to be in {unit} there; give {right}."
    )


def _refuse_defocus(columns: ColumnsOfParticles, name: str) -> None:
    defocus = columns.get(name)
    zero = np.flatnonzero((defocus == 0) & (columns.get("rlnAmplitudeContrast") < _FULL_CONTRAST))
    if len(zero):
        where = columns.part_of(zero)
        columns.doubt(f"column {name} of {columns.source} is 0 in {where}: was the CTF never estimated?")
    if _SMALLEST_UM <= np.abs(defocus).max() <= _LARGEST_UM:
        raise UserError(
            f"Column {name} of {columns.source} is {defocus[0]:g} in the first row and {np.abs(defocus).max():g} at"
            " most: it seems to be in um; give Angstrom."
        )
    _refuse_some(columns, name, _among(np.abs(defocus), _SMALLEST_UM, _LARGEST_UM, _GAP_UM), "um")
    if np.median(defocus) < _OVERFOCUS:
        raise UserError(
            f"Column {name} of {columns.source} is negative ({defocus[0]:g} Angstrom in the first row), which means"
            " overfocus: give underfocus as positive numbers."
        )
    negative = np.flatnonzero(defocus < _OVERFOCUS)
    beside = np.count_nonzero(np.abs(defocus) <= -_OVERFOCUS)
    if len(negative) > max(_FEW, _MORE * beside) and _are_like(-defocus[negative], np.delete(defocus, negative)):
        raise UserError(
            f"Column {name} of {columns.source} is negative in {columns.part_of(negative)}"
            f" ({defocus[negative[0]]:g} Angstrom in row {negative[0] + 1}), which means overfocus, unlike in the"
            " others: give underfocus as positive numbers."
        )
    over = np.flatnonzero(defocus < 0)
    if len(over) and np.percentile(defocus[defocus >= 0], 5) > _NEAR_FOCUS:
        columns.doubt(
            f"column {name} of {columns.source} is negative in {columns.part_of(over)} (down to {defocus.min():g}"
            " Angstrom), which means overfocus: was the CTF estimated well?"
        )


def _are_like(some: Values, others: Values) -> bool:
    """Whether values spread as others do and have their size: not those of a micrograph or two that were misjudged."""
    typical, spread = np.median(others), np.std(others)
    return bool(_LIKE * typical < np.median(some) < typical / _LIKE and np.std(some) > _LIKE * spread)


def _judge_small_defocus(columns: ColumnsOfParticles) -> None:
    """Refuse a defocus that shows no molecule, and tell one that may be in nm, unless a phase plate was used."""
    defocus = np.mean([np.abs(columns.get(name)) for name in DEFOCUS_COLUMNS], axis=0)
    largest = max(np.abs(columns.get(name)).max() for name in DEFOCUS_COLUMNS)
    phase_shift = columns.find("rlnPhaseShift")
    if _LARGEST_UM < largest < _SMALLEST_DEFOCUS and (phase_shift is None or not phase_shift.any()):
        raise UserError(
            f"The defocus of {columns.source} is {largest:g} Angstrom at most, too little to see molecules with: is it"
            " in nm? Give Angstrom."
        )
    rows = np.flatnonzero((defocus > 0) & (phase_shift is None or phase_shift == 0))
    if len(rows) < _FEW:
        return
    if np.percentile(defocus[rows], 99) < _SMALL_DEFOCUS:
        columns.doubt(
            f"The defocus of {columns.source} is {np.median(defocus[rows]):.0f} Angstrom (median), closer to focus than"
            " micrographs are as a rule: if it is in nm, give Angstrom"
        )
        return
    small = _ten_times_smaller(defocus, rows, columns.optics_groups())
    if len(small):
        others = np.setdiff1d(rows, small)
        columns.doubt(
            f"The defocus in {columns.part_of(small)} of {columns.source} is {np.median(defocus[small]):.0f} Angstrom"
            f" (median), about a tenth of that in the others ({np.median(defocus[others]):.0f}): if it is in nm there,"
            " give Angstrom"
        )


def _ten_times_smaller(defocus: Values, rows: Rows, group: NDArray[np.int64] | None) -> Rows:
    """Rows, of an optics group or below a gap, whose defocus is small and a tenth of that of the others."""
    parts = [] if group is None else [rows[group[rows] == number] for number in np.unique(group[rows])]
    order = rows[np.argsort(defocus[rows], kind="stable")]
    least = max(_FEW, len(order) // 100)
    steps = defocus[order][least:] / defocus[order][least - 1 : -1]
    steps = steps[: len(order) - 2 * least + 1]
    if len(steps) and steps.max() >= _GAP:
        parts.append(order[: least + int(steps.argmax())])
    for part in parts:
        others = np.setdiff1d(rows, part)
        if min(len(part), len(others)) >= _FEW and np.median(defocus[part]) < _SMALL_DEFOCUS:
            if _are_like(10 * defocus[part], defocus[others]):
                return np.sort(part)
    return rows[:0]


def _refuse_radians(columns: ColumnsOfParticles) -> None:
    known = [values for values in map(columns.find, ANGLE_COLUMNS) if values is not None]
    if len(known) < len(ANGLE_COLUMNS):
        return
    angles = np.stack(known)
    rot, tilt, psi = angles
    largest = np.abs(angles).max(axis=0)
    if largest.max() <= 2 * np.pi + 1e-3:
        rows = np.flatnonzero(largest) if len(rot) >= _MANY else np.arange(0)
    else:
        rows = _among(largest, 1e-6, 2 * np.pi + 1e-3, 4 * np.pi)
    if not len(rows) or not (min(rot[rows].std(), psi[rows].std()) > 0.5 and tilt[rows].std() > 0.1):
        return
    where = "" if len(rows) == len(rot) else f" in {columns.part_of(rows)}, unlike in the others"
    raise UserError(
        f"Columns {', '.join(ANGLE_COLUMNS)} of {columns.source} go to {largest[rows].max():.3f} at most{where}: they"
        " seem to be in radians; give degrees."
    )


def _judge_astigmatism(columns: ColumnsOfParticles) -> None:
    """Tell directions of the astigmatism that may be in radians, where they matter."""
    angle = columns.get("rlnDefocusAngle")
    rows = _among(np.abs(angle), 1e-6, np.pi + 1e-3, 2 * np.pi)
    astigmatism = np.abs(columns.get("rlnDefocusU") - columns.get("rlnDefocusV"))[rows]
    magnitude = np.abs(angle[rows])
    if len(np.unique(magnitude.round(2))) < _MANY:
        return
    # in radians, directions reach a quarter or half of a turn, all as frequent; that of a microscope alone does not
    shares = (_upper_share(magnitude, turn) for turn in (np.pi / 2, np.pi))
    if any(_EVEN[0] < share < _EVEN[1] for share in shares) and np.median(astigmatism) > _NOTABLE_ASTIGMATISM:
        columns.doubt(
            f"Column rlnDefocusAngle of {columns.source} is between {angle[rows].min():.3g} and"
            f" {angle[rows].max():.3g} in {columns.part_of(rows)}: if that is in radians, give degrees"
        )


def _upper_share(magnitude: Values, highest: float) -> float:
    """Share, of values up to a highest one, in the upper half of that range; 0 if too many are beyond."""
    inside = magnitude[magnitude <= highest + 1e-3]
    return float(np.mean(inside > highest / 2)) if len(inside) > _NEARLY_ALL * len(magnitude) else 0.0
