"""What the columns of a particle STAR file mean: poses, CTF, optics groups, half-sets; RELION 3.0 to 5."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarFile, StarTable, relion_to_rotation, rotation_to_relion
from solvar_engine.contract.words import counted
from solvar_engine.data.aberrations import kinds_without_optics, read_aberrations
from solvar_engine.data.units import (
    ANGLE_COLUMNS,
    LIMITS,
    PHASE_FLIPPED,
    PIXEL_SIZE,
    PREMULTIPLIED,
    SHIFT_COLUMNS,
    SHIFT_COLUMNS_PX,
    refuse_units_of_many,
)
from solvar_engine.imaging.aberrations import Aberrations, distorted_shift, undistorted_shift
from solvar_engine.imaging.types import Ctf, Pose

logger = logging.getLogger(__name__)

_CTF_COLUMNS = {
    "defocus_u": "rlnDefocusU",
    "defocus_v": "rlnDefocusV",
    "defocus_angle": "rlnDefocusAngle",
    "voltage": "rlnVoltage",
    "cs": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
    "phase_shift": "rlnPhaseShift",
    "b_factor": "rlnCtfBfactor",
    "scale": "rlnCtfScalefactor",
}
_DEFAULTS = {"rlnPhaseShift": 0.0, "rlnCtfBfactor": 0.0, "rlnCtfScalefactor": 1.0}
# what a file lacks if it lacks a column, and what to do
_NO_POSES = ("orientations", "give the particles of a 3-D refinement")
_NO_CTF = ("CTF", "give particles of micrographs whose CTF was estimated")
_MEANINGS = {
    **dict.fromkeys(ANGLE_COLUMNS, _NO_POSES),
    **dict.fromkeys((*SHIFT_COLUMNS, *SHIFT_COLUMNS_PX), ("complete shifts", "add it")),
    **dict.fromkeys(("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"), _NO_CTF),
    "rlnVoltage": ("voltage", "add it in kV"),
    "rlnSphericalAberration": ("spherical aberration", "add it in mm"),
    "rlnAmplitudeContrast": ("amplitude contrast", "add it, usually 0.07 to 0.1"),
}
# where RELION 3.1 and later keep them
_OPTICS_COLUMNS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")


_SAME = 1e-3  # of two values that should be one, relative
_SAME_CALIBRATION = 0.01  # of pixel sizes, relative
_SAME_SHIFT = 0.01  # px


@dataclass(frozen=True)
class ParticleMetadata:
    """What a STAR file says about its particles, images aside.

    Attributes
    ----------
    pose : Pose
    ctf : Ctf
    group : Tensor, shape (n,), int64
        Place of each particle's optics group in `group_names`.
    group_names : tuple of str
        Optics groups that have particles, in the order of the file; in files without optics table, one for
        each pixel size and beam tilt.
    pixel_sizes : tuple of float
        Angstrom, per group.
    image_sizes : tuple of int or None
        Box that the optics table announces, per group.
    random_subset : Tensor or None, shape (n,), int64
        Half-set 1 or 2 of each particle.
    aberrations : Aberrations
        Of each group; even ones are part of `ctf`.
    cautions : tuple of str
        What is doubtful, in sentences without full stop.
    """

    pose: Pose
    ctf: Ctf
    group: Tensor
    group_names: tuple[str, ...]
    pixel_sizes: tuple[float, ...]
    image_sizes: tuple[int | None, ...]
    random_subset: Tensor | None
    aberrations: Aberrations
    cautions: tuple[str, ...] = ()


def read_metadata(star: StarFile, with_poses: bool = True) -> ParticleMetadata:
    """Read poses, CTF parameters, optics groups and half-sets; images are not looked at.

    A value that RELION takes from the particle or else from its optics group is found in the same order.

    Parameters
    ----------
    star : StarFile
    with_poses : bool
        Without, orientations and shifts in the file are ignored, if there are any, and those of the result are zero.

    Returns
    -------
    ParticleMetadata

    Raises
    ------
    UserError
        If there are no particles, a column that is needed is absent, a cell is not a number or out of its
        limits, a particle is in an unknown optics group, or images are volumes.

    Examples
    --------
    >>> read_metadata(StarFile.read("particles.star")).pixel_sizes  # doctest: +SKIP
    (3.0,)
    """
    columns = _Columns(star, with_poses)
    _refuse_unsuitable_images(columns)
    refuse_units_of_many(columns)
    pixel_size = _pixel_size(columns)
    group, names, first_rows = _groups(columns, pixel_size)
    image_size = columns.find("rlnImageSize")
    aberrations, even = read_aberrations(star, columns, group, first_rows)
    pose = _pose(columns, pixel_size) if with_poses else _no_pose(len(pixel_size))
    metadata = ParticleMetadata(
        pose=replace(pose, shift=undistorted_shift(pose.shift.double(), aberrations.magnification[group]).float()),
        ctf=replace(_ctf(columns), even_zernike=None if even is None else even[group].float()),
        group=torch.from_numpy(group),
        group_names=names,
        pixel_sizes=tuple(float(pixel_size[row]) for row in first_rows),
        image_sizes=tuple(None if image_size is None else int(image_size[row]) for row in first_rows),
        random_subset=_random_subset(columns),
        aberrations=aberrations,
    )
    return replace(metadata, cautions=tuple(columns.cautions))


def micrograph_pixel_size(star: StarFile) -> float | None:
    """Pixel size of the micrographs in Angstrom, in which coordinates are given; None if the file does not say one."""
    for table in (star.optics, star.particles):
        for column in ("rlnMicrographOriginalPixelSize", "rlnMicrographPixelSize"):
            if table is not None and column in table:
                values = np.unique(table.numbers(column)[column])
                is_known = len(values) == 1 and PIXEL_SIZE.lowest <= values[0] <= PIXEL_SIZE.highest
                return float(values[0]) if is_known else None
    return None


def pose_columns(
    pose: Pose, star: StarFile, pixel_size: np.ndarray, magnification: Tensor
) -> dict[str, np.ndarray]:
    """Turn poses into the columns in which a STAR file keeps them.

    Parameters
    ----------
    pose : Pose
    star : StarFile
        Decides whether shifts are in Angstrom (RELION 3.1 and later), px (RELION 3.0) or both.
    pixel_size : ndarray, shape (n,)
        Angstrom, of each particle.
    magnification : Tensor, shape (n, 2, 2)
        Of each particle's optics group; shifts in files are those of the distorted images.

    Returns
    -------
    dict of str to ndarray, shape (n,)
    """
    angles = rotation_to_relion(pose.rotation.cpu().numpy())
    shift = distorted_shift(pose.shift.cpu().double(), magnification).numpy()
    has_px = any(name in star.particles for name in SHIFT_COLUMNS_PX)
    has_angstrom = any(name in star.particles for name in SHIFT_COLUMNS)
    columns = dict(zip(ANGLE_COLUMNS, angles, strict=True))
    if has_px:
        columns.update(zip(SHIFT_COLUMNS_PX, (shift / pixel_size[:, None]).T, strict=True))
    if has_angstrom or not has_px:
        columns.update(zip(SHIFT_COLUMNS, shift.T, strict=True))
    return columns


class _Columns:
    """Columns by name, wherever they are: in the particle table or in that of the optics groups."""

    def __init__(self, star: StarFile, with_poses: bool = True) -> None:
        self.source = star.source
        self._with_poses = with_poses
        self.particles = star.particles
        self.optics = star.optics
        if len(self.particles) == 0:
            raise UserError(f"{self.source} has no particles: data_{self.particles.name} has no rows.")
        self._compared: set[str] = set()
        self.cautions: list[str] = []
        try:
            # one pass over the rows for all columns that are surely needed
            self._parsed = self.particles.numbers(*self._needed_columns())
        except UserError:
            self._refuse_names_of_groups()
            raise
        self.optics_row = self._find_optics_rows()

    def find(self, column: str, optics_first: bool = False) -> np.ndarray | None:
        """Return one value per particle, shape (n,), or None if no table has the column."""
        found = {"particles": self._of_particles(column), "optics": self._of_optics(column)}
        known = {name: values for name, values in found.items() if values is not None}
        order = sorted(known, reverse=not optics_first)  # "optics" sorts first
        if len(order) > 1 and column not in self._compared:
            self._compared.add(column)
            self.compare(column, known[order[0]], known[order[1]], f"that of the {order[0]} is used")
        return known[order[0]] if order else None

    def compare(
        self, what: str, used: np.ndarray, other: np.ndarray, choice: str, tolerance: float = _SAME
    ) -> None:
        """Say if two values per particle, shapes (n,), of what should be one are not the same."""
        differs = np.flatnonzero(np.abs(used - other) > tolerance * np.maximum(np.abs(used), np.abs(other)))
        if len(differs):
            row = int(differs[0])
            self.doubt(
                f"{what} of {self.source} is {used[row]:g} in one place and {other[row]:g} in another (row {row + 1},"
                f" {counted(len(differs), 'such row')}): {choice}"
            )

    def doubt(self, sentence: str) -> None:
        """Log and keep a sentence, without full stop, that whoever uses the particles must know."""
        logger.warning(sentence)
        self.cautions.append(sentence)

    def part_of(self, rows: np.ndarray) -> str:
        """Name some ascending rows: an optics group, a block, or the first one."""
        if len(rows) == len(self.particles):
            return "all rows"
        group = self.optics_groups()
        if group is not None and self.optics is not None:
            chosen = np.unique(group[rows])
            if len(chosen) == 1 and np.count_nonzero(group == chosen[0]) == len(rows):
                label = "rlnOpticsGroupName" if "rlnOpticsGroupName" in self.optics else "rlnOpticsGroup"
                return f"optics group {self.optics.text(label)[int(chosen[0])]}"
        if len(rows) == 1:
            return f"row {rows[0] + 1}"
        if rows[-1] - rows[0] + 1 == len(rows):
            return f"rows {rows[0] + 1} to {rows[-1] + 1}"
        return f"{counted(len(rows), 'row')} (the first is row {rows[0] + 1})"

    def optics_groups(self) -> np.ndarray | None:
        """Row of the optics table for each particle, shape (n,); None without such a table."""
        return self.optics_row

    def get(self, column: str) -> np.ndarray:
        """Return one value per particle; UserError with a remedy if no table has the column."""
        values = self.find(column)
        if values is None:
            in_optics = self.optics is not None and column in _OPTICS_COLUMNS
            raise self.lacks(column, *_MEANINGS[column], "optics" if in_optics else self.particles.name)
        return values

    def lacks(self, column: str, meaning: str, remedy: str, table: str) -> UserError:
        """Say that a column is absent, what is unknown without it, and what to do."""
        return UserError(
            f"{self.source} has no {meaning}: column {column} is missing from data_{table}; {remedy}."
        )

    def _needed_columns(self) -> list[str]:
        shifts = SHIFT_COLUMNS if SHIFT_COLUMNS[0] in self.particles else SHIFT_COLUMNS_PX
        needed = (*ANGLE_COLUMNS, *shifts, *_CTF_COLUMNS.values(), "rlnOpticsGroup", "rlnRandomSubset")
        ignored = self._ignored_columns()
        return [column for column in needed if column in self.particles and column not in ignored]

    def _ignored_columns(self) -> tuple[str, ...]:
        return () if self._with_poses else (*ANGLE_COLUMNS, *SHIFT_COLUMNS, *SHIFT_COLUMNS_PX)

    def _refuse_names_of_groups(self) -> None:
        """Say which number belongs in the place of an optics group's name."""
        named = {"rlnOpticsGroup", "rlnOpticsGroupName"}
        if self.optics is None or not named <= set(self.optics.columns) or "rlnOpticsGroup" not in self.particles:
            return
        number = dict(zip(self.optics.text("rlnOpticsGroupName"), self.optics.text("rlnOpticsGroup"), strict=True))
        for row, cell in enumerate(self.particles.text("rlnOpticsGroup")):
            if cell in number and cell not in number.values():
                raise UserError(
                    f"{cell!r} in {self.particles.place(row, 'rlnOpticsGroup')} is the name of an optics group: write"
                    f" its number, which is {number[cell]} in data_optics, into all its rows."
                )

    def _find_optics_rows(self) -> np.ndarray | None:
        if self.optics is None or "rlnOpticsGroup" not in self.optics:
            return None
        known = self.optics.integers("rlnOpticsGroup")
        if "rlnOpticsGroup" not in self.particles:
            if len(known) == 1:
                return np.zeros(len(self.particles), dtype=np.int64)
            meaning = f"optics group for each particle, but {len(known)} groups"
            raise self.lacks("rlnOpticsGroup", meaning, "add it", self.particles.name)
        order = np.argsort(known, kind="stable")
        asked = self._parsed["rlnOpticsGroup"]
        place = np.searchsorted(known[order], asked).clip(max=len(known) - 1)
        unknown = np.flatnonzero(known[order][place] != asked)
        if len(unknown):
            row = int(unknown[0])
            raise UserError(
                f"Optics group {asked[row]:g} in {self.particles.place(row, 'rlnOpticsGroup')} is not in"
                f" data_optics, which has {', '.join(map(str, known))}: correct it or add the group."
            )
        return order[place]

    def _of_particles(self, column: str) -> np.ndarray | None:
        if column not in self.particles or column in self._ignored_columns():
            return None
        if column not in self._parsed:
            self._parsed.update(self.particles.numbers(column))
        self._check_limits(self.particles, column, self._parsed[column])
        return self._parsed[column]

    def _of_optics(self, column: str) -> np.ndarray | None:
        if self.optics is None or self.optics_row is None or column not in self.optics:
            return None
        values = self.optics.numbers(column)[column]
        is_used = np.isin(np.arange(len(values)), self.optics_row)
        self._check_limits(self.optics, column, np.where(is_used, values, np.nan))
        return values[self.optics_row]

    @staticmethod
    def _check_limits(table: StarTable, column: str, values: np.ndarray) -> None:
        if column in LIMITS:
            LIMITS[column].refuse_outside(values, lambda row: table.place(row, column))


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _ctf(columns: _Columns) -> Ctf:
    values = {name: _tensor(_ctf_values(columns, column)) for name, column in _CTF_COLUMNS.items()}
    flipped = columns.find(PHASE_FLIPPED)
    if flipped is None:
        flipped = np.zeros(len(columns.particles))
    if flipped.any():
        message = "%d of %d images are phase-flipped (%s): the absolute value of their CTF is used"
        logger.info(message, np.count_nonzero(flipped), len(flipped), PHASE_FLIPPED)
    premultiplied = columns.find(PREMULTIPLIED)
    is_premultiplied = None
    if premultiplied is not None and premultiplied.any():
        message = "%d of %d images are multiplied with their CTF (%s): they are divided by it, except near its zeros"
        logger.info(message, np.count_nonzero(premultiplied), len(premultiplied), PREMULTIPLIED)
        is_premultiplied = torch.from_numpy(premultiplied != 0)
    return Ctf(**values, is_phase_flipped=torch.from_numpy(flipped != 0), is_premultiplied=is_premultiplied)


