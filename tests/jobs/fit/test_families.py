"""Rows that show one particle are found, whatever shows it, and never parted between the half-sets."""

from __future__ import annotations

import re

import mrcfile
import numpy as np
import pytest
import torch

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import HALF_SET
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.data.copies import signatures
from solvar_engine.data.mrc import StackWriter
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.preprocess import digests
from solvar_engine.imaging.fourier import HalfDisk, images_to_disk
from solvar_engine.jobs.fit.families import Families, families_of, with_equal_noise, with_equal_pixels
from solvar_engine.jobs.fit.inputs import HalfSplit, split_halves
from solvar_engine.jobs.states.particles import read_run_particles

COUNT = 6  # rows of `write_particles`


def families(folder, write_particles, **columns):
    return families_of(ParticleStack.from_star(write_particles(folder, particles=columns)))


def partners(found: Families) -> set[tuple[int, ...]]:
    """Families of more than one row."""
    groups = [tuple(np.flatnonzero(found.label == label).tolist()) for label in np.unique(found.label)]
    return {group for group in groups if len(group) > 1}


def test_rows_of_one_image_are_a_family(tmp_path, write_particles):
    names = [f"{image}@particles.mrcs" for image in (1, 2, 3, 1, 4, 1)]
    found = families(tmp_path, write_particles, rlnImageName=names)
    assert partners(found) == {(0, 3, 5)}
    assert "1 particle (3 of the same image of a stack, turned as by symmetry expansion: a" in found.sentence("x")
    angles = {name: [10.0] * COUNT for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")}
    alike = families(tmp_path, write_particles, rlnImageName=names, **angles)
    assert "3 rows of x show only 1 particle (3 of the same image of a stack)" in alike.sentence("x")


def test_a_stack_under_two_names_is_one(tmp_path, write_particles):
    write_particles(tmp_path)
    (tmp_path / "link.mrcs").symlink_to(tmp_path / "particles.mrcs")
    names = [f"{image}@particles.mrcs" for image in (1, 2, 3)] + [f"{image}@link.mrcs" for image in (3, 4, 5)]
    assert partners(families(tmp_path, write_particles, rlnImageName=names)) == {(2, 3)}


@pytest.mark.parametrize(
    ("micrographs", "x", "expected"),
    [
        # 20 Angstrom are 6.7 px of 3 Angstrom
        ("aaaaaa", [0, 6, 100, 200, 207, 300], {(0, 1)}),
        ("ababab", [0, 6, 100, 200, 207, 300], set()),
        ("aabbcc", [0, 6, 12, 5, 5, 9.5], {(0, 1), (4, 5)}),  # 12 and 5 are 7 apart
    ],
)
def test_images_from_one_place_are_a_family(tmp_path, write_particles, micrographs, x, expected):
    columns = {"rlnMicrographName": [f"{name}.mrc" for name in micrographs], "rlnCoordinateX": x}
    assert partners(families(tmp_path, write_particles, **columns, rlnCoordinateY=[7.0] * COUNT)) == expected


def test_the_place_is_that_of_the_particle_where_the_unit_is_known(tmp_path, write_particles):
    columns = {
        "rlnMicrographName": ["x/a.mrc", "y/a.mrc", *"bcde"],
        "rlnCoordinateX": [100.0, 140.0, 0, 0, 0, 0],
        "rlnCoordinateY": [100.0, 90.0, 0, 0, 0, 0],
        "rlnMicrographPixelSize": [1.0] * COUNT,
        # the position of a particle is its coordinate less its origin
        "rlnOriginXAngst": [-19.0, 20.0, 0, 0, 0, 0],
        "rlnOriginYAngst": [0.0, 0.0, 0, 0, 0, 0],
    }
    assert partners(families(tmp_path, write_particles, **columns)) == {(0, 1)}
    columns["rlnOriginXAngst"] = [19.0, -20.0, 0, 0, 0, 0]
    assert partners(families(tmp_path / "other", write_particles, **columns)) == set()


@pytest.mark.parametrize(("folders", "jitter", "count"), [("xy", 1.0, 30), ("xx", 1.0, 0), ("xy", 4000.0, 0)])
def test_a_name_in_two_folders_is_one_micrograph_if_its_particles_are_the_same(
    tmp_path, write_particles, folders, jitter, count
):
    """Whatever the folders are; particles of another micrograph are at places of their own, a few near by chance."""
    generator = np.random.default_rng(0)
    first = 40 * np.stack(np.unravel_index(np.arange(30), (6, 5)), axis=1) + generator.uniform(100, 120, size=(30, 2))
    second = 100 + (first - 100 + jitter * generator.normal(size=(30, 2))) % 240
    columns = dict(zip(("rlnCoordinateX", "rlnCoordinateY"), np.concatenate([first, second]).T.tolist(), strict=True))
    files = ["x/a.mrc", "y/a.mrc"] if folders == "xy" else ["x/a.mrc", "x/b.mrc"]
    columns["rlnMicrographName"] = list(np.repeat(files, 30))
    images = generator.normal(size=(60, 16, 16)).astype(np.float32)
    star = write_particles(tmp_path, images, particles=columns)
    found = partners(families_of(ParticleStack.from_star(star)))
    assert sum(family[0] < 30 <= family[-1] for family in found) == count


@pytest.mark.parametrize(("shared", "count"), [(10, 10), (8, 8), (3, 0)])
def test_files_whose_particles_have_the_very_same_places_are_one_micrograph(tmp_path, write_particles, shared, count):
    """Whatever their names: another motion correction of it; not if a few only are the same, as rounded ones may be."""
    generator = np.random.default_rng(0)
    first, second = generator.integers(200, 3800, size=(2, 10, 2))
    second[:shared] = first[:shared]
    columns = dict(zip(("rlnCoordinateX", "rlnCoordinateY"), np.concatenate([first, second]).T.tolist(), strict=True))
    columns["rlnMicrographName"] = ["x/a.mrc"] * 10 + ["x/a_DW.mrc"] * 10
    images = generator.normal(size=(20, 16, 16)).astype(np.float32)
    star = write_particles(tmp_path, images, particles=columns)
    assert len(partners(families_of(ParticleStack.from_star(star)))) == count


def test_coordinates_that_were_never_filled_are_not_believed(tmp_path, write_particles):
    images = np.random.default_rng(0).normal(size=(80, 16, 16)).astype(np.float32)
    columns = {name: [0.0] * 80 for name in ("rlnCoordinateX", "rlnCoordinateY")} | {"rlnMicrographName": ["a"] * 80}
    star = write_particles(tmp_path, images, particles=columns)
    assert partners(families_of(ParticleStack.from_star(star))) == set()


@pytest.mark.parametrize("largest", [0.0, 1.0])
def test_neither_zeros_nor_shares_of_the_width_are_places(tmp_path, write_particles, largest):
    x = np.linspace(0, largest, COUNT).tolist()
    columns = {"rlnMicrographName": [*"aabbcc"], "rlnCoordinateX": x, "rlnCoordinateY": x}
    assert partners(families(tmp_path, write_particles, **columns)) == set()


def test_equal_pixels_have_equal_digests():
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 32, 32)).astype(np.float32))
    images[7] = images[3]
    images[9] = -images[3]
    assert partners(with_equal_pixels(Families(np.arange(40)), digests(images).numpy())) == {(3, 7)}


