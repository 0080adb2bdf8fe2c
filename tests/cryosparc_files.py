"""A project of cryoSPARC made from a STAR file, by conversions of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from solvar_engine.contract.star import StarFile


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle of one rotation matrix, from its trace and its antisymmetric part."""
    angle = np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))
    axis = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    return angle * axis / (2 * np.sin(angle))


def table(columns: dict[str, np.ndarray]) -> np.ndarray:
    """A structured array of columns of shape (n, ...)."""
    types = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
    result = np.empty(len(next(iter(columns.values()))), dtype=types)
    for name, values in columns.items():
        result[name] = values
    return result


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as stream:
        np.save(stream, values, allow_pickle=False)
    return path


def without(values: np.ndarray, *prefixes: str) -> np.ndarray:
    """Leave out fields by the beginning of their names."""
    return table({name: values[name] for name in values.dtype.names or () if not name.startswith(prefixes)})


def fields_of(star_path: Path, stack: str, shift_pixel: float = 2.0) -> np.ndarray:
    """All fields that cryoSPARC has of the particles of a STAR file of RELION 3.1 with one optics group.

    Parameters
    ----------
    star_path : Path
    stack : str
        Path of the stack, as the project knows it.
    shift_pixel : float
        Of the alignment, Angstrom: not that of the images.
    """
    star = StarFile.read(star_path)
    rows, group = star.particles, star.optics
    assert group is not None and len(group) == 1
    count = len(rows)

    def column(name: str) -> np.ndarray:
        return rows.numbers(name)[name]

    def of_group(name: str, without: float = 0.0) -> float:
        return float(group.numbers(name)[name][0]) if name in group else without

    def of_all(name: str) -> np.ndarray:
        return np.full(count, of_group(name), dtype=np.float32)

    tilt = 1e-3 * np.array([of_group("rlnBeamTiltX"), of_group("rlnBeamTiltY")])
    matrix = np.array([of_group(f"rlnMagMat{i}{j}", float(i == j)) for i in range(2) for j in range(2)])

    angles = np.stack([column(f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi")], axis=1)
    matrices = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix()
    origins = np.stack([column("rlnOriginXAngst"), column("rlnOriginYAngst")], axis=1)
    numbers = [int(name.partition("@")[0]) - 1 for name in rows.text("rlnImageName")]
    box = int(group.numbers("rlnImageSize")["rlnImageSize"][0])
    micrographs = {}
    if "rlnMicrographName" in rows:
        names = [f">J2/{name}".encode() for name in rows.text("rlnMicrographName")]
        micrographs["location/micrograph_path"] = np.array(names)
    return table(
        {
            "uid": np.random.default_rng(1).permutation(count).astype(np.uint64) + np.uint64(2**63),
            **micrographs,
            "blob/path": np.full(count, stack.encode()),
            "blob/idx": np.array(numbers, dtype=np.uint32),
            "blob/shape": np.full((count, 2), box, dtype=np.uint32),
            "blob/psize_A": of_all("rlnImagePixelSize"),
            "blob/sign": np.full(count, -1, dtype=np.float32),
            "blob/import_sig": np.full(count, 12345, dtype=np.uint64),
            "ctf/type": np.full(count, b"imported"),
            "ctf/exp_group_id": np.full(count, 7, dtype=np.uint32),
            "ctf/accel_kv": of_all("rlnVoltage"),
            "ctf/cs_mm": of_all("rlnSphericalAberration"),
            "ctf/amp_contrast": of_all("rlnAmplitudeContrast"),
            "ctf/df1_A": column("rlnDefocusU").astype(np.float32),
            "ctf/df2_A": column("rlnDefocusV").astype(np.float32),
            "ctf/df_angle_rad": np.deg2rad(column("rlnDefocusAngle")).astype(np.float32),
            "ctf/phase_shift_rad": np.zeros(count, dtype=np.float32),
            # Cs in Angstrom times the sine; what is more than the identity
            "ctf/tilt_A": np.tile(1e7 * of_group("rlnSphericalAberration") * np.sin(tilt), (count, 1)).astype("f4"),
            "ctf/anisomag": np.tile(matrix - [1, 0, 0, 1], (count, 1)).astype(np.float32),
            "alignments3D/split": (column("rlnRandomSubset") - 1).astype(np.uint32)
            if "rlnRandomSubset" in rows
            else np.arange(count, dtype=np.uint32) % 2,
            "alignments3D/shift": (origins / shift_pixel).astype(np.float32),
            "alignments3D/pose": np.array([rotation_vector(matrix) for matrix in matrices], dtype=np.float32),
            "alignments3D/psize_A": np.full(count, shift_pixel, dtype=np.float32),
            "alignments3D/cross_cor": np.linspace(0, 1, count, dtype=np.float32),
            "alignments3D/alpha": np.full(count, 1.25, dtype=np.float32),
            "alignments3D/class": np.zeros(count, dtype=np.uint32),
            "some_day/unknown": np.arange(count, dtype=np.int16),
        }
    )


@dataclass(frozen=True)
class Project:
    """Particles in two files as a refinement of cryoSPARC leaves them, and their images.

    Attributes
    ----------
    particles, passthrough : Path
    fields : ndarray of a structured type
        What both hold together, in the order of `particles`.
    """

    particles: Path
    passthrough: Path
    fields: np.ndarray


def make_project(folder: Path, star_path: Path) -> Project:
    """Write a project: alignments in one file; images and CTF, in another order and with others, passed through."""
    stack = folder / "J3" / "imported" / "particles.mrcs"
    stack.parent.mkdir(parents=True)
    stack.symlink_to(star_path.parent / "particles.mrcs")
    fields = fields_of(star_path, ">J3/imported/particles.mrcs")
    job = folder / "J24"
    particles = save(job / "cryosparc_P12_J24_004_particles.cs", without(fields, "blob", "ctf", "some_day"))
    more = np.concatenate([fields, fields[:3]])
    more["uid"][-3:] = [1, 2, 3]
    passed = without(more[np.random.default_rng(2).permutation(len(more))], "alignments3D")
    return Project(particles, save(job / "cryosparc_P12_J24_passthrough_particles.cs", passed), fields)
