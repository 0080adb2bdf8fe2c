"""What cryoSPARC's fields are in RELION's terms: a STAR file in memory, so that others know of one format only."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarFile, StarTable, rotation_to_relion
from solvar_engine.data.cryosparc.tables import UID, Table
from solvar_engine.data.units import ANGLE_COLUMNS, SHIFT_COLUMNS

UID_COLUMN = "ucsfUid"
"""Where pyem keeps the uid."""

_IMAGES = ("blob/path", "blob/idx", "blob/psize_A", "blob/shape")
_MICROSCOPE = {
    "ctf/accel_kv": "rlnVoltage",
    "ctf/cs_mm": "rlnSphericalAberration",
    "ctf/amp_contrast": "rlnAmplitudeContrast",
}
_DEFOCUS = {"ctf/df1_A": "rlnDefocusU", "ctf/df2_A": "rlnDefocusV", "ctf/bfactor": "rlnCtfBfactor"}
_ANGLES = {"ctf/df_angle_rad": "rlnDefocusAngle", "ctf/phase_shift_rad": "rlnPhaseShift"}
_OPTIONAL = ("ctf/bfactor", "ctf/phase_shift_rad")
_CTF = tuple(name for name in (*_MICROSCOPE, *_DEFOCUS, *_ANGLES) if name not in _OPTIONAL)
_SINGLE, _MULTI = "alignments3D", "alignments3D_multi"
_LOCATION = tuple(f"location/{name}" for name in ("micrograph_path", "center_x_frac", "center_y_frac"))
_MICROGRAPH_SHAPE, _MICROGRAPH_PIXEL = "location/micrograph_shape", "location/micrograph_psize_A"
_LEAST_CS = 0.01  # mm, below which a tilt is no angle
_NOT_MAPPED = {
    "ctf/trefoil_A": "trefoil",
    "ctf/tetra_A": "tetrafoil",
    "ctf/shift_A": "beam shift",
}

Values = NDArray[np.float64]


def star_of(table: Table, source: str, with_poses: bool = True) -> tuple[StarFile, list[str]]:
    """Turn particles of cryoSPARC into the STAR file of RELION 3.1 that says the same.

    One optics group is made for each exposure group, or for each part of one that differs in pixel size or microscope.
    Numbers have the digits that float32 needs.

    Parameters
    ----------
    table : ndarray of a structured type, shape (n,)
        Particles joined with what was passed through.
    source : str
        For error messages.
    with_poses : bool
        Whether poses are needed.

    Returns
    -------
    star : StarFile
    cautions : list of str
        What is doubtful, or could not be kept, in sentences without full stop.

    Raises
    ------
    UserError
        If fields that are needed are absent, or values are not finite.
    """
    fields = Fields(table, source)
    fields.require(_IMAGES, "images", "give the particles of a job, not what it passed through")
    fields.require(_CTF, "CTF", "give the passthrough of its job with --passthrough, or estimate the CTF")
    optics, group = _optics(fields)
    images = zip(table["blob/idx"].tolist(), _paths(table["blob/path"]), strict=True)
    columns: dict[str, Any] = {
        "rlnImageName": [f"{number + 1:06d}@{path}" for number, path in images],
        "rlnOpticsGroup": group + 1,
        UID_COLUMN: table[UID],
        **{column: fields.decimals(name) for name, column in _DEFOCUS.items() if name in fields},
        **{column: np.rad2deg(fields.numbers(name)) for name, column in _ANGLES.items() if name in fields},
        **_location(fields),
    }
    poses, cautions = _alignments(fields, with_poses)
    cautions += _lost(fields, source)
    tables = (
        dataclasses.replace(StarTable.create(name, values), source=source)
        for name, values in (("optics", optics), ("particles", {**columns, **poses}))
    )
    return StarFile(tuple(tables), source), cautions


class Fields:
    """Fields of a table by name, checked when they are asked for."""

    def __init__(self, table: Table, source: str | os.PathLike[str]) -> None:
        self.table, self.source = table, source

    def __contains__(self, name: object) -> bool:
        return name in (self.table.dtype.names or ())

    def numbers(self, name: str) -> Values:
        """Values of a field, shape (n, ...).

        Raises
        ------
        UserError
            If one is not a finite number.
        """
        values = self.table[name]
        finite = np.isfinite(values) if values.dtype.kind == "f" else np.ones(len(values), dtype=bool)
        bad = np.flatnonzero(~finite.reshape(len(values), -1).all(axis=1))
        if len(bad):
            raise UserError(
                f"Field {name} of item {bad[0] + 1} in {self.source} is {values[bad[0]]}, not a finite number"
                f" ({len(bad)} such items): leave it out in cryoSPARC."
            )
        return np.asarray(values, dtype=np.float64)

    def decimals(self, name: str) -> Values:
        """Values of a field, shape (n,); those of float32 are the decimal numbers that they stand for.

        15301.1 is 15301.0996 in float64, but the shortest text that stands for the same float32.
        """
        values = self.numbers(name)
        if self.table[name].dtype != np.float32:
            return values
        distinct, place = np.unique(values, return_inverse=True)
        return np.asarray(distinct.astype(np.float32).astype(str).astype(np.float64)[place.reshape(-1)])

    def require(self, names: tuple[str, ...], meaning: str, remedy: str) -> None:
        """Raise UserError if a field is absent."""
        absent = [name for name in names if name not in self]
        if absent:
            raise UserError(f"{self.source} has no {meaning}: field {absent[0]} is missing; {remedy}.")


def _paths(names: np.ndarray) -> list[str]:
    """Text of paths, without the mark of those that start from the folder of the file."""
    distinct, place = np.unique(names, return_inverse=True)
    text = [os.fsdecode(name).removeprefix(">") for name in distinct.tolist()]
    return [text[number] for number in place.reshape(-1).tolist()]


def _optics(fields: Fields) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Columns of the optics groups, and the place of each particle's, shape (n,), int64."""
    table = fields.table
    count = len(table)
    columns = {
        "exposure group": table["ctf/exp_group_id"] if "ctf/exp_group_id" in fields else np.zeros(count),
        **{column: fields.decimals(name) for name, column in _MICROSCOPE.items()},
        "rlnImagePixelSize": fields.decimals("blob/psize_A"),
        "rlnImageSize": table["blob/shape"][:, 0],
        **_aberrations(fields),
    }
    if _MICROGRAPH_PIXEL in fields:
        columns["rlnMicrographPixelSize"] = fields.decimals(_MICROGRAPH_PIXEL)
    parts, group = np.unique(np.stack(list(columns.values()), axis=1), axis=0, return_inverse=True)
    optics: dict[str, Any] = dict(zip(columns, parts.T, strict=True))
    exposure = optics.pop("exposure group").astype(np.int64)
    named = {
        "rlnOpticsGroup": np.arange(1, len(parts) + 1),
        "rlnOpticsGroupName": [f"exposure_group_{number}" for number in exposure],
        **optics,
        "rlnImageSize": optics["rlnImageSize"].astype(np.int64),
        "rlnImageDimensionality": np.full(len(parts), 2),
    }
    return named, group.reshape(-1).astype(np.int64)


