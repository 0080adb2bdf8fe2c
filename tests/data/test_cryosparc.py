"""`.cs` files against their STAR twins, against conversions of this file's own, and against damage."""

from __future__ import annotations

import logging
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarFile
from solvar_engine.data.cryosparc.lists import ReadList, read_list
from solvar_engine.data.cryosparc.results import Found, write_results, write_subset
from solvar_engine.data.particles import ParticleStack
from solvar_engine.jobs.fit.families import families_of
from tests.cryosparc_files import Project, make_project, rotation_vector, save, table, without

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")


@pytest.fixture
def project(write_particles, tmp_path) -> Project:
    return make_project(tmp_path / "CS-project", write_particles(tmp_path / "star"))


@pytest.fixture
def whole(project, tmp_path):
    """Function that writes all fields into one file, with changes."""

    def write(values: np.ndarray | None = None, **changes: np.ndarray) -> Path:
        fields = project.fields.copy() if values is None else values
        columns = {name: fields[name] for name in fields.dtype.names or ()}
        columns.update({name.replace("__", "/"): value for name, value in changes.items()})
        return save(project.particles.parent / "particles_whole.cs", table(columns))

    return write


def numbers(read: ReadList, *columns: str) -> np.ndarray:
    return np.stack(list(read.star.particles.numbers(*columns).values()), axis=1)


def cross_product(vector: np.ndarray) -> np.ndarray:
    x, y, z = vector
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


# ---------------------------------------------------------------- real files


def test_real_file_says_what_its_star_twin_says(shared_data):
    folder = shared_data / "metadata"
    twin, read = StarFile.read(folder / "empiar_10076_7.star").particles, read_list(
        folder / "empiar_10076_7.cs", with_poses=False
    )
    assert [name.lstrip("0") for name in read.star.particles.text("rlnImageName")] == twin.text("rlnImageName")
    for column in ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"):
        for text, value in zip(twin.text(column), read.star.particles.numbers(column)[column], strict=True):
            digits = len(text.partition(".")[2])
            assert f"{value:.{digits}f}" == text, column
    # what RELION 3.1 keeps in the optics table
    assert read.star.optics is not None
    for column in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"):
        assert read.star.optics.numbers(column)[column].tolist() == [twin.numbers(column)[column][0]]
    size = twin.numbers("rlnDetectorPixelSize", "rlnMagnification")
    known = size["rlnDetectorPixelSize"][0] * 1e4 / size["rlnMagnification"][0]
    assert read.star.optics.numbers("rlnImagePixelSize")["rlnImagePixelSize"][0] == pytest.approx(known, rel=1e-7)


def test_images_of_the_real_file_are_found_and_read(shared_data):
    folder = shared_data / "metadata"
    stacks = [
        ParticleStack.from_star(folder / f"empiar_10076_7.{kind}", with_poses=False) for kind in ("cs", "star")
    ]
    assert torch.equal(stacks[0].images([0, 6]), stacks[1].images([0, 6]))
    for name in ("defocus_u", "defocus_v", "defocus_angle", "voltage", "cs", "amplitude_contrast", "phase_shift"):
        np.testing.assert_array_max_ulp(*(getattr(stack.ctf, name).numpy() for stack in stacks), maxulp=1)


def test_poses_of_the_real_refinement_are_those_of_pyem(shared_data):
    """RELION's matrix A is the transpose of exp of the vector's cross product, as csparc2star.py has it."""
    path = shared_data / "metadata" / "cryosparc_P12_J24_001_particles.cs"
    values, read = np.load(path, allow_pickle=False), read_list(path)
    rot, tilt, psi = numbers(read, *ANGLES).T
    for row in range(0, len(values), 100):
        a = Rotation.from_euler("ZYZ", [rot[row], tilt[row], psi[row]], degrees=True).as_matrix().T
        expected = expm(cross_product(values["alignments3D/pose"][row].astype(float))).T
        np.testing.assert_allclose(a, expected, atol=1e-7)
    np.testing.assert_allclose(
        numbers(read, "rlnOriginXAngst", "rlnOriginYAngst"), values["alignments3D/shift"] * 2.95, rtol=1e-6
    )
    assert (numbers(read, "rlnRandomSubset")[:, 0] == values["alignments3D/split"] + 1).all()
    assert read.star.particles.text("ucsfUid") == [str(uid) for uid in values["uid"]]
    names = [f"{i + 1:06d}@{path.decode()}" for i, path in zip(values["blob/idx"], values["blob/path"], strict=True)]
    assert read.star.particles.text("rlnImageName") == names


