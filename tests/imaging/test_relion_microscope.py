"""Aberrations, magnification and premultiplied images against RELION's programs.

`relion_reconstruct --subtract` takes projections of a map from images, with all that the optics table says: nothing is
left where both mean the same. `relion_project` of RELION 3.1 applies what is part of the CTF.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from solvar_engine.contract.angles import relion_to_rotation
from solvar_engine.contract.star import StarFile
from solvar_engine.data.metadata import read_metadata
from solvar_engine.imaging.ctf import ctf_at
from tests.imaging.closed_form import asymmetric_atoms
from tests.imaging.microscope import IMPERFECT, Microscope

pytestmark = pytest.mark.skipif(
    shutil.which("relion_project") is None or shutil.which("relion_reconstruct") is None,
    reason="RELION's programs are not installed (Debian: apt-get install relion)",
)

BOX, PIXEL_SIZE, COUNT = 48, 3.0, 80
ATOMS = asymmetric_atoms(32)  # what the transfer function spreads is within the box


def run_relion(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def write_map(path: Path, volume: np.ndarray) -> None:
    with mrcfile.new(path) as file:
        file.set_data(volume.astype(np.float32))
        file.voxel_size = PIXEL_SIZE


def images_of(path: Path, seen_through: Microscope) -> np.ndarray:
    """Images in closed form of the poses and defoci of a list, shape (n, y, x)."""
    table = StarFile.read(path).particles.numbers(
        "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnDefocusU",
        "rlnDefocusV", "rlnDefocusAngle",
    )  # fmt: skip
    rot, tilt, psi, *rest = table.values()
    rotation, (x, y, *defocus) = relion_to_rotation(rot, tilt, psi), rest
    return np.stack([
        seen_through.image(lambda k, turn=turn: ATOMS.transform(k @ turn[:, :2].T), *values, BOX, PIXEL_SIZE)
        for turn, *values in zip(rotation, np.stack([x, y], axis=1), np.stack(defocus, axis=1), strict=True)
    ])  # fmt: skip


@pytest.fixture(scope="module")
def share_left(tmp_path_factory):
    """How much of the images of an imperfect microscope is left if RELION subtracts what another one would see."""
    from tests.conftest import _write_particles

    folder = tmp_path_factory.mktemp("relion")
    volume = ATOMS.volume(BOX)
    write_map(folder / "map.mrc", volume)

    blank = np.zeros((COUNT, BOX, BOX), dtype=np.float32)
    listed = _write_particles(folder, blank, pixel_size=PIXEL_SIZE, optics=IMPERFECT.columns())
    images = images_of(listed, IMPERFECT).astype(np.float32)  # of poses and defoci that every list has

    def left(told: Microscope) -> float:
        path = _write_particles(folder, images, pixel_size=PIXEL_SIZE, optics=told.columns())
        run_relion(folder, "relion_reconstruct", "--i", path.name, "--o", "left.mrc", "--ctf", "--maxres", "7",
                   "--subtract", "map.mrc", "--skip_gridding")  # fmt: skip
        return float(np.linalg.norm(mrcfile.read(folder / "left.mrc").astype(np.float64)) / np.linalg.norm(volume))

    return left


def test_relion_sees_what_the_formulas_of_these_tests_see(share_left) -> None:
    right = share_left(IMPERFECT)
    assert right < 0.005
    (m00, m01), (m10, m11) = IMPERFECT.magnification
    for wrong in (
        replace(IMPERFECT, tilt=(-IMPERFECT.tilt[0], IMPERFECT.tilt[1])),
        replace(IMPERFECT, odd=tuple(-value for value in IMPERFECT.odd)),
        replace(IMPERFECT, even=tuple(-value for value in IMPERFECT.even)),
        replace(IMPERFECT, magnification=((m00, m10), (m01, m11))),
    ):
        assert share_left(wrong) > 4 * right


def test_ctf_equals_that_of_relion_pixel_by_pixel(write_particles, tmp_path) -> None:
    """A point at the centre has a flat transform: RELION's image of it is its CTF, at magnified frequencies."""
    path = write_particles(tmp_path, np.zeros((6, BOX, BOX), np.float32), pixel_size=PIXEL_SIZE,
                           particles={"rlnOriginXAngst": [0.0] * 6, "rlnOriginYAngst": [0.0] * 6},
                           optics=IMPERFECT.columns())  # fmt: skip
    point = np.zeros((BOX,) * 3)
    point[(BOX // 2,) * 3] = 1000.0
    write_map(tmp_path / "point.mrc", point)
    for name, option in (("flat", []), ("seen", ["--ctf"])):
        run_relion(tmp_path, "relion_project", "--i", "point.mrc", "--o", name, "--ang", path.name, "--angpix",
                   str(PIXEL_SIZE), *option)  # fmt: skip
    flat, seen = (np.fft.fft2(mrcfile.read(tmp_path / f"{name}.mrcs").astype(np.float64)) for name in ("flat", "seen"))
    k = np.fft.fftfreq(BOX, PIXEL_SIZE)
    own = np.stack(np.meshgrid(k, k, indexing="xy"), axis=-1)
    inner = np.hypot(*np.moveaxis(own, -1, 0)) < 0.45 / PIXEL_SIZE
    metadata = read_metadata(StarFile.read(path))
    ours = ctf_at(metadata.ctf, torch.from_numpy(own[inner]) @ metadata.aberrations.magnification[0].T)
    np.testing.assert_allclose(ours, (seen / flat).real[:, inner], atol=1e-3)