def test_copies_of_other_grey_values_are_of_one_particle():
    """Those of a family that is known are not looked at again."""
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 32, 32)).astype(np.float32))
    images[7], images[9] = 100 - 4 * images[3], images[5]
    disk = HalfDisk.create(32)
    signature = signatures(images_to_disk(images, disk), disk)
    found = with_equal_noise(
        Families(np.arange(40)).united(np.where(np.arange(40) == 9, 5, np.arange(40)), "x"), signature
    )
    assert partners(found) == {(3, 7), (5, 9)}
    assert found.reasons == ("2 x", "2 of the same noise, as of particles extracted twice")
    assert with_equal_noise(Families(np.arange(3)), signature[:3]).reasons == ()


def test_families_that_touch_are_one():
    found = Families(np.array([0, 1, 2, 3, 0])).united(np.array([0, 1, 1, 2, 2]), "of another kind")
    assert partners(found) == {(0, 3, 4), (1, 2)}


@pytest.mark.parametrize("seed", range(3))
def test_a_random_split_keeps_families_together_and_halves_equal(seed):
    label = np.random.default_rng(seed).integers(0, 400, size=1000)
    first, second = split_halves(HalfSplit("x", 1000, None, Families(label)), seed)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(1000))
    assert not set(label[first]) & set(label[second])
    assert abs(len(first) - len(second)) < 20


