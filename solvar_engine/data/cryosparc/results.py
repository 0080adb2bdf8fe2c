"""What a run found, as `.cs` files that cryoSPARC imports: all particles, and some of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from solvar_engine.contract.errors import UserError
from solvar_engine.data.cryosparc.lists import CryosparcParticles
from solvar_engine.data.cryosparc.tables import Table, read_table, with_fields, write_table

_SLOT = "alignments3D"
# of an alignment in one class, as cryoSPARC's refinements write it
_ALIGNMENT = {
    **dict.fromkeys(("error", "error_min", "resid_pow", "slice_pow", "image_pow", "cross_cor"), 0.0),
    **dict.fromkeys(("weight", "pose_ess", "shift_ess"), 0.0),
    **dict.fromkeys(("class_posterior", "class_ess"), 1.0),
}


@dataclass(frozen=True)
class Found:
    """What a run knows of its particles.

    Attributes
    ----------
    rotation : ndarray, shape (n, 3, 3)
        From image to volume.
    shift : ndarray, shape (n, 2)
        Origins, Angstrom.
    has_new_poses : bool
        Whether these are other poses than those of the file.
    contrast : ndarray, shape (n,)
        Scale of each particle, 1 on average.
    z : ndarray, shape (n, r)
        Latent coordinates.
    half : ndarray of int, shape (n,)
        Half-sets, 1 and 2, or 0 for images of none.
    """

    rotation: NDArray[np.floating]
    shift: NDArray[np.floating]
    has_new_poses: bool
    contrast: NDArray[np.floating]
    z: NDArray[np.floating]
    half: NDArray[np.int64]


def write_results(path: Path, particles: CryosparcParticles, found: Found) -> None:
    """Write all particles with what was found; every other field stays byte for byte.

    Latent coordinates are those of ``components_mode_0`` and so on, as 3D Variability writes them, and the scale of a
    particle, `alignments3D/alpha`, is the contrast, on the average that the scales of the file have.
    """
    table, names = particles.table, particles.table.dtype.names or ()
    fields = {}
    if found.has_new_poses or f"{_SLOT}/pose" not in names:
        fields.update(_alignment(table, found))
    known = table[f"{_SLOT}/alpha"] if f"{_SLOT}/alpha" in names else np.ones(len(table), dtype=np.float32)
    fields[f"{_SLOT}/alpha"] = (found.contrast * known.mean(dtype=np.float64)).astype(np.float32)
    for mode, values in enumerate(found.z.T):
        fields[f"components_mode_{mode}/component"] = np.full(len(table), mode, dtype=np.uint32)
        fields[f"components_mode_{mode}/value"] = values.astype(np.float32)
    write_table(path, with_fields(table, fields))


def write_subset(source: Path, rows: NDArray[np.int64], path: Path) -> None:
    """Write some rows, from 0, of a run's `.cs` file; nothing if the run has none.

    Raises
    ------
    UserError
        If the file is damaged, or has fewer rows.
    """
    if not source.exists():
        return
    table = read_table(source)
    if len(rows) and rows.max() >= len(table):
        raise UserError(f"{source} has only {len(table)} particles: the run is damaged, fit it again.")
    write_table(path, table[rows])


def _alignment(table: Table, found: Found) -> dict[str, np.ndarray]:
    """Poses in the units of the file; where it has none in one class, all that belongs to them."""
    names, count = table.dtype.names or (), len(table)
    fields: dict[str, np.ndarray] = {}
    pixel = table["blob/psize_A"]
    if f"{_SLOT}/psize_A" in names:
        pixel = table[f"{_SLOT}/psize_A"]
    elif f"{_SLOT}/pose" not in names:
        fields = {f"{_SLOT}/{name}": np.full(count, value, dtype=np.float32) for name, value in _ALIGNMENT.items()}
        fields[f"{_SLOT}/psize_A"] = pixel.astype(np.float32)
        fields[f"{_SLOT}/class"] = np.zeros(count, dtype=np.uint32)
    fields[f"{_SLOT}/pose"] = Rotation.from_matrix(found.rotation).as_rotvec().astype(np.float32)
    fields[f"{_SLOT}/shift"] = (found.shift / pixel[:, None]).astype(np.float32)
    fields[f"{_SLOT}/split"] = (found.half == 2).astype(np.uint32)
    return fields
