"""The files that `simulate` writes, read back as a user and as RELION would."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_csv
from solvar_engine.contract.params import SimulateParams
from solvar_engine.contract.star import StarFile
from solvar_engine.data.metadata import read_metadata
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.volumes import read_volume
from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.imaging.fourier import HalfDisk, images_to_disk, shift_phases
from solvar_engine.imaging.rotation import angular_distance_deg
from solvar_engine.imaging.shells import fsc
from solvar_engine.jobs.run_simulate import run
from solvar_engine.simulation.phantoms import make_phantom
from solvar_engine.simulation.projections import project_atoms

BOX, PIXEL_SIZE, COUNT, SNR = 32, 6.0, 240, 0.5


def simulate(folder: Path, **options: object) -> Path:
    values = {
        "output": str(folder),
        "phantom": "assembly",
        "particles": COUNT,
        "box": BOX,
        "pixel_size": PIXEL_SIZE,
        "snr": SNR,
        **options,
    }
    params = SimulateParams.from_dict(values)
    params.validate()
    run(params)
    return folder


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulate") / "data"
    return simulate(folder, contrast_std=0.2, rotation_error=3.0, shift_error=1.0)


def test_every_file_of_the_contract_is_there(data_set: Path) -> None:
    found = {path.relative_to(data_set).as_posix() for path in data_set.rglob("*") if path.is_file()}
    volumes = {f"truth/volumes/state_{state:04d}.mrc" for state in range(1, 9)}
    expected = {"particles.star", "particles.mrcs", "mask.mrc"}
    expected |= {f"truth/{name}" for name in ("particles.star", "states.csv", "mean.mrc", "mask.mrc")}
    assert found == expected | volumes


def test_particles_are_read_with_their_optics(data_set: Path) -> None:
    stack = ParticleStack.from_star(data_set / "particles.star")
    assert (len(stack), stack.box_size, stack.pixel_size) == (COUNT, BOX, PIXEL_SIZE)
    assert stack.random_subset is None
    assert float(stack.ctf.voltage[0]) == 300.0
    assert float(stack.ctf.cs[0]) == pytest.approx(2.7)
    assert float(stack.ctf.amplitude_contrast[0]) == pytest.approx(0.1)
    with mrcfile.open(data_set / "particles.mrcs", header_only=True) as header:
        assert int(header.header.ispg) == 0  # a stack of images, not a volume
        assert float(header.voxel_size.x) == PIXEL_SIZE
    images = stack.images(slice(None))
    # signal and noise variance over the whole box; the contrast is part of the signal
    assert float(images.var(dim=(1, 2)).mean()) == pytest.approx(1.0 + SNR, rel=0.02)


def test_true_and_given_poses_differ_by_the_asked_errors(data_set: Path) -> None:
    given = read_metadata(StarFile.read(data_set / "particles.star")).pose
    true = read_metadata(StarFile.read(data_set / "truth/particles.star")).pose
    angle_deg = angular_distance_deg(given.rotation, true.rotation)
    assert float(angle_deg.mean()) == pytest.approx(3.0 * np.sqrt(8 / np.pi), rel=0.1)
    assert float((given.shift - true.shift).std()) == pytest.approx(PIXEL_SIZE, rel=0.1)


def test_the_true_stack_is_read_with_a_root(data_set: Path) -> None:
    stack = ParticleStack.from_star(data_set / "truth/particles.star", root=data_set)
    assert stack.image_names == ParticleStack.from_star(data_set / "particles.star").image_names


def test_images_are_made_of_the_true_volumes(data_set: Path) -> None:
    """Residuals against projections of what the truth files say have variance 1 and no more."""
    stack = ParticleStack.from_star(data_set / "truth/particles.star", root=data_set)
    table = read_csv(data_set / "truth/states.csv")
    assert table["particle"].tolist() == list(range(COUNT))
    state = table["state"].astype(int) - 1
    phantom, disk = make_phantom("assembly"), HalfDisk.create(BOX)
    expected_presence = phantom.coordinates[state]
    found_presence = np.stack([table[f"coordinate_{axis}"] for axis in range(1, 5)], axis=1)
    assert np.array_equal(found_presence, expected_presence)
    # the scale of the volumes, from one state's total mass
    volume = read_volume(data_set / "truth/volumes/state_0001.mrc")
    assert volume.pixel_size == PIXEL_SIZE
    scale = float(volume.data.sum() / phantom.mass[0].sum())
    slices = project_atoms(
        phantom.atoms[state], phantom.mass[state], stack.pose.rotation, disk, phantom.sigma
    )
    slices = slices * shift_phases(disk, -stack.pose.shift / PIXEL_SIZE, BOX)
    contrast = torch.from_numpy(table["contrast"]).float()
    signal = scale * contrast[:, None] * slices * ctf_values(stack.ctf, disk, PIXEL_SIZE)
    residual = images_to_disk(stack.images(slice(None)), disk) - signal
    assert float((residual.abs() ** 2).mean()) == pytest.approx(1.0, rel=0.02)


def test_the_mean_weighs_states_by_their_particles(data_set: Path) -> None:
    state = read_csv(data_set / "truth/states.csv")["state"].astype(int)
    mean = sum(
        (state == number).mean() * read_volume(data_set / f"truth/volumes/state_{number:04d}.mrc").data
        for number in range(1, 9)
    )
    written = read_volume(data_set / "truth/mean.mrc").data
    assert float((written - mean).abs().max()) < 1e-5 * float(mean.abs().max())


def test_the_mask_is_the_same_for_user_and_truth(data_set: Path) -> None:
    assert (data_set / "mask.mrc").read_bytes() == (data_set / "truth/mask.mrc").read_bytes()
    assert float(read_volume(data_set / "mask.mrc").data.max()) == 1.0


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    options = {"particles": 30, "phantom": "static", "contrast_std": 0.1, "rotation_error": 2.0}
    first = simulate(tmp_path / "first", **options)
    second = simulate(tmp_path / "second", **options)
    other = simulate(tmp_path / "other", seed=1, **options)
    for name in ("particles.mrcs", "particles.star", "truth/states.csv", "truth/mean.mrc"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert (first / "particles.mrcs").read_bytes() != (other / "particles.mrcs").read_bytes()


# --- effects of microscopes


EFFECTS = {
    "background": 1.5, "neighbours": 0.4, "coloured_noise": 4.0, "uneven_views": 0.5, "junk": 0.25,
    "defocus_error": 300.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("plain") / "data")


def images_of(folder: Path) -> np.ndarray:
    return np.array(mrcfile.read(folder / "particles.mrcs"), dtype=np.float64)


def test_a_background_is_added_in_units_of_the_noise_and_is_not_filtered(plain: Path, tmp_path: Path) -> None:
    added = images_of(simulate(tmp_path / "data", background=2.0)) - images_of(plain)
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    columns = np.stack([np.ones_like(x), x, y, x**2, y**2, x * y], axis=-1).reshape(-1, 6)
    fitted, _, _, _ = np.linalg.lstsq(columns, added.reshape(COUNT, -1).T, rcond=None)
    assert np.abs(columns @ fitted - added.reshape(COUNT, -1).T).max() < 1e-4
    # 3 of the deviations that 240 images allow
    assert fitted[0].std() == pytest.approx(2.0, rel=0.14)
    assert BOX * fitted[1:3].std(axis=1) == pytest.approx([2.0, 2.0], rel=0.14)


def test_neighbours_are_in_their_share_of_the_images_beside_the_particle(plain: Path, tmp_path: Path) -> None:
    added = images_of(simulate(tmp_path / "data", neighbours=0.4)) - images_of(plain)
    energy = (added**2).sum(axis=(1, 2))
    assert int((energy > 1e-6).sum()) == round(0.4 * COUNT)
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    is_inside = np.hypot(y, x) < 0.25 * BOX
    assert (added[:, is_inside] ** 2).sum() < 0.1 * energy.sum()
    # a particle has SNR x box^2; part of one is seen
    shown = energy[energy > 1e-6] / (SNR * BOX**2)
    assert 0.05 < np.median(shown) < 0.5 and shown.max() < 2.0


def test_coloured_noise_keeps_the_signal_to_noise_ratio(plain: Path, tmp_path: Path) -> None:
    folder = simulate(tmp_path / "data", coloured_noise=5.0)
    assert (folder / "truth/mean.mrc").read_bytes() == (plain / "truth/mean.mrc").read_bytes()
    coloured = images_of(folder) - images_of(plain)  # filtered minus white noise
    power = (np.abs(np.fft.fft2(coloured, norm="ortho")) ** 2).mean(axis=0)
    frequency = np.fft.fftfreq(BOX, PIXEL_SIZE)
    variance = 1 + 5.0 / (1 + 50.0**2 * (frequency[:, None] ** 2 + frequency**2))
    expected = (np.sqrt(variance / variance.mean()) - 1) ** 2
    assert power.mean() == pytest.approx(expected.mean(), rel=0.03)
    low = np.hypot(frequency[:, None], frequency) < 3.5 / (BOX * PIXEL_SIZE)
    assert power[low].mean() == pytest.approx(expected[low].mean(), rel=0.1)


def test_the_truth_names_junk_and_leaves_it_out_of_the_mean(tmp_path: Path) -> None:
    folder = simulate(tmp_path / "data", junk=0.25)
    table = read_csv(folder / "truth/states.csv")
    assert list(table)[-1] == "junk" and int(table["junk"].sum()) == COUNT // 4
    is_junk = table["junk"] == 1
    # 0.5 for the molecule and another one, 10 times that for ice, nothing for the empty half
    variance = images_of(folder).var(axis=(1, 2))
    assert variance[~is_junk].mean() == pytest.approx(1 + SNR, rel=0.02)
    assert variance[is_junk].mean() == pytest.approx(1 + SNR * (10 + 1) / 4, rel=0.05)
    state = table["state"].astype(int)[~is_junk]
    volumes = [read_volume(folder / f"truth/volumes/state_{number:04d}.mrc").data for number in range(1, 9)]
    mean = sum((state == number + 1).mean() * volume for number, volume in enumerate(volumes))
    assert torch.allclose(read_volume(folder / "truth/mean.mrc").data, mean, atol=1e-5 * float(mean.max()))


def test_the_given_defocus_is_wrong_and_the_true_one_made_the_images(plain: Path, tmp_path: Path) -> None:
    folder = simulate(tmp_path / "data", defocus_error=300.0)
    assert (folder / "particles.mrcs").read_bytes() == (plain / "particles.mrcs").read_bytes()
    assert (folder / "truth/particles.star").read_bytes() == (plain / "truth/particles.star").read_bytes()
    given = read_metadata(StarFile.read(folder / "particles.star")).ctf
    true = read_metadata(StarFile.read(folder / "truth/particles.star")).ctf
    error = given.defocus_u - true.defocus_u
    assert float(error.std()) == pytest.approx(300.0, rel=0.14)
    assert torch.allclose(given.defocus_v - true.defocus_v, error, atol=0.01)


def test_all_effects_go_together_and_follow_from_the_seed(tmp_path: Path) -> None:
    first, second = (simulate(tmp_path / name, particles=40, **EFFECTS) for name in ("first", "second"))
    for name in ("particles.mrcs", "particles.star", "truth/particles.star", "truth/states.csv"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    views = read_metadata(StarFile.read(first / "truth/particles.star")).pose.rotation[:, :, 2]
    assert float(views.mean(dim=0).norm()) > 0.2
    assert int(read_csv(first / "truth/states.csv")["junk"].sum()) == 10


def test_without_effects_the_table_of_states_has_no_junk(data_set: Path) -> None:
    assert "junk" not in read_csv(data_set / "truth/states.csv")


def test_a_folder_that_is_not_empty_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        simulate(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_disk_that_is_too_small_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="but only 0 MB are free"):
        simulate(tmp_path / "data")
    assert not any((tmp_path / "data").iterdir())


@pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="needs RELION's relion_reconstruct")
def test_relion_reconstructs_the_true_mean(tmp_path: Path) -> None:
    """An independent program agrees on angles, shifts, CTF sign, hand and scale."""
    folder = simulate(tmp_path / "data", phantom="static", particles=600, snr=1.0)
    command = ["relion_reconstruct", "--i", "particles.star", "--o", "map.mrc", "--ctf"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    found = read_volume(folder / "map.mrc", PIXEL_SIZE).data
    true, mask = read_volume(folder / "truth/mean.mrc").data, read_volume(folder / "mask.mrc").data
    correlation = fsc(found * mask, true * mask)
    assert float(correlation[2:11].min()) > 0.98
    assert float((found * true * mask).sum() / (true**2 * mask).sum()) == pytest.approx(1.0, abs=0.1)
    mirrored = fsc(found.flip(0) * mask, true * mask)
    assert float(mirrored[6:11].max()) < 0.9
