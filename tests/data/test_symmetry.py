"""Lists that are expanded by a point group: by us, by hand and by RELION's program."""

from __future__ import annotations

import logging
import shutil
import subprocess

import numpy as np
import pytest
import torch

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarFile
from solvar_engine.data.faults import BadImages
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.preprocess import prepare_particles
from solvar_engine.data.symmetry import expanded
from solvar_engine.imaging.symmetry import symmetry_operators

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")


@pytest.fixture
def particles(write_particles, tmp_path):
    return write_particles(tmp_path, particles={"rlnRandomSubset": [1, 2, 2, 1, 2, 1]})


def with_rows(path, rows, rot):
    """The same list with some rows, turned by so many degrees about z."""
    star = StarFile.read(path)
    table = star.particles.only(rows)
    turned = table.with_columns({"rlnAngleRot": table.numbers("rlnAngleRot")["rlnAngleRot"] + np.asarray(rot)})
    other = path.with_name("other.star")
    star.replace(star.particles, turned).write(other)
    return ParticleStack.from_star(other)


@pytest.mark.parametrize("symmetry", ["C3", "D2", "O"])
def test_each_particle_has_all_orientations_that_are_equal(particles, symmetry, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    stack, operators = ParticleStack.from_star(particles), symmetry_operators(symmetry)
    found, count = expanded(stack, symmetry), len(operators)
    assert f"each of 6 particles is seen in {count} orientations" in caplog.text
    assert len(found) == 6 * count == len(found.star.particles)
    assert (stack.count_in_words, found.count_in_words) == ("6 particles", f"6 particles in {6 * count} orientations")
    expected = operators @ stack.pose.rotation[4].double()
    torch.testing.assert_close(found.pose.rotation[4 * count : 5 * count].double(), expected, atol=1e-6, rtol=0)
    for name in ("image_names", "group", "random_subset"):
        values = np.asarray(getattr(stack, name))
        assert (np.asarray(getattr(found, name)) == np.repeat(values, count)).all()
    assert torch.equal(found.pose.shift, stack.pose.shift.repeat_interleave(count, dim=0))
    assert torch.equal(found.images([count]), stack.images([1]))
    # what is written is what is meant, and the given orientations keep their text
    found.write_star(tmp_path / "expanded.star")
    table = StarFile.read(tmp_path / "expanded.star").particles
    assert table.text("rlnAngleRot")[::count] == stack.star.particles.text("rlnAngleRot")
    again = ParticleStack.from_star(tmp_path / "expanded.star")
    torch.testing.assert_close(again.pose.rotation, found.pose.rotation, atol=1e-6, rtol=0)


@pytest.mark.parametrize("symmetry", ["C3", "D2", "T", "O", "I2"])
def test_relion_expands_to_the_same_rows(particles, symmetry, tmp_path):
    if shutil.which("relion_particle_symmetry_expand") is None:
        pytest.skip("RELION's programs are not installed (Debian: apt-get install relion)")
    command = ["relion_particle_symmetry_expand", "--i", particles.name, "--o", "relion.star", "--sym", symmetry]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    theirs = ParticleStack.from_star(tmp_path / "relion.star")
    ours = expanded(ParticleStack.from_star(particles), symmetry)
    assert theirs.image_names == ours.image_names
    count = len(ours) // 6
    for first in range(0, len(ours), count):
        one, other = (stack.pose.rotation[first : first + count].double() for stack in (ours, theirs))
        distance = (one[:, None] - other[None]).abs().amax(dim=(2, 3))
        assert float(distance.amin(dim=1).max()) < 1e-4  # each of ours is among theirs
        assert float(distance.amin(dim=0).max()) < 1e-4
    assert expanded(theirs, symmetry) is theirs


def test_lists_that_are_expanded_already(particles, caplog):
    caplog.set_level(logging.INFO)
    blocks = with_rows(particles, [*range(6)] * 3, np.repeat([0, 120.3, 240], 6))
    assert expanded(blocks, "c3") is blocks
    assert "is expanded by the symmetry c3 already" in caplog.text
    copies = with_rows(particles, [*range(6), 2], np.zeros(7))
    assert len(expanded(copies, "C3")) == 21
    for rows, rot in (([0, 0, 1], [0, 120, 0]), ([0, 0, 0, 1], [0, 120, 240, 0]), ([0, 0, 0, 0], [0, 120, 240, 240])):
        with pytest.raises(UserError, match="Image . of .* in some of the orientations that --symmetry C3 makes equal"):
            expanded(with_rows(particles, rows, rot), "C3")
    with pytest.raises(UserError, match="--symmetry: symmetry is 'X2'"):
        expanded(copies, "X2")
    assert expanded(copies, "C1") is copies


def test_rows_of_an_image_share_its_coefficients(particles):
    stack = expanded(ParticleStack.from_star(particles), "D2")
    shared, copied = (prepare_particles(stack, 12, scratch=None, shared=flag) for flag in (True, False))
    assert len(shared.coefficients) == 6 and len(copied.coefficients) == 24
    rows = torch.tensor([23, 0, 5, 4, 17])
    (one,), (other,) = (source.batches(rows, source.disk, 5) for source in (shared, copied))
    for name in ("images", "ctf", "rotation"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name))
    torch.testing.assert_close(shared.noise_variance, copied.noise_variance)
    assert torch.equal(shared.digest, copied.digest) and torch.equal(shared.image_scale, copied.image_scale)
    with pytest.raises(ValueError, match="rows share their images"):
        shared.subtract(rows, one.images)


def test_images_that_cannot_be_used_are_rows_of_the_list(write_particles, tmp_path):
    images = np.random.default_rng(1).normal(size=(6, 16, 16)).astype(np.float32)
    images[[1, 4], 3, 3] = np.nan
    stack = expanded(ParticleStack.from_star(write_particles(tmp_path, images)), "C3")
    listing = tmp_path / "bad.csv"
    with pytest.raises(UserError, match=r"^Image 2 of .*, and 2 of 6 images cannot be used \(rows 2, 5; all are in"):
        prepare_particles(stack, 16, scratch=None, bad_images=BadImages(listing=listing))
    assert [line.split(",")[0] for line in listing.read_text().splitlines()] == ["row", "2", "5"]
    left = prepare_particles(stack, 16, scratch=None, bad_images=BadImages(leave_out=True))
    assert torch.nonzero(left.is_bad).flatten().tolist() == [3, 4, 5, 12, 13, 14]


def test_rows_of_an_image_at_other_shifts_do_not_share(particles, tmp_path):
    star = StarFile.read(particles)
    table = star.particles.only([0, 0, 1])
    table = table.with_columns({"rlnOriginXAngst": [1.0, 2.0, 3.0], "rlnOriginYAngst": [0.0] * 3})
    star.replace(star.particles, table).write(tmp_path / "moved.star")
    stack = ParticleStack.from_star(tmp_path / "moved.star")
    assert stack.first_of_image().tolist() == [0, 1, 2]
    assert stack.each_image_once(torch.tensor([2, 1, 1, 2])).tolist() == [2, 1]
    assert prepare_particles(stack, 12, scratch=None).place is None