def _ctf_values(columns: _Columns, column: str) -> np.ndarray:
    if column in _DEFAULTS:
        values = columns.find(column)
        return np.full(len(columns.particles), _DEFAULTS[column]) if values is None else values
    return columns.get(column)


def _pixel_size(columns: _Columns) -> np.ndarray:
    """Pixel size of each particle in Angstrom, shape (n,)."""
    named = [columns.find(column, optics_first=True) for column in ("rlnImagePixelSize", "rlnPixelSize")]
    known = [values for values in named if values is not None]
    if len(known) > 1:
        columns.compare("The pixel size", known[0], known[1], "rlnImagePixelSize is used, not rlnPixelSize")
    # RELION 3.0: size of a detector pixel in um, and magnification
    detector, magnification = columns.find("rlnDetectorPixelSize"), columns.find("rlnMagnification")
    magnified = None if detector is None or magnification is None else detector * 1e4 / magnification
    if known and magnified is not None:
        choice = "these are not used, but rlnImagePixelSize or rlnPixelSize"
        what = "The pixel size by rlnDetectorPixelSize and rlnMagnification"
        columns.compare(what, magnified, known[0], choice, _SAME_CALIBRATION)
    if known:
        return known[0]
    if detector is None or magnification is None or magnified is None:
        table = columns.particles.name if columns.optics is None else "optics"
        raise columns.lacks("rlnImagePixelSize", "pixel size", "add it in Angstrom", table)
    PIXEL_SIZE.refuse_outside(
        magnified,
        lambda row: f"the pixel that rlnDetectorPixelSize {detector[row]:g} um and rlnMagnification"
        f" {magnification[row]:g} in row {row + 1} of {columns.source} make",
    )
    return magnified