def _aberrations(fields: Fields) -> dict[str, Values]:
    """Beam tilt (mrad) and magnification matrix of each particle, where there are any.

    A tilt is kept as Cs sin(tilt), in Angstrom (pyem); of the magnification, which acts on frequencies as RELION's
    does, cryoSPARC has taken the identity off (https://discuss.cryosparc.com/t/11402).
    """
    columns: dict[str, Values] = {}
    if _has_tilt(fields):
        cs = fields.numbers("ctf/cs_mm")[:, None] * 1e7
        tilt = np.arcsin(fields.numbers("ctf/tilt_A") / cs) * 1e3
        columns.update(zip(("rlnBeamTiltX", "rlnBeamTiltY"), tilt.T, strict=True))
    if _has_effect(fields, "ctf/anisomag"):
        matrix = fields.numbers("ctf/anisomag") + np.eye(2).reshape(-1)
        columns.update(zip((f"rlnMagMat{place}" for place in ("00", "01", "10", "11")), matrix.T, strict=True))
    return columns


def _has_effect(fields: Fields, name: str) -> bool:
    return name in fields and bool(fields.table[name].any())


def _has_tilt(fields: Fields) -> bool:
    """Whether there is a tilt that can be an angle."""
    if not _has_effect(fields, "ctf/tilt_A"):
        return False
    cs = np.abs(fields.table["ctf/cs_mm"])
    return bool((cs > _LEAST_CS).all() and (np.abs(fields.table["ctf/tilt_A"]) < 1e7 * cs[:, None]).all())