# ---------------------------------------------------------------- what fields mean


def test_a_project_says_what_the_star_file_says(project, write_particles, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    star = StarFile.read(tmp_path / "star" / "particles.star")
    stack = ParticleStack.from_star(project.particles)
    assert f"taken from {project.passthrough}" in caplog.text
    assert stack.files == (project.particles, project.passthrough) and not stack.cautions
    expected = ParticleStack.from_star(tmp_path / "star" / "particles.star")
    np.testing.assert_allclose(stack.pose.rotation, expected.pose.rotation, atol=3e-7)
    np.testing.assert_allclose(stack.pose.shift, expected.pose.shift, rtol=1e-6, atol=1e-6)
    for name in ("defocus_u", "defocus_v", "defocus_angle", "voltage", "cs", "amplitude_contrast", "phase_shift"):
        np.testing.assert_allclose(getattr(stack.ctf, name), getattr(expected.ctf, name), rtol=3e-7, err_msg=name)
    assert stack.pixel_sizes == expected.pixel_sizes and stack.group_names == ("exposure_group_7",)
    assert torch.equal(stack.images(range(6)), expected.images(range(6)))
    assert len(stack) == len(star.particles) == 6


def test_passthrough_may_be_named(project, tmp_path):
    elsewhere = tmp_path / "elsewhere.cs"
    os.rename(project.passthrough, elsewhere)
    with pytest.raises(UserError, match="has no images: field blob/path is missing"):
        read_list(project.particles)
    read = read_list(project.particles, elsewhere)
    assert read.files == (project.particles, elsewhere)
    for name in project.fields.dtype.names:
        assert (read.cryosparc.table[name] == project.fields[name]).all(), name
    with pytest.raises(UserError, match="--passthrough belongs to a .cs file"):
        read_list(tmp_path / "star" / "particles.star", elsewhere)


def test_passthrough_of_another_job_is_not_taken(project):
    other = project.passthrough.with_name("cryosparc_P12_J25_passthrough_particles.cs")
    os.rename(project.passthrough, other)
    with pytest.raises(UserError, match="has no images"):
        read_list(project.particles)


def test_passthrough_of_other_particles_matters_only_where_it_is_needed(project, whole, caplog):
    caplog.set_level(logging.INFO)
    path = whole()
    others = table({"uid": np.arange(3, dtype=np.uint64), "location/center_x_frac": np.zeros(3, dtype=np.float32)})
    save(path.with_name("J24_passthrough_particles_whole.cs"), others)
    assert read_list(path).files == (path,)
    assert "is not used" in caplog.text and "has none of the particles" in caplog.text
    save(project.passthrough, others)
    with pytest.raises(UserError, match="has none of the particles"):
        read_list(project.particles)
    save(project.passthrough, project.fields[:4])
    with pytest.raises(UserError, match=r"lacks 2 of 6 particles, the first with uid 9223372036854775\d+"):
        read_list(project.particles)


def test_of_several_classes_the_most_probable_one(project, whole):
    count, alone = 6, without(project.fields, "alignments3D/")
    pose = np.random.default_rng(0).normal(size=(count, 3, 3)).astype(np.float32)
    shift = np.random.default_rng(1).normal(size=(count, 3, 2)).astype(np.float32)
    posterior = np.full((count, 3), 0.1, dtype=np.float32)
    best = np.array([0, 1, 2, 2, 1, 0])
    posterior[np.arange(count), best] = 0.8
    path = whole(
        alone,
        alignments3D_multi__pose=pose,
        alignments3D_multi__shift=shift,
        alignments3D_multi__class_posterior=posterior,
        alignments3D_multi__class=np.tile(np.arange(3, dtype=np.uint32), (count, 1)),
        alignments3D_multi__split=np.arange(count, dtype=np.uint32) % 2,
        alignments3D_multi__psize_A=np.full(count, 3, dtype=np.float32),
    )
    read = read_list(path)
    assert "poses in 3 classes" in read.cautions[0] and "most probable" in read.cautions[0]
    rotation = Rotation.from_euler("ZYZ", numbers(read, *ANGLES), degrees=True).as_matrix()
    for row in range(count):
        np.testing.assert_allclose(rotation[row], expm(cross_product(pose[row, best[row]].astype(float))), atol=1e-6)
    origins = numbers(read, "rlnOriginXAngst", "rlnOriginYAngst")
    np.testing.assert_allclose(origins, 3 * shift[np.arange(count), best], rtol=1e-6)
    assert numbers(read, "rlnClassNumber")[:, 0].tolist() == (best + 1).tolist()


def test_microscope_of_each_exposure_group(whole, caplog):
    tilt_mrad, matrix = np.array([0.3, -0.2]), np.array([[0.01, 0.002], [-0.003, 0.02]])
    group = np.array([4, 4, 4, 9, 9, 9], dtype=np.uint32)
    tilted = (group == 9)[:, None]
    path = whole(
        ctf__exp_group_id=group,
        ctf__tilt_A=np.where(tilted, 2.7e7 * np.sin(tilt_mrad * 1e-3), 0).astype(np.float32),
        ctf__anisomag=np.where(tilted, matrix.reshape(-1), 0).astype(np.float32),
        ctf__trefoil_A=np.full((6, 2), 5.0, dtype=np.float32),
        ctf__tetra_A=np.zeros((6, 4), dtype=np.float32),
    )
    read = read_list(path)
    optics = read.star.optics
    assert optics is not None and optics.text("rlnOpticsGroupName") == ["exposure_group_4", "exposure_group_9"]
    assert read.star.particles.integers("rlnOpticsGroup").tolist() == [1, 1, 1, 2, 2, 2]
    found = optics.numbers("rlnBeamTiltX", "rlnBeamTiltY", *(f"rlnMagMat{n}" for n in ("00", "01", "10", "11")))
    found = np.stack(list(found.values()), axis=1)
    np.testing.assert_allclose(found[0], [0, 0, 1, 0, 0, 1])
    np.testing.assert_allclose(found[1], [*tilt_mrad, 1.01, 0.002, -0.003, 1.02], rtol=1e-6)
    (caution,) = read.cautions
    assert "trefoil (ctf/trefoil_A)" in caution and "tetrafoil" not in caution and caution in caplog.text
    corrected = whole(ctf__tilt_A=np.full((6, 2), 9.0, "f4"), ctf__cs_mm=np.zeros(6, "f4"))
    read = read_list(corrected)
    assert "rlnBeamTiltX" not in read.star.optics and "beam tilt (ctf/tilt_A" in read.cautions[0]


def test_location_in_the_micrograph(whole):
    """Shares of the width and of the height; the shape is (rows, columns)."""
    path = whole(
        location__micrograph_path=np.full(6, b"J2/motion/a.mrc"),
        location__center_x_frac=np.linspace(0.125, 0.75, 6).astype(np.float32),
        location__center_y_frac=np.full(6, 0.5, dtype=np.float32),
        location__micrograph_shape=np.tile(np.array([4000, 6000], dtype=np.uint32), (6, 1)),
        location__micrograph_psize_A=np.full(6, 0.83, dtype=np.float32),
    )
    read = read_list(path)
    np.testing.assert_allclose(numbers(read, "rlnCoordinateX")[:, 0], np.linspace(750, 4500, 6))
    np.testing.assert_allclose(numbers(read, "rlnCoordinateY")[:, 0], 2000)
    assert set(read.star.particles.text("rlnMicrographName")) == {"J2/motion/a.mrc"}
    assert read.star.optics.text("rlnMicrographPixelSize") == ["0.83"]


def test_symmetry_expanded_rows_are_one_particle(whole):
    """Also after each has got an image of its own, as by subtraction."""
    path = whole(
        sym_expand__idx=np.array([0, 1, 0, 1, 0, 1], dtype=np.uint32),
        sym_expand__src_uid=np.array([70, 70, 50, 50, 60, 60], dtype=np.uint64),
    )
    families = families_of(ParticleStack.from_star(path))
    assert len(np.unique(families.label)) == 3
    assert (families.label[::2] == families.label[1::2]).all() and "symmetry expansion" in families.reasons[0]


# ---------------------------------------------------------------- writing back


def found_poses(count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    return Rotation.random(count, random_state=random).as_matrix(), random.normal(scale=4, size=(count, 2))


def found(count: int, has_new_poses: bool) -> Found:
    rotation, shift = found_poses(count)
    z = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    contrast = np.linspace(0.5, 1.5, count, dtype=np.float32)
    return Found(rotation, shift, has_new_poses, contrast, z, 1 + np.arange(count) % 2)


def test_round_trip_keeps_every_field(project, tmp_path):
    read, path = read_list(project.particles), tmp_path / "particles.cs"
    write_results(path, read.cryosparc, found(6, has_new_poses=False))
    written = np.load(path, allow_pickle=False)
    for name in project.fields.dtype.names:
        if name != "alignments3D/alpha":
            assert written[name].dtype == project.fields[name].dtype
            assert written[name].tobytes() == project.fields[name].tobytes(), name
    # contrasts are 1 on average, the scales of the file 1.25
    np.testing.assert_allclose(written["alignments3D/alpha"], 1.25 * np.linspace(0.5, 1.5, 6), rtol=1e-6)
    for mode in range(2):
        assert (written[f"components_mode_{mode}/component"] == mode).all()
        assert (written[f"components_mode_{mode}/value"] == np.arange(mode, 12, 2)).all()
    again = read_list(path)
    assert again.star.particles.rows == read.star.particles.rows and again.star.optics.rows == read.star.optics.rows


def test_new_poses_are_written_in_the_units_of_the_file(project, tmp_path):
    read, path = read_list(project.particles), tmp_path / "particles.cs"
    write_results(path, read.cryosparc, found(6, has_new_poses=True))
    written = np.load(path, allow_pickle=False)
    rotation, shift = found_poses(6)
    expected = [rotation_vector(matrix) for matrix in rotation]
    np.testing.assert_allclose(written["alignments3D/pose"], expected, atol=1e-6)
    np.testing.assert_allclose(written["alignments3D/shift"], shift / 2, rtol=1e-6)
    assert written["alignments3D/split"].tolist() == [0, 1] * 3
    assert written["alignments3D/cross_cor"].tobytes() == project.fields["alignments3D/cross_cor"].tobytes()


def test_poses_that_the_file_lacks_are_added(project, whole, tmp_path):
    read = read_list(whole(without(project.fields, "alignments3D/")), with_poses=False)
    assert "rlnAngleRot" not in read.star.particles
    path = tmp_path / "particles.cs"
    write_results(path, read.cryosparc, found(6, has_new_poses=True))
    stack = read_list(path)
    rotation, shift = found_poses(6)
    angles = Rotation.from_matrix(rotation).as_euler("ZYZ", degrees=True)
    turned = Rotation.from_euler("ZYZ", numbers(stack, *ANGLES), degrees=True)
    assert (turned * Rotation.from_euler("ZYZ", angles, degrees=True).inv()).magnitude().max() < 1e-6
    np.testing.assert_allclose(numbers(stack, "rlnOriginXAngst", "rlnOriginYAngst"), shift, rtol=1e-6)
    written = np.load(path, allow_pickle=False)
    assert (written["alignments3D/psize_A"] == written["blob/psize_A"]).all()
    np.testing.assert_allclose(written["alignments3D/alpha"], np.linspace(0.5, 1.5, 6))


def test_some_particles_with_what_imports_them(project, tmp_path):
    read, path = read_list(project.particles), tmp_path / "particles.cs"
    write_results(path, read.cryosparc, found(6, has_new_poses=False))
    write_subset(path, np.array([1, 4]), tmp_path / "it's.cs")
    written, part = np.load(path, allow_pickle=False), np.load(tmp_path / "it's.cs", allow_pickle=False)
    assert part.dtype == written.dtype and part.tobytes() == written[[1, 4]].tobytes()
    lines = (tmp_path / "it's.csg").read_text().splitlines()
    assert lines[1:7] == [
        "group:", "  description: Particles of SOLVAR", "  name: particles", "  title: Particles of SOLVAR",
        "  type: particle", "results:",
    ]
    slots = ["alignments3D", "blob", "components_mode_0", "components_mode_1", "ctf", "some_day"]
    assert [line for line in lines if line.startswith("  ") and line.endswith(":")] == [f"  {s}:" for s in slots]
    place = lines.index("  components_mode_1:")
    assert lines[place + 1 : place + 4] == [
        "    metafile: '>it''s.cs'", "    num_items: 2", "    type: particle.components"
    ]
    write_subset(tmp_path / "absent.cs", np.array([1]), tmp_path / "none.cs")
    assert not (tmp_path / "none.cs").exists()


# ---------------------------------------------------------------- what cannot be read


class Trap:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickled_objects_are_never_loaded(tmp_path):
    values = np.empty(2, dtype=[("uid", "<u8"), ("blob/path", "O")])
    values["blob/path"] = Trap(tmp_path / "sprung")
    with open(tmp_path / "objects.cs", "wb") as stream:
        np.save(stream, values, allow_pickle=True)
    with pytest.raises(UserError, match="holds pickled objects, which may run any program and are never loaded"):
        read_list(tmp_path / "objects.cs")
    (tmp_path / "bare.cs").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", 8) + pickle.dumps(Trap(tmp_path / "x")))
    with pytest.raises(UserError, match="header cannot be read"):
        read_list(tmp_path / "bare.cs")
    assert {path.name for path in tmp_path.iterdir()} == {"objects.cs", "bare.cs"}


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is cut short: it has 5 of 6 items"),
        (lambda path: path.write_bytes(path.read_bytes()[:40]), "header cannot be read"),
        (lambda path: path.write_bytes(b"\x95CSDAT\x01" + bytes(100)), "compressed format"),
        (lambda path: save(path, np.zeros(7)), "is an array of numbers"),
        (lambda path: save(path, without(np.load(path), "uid")), "has no field uid"),
        (lambda path: save(path, np.load(path)[[0, 1, 2, 1]]), r"has uid 9223\d+ in rows 2 and 4 \(1 such uid\)"),
        (lambda path: save(path, np.load(path)[:0]), "has no particles"),
        (lambda path: save(path, without(np.load(path), "ctf/")), "has no CTF: field ctf/accel_kv is missing"),
        (lambda path: save(path, without(np.load(path), "ctf/df1")), "has no CTF: field ctf/df1_A is missing"),
        (lambda path: save(path, without(np.load(path), "blob/")), "has no images: field blob/path is missing"),
        (lambda path: save(path, without(np.load(path), "alignments3D/")), "no orientations: field alignments3D/pose"),
        (lambda path: save(path, without(np.load(path), "alignments3D/shift")), "field alignments3D/shift is missing"),
    ],
    ids=[
        "cut", "header", "compressed", "array", "no-uid", "doubled", "empty", "no-ctf", "no-defocus", "no-images",
        "no-poses", "no-shifts",
    ],
)
def test_file_that_cannot_be_used(spoil, text, whole):
    path = whole()
    spoil(path)
    with pytest.raises(UserError, match=text) as caught:
        read_list(path)
    assert str(path) in str(caught.value) and str(caught.value).endswith(".")