def _groups(columns: _Columns, pixel_size: np.ndarray) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Number the optics groups in use from 0; also their names and the first row of each."""
    if columns.optics_row is None or columns.optics is None:
        kinds = np.column_stack([pixel_size, kinds_without_optics(columns.particles)])
        _, first_rows, group = np.unique(kinds, axis=0, return_index=True, return_inverse=True)
        # np.unique sorts by value; the first group shall be that of the first particle
        rank = np.argsort(np.argsort(first_rows))
        first_rows = np.sort(first_rows)
        names = [f"pixel size {pixel_size[row]:.4g} A" for row in first_rows]
        if len(set(names)) < len(names):  # which differ in what is not said here, such as beam tilt
            names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
        return rank[group.reshape(-1)].astype(np.int64), tuple(names), first_rows
    used, first_rows, group = np.unique(columns.optics_row, return_index=True, return_inverse=True)
    label = "rlnOpticsGroupName" if "rlnOpticsGroupName" in columns.optics else "rlnOpticsGroup"
    names = columns.optics.text(label)
    if len(set(names)) < len(names):  # a name that stands for several groups does not tell them apart
        numbers = columns.optics.text("rlnOpticsGroup")
        names = [f"{name} ({number})" for name, number in zip(names, numbers, strict=True)]
    return group.reshape(-1).astype(np.int64), tuple(names[row] for row in used), first_rows


def _pose(columns: _Columns, pixel_size: np.ndarray) -> Pose:
    rotation = relion_to_rotation(*(columns.get(column) for column in ANGLE_COLUMNS))
    return Pose(_tensor(rotation), _tensor(_shift(columns, pixel_size)))


def _no_pose(count: int) -> Pose:
    return Pose(torch.eye(3).expand(count, 3, 3).contiguous(), torch.zeros(count, 2))


def _shift(columns: _Columns, pixel_size: np.ndarray) -> np.ndarray:
    """Shift of each particle (x, y) in Angstrom, shape (n, 2)."""
    shifts = [
        np.stack([columns.get(name) * unit for name in names], axis=1)
        for names, unit in ((SHIFT_COLUMNS, np.ones(1)), (SHIFT_COLUMNS_PX, pixel_size))
        if any(name in columns.particles for name in names)
    ]
    if len(shifts) > 1 and np.abs(shifts[0] - shifts[1]).max() > _SAME_SHIFT * pixel_size.max():
        most = np.abs(shifts[0] - shifts[1]).max()
        columns.doubt(
            f"origins of {columns.source} in px and in Angstrom differ by up to {most:.1f} Angstrom:"
            f" {' and '.join(SHIFT_COLUMNS)} are used"
        )
    if shifts:
        return shifts[0]
    names = " and ".join(SHIFT_COLUMNS)
    columns.doubt(f"{columns.source} has no shifts (columns {names}): the particles are taken to be centred")
    return np.zeros((len(columns.particles), 2))


def _random_subset(columns: _Columns) -> Tensor | None:
    values = columns.find("rlnRandomSubset")
    if values is None:
        return None
    if set(np.unique(values)) != {1.0, 2.0}:
        other = np.flatnonzero(~np.isin(values, (1.0, 2.0)))
        what = "names one half-set only"
        if len(other):
            what = f"holds neither 1 nor 2 in {columns.part_of(other)} (such as {values[other[0]]:g})"
        logger.warning("column rlnRandomSubset of %s %s: particles are split anew", columns.source, what)
        return None
    return torch.from_numpy(values.astype(np.int64))


def _refuse_unsuitable_images(columns: _Columns) -> None:
    dimensionality = columns.find("rlnImageDimensionality")
    if dimensionality is not None and (dimensionality != 2).any():
        raise UserError(
            f"The particles of {columns.source} are volumes, or stacks of tilt images (rlnImageDimensionality"
            f" {dimensionality[dimensionality != 2][0]:g}), as in tomography: give single particles, one image each."
        )
