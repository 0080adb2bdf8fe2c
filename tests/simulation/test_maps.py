"""Maps of one's own as the states of a molecule: their slices, their mask, and the data set that they make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_csv
from solvar_engine.contract.params import SimulateParams
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.volumes import read_volume, write_volume
from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.imaging.fourier import HalfDisk, images_to_disk, low_pass, shift_phases
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.imaging.types import Volume
from solvar_engine.jobs.run_simulate import run
from solvar_engine.simulation.maps import MapMolecule
from solvar_engine.simulation.phantoms import make_phantom
from tests.imaging.closed_form import asymmetric_atoms

BOX, PIXEL_SIZE = 32, 5.0


def density(scale: float = 1.0, box_size: int = BOX) -> Tensor:
    """A smooth molecule; another scale is another molecule."""
    volume = torch.from_numpy(asymmetric_atoms(box_size).volume(box_size)).float()
    return volume + (scale - 1.0) * volume.flip(2)


@pytest.fixture
def map_file(tmp_path: Path) -> Callable[..., str]:
    """Function that writes a map and returns its path."""

    def write(name: str, volume: Tensor, pixel_size: float = PIXEL_SIZE) -> str:
        path = tmp_path / name
        write_volume(path, Volume(volume, pixel_size))
        return str(path)

    return write


def simulate(folder: Path, *maps: str, **options: object) -> Path:
    values = {"output": str(folder), "phantom": maps, "particles": 120, "snr": 1.0, **options}
    params = SimulateParams.from_dict(values)
    params.validate()
    run(params)
    return folder


# --- the molecule


@pytest.mark.parametrize("box_size", [32, 33])
def test_slices_are_the_projections_of_atoms(box_size: int) -> None:
    atoms, disk = asymmetric_atoms(box_size), HalfDisk.create(box_size)
    molecule = MapMolecule.from_maps("atoms", [density(1.0, box_size), density(0.5, box_size)], PIXEL_SIZE)
    rotation = random_rotations(5, torch.Generator().manual_seed(0))
    found = molecule.project(torch.tensor([0, 1, 0, 0, 1]), rotation, disk)
    expected = images_to_disk(torch.from_numpy(atoms.projections(rotation.double().numpy(), box_size)), disk)
    first = [0, 2, 3]
    assert float((found[first] - expected[first]).norm() / expected[first].norm()) < 1e-4
    assert float((found[[1, 4]] - expected[[1, 4]]).norm() / expected[[1, 4]].norm()) > 0.1


def test_states_are_equally_frequent_and_have_no_coordinates() -> None:
    molecule = MapMolecule.from_maps("three", [density(scale) for scale in (1.0, 0.7, 0.4)], PIXEL_SIZE)
    assert molecule.population.tolist() == pytest.approx([1 / 3] * 3)
    assert molecule.coordinates.shape == (3, 0)


def test_maps_are_limited_to_the_band_of_the_images() -> None:
    noise = torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(0))
    volume = MapMolecule.from_maps("noise", [noise], PIXEL_SIZE).volume(0, 16)
    assert float((volume - low_pass(noise, 7)).abs().max()) < 1e-6
    assert float((volume - noise).abs().max()) > 0.1


def test_maps_have_one_box() -> None:
    with pytest.raises(ValueError, match="box_size is 24, but the maps have 32"):
        MapMolecule.from_maps("one", [density()], PIXEL_SIZE).volume(0, 24)


def test_the_mask_holds_every_state() -> None:
    molecule = MapMolecule.from_maps("two", [density(), density(2.0)], PIXEL_SIZE)
    mask = molecule.mask(BOX)
    alone = MapMolecule.from_maps("one", [density()], PIXEL_SIZE).mask(BOX)
    assert bool((mask >= alone).all()) and float(mask.sum()) > 1.1 * float(alone.sum())
    for volume in molecule.volumes:
        assert float(((1 - mask) * volume).square().sum() / volume.square().sum()) < 1e-3


# --- the data set


def test_images_are_made_of_the_maps(map_file: Callable[..., str], tmp_path: Path) -> None:
    """Residuals against projections of the written volumes have variance 1, and the volumes are the maps, scaled."""
    maps = [map_file("closed.mrc", density()), map_file("open.map", density(2.0))]
    folder = simulate(tmp_path / "data", *maps, contrast_std=0.2)
    stack = ParticleStack.from_star(folder / "truth/particles.star", root=folder)
    assert (stack.box_size, stack.pixel_size) == (BOX, PIXEL_SIZE)
    table = read_csv(folder / "truth/states.csv")
    state = table["state"].astype(int) - 1
    assert np.bincount(state).tolist() == [60, 60]
    assert set(table) == {"particle", "state", "contrast"}
    volumes = [read_volume(folder / f"truth/volumes/state_000{number}.mrc").data for number in (1, 2)]
    scale = float(volumes[0].sum() / density().sum())
    assert torch.allclose(volumes[1], scale * density(2.0), atol=1e-3 * float(volumes[1].max()))
    mean = read_volume(folder / "truth/mean.mrc").data
    assert torch.allclose(mean, (volumes[0] + volumes[1]) / 2, atol=1e-5 * float(mean.max()))

    disk = HalfDisk.create(BOX)
    slices = MapMolecule.from_maps("truth", volumes, PIXEL_SIZE).project(
        torch.from_numpy(state), stack.pose.rotation, disk
    )
    slices = slices * shift_phases(disk, -stack.pose.shift / PIXEL_SIZE, BOX)
    signal = torch.from_numpy(table["contrast"]).float()[:, None] * slices * ctf_values(stack.ctf, disk, PIXEL_SIZE)
    images = images_to_disk(stack.images(slice(None)), disk)
    assert float(((images - signal).abs() ** 2).mean()) == pytest.approx(1.0, rel=0.02)
    assert float((images.abs() ** 2).mean()) > 1.5


def test_maps_of_a_phantom_make_the_images_of_the_phantom(map_file: Callable[..., str], tmp_path: Path) -> None:
    volume = make_phantom("static").volume(0, 48)
    by_map = simulate(tmp_path / "map", map_file("static.mrc", volume, 4.0), particles=20)
    by_name = simulate(tmp_path / "name", "static", particles=20, box=48, pixel_size=4.0)
    images = [ParticleStack.from_star(path / "particles.star").images(slice(None)) for path in (by_map, by_name)]
    # equal draws, equal noise; atoms narrower than a voxel ring beyond the box of a map
    assert float((images[0] - images[1]).std()) < 0.01


def test_box_and_pixel_size_may_be_repeated(map_file: Callable[..., str], tmp_path: Path) -> None:
    path = map_file("a.mrc", density())
    folder = simulate(tmp_path / "data", path, box=BOX, pixel_size=PIXEL_SIZE, particles=5)
    assert ParticleStack.from_star(folder / "particles.star").pixel_size == PIXEL_SIZE


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"box": 64}, "--box is 64, but .*a.mrc has 32 voxels per edge: leave --box out"),
        ({"pixel_size": 3.0}, "--pixel-size is 3, but that of .*a.mrc is 5 Angstrom: leave --pixel-size out"),
    ],
)
def test_sampling_that_contradicts_the_map_is_refused(
    options: dict[str, object], sentence: str, map_file: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        simulate(tmp_path / "data", map_file("a.mrc", density()), **options)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("volume", "pixel_size", "sentence"),
    [
        (density(1.0, 34), PIXEL_SIZE, "b.mrc has 34 voxels of 5 Angstrom per edge, but .*a.mrc has 32 of 5:"),
        (density(), 4.0, "b.mrc has 32 voxels of 4 Angstrom per edge, but"),
        (torch.zeros(BOX, BOX, BOX), PIXEL_SIZE, "no bright density stands out in map 2 of a.mrc, b.mrc: give maps"),
        (density()[:-1], PIXEL_SIZE, "b.mrc is not a cube|b.mrc is a stack of images or not a cube"),
    ],
)
def test_maps_that_do_not_go_together_are_refused(
    volume: Tensor, pixel_size: float, sentence: str, map_file: Callable[..., str], tmp_path: Path
) -> None:
    maps = [map_file("a.mrc", density()), map_file("b.mrc", volume, pixel_size)]
    with pytest.raises(UserError, match=sentence):
        simulate(tmp_path / "data", *maps)
    assert not (tmp_path / "data").exists()


def test_boxes_that_cannot_be_simulated_are_refused(map_file: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="small.mrc has 12 voxels per edge: 16 to 1024 px can be simulated"):
        simulate(tmp_path / "data", map_file("small.mrc", density(1.0, 12)))


def test_an_absent_map_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere.mrc"):
        simulate(tmp_path / "data", str(tmp_path / "nowhere.mrc"))