def test_header_that_promises_too_much_is_not_believed(whole):
    path = whole()
    content = path.read_bytes()
    assert content.count(b"(6,), }       ") == 1
    path.write_bytes(content.replace(b"(6,), }       ", b"(99999999,), }"))
    with pytest.raises(UserError, match="it has 6 of 99999999 items"):
        read_list(path)


def test_passthrough_that_is_no_file(project, tmp_path):
    with pytest.raises(UserError, match="nothing.cs does not exist"):
        read_list(project.particles, tmp_path / "nothing.cs")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read_list(project.particles, tmp_path)


def test_value_that_is_no_number_is_named(project, whole):
    defocus = project.fields["ctf/df1_A"].copy()
    defocus[3] = np.nan
    with pytest.raises(UserError, match=r"Field ctf/df1_A of item 4 in .*particles_whole.cs is nan"):
        read_list(whole(ctf__df1_A=defocus))


def test_paths_start_from_the_project_or_from_root(project, tmp_path):
    moved = tmp_path / "far" / "away"
    for path in (project.particles, project.passthrough):
        save(moved / path.name, np.load(path))
    with pytest.raises(UserError, match=r"Stack J3/imported/particles.mrcs, named in .* does not exist .*--root"):
        ParticleStack.from_star(moved / project.particles.name)
    assert len(ParticleStack.from_star(moved / project.particles.name, root=tmp_path / "CS-project")) == 6