def _location(fields: Fields) -> dict[str, Any]:
    """Micrograph, and centre in it, px: shares of its width and height, and its shape is (rows, columns)."""
    path, *shares = _LOCATION
    if path not in fields:
        return {}
    names = {"rlnMicrographName": _paths(fields.table[path])}
    if any(name not in fields for name in (*shares, _MICROGRAPH_SHAPE)):
        return names
    shape = fields.table[_MICROGRAPH_SHAPE].astype(np.float64)
    x, y = (fields.numbers(share) * shape[:, axis] for share, axis in zip(shares, (1, 0), strict=True))
    return {**names, "rlnCoordinateX": x, "rlnCoordinateY": y}


def _alignments(fields: Fields, with_poses: bool) -> tuple[dict[str, Any], list[str]]:
    """Poses, half-sets and classes; of several classes, those of the most probable one."""
    slot = _MULTI if f"{_SINGLE}/pose" not in fields and f"{_MULTI}/pose" in fields else _SINGLE
    needed = tuple(f"{slot}/{name}" for name in ("pose", "shift", *(("class_posterior",) if slot == _MULTI else ())))
    if with_poses:
        fields.require(needed, "orientations", "give the particles of a 3-D refinement, or --passthrough with them")
    if not with_poses or any(name not in fields for name in needed):
        return {}, []
    best, cautions = None, []
    if slot == _MULTI:
        posterior = fields.numbers(f"{slot}/class_posterior").reshape(len(fields.table), -1)
        best = posterior.argmax(axis=1)
        cautions.append(
            f"{fields.source} has poses in {posterior.shape[1]} classes ({slot}): those of each particle's most"
            " probable class are used"
        )

    def values(name: str, dimensions: int = 1) -> Values:
        numbers = fields.numbers(f"{slot}/{name}")
        return numbers if numbers.ndim == dimensions else numbers[np.arange(len(numbers)), best]

    angles = rotation_to_relion(Rotation.from_rotvec(values("pose", 2)).as_matrix())
    pixel = values("psize_A") if f"{slot}/psize_A" in fields else fields.numbers("blob/psize_A")
    columns: dict[str, Any] = dict(zip(ANGLE_COLUMNS, angles, strict=True))
    columns.update(zip(SHIFT_COLUMNS, (values("shift", 2) * pixel[:, None]).T, strict=True))
    if f"{slot}/split" in fields:
        split = values("split").astype(np.int64)
        if set(np.unique(split)) == {0, 1}:
            columns["rlnRandomSubset"] = split + 1
    if f"{slot}/class" in fields:
        columns["rlnClassNumber"] = values("class").astype(np.int64) + 1
    return columns, cautions


def _lost(fields: Fields, source: str) -> list[str]:
    """Say what has an effect on images, but no counterpart that is known."""
    lost = [f"{meaning} ({name})" for name, meaning in _NOT_MAPPED.items() if _has_effect(fields, name)]
    if _has_effect(fields, "ctf/tilt_A") and not _has_tilt(fields):
        lost.append("beam tilt (ctf/tilt_A, which is no angle without spherical aberration)")
    if "ctf/scale" in fields and len(np.unique(fields.table["ctf/scale"])) > 1:
        lost.append("scale of the CTF (ctf/scale)")
    return [f"not corrected for, and no more than kept in .cs output: {', '.join(lost)} of {source}"] if lost else []
