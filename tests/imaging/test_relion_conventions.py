"""Every convention against RELION's own programs, run here on a molecule of which everything is known.

`relion_project` turns a map into images from a STAR file; `relion_reconstruct` turns our images back into a
map. The STAR files are written by hand, so that no reader or writer of ours takes part. RELION's boxes are
even.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, fields, replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from solvar_engine.contract.angles import relion_to_rotation
from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.imaging.fourier import HalfDisk, disk_to_images, images_to_disk, shift_phases
from solvar_engine.imaging.shells import fsc
from solvar_engine.imaging.types import Ctf
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import SliceOptions
from tests.imaging.closed_form import asymmetric_atoms, relative_error

needs_relion = pytest.mark.skipif(
    shutil.which("relion_project") is None or shutil.which("relion_reconstruct") is None,
    reason="RELION's programs are not installed (Debian: apt-get install relion)",
)
pytestmark = needs_relion

BOX_SIZE = 48
PIXEL_SIZE = 2.5
ATOMS = asymmetric_atoms(BOX_SIZE)
VOLTAGE, CS, AMPLITUDE_CONTRAST = 300.0, 2.7, 0.1
DISK = HalfDisk.create(BOX_SIZE)


@dataclass(frozen=True)
class Table:
    """Columns of a particle table, each (n,), named and measured as in RELION's files."""

    AngleRot: np.ndarray
    AngleTilt: np.ndarray
    AnglePsi: np.ndarray
    OriginXAngst: np.ndarray
    OriginYAngst: np.ndarray
    DefocusU: np.ndarray
    DefocusV: np.ndarray
    DefocusAngle: np.ndarray
    PhaseShift: np.ndarray
    CtfBfactor: np.ndarray
    CtfScalefactor: np.ndarray

    @staticmethod
    def random(count: int, seed: int) -> Table:
        draw = np.random.default_rng(seed).uniform
        return Table(
            AngleRot=draw(-180, 180, count),
            AngleTilt=np.degrees(np.arccos(draw(-1, 1, count))),
            AnglePsi=draw(-180, 180, count),
            OriginXAngst=draw(-8, 8, count),
            OriginYAngst=draw(-8, 8, count),
            DefocusU=draw(8000, 20000, count),
            DefocusV=draw(8000, 20000, count),
            DefocusAngle=draw(-90, 90, count),
            PhaseShift=draw(0, 120, count),
            CtfBfactor=draw(0, 60, count),
            CtfScalefactor=draw(0.8, 1.2, count),
        )

    def write(self, path: Path) -> None:
        """Write a STAR file of RELION 3.1 that names images 1 .. n of images.mrcs."""
        columns = ["ImageName", "OpticsGroup", *(field.name for field in fields(self))]
        lines = ["data_optics", "", "loop_"]
        optics = {
            "OpticsGroup": 1,
            "OpticsGroupName": "all",
            "AmplitudeContrast": AMPLITUDE_CONTRAST,
            "SphericalAberration": CS,
            "Voltage": VOLTAGE,
            "ImagePixelSize": PIXEL_SIZE,
            "ImageSize": BOX_SIZE,
            "ImageDimensionality": 2,
        }
        lines += [f"_rln{name}" for name in optics]
        lines += [" ".join(str(value) for value in optics.values()), ""]
        lines += ["data_particles", "", "loop_"]
        lines += [f"_rln{name}" for name in columns]
        rows = zip(*(getattr(self, field.name) for field in fields(self)), strict=True)
        for number, row in enumerate(rows, start=1):
            lines.append(f"{number:06d}@images.mrcs 1 " + " ".join(f"{value:.6f}" for value in row))
        path.write_text("\n".join(lines) + "\n", encoding="ascii")

    @property
    def rotation(self) -> torch.Tensor:
        return torch.from_numpy(relion_to_rotation(self.AngleRot, self.AngleTilt, self.AnglePsi))

    @property
    def shift_px(self) -> torch.Tensor:
        return _double(np.stack((self.OriginXAngst, self.OriginYAngst), axis=1)) / PIXEL_SIZE

    @property
    def ctf(self) -> Ctf:
        ones = torch.ones(len(self.AngleRot), dtype=torch.float64)
        return Ctf(
            defocus_u=_double(self.DefocusU),
            defocus_v=_double(self.DefocusV),
            defocus_angle=_double(self.DefocusAngle),
            voltage=VOLTAGE * ones,
            cs=CS * ones,
            amplitude_contrast=AMPLITUDE_CONTRAST * ones,
            phase_shift=_double(self.PhaseShift),
            b_factor=_double(self.CtfBfactor),
            scale=_double(self.CtfScalefactor),
            is_phase_flipped=torch.zeros(len(self.AngleRot), dtype=torch.bool),
        )

    def clean_images(self) -> torch.Tensor:
        """Closed-form images without CTF: moving an observed image by +shift centres it."""
        return _double(ATOMS.projections(self.rotation.numpy(), BOX_SIZE, -self.shift_px.numpy()))

    def images(self, is_phase_flipped: bool = False) -> torch.Tensor:
        """Closed-form images with our CTF."""
        ctf = replace(self.ctf, is_phase_flipped=torch.full((len(self.AngleRot),), is_phase_flipped))
        coefficients = images_to_disk(self.clean_images(), DISK) * ctf_values(ctf, DISK, PIXEL_SIZE)
        return disk_to_images(coefficients, DISK, BOX_SIZE)