def test_a_split_without_families_is_what_it_was():
    plain = split_halves(HalfSplit("x", 101, None), 3)
    alone = split_halves(HalfSplit("x", 101, None, Families(np.arange(101))), 3)
    order = np.random.default_rng(np.random.SeedSequence([3, 100])).permutation(101)
    assert plain[0].tolist() == alone[0].tolist() == sorted(order[:50].tolist())
    assert plain[1].tolist() == alone[1].tolist() == sorted(order[50:].tolist())


def test_the_halves_of_the_file_are_mended(caplog):
    label = np.repeat(np.arange(100), 2)
    subset = torch.tensor([1, 2] * 90 + [1] * 12 + [2] * 8)  # 90 families are parted
    caplog.set_level("INFO")
    halves = split_halves(HalfSplit("x.star", 200, subset, Families(label)), 0)
    assert not set(label[halves[0]]) & set(label[halves[1]])
    assert [len(half) for half in halves] == [100, 100]
    assert set(range(180, 192)) <= set(halves[0].tolist()) and set(range(192, 200)) <= set(halves[1].tolist())
    assert "parts the rows of 90 particles: 90 rows are moved" in caplog.text


def test_one_particle_over_and_over_is_refused():
    with pytest.raises(UserError, match="no two independent halves"):
        split_halves(HalfSplit("x", 100, None, Families(np.zeros(100, dtype=np.int64))), 0)


def test_a_fit_puts_copies_into_one_half_and_hands_that_on(hinge, engine, tmp_path):
    """Twenty images are listed a second time, ten from a second stack."""
    with StackWriter(tmp_path / "again.mrcs", 8.0) as stack:
        stack.append(mrcfile.read(hinge.path / "particles.mrcs")[:10])
    text = hinge.particles.read_text().rstrip("\n").replace("@particles.mrcs", f"@{hinge.path}/particles.mrcs")
    rows = text.split("\n")[-300:]
    copies = [re.sub(r"@\S+", "@again.mrcs", row) for row in rows[:10]] + rows[10:20]
    (tmp_path / "joined.star").write_text("\n".join([text, *copies]) + "\n")
    run = RunDir(tmp_path / "run")
    outcome = engine("fit", tmp_path / "joined.star", "--output", run.path, "--rank", 1)
    assert outcome.code == 0, outcome.error
    assert "20 rows" in outcome.error and "of the same image of a stack" in outcome.error
    assert "40 rows" in outcome.error and "20 of equal pixels" not in outcome.error.split("40 rows")[0]
    half = StarFile.read(run.particles).particles.integers(HALF_SET)
    np.testing.assert_array_equal(half[300:], half[:20])
    assert set(half) == {1, 2}
    first, second = read_run_particles(run).halves
    outlier = StarFile.read(run.particles).particles.integers("solvarOutlier") != 0
    assert first.tolist() == np.flatnonzero((half == 1) & ~outlier).tolist()
    assert second.tolist() == np.flatnonzero((half == 2) & ~outlier).tolist()
