"""A data set laid out as CryoBench does it is read back as it was simulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.cryobench_folder import DATA_SETS, CryoBenchFolder, naturally_sorted, write_data_set
from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_csv
from solvar_engine.contract.params import SimulateParams
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.data.mrc import StackWriter
from solvar_engine.data.particles import ParticleStack
from solvar_engine.jobs import run_simulate as simulate
from solvar_engine.jobs.run_evaluate import read_truth
from solvar_engine.jobs.simulate.files import DataSetFiles

BOX, PARTICLES = 16, 120
PIXEL_SIZE = DATA_SETS["IgG-1D"].extent / BOX


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> DataSetFiles:
    """A few images of the eight states of the assembly."""
    folder = tmp_path_factory.mktemp("simulated") / "data"
    simulate.run(
        SimulateParams(output=str(folder), phantom=("assembly",), particles=PARTICLES, box=BOX, pixel_size=PIXEL_SIZE)
    )
    return DataSetFiles(folder)


@pytest.fixture
def lay_out(simulated, tmp_path):
    """Function that writes the simulated images as CryoBench does: one stack for each state, and a list in which the
    paths are those of another machine, shifts are in px, and the optics describe images of twice the box."""

    def write(is_numbered_over_all: bool = False, is_swapped: bool = False) -> Path:
        root = tmp_path / "IgG-1D"
        images = root / "images" / "snr0.01"
        images.mkdir(parents=True)
        (root / "vols" / f"{BOX}_org").mkdir(parents=True)
        stack = ParticleStack.from_star(simulated.truth.particles, simulated.path)
        state = read_csv(simulated.truth.states)["state"].astype(int) - 1
        order = np.argsort(state, kind="stable")
        names = []
        for number in range(state.max() + 1):
            rows = np.flatnonzero(state == number)
            with StackWriter(images / f"{number}_particles_128.mrcs", PIXEL_SIZE) as writer:
                writer.append(stack.images(rows).numpy())
            first = len(names) if is_numbered_over_all else 0
            names += [f"{first + place + 1}@/scratch/{number}_particles_128.mrcs" for place in range(len(rows))]
            (root / "vols" / f"{BOX}_org" / f"{number}.mrc").write_bytes(
                simulated.truth.volume(number + 1).read_bytes()
            )
        table = stack.star.particles
        kept = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
        columns = {name: values[order] for name, values in table.numbers(*kept).items()}
        shift = stack.pose.shift.numpy()[order] / PIXEL_SIZE
        columns |= {"rlnOriginX": shift[:, 0], "rlnOriginY": shift[:, 1]}
        sampling = [PIXEL_SIZE / 2, 2 * BOX] if is_swapped else [2 * BOX, PIXEL_SIZE / 2]
        optics = {
            "rlnOpticsGroup": [1],
            "rlnVoltage": [300.0],
            "rlnSphericalAberration": [2.7],
            "rlnAmplitudeContrast": [0.1],
            "rlnImageSize": [sampling[0]],
            "rlnImagePixelSize": [sampling[1]],
        }
        particles = {"rlnImageName": names, "rlnOpticsGroup": [1] * len(names), **columns}
        tables = (StarTable.create("optics", optics), StarTable.create("particles", particles))
        StarFile(tables).write(images / "snr0.01.star")
        return root

    return write


@pytest.mark.parametrize(("is_numbered_over_all", "is_swapped"), [(False, False), (True, True)])
def test_images_poses_and_truth_are_those_that_were_simulated(
    is_numbered_over_all, is_swapped, lay_out, simulated, tmp_path
) -> None:
    folder = CryoBenchFolder.find(lay_out(is_numbered_over_all, is_swapped).parent, "IgG-1D", "0.01")
    files = write_data_set(folder, tmp_path / "data")

    original = ParticleStack.from_star(simulated.truth.particles, simulated.path)
    state = read_csv(simulated.truth.states)["state"].astype(int) - 1
    order = np.argsort(state, kind="stable")
    stack = ParticleStack.from_star(files.particles)
    assert stack.pixel_size == pytest.approx(PIXEL_SIZE)
    assert torch.equal(stack.images(range(PARTICLES)), original.images(order))
    assert torch.allclose(stack.pose.rotation, original.pose.rotation[order], atol=1e-5)
    assert torch.allclose(stack.pose.shift, original.pose.shift[order], atol=1e-3)
    assert torch.allclose(stack.ctf.defocus_u, original.ctf.defocus_u[order])

    truth = read_truth(files.truth, stack.image_names, BOX)
    expected = read_truth(simulated.truth, original.image_names, BOX)
    assert np.array_equal(truth.state, expected.state[order])
    assert np.allclose(truth.volumes, expected.volumes)
    assert truth.mask.min() == 0 and truth.mask.max() == 1
    angle_rad = np.arctan2(truth.coordinates[:, 1], truth.coordinates[:, 0])
    assert np.allclose(angle_rad % (2 * np.pi), 2 * np.pi * truth.state / 8)


def test_labels_name_the_states_and_leave_particles_out(lay_out, tmp_path) -> None:
    root = lay_out()
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{-1 if row % 3 == 0 else row % 8}\n" for row in range(PARTICLES)))
    files = write_data_set(CryoBenchFolder.find(root, "IgG-1D", "0.01"), tmp_path / "data", labels)
    state = read_csv(files.truth.states)["state"].astype(int) - 1
    assert state.tolist() == [row % 8 for row in range(PARTICLES) if row % 3]
    assert len(ParticleStack.from_star(files.particles)) == len(state)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda root: (root / "images/snr0.01/snr0.01.star").unlink(), "cryodrgn_utils write_star"),
        (lambda root: [path.unlink() for path in root.glob("vols/*/*.mrc")], "--volumes"),
        (lambda root: (root / f"vols/{BOX}_org/7.mrc").unlink(), "--labels"),
        (lambda root: (root / "images/snr0.01/3_particles_128.mrcs").unlink(), "3_particles_128.mrcs"),
    ],
)
def test_what_is_missing_is_named(spoil, sentence, lay_out, tmp_path) -> None:
    root = lay_out()
    spoil(root)
    with pytest.raises(UserError, match=sentence):
        write_data_set(CryoBenchFolder.find(root, "IgG-1D", "0.01"), tmp_path / "data")


def test_pickles_are_never_opened(lay_out, tmp_path) -> None:
    root = lay_out()
    for name in ("combined_poses.pkl", "combined_ctfs.pkl", "gt_latents.pkl"):
        (root / name).mkdir()  # opening it would fail
    write_data_set(CryoBenchFolder.find(root, "IgG-1D", "0.01"), tmp_path / "data")


def test_files_are_sorted_by_number() -> None:
    names = ["100_b.mrc", "9_a.mrc", "10_c.mrc"]
    assert [path.name for path in naturally_sorted(map(Path, names))] == ["9_a.mrc", "10_c.mrc", "100_b.mrc"]