def _double(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float64))


def write_map(path: Path, volume: np.ndarray) -> None:
    with mrcfile.new(path) as file:
        file.set_data(volume.astype(np.float32))
        file.voxel_size = PIXEL_SIZE


def run_relion(folder: Path, *command: str) -> None:
    result = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"


def relion_project(folder: Path, table: Table, volume: np.ndarray, *options: str) -> torch.Tensor:
    """Let RELION project a map at the poses of a table; shape (n, y, x)."""
    name = "_".join(["projected", *options]).replace("--", "")
    write_map(folder / f"{name}_map.mrc", volume)
    table.write(folder / "particles.star")
    run_relion(
        folder, "relion_project", "--i", f"{name}_map.mrc", "--o", name, "--ang", "particles.star",
        "--angpix", str(PIXEL_SIZE), *options,
    )  # fmt: skip
    return _double(mrcfile.read(folder / f"{name}.mrcs"))


@pytest.fixture(scope="module")
def projected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Table, torch.Tensor, torch.Tensor]:
    """A table, with RELION's images of it without and with CTF."""
    table, volume = Table.random(30, seed=1), ATOMS.volume(BOX_SIZE)
    folder = tmp_path_factory.mktemp("relion_project")
    return table, relion_project(folder, table, volume), relion_project(folder, table, volume, "--ctf")


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(np.corrcoef(first.numpy().ravel(), second.numpy().ravel())[0, 1])


def test_angles_and_shifts_mean_what_they_mean_to_relion(projected: tuple) -> None:
    table, clean, _ = projected
    assert relative_error(table.clean_images().numpy(), clean.numpy()) < 0.03
    assert correlation(table.clean_images(), clean) > 0.9995


def test_the_other_hand_and_the_other_shift_sign_are_wrong(projected: tuple) -> None:
    """The test above can fail: each convention turned round is far off."""
    table, clean, _ = projected
    rotation, shift_px = table.rotation.numpy(), table.shift_px.numpy()
    mirror = np.diag([1.0, 1.0, -1.0])
    for wrong in (
        ATOMS.projections(rotation, BOX_SIZE, shift_px),
        ATOMS.projections(rotation.transpose(0, 2, 1), BOX_SIZE, -shift_px),
        ATOMS.projections(mirror @ rotation, BOX_SIZE, -shift_px),
    ):
        assert correlation(torch.from_numpy(wrong), clean) < 0.8


def test_contrast_transfer_has_the_sign_and_the_size_of_relion(projected: tuple) -> None:
    table, _, with_ctf = projected
    assert relative_error(table.images().numpy(), with_ctf.numpy()) < 0.03
    assert correlation(table.images(), with_ctf) > 0.9995


def test_contrast_transfer_equals_that_of_relion_pixel_by_pixel(tmp_path: Path) -> None:
    """A point at the centre has a flat transform: RELION's image of it is its CTF."""
    point = np.zeros((BOX_SIZE,) * 3)
    point[(BOX_SIZE // 2,) * 3] = 1000.0
    table = Table.random(20, seed=2)
    flat = images_to_disk(relion_project(tmp_path, table, point), DISK)
    observed = images_to_disk(relion_project(tmp_path, table, point, "--ctf"), DISK)
    relion_ctf = (observed / flat).real.numpy()
    ours = ctf_values(table.ctf, DISK, PIXEL_SIZE).numpy()
    np.testing.assert_allclose(ours, relion_ctf, atol=1e-4)


def test_slices_of_the_projectors_are_the_images_of_relion(projected: tuple) -> None:
    """The whole forward model: slice, CTF and shift, as `fit` composes them."""
    table, _, with_ctf = projected
    projector = create_projector(BOX_SIZE, DISK, SliceOptions())
    grid = projector.to_grid(torch.from_numpy(ATOMS.volume(BOX_SIZE)).float()[None])
    slices = projector.project(grid, table.rotation.float())[..., 0]
    slices = slices * ctf_values(table.ctf, DISK, PIXEL_SIZE) * shift_phases(DISK, -table.shift_px, BOX_SIZE)
    expected = images_to_disk(with_ctf, DISK)
    assert relative_error(slices.numpy(), expected.numpy()) < 0.03


@pytest.mark.parametrize("is_phase_flipped", [False, True])
def test_relion_reconstructs_our_images(is_phase_flipped: bool, tmp_path: Path) -> None:
    table = Table.random(600, seed=3)
    write_map(tmp_path / "images.mrcs", table.images(is_phase_flipped).numpy())
    table.write(tmp_path / "particles.star")
    options = ["--ctf", *(["--ctf_phase_flipped"] if is_phase_flipped else [])]
    run_relion(tmp_path, "relion_reconstruct", "--i", "particles.star", "--o", "map.mrc", *options)
    found, truth = _double(mrcfile.read(tmp_path / "map.mrc")), _double(ATOMS.volume(BOX_SIZE))
    # a third of Nyquist is where this smooth molecule still has most of its power
    assert fsc(found, truth)[:13].min().item() > 0.99
    assert fsc(found, truth)[:18].min().item() > 0.9
    assert correlation(found, truth) > 0.995
    scale = float((found * truth).sum() / (truth**2).sum())
    assert scale == pytest.approx(1.0, abs=0.05)
    assert correlation(found.flip(0), truth) < 0.8, "the other hand must not fit"
