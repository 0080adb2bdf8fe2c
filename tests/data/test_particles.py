from __future__ import annotations

import logging
import resource
import shutil

import mrcfile
import numpy as np
import pytest
import starfile
import torch
from scipy.spatial.transform import Rotation

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.data.mrc import StackWriter
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.stacks import MAX_OPEN_FILES
from solvar_engine.imaging.types import Pose

REMOVED = None


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(6, 16, 16)).astype(np.float32)


def numbers_of(path, *columns) -> dict[str, np.ndarray]:
    return StarFile.read(path).particles.numbers(*columns)


# ---------------------------------------------------------------- what is read


def test_clean_set_is_read_without_a_word(write_particles, images, tmp_path, caplog):
    path = write_particles(tmp_path, images, pixel_size=1.5)
    stack = ParticleStack.from_star(path)
    assert (len(stack), stack.box_size, stack.pixel_size) == (6, 16, 1.5)
    assert stack.group_names == ("opticsGroup1",) and stack.group.tolist() == [0] * 6
    assert stack.random_subset is None
    assert torch.equal(stack.images(range(6)), torch.from_numpy(images))
    assert not caplog.records


def test_poses_and_ctf_in_the_units_of_the_file(write_particles, tmp_path):
    path = write_particles(
        tmp_path,
        particles={
            "rlnPhaseShift": np.linspace(0, 90, 6),
            "rlnCtfBfactor": np.linspace(0, 50, 6),
            "rlnCtfScalefactor": np.linspace(0.5, 1, 6),
        },
    )
    stack = ParticleStack.from_star(path)
    row = numbers_of(path, *StarFile.read(path).particles.columns[2:])
    angles = np.stack([row["rlnAngleRot"], row["rlnAngleTilt"], row["rlnAnglePsi"]], axis=1)
    expected = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix()
    np.testing.assert_allclose(stack.pose.rotation, expected, atol=1e-6)
    np.testing.assert_allclose(stack.pose.shift[:, 0], row["rlnOriginXAngst"], rtol=1e-6)
    np.testing.assert_allclose(stack.pose.shift[:, 1], row["rlnOriginYAngst"], rtol=1e-6)
    np.testing.assert_allclose(stack.ctf.defocus_u, row["rlnDefocusU"], rtol=1e-6)
    np.testing.assert_allclose(stack.ctf.defocus_angle, row["rlnDefocusAngle"], rtol=1e-6)
    np.testing.assert_allclose(stack.ctf.phase_shift, row["rlnPhaseShift"], rtol=1e-6)
    np.testing.assert_allclose(stack.ctf.b_factor, row["rlnCtfBfactor"], rtol=1e-6)
    np.testing.assert_allclose(stack.ctf.scale, row["rlnCtfScalefactor"], rtol=1e-6)
    np.testing.assert_allclose(stack.ctf.voltage, 300)
    np.testing.assert_allclose(stack.ctf.cs, 2.7)
    np.testing.assert_allclose(stack.ctf.amplitude_contrast, 0.1)
    dtypes = {name: tensor.dtype for name, tensor in vars(stack.ctf).items() if tensor is not None}
    assert dtypes.pop("is_phase_flipped") == torch.bool and set(dtypes.values()) == {torch.float32}


def test_optional_ctf_columns_have_neutral_defaults(write_particles, tmp_path):
    ctf = ParticleStack.from_star(write_particles(tmp_path)).ctf
    assert ctf.phase_shift.tolist() == [0] * 6
    assert ctf.b_factor.tolist() == [0] * 6
    assert ctf.scale.tolist() == [1] * 6


def as_relion_30(path, **changes) -> None:
    """Rewrite a file of RELION 3.1 as RELION 3.0 would have: one table, shifts in px, magnification."""
    table = StarFile.read(path).particles
    columns = {name: table.text(name) for name in table.columns if name != "rlnOpticsGroup"}
    for axis in "XY":
        shift = table.numbers(f"rlnOrigin{axis}Angst")[f"rlnOrigin{axis}Angst"]
        del columns[f"rlnOrigin{axis}Angst"]
        columns[f"rlnOrigin{axis}"] = shift / 3.0
    count = len(table)
    columns.update(
        rlnVoltage=[300.0] * count,
        rlnSphericalAberration=[2.7] * count,
        rlnAmplitudeContrast=[0.1] * count,
        rlnMagnification=[10_000.0] * count,
        rlnDetectorPixelSize=[3.0] * count,
    )
    columns.update(changes)
    kept = {name: values for name, values in columns.items() if values is not None}
    StarFile((StarTable.create("", kept),)).write(path)


def test_relion_30_means_the_same(write_particles, tmp_path):
    path = write_particles(tmp_path, pixel_size=3.0)
    new = ParticleStack.from_star(path)
    as_relion_30(path)
    old = ParticleStack.from_star(path)
    assert old.pixel_size == pytest.approx(3.0) and len(old.group_names) == 1
    torch.testing.assert_close(old.pose.shift, new.pose.shift)
    torch.testing.assert_close(old.pose.rotation, new.pose.rotation)
    for name, values in vars(new.ctf).items():
        torch.testing.assert_close(getattr(old.ctf, name), values)


@pytest.mark.parametrize("column", ["rlnImagePixelSize", "rlnPixelSize"])
def test_pixel_size_column_is_preferred_to_magnification(column, write_particles, tmp_path):
    path = write_particles(tmp_path, pixel_size=2.0)
    as_relion_30(path, **{column: [2.0] * 6})
    assert ParticleStack.from_star(path).pixel_size == 2.0


def test_relion_30_pixel_sizes_become_groups_in_order_of_appearance(write_particles, tmp_path):
    path = write_particles(tmp_path)
    as_relion_30(path, rlnDetectorPixelSize=[3.0, 2.0, 2.0, 3.0, 4.0, 2.0])
    stack = ParticleStack.from_star(path)
    assert stack.pixel_sizes == (3.0, 2.0, 4.0)
    assert stack.group.tolist() == [0, 1, 1, 0, 2, 1]


def test_several_optics_groups_and_one_without_particles(write_particles, tmp_path):
    path = write_particles(
        tmp_path,
        pixel_size=1.25,
        particles={"rlnOpticsGroup": [7, 2, 2, 7, 2, 7]},
        optics={
            "rlnOpticsGroup": [7, 5, 2],
            "rlnOpticsGroupName": ["krios", "unused", "glacios"],
            "rlnVoltage": [300.0, 0.0, 200.0],
            "rlnSphericalAberration": [2.7] * 3,
            "rlnAmplitudeContrast": [0.1] * 3,
            "rlnImagePixelSize": [1.25, 5.0, 1.24],
            "rlnImageSize": [16, 512, 16],
            "rlnImageDimensionality": [2] * 3,
            "rlnCtfDataAreCtfPremultiplied": [0, 1, 0],
        },
    )
    stack = ParticleStack.from_star(path)
    assert stack.group_names == ("krios", "glacios")
    assert stack.pixel_sizes == (1.25, 1.24) and stack.pixel_size == 1.25
    assert stack.group.tolist() == [0, 1, 1, 0, 1, 0]
    assert stack.ctf.voltage.tolist() == [300, 200, 200, 300, 200, 300]


def test_value_of_the_particle_goes_before_that_of_its_group(write_particles, tmp_path):
    path = write_particles(tmp_path, particles={"rlnVoltage": [200.0] * 6})
    assert ParticleStack.from_star(path).ctf.voltage.tolist() == [200] * 6


def test_phase_flipped_images_by_group_or_by_particle(write_particles, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert not ParticleStack.from_star(write_particles(tmp_path)).ctf.is_phase_flipped.any()
    assert not caplog.records
    of_groups = {
        name: [value, value]
        for name, value in (
            ("rlnVoltage", 300.0), ("rlnSphericalAberration", 2.7), ("rlnAmplitudeContrast", 0.1),
            ("rlnImagePixelSize", 3.0), ("rlnImageSize", 16), ("rlnImageDimensionality", 2),
        )
    }  # fmt: skip
    of_groups |= {
        "rlnOpticsGroup": [1, 2], "rlnOpticsGroupName": ["a", "b"], "rlnCtfDataArePhaseFlipped": [0, 1]
    }  # fmt: skip
    groups = {"rlnOpticsGroup": [1, 2, 2, 1, 1, 2]}
    path = write_particles(tmp_path, particles=groups, optics=of_groups)
    flipped = ParticleStack.from_star(path).ctf.is_phase_flipped
    assert flipped.dtype == torch.bool and flipped.tolist() == [False, True, True, False, False, True]
    assert "3 of 6 images are phase-flipped (rlnCtfDataArePhaseFlipped)" in caplog.text
    of_particles = {**groups, "rlnCtfDataArePhaseFlipped": [1, 1, 0, 0, 1, 0]}
    path = write_particles(tmp_path, particles=of_particles, optics=of_groups)
    assert ParticleStack.from_star(path).ctf.is_phase_flipped.int().tolist() == [1, 1, 0, 0, 1, 0]


def test_halves_are_kept_where_there_are_two(write_particles, tmp_path, caplog):
    halves = [1, 2, 2, 1, 1, 2]
    path = write_particles(tmp_path, particles={"rlnRandomSubset": halves})
    assert ParticleStack.from_star(path).random_subset.tolist() == halves
    assert not caplog.records
    path = write_particles(tmp_path, particles={"rlnRandomSubset": [1] * 6})
    assert ParticleStack.from_star(path).random_subset is None
    assert "split anew" in caplog.text


def test_absent_shifts_are_zero_with_a_notice(write_particles, tmp_path, caplog):
    path = write_particles(tmp_path, particles={"rlnOriginXAngst": REMOVED, "rlnOriginYAngst": REMOVED})
    assert ParticleStack.from_star(path).pose.shift.abs().max() == 0
    assert "no shifts" in caplog.text


def test_aberrations_are_announced_only_where_there_are_any(write_particles, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    neutral = {
        "rlnBeamTiltX": [0.0],
        "rlnOddZernike": ["[0,0,0]"],
        "rlnMagMat00": [1.0],
        "rlnMagMat01": [0.0],
    }
    stack = ParticleStack.from_star(write_particles(tmp_path, optics=neutral))
    assert not caplog.records
    assert stack.aberrations.odd_zernike.shape == (1, 0) and stack.ctf.even_zernike is None
    stack = ParticleStack.from_star(write_particles(tmp_path, optics={**neutral, "rlnOddZernike": ["[0,1.5,-2e-1]"]}))
    assert "Corrected for: higher-order aberrations" in caplog.text
    assert stack.aberrations.odd_zernike.tolist() == [[0, 1.5, -0.2, 0, 0, 0]]


def test_beam_tilt_takes_the_place_of_coma_as_in_relion(write_particles, tmp_path, caplog):
    optics = {"rlnOddZernike": ["[0,1.5,-2,30,-40,5]"]}
    odd = ParticleStack.from_star(write_particles(tmp_path, optics=optics)).aberrations.odd_zernike
    assert odd.tolist() == [[0, 1.5, -2, 30, -40, 5]]
    optics |= {"rlnBeamTiltX": [0.5], "rlnBeamTiltY": [-1.0]}
    stack = ParticleStack.from_star(write_particles(tmp_path, optics=optics))
    # mm and mrad in Angstrom; the wavelength of 300 kV
    cubic = -2e4 * np.pi * 2.7 * 12.2643247**2 / (3e5 * 1.2935398) * np.array([-1.0, 0.5])
    expected = [2 * cubic[0] / 3, 1.5 + 2 * cubic[1] / 3, -2, cubic[0] / 3, cubic[1] / 3, 5]
    np.testing.assert_allclose(stack.aberrations.odd_zernike[0], expected, rtol=1e-6)
    assert len(stack.cautions) == 1 and "coefficients 4 and 5 of rlnOddZernike" in stack.cautions[0]


def test_beam_tilt_of_relion_30_makes_groups(write_particles, tmp_path):
    path = write_particles(tmp_path, particles={"rlnBeamTiltX": [0.1, 0.2, 0.2, 0.1, 0.1, 0.2]})
    as_relion_30(path)
    stack = ParticleStack.from_star(path)
    assert stack.group.tolist() == [0, 1, 1, 0, 0, 1] and len(set(stack.group_names)) == 2
    assert float(stack.aberrations.odd_zernike[1, 1] / stack.aberrations.odd_zernike[0, 1]) == pytest.approx(2)


def test_even_aberrations_and_matrices_are_those_of_the_particle_s_group(write_particles, tmp_path):
    names = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImagePixelSize", "rlnImageSize")
    optics = {name: [value] * 3 for name, value in zip(names, (300.0, 2.7, 0.1, 3.0, 16), strict=True)}
    optics |= {
        "rlnImageDimensionality": [2] * 3, "rlnOpticsGroup": [3, 9, 5], "rlnOpticsGroupName": ["a", "unused", "b"],
        "rlnEvenZernike": ["[1,2]", "[9]", "[0,0,4]"], "rlnMagMat00": [1.02, 1, 0.99], "rlnMagMat01": [0.01, 0, -0.02],
        "rlnMagMat10": [0.03, 0, 0.04], "rlnMagMat11": [0.98, 1, 1.01],
    }  # fmt: skip
    path = write_particles(tmp_path, particles={"rlnOpticsGroup": [5, 3, 3, 5, 5, 3]}, optics=optics)
    stack = ParticleStack.from_star(path)
    assert stack.ctf.even_zernike[:2].tolist() == [[0, 0, 4], [1, 2, 0]]
    matrix = np.array([[0.99, -0.02], [0.04, 1.01]])
    np.testing.assert_allclose(stack.aberrations.magnification[stack.group[0]], matrix)
    # origins are those of the distorted images, and are written back as they were
    origin = StarFile.read(path).particles.numbers("rlnOriginXAngst", "rlnOriginYAngst")
    origin = np.stack(list(origin.values()), axis=1)
    np.testing.assert_allclose(stack.pose.shift[0], np.linalg.inv(matrix).T @ origin[0], rtol=1e-5)
    stack.write_star(tmp_path / "back.star", pose=stack.pose)
    back = StarFile.read(tmp_path / "back.star").particles.numbers("rlnOriginXAngst", "rlnOriginYAngst")
    np.testing.assert_allclose(np.stack(list(back.values()), axis=1), origin, atol=1e-5)


def test_values_that_a_group_has_two_of(write_particles, tmp_path):
    path = write_particles(tmp_path, particles={"rlnBeamTiltX": [0.1, 0.1, 0.2, 0.1, 0.1, 0.1]})
    assert "rlnBeamTiltX in row 3" in refusal(path)


# ---------------------------------------------------------------- real metadata


@pytest.mark.parametrize(
    ("name", "count", "pixel_size", "groups"),
    [
        ("relion31.6opticsgroups.star", 139, 1.25, 6),
        ("relion31.star", 5, 2.806, 1),
        ("relion5.star", 17, 0.89, 1),
    ],
)
def test_real_files(name, count, pixel_size, groups, shared_data, tmp_path):
    source = shared_data / "metadata" / name
    star = StarFile.read(source)
    box_size = int(star.optics.numbers("rlnImageSize")["rlnImageSize"][0])
    image = np.random.default_rng(0).normal(size=(1, box_size, box_size)).astype(np.float16)
    for cell in star.particles.cells("rlnImageName"):
        number, _, stack_name = cell.partition("@")
        path = tmp_path / stack_name
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_sparse_stack(path, image, int(number))
    stack = ParticleStack.from_star(source, root=tmp_path)
    assert (len(stack), stack.pixel_size, len(stack.group_names)) == (count, pixel_size, groups)
    assert torch.equal(stack.images([0, count - 1])[1], torch.from_numpy(image[0]).float())
    frame = starfile.read(source)["particles"]
    angles = frame[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
    expected = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix()
    np.testing.assert_allclose(stack.pose.rotation, expected, atol=1e-6)
    origins = ["rlnOriginXAngst", "rlnOriginYAngst"]
    found = np.stack([stack.pose_columns(stack.pose)[name] for name in origins], axis=1)
    np.testing.assert_allclose(found, frame[origins], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(stack.ctf.defocus_u, frame["rlnDefocusU"], rtol=1e-6)


def _write_sparse_stack(path, image: np.ndarray, number: int) -> None:
    """Make a stack in which only one image is written; the others are holes that take no space."""
    if not path.exists():
        with mrcfile.new(path) as mrc:
            mrc.set_data(image)
            mrc.set_image_stack()
    with open(path, "r+b") as stream:
        sections = max(number, int.from_bytes(stream.read(12)[8:], "little"))
        stream.seek(8)
        stream.write(sections.to_bytes(4, "little"))
        stream.seek(1024 + (number - 1) * image.nbytes)
        stream.write(image.tobytes())
        stream.truncate(1024 + sections * image.nbytes)


def test_real_images_where_the_file_names_them(shared_data):
    folder = shared_data / "metadata"
    stack = ParticleStack.from_star(folder / "relion31.star")
    # its header has neither map string nor machine stamp, so mrcfile would only read it under protest
    values = np.fromfile(folder / "relion31.mrcs", dtype="<f4", offset=1024).reshape(5, 256, 256)
    np.testing.assert_array_equal(stack.images([4, 0]), values[[4, 0]])


def test_real_file_of_relion_30_lacks_amplitude_contrast(shared_data, tmp_path):
    source = shared_data / "metadata" / "FinalRefinement-OriginalParticles-PfCRT.star"
    with pytest.raises(UserError, match="no amplitude contrast: column rlnAmplitudeContrast is missing from"):
        ParticleStack.from_star(source)
    star = StarFile.read(source)
    completed = star.replace(star.particles, star.particles.with_columns({"rlnAmplitudeContrast": [0.1] * 5}))
    completed.write(tmp_path / "complete.star")
    images = tmp_path / "Extract" / "job012" / "FinalRefinement-OriginalParticles-PfCRT.mrcs"
    images.parent.mkdir(parents=True)
    with StackWriter(images, 1.035) as writer:
        writer.append(np.random.default_rng(0).normal(size=(6, 16, 16)))
    stack = ParticleStack.from_star(tmp_path / "complete.star")
    magnification = star.particles.numbers("rlnMagnification", "rlnDetectorPixelSize")
    expected = magnification["rlnDetectorPixelSize"][0] * 1e4 / magnification["rlnMagnification"][0]
    assert stack.pixel_size == pytest.approx(expected)
    origin = star.particles.numbers("rlnOriginX")["rlnOriginX"]
    np.testing.assert_allclose(stack.pose.shift[:, 0], origin * expected, rtol=1e-6)


def test_real_file_without_poses(shared_data):
    with pytest.raises(UserError, match="no orientations: column rlnAngleRot is missing"):
        ParticleStack.from_star(shared_data / "metadata" / "empiar_10076_7.star")


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("dtype", ["i1", "<i2", ">i2", "<f4", ">f4", "<u2", ">u2", "<f2", ">f2"])
def test_all_modes_and_byte_orders(dtype, write_particles, images, tmp_path):
    path = write_particles(tmp_path)
    values = np.abs(images * 20).astype(dtype)
    with mrcfile.new(tmp_path / "particles.mrcs", overwrite=True) as mrc:
        mrc.set_data(values)
        mrc.set_extended_header(np.frombuffer(b"x" * 96, dtype="V1"))
    read = ParticleStack.from_star(path).images([5, 0, 1])
    assert read.dtype == torch.float32
    np.testing.assert_array_equal(read, values[[5, 0, 1]].astype(np.float32))


def test_order_repetition_and_kinds_of_index(write_particles, images, tmp_path):
    stack = ParticleStack.from_star(write_particles(tmp_path, images))
    expected = torch.from_numpy(images)
    rows = [4, 1, 2, 3, 1, 0]
    for indices in (rows, np.array(rows), torch.tensor(rows)):
        assert torch.equal(stack.images(indices), expected[rows])
    assert torch.equal(stack.images(slice(1, None, 2)), expected[1::2])
    assert stack.images([]).shape == (0, 16, 16)
    with pytest.raises(IndexError, match="rows -1 to 2 of 6 particles"):
        stack.images([2, -1])
    with pytest.raises(IndexError):
        stack.images([6])


@pytest.mark.parametrize("box_size", [15, 16])
def test_list_over_several_stacks_in_any_order(box_size, write_particles, tmp_path):
    images = np.random.default_rng(0).normal(size=(6, box_size, box_size)).astype(np.float32)
    path = write_particles(
        tmp_path,
        images,
        particles={
            "rlnImageName": ["2@a.mrcs", "1@sub/b.mrcs", "1@a.mrcs", "2@sub/b.mrcs", "3@a.mrcs", "c.mrc"]
        },
    )
    (tmp_path / "sub").mkdir()
    for name, members in {"a.mrcs": [2, 0, 4], "sub/b.mrcs": [1, 3], "c.mrc": [5]}.items():
        with StackWriter(tmp_path / name, 3.0) as stack:
            stack.append(images[members])
    assert torch.equal(ParticleStack.from_star(path).images(range(6)), torch.from_numpy(images))


def test_two_thousand_stacks_under_a_low_limit_of_open_files(write_particles, tmp_path):
    count = 2000
    images = np.random.default_rng(0).normal(size=(count, 4, 4)).astype(np.float32)
    names = [f"{row % 50}/image_{row}.mrc" for row in range(count)]
    path = write_particles(tmp_path, images, particles={"rlnImageName": [f"1@{name}" for name in names]})
    for name, image in zip(names, images, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with StackWriter(tmp_path / name, 3.0) as stack:
            stack.append(image[None])
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        stack = ParticleStack.from_star(path)
        rows = np.random.default_rng(1).permutation(count)
        assert torch.equal(stack.images(rows), torch.from_numpy(images)[rows])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(stack._reader._open) == MAX_OPEN_FILES


def test_files_are_closed_with_the_stack(write_particles, tmp_path):
    stack = ParticleStack.from_star(write_particles(tmp_path))
    stack.images([0])
    descriptors = stack._reader._open
    assert len(descriptors) == 1
    del stack
    assert len(descriptors) == 0


def test_root_or_folder_of_the_star_file_or_current_folder(write_particles, images, tmp_path, monkeypatch):
    beside, current, root = (tmp_path / name for name in ("beside", "current", "root"))
    path = write_particles(beside, images)
    write_particles(current, images + 1)
    write_particles(root, images + 2)
    monkeypatch.chdir(current)

    def first_pixel(**options) -> float:
        return ParticleStack.from_star(path, **options).images([0])[0, 0, 0].item() - images[0, 0, 0]

    assert first_pixel() == pytest.approx(0, abs=1e-6)
    assert first_pixel(root=root) == pytest.approx(2, abs=1e-5)
    (beside / "particles.mrcs").unlink()
    assert first_pixel() == pytest.approx(1, abs=1e-5)
    (root / "particles.mrcs").unlink()
    with pytest.raises(UserError, match=r"looked in .*root\): give the folder"):
        first_pixel(root=root)


def test_missing_stack_that_lies_further_up_is_found(write_particles, tmp_path, monkeypatch):
    path = write_particles(tmp_path / "project" / "Refine3D" / "job012")
    path.with_name("particles.mrcs").rename(tmp_path / "project" / "particles.mrcs")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"give --root {tmp_path}/project"):
        ParticleStack.from_star(path)


# ---------------------------------------------------------------- writing


def test_written_rows_are_the_input_rows(write_particles, tmp_path):
    path = write_particles(tmp_path)
    stack = ParticleStack.from_star(path)
    stack.write_star(tmp_path / "same.star")
    assert (tmp_path / "same.star").read_bytes() == path.read_bytes()
    stack.write_star(tmp_path / "more.star", extra_columns={"solvarContrast": torch.linspace(0.5, 1.5, 6)})
    lines = path.read_text().splitlines()[-6:]
    extended = (tmp_path / "more.star").read_text().splitlines()[-6:]
    for line, longer in zip(lines, extended, strict=True):
        assert longer.startswith(line + " ")
    contrast = numbers_of(tmp_path / "more.star", "solvarContrast")["solvarContrast"]
    np.testing.assert_allclose(contrast, np.linspace(0.5, 1.5, 6), rtol=1e-6)


def test_what_an_earlier_run_said_does_not_stay(write_particles, tmp_path):
    """A grey scale or frame of an earlier list is not that of a run that found none."""
    path = write_particles(tmp_path)
    scale = torch.linspace(0.5, 1.5, 6)
    earlier = {"solvarGreyScale": scale, "solvarOtherFrame": scale > 1, "solvarParticleId": scale}
    ParticleStack.from_star(path).write_star(path, extra_columns=earlier)
    ParticleStack.from_star(path).write_star(tmp_path / "now.star", extra_columns={"solvarContrast": scale})
    table = StarFile.read(tmp_path / "now.star").particles
    assert [column for column in table.columns if column.startswith("solvar")] == ["solvarParticleId", "solvarContrast"]
    np.testing.assert_allclose(table.numbers("solvarContrast")["solvarContrast"], scale, rtol=1e-6)


@pytest.mark.parametrize("is_relion_30", [False, True])
def test_refined_poses_are_read_back(is_relion_30, write_particles, tmp_path):
    path = write_particles(tmp_path)
    if is_relion_30:
        as_relion_30(path)
    stack = ParticleStack.from_star(path)
    rotation = torch.from_numpy(Rotation.random(6, random_state=1).as_matrix()).float()
    pose = Pose(rotation, torch.randn(6, 2, generator=torch.Generator().manual_seed(0)))
    stack.write_star(path, pose=pose)
    again = ParticleStack.from_star(path)
    torch.testing.assert_close(again.pose.rotation, pose.rotation, atol=1e-6, rtol=0)
    torch.testing.assert_close(again.pose.shift, pose.shift)
    assert again.image_names == stack.image_names
    assert ("rlnOriginXAngst" in again.star.particles) != is_relion_30


# ---------------------------------------------------------------- bad input


def refusal(path, **options) -> str:
    with pytest.raises(UserError) as error:
        stack = ParticleStack.from_star(path, **options)
        stack.images(range(len(stack)))
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text
    return text


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("rlnImageName", "column rlnImageName is missing"),
        ("rlnAngleTilt", "has no orientations: column rlnAngleTilt is missing from data_particles"),
        ("rlnDefocusU", "has no CTF: column rlnDefocusU is missing from data_particles"),
        ("rlnDefocusAngle", "has no CTF: column rlnDefocusAngle is missing"),
        ("rlnOriginYAngst", "no complete shifts: column rlnOriginYAngst is missing"),
    ],
)
def test_absent_particle_columns(column, text, write_particles, tmp_path):
    path = write_particles(tmp_path, particles={column: REMOVED})
    assert text in refusal(path) and str(path) in refusal(path)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("rlnAmplitudeContrast", "no amplitude contrast: column rlnAmplitudeContrast is missing from"),
        ("rlnVoltage", "no voltage: column rlnVoltage is missing from data_optics"),
        ("rlnSphericalAberration", "column rlnSphericalAberration is missing from data_optics"),
        ("rlnImagePixelSize", "no pixel size: column rlnImagePixelSize is missing from data_optics"),
    ],
)
def test_absent_optics_columns(column, text, write_particles, tmp_path):
    assert text in refusal(write_particles(tmp_path, optics={column: REMOVED}))


def test_absent_pixel_size_in_relion_30(write_particles, tmp_path):
    path = write_particles(tmp_path)
    as_relion_30(path, rlnMagnification=None)
    assert "no pixel size: column rlnImagePixelSize is missing from data_;" in refusal(path)


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("rlnAngleRot", "nan", "'nan' in row 3, column rlnAngleRot, of data_particles"),
        ("rlnDefocusU", "n/a", "'n/a' in row 3, column rlnDefocusU, of data_particles"),
        ("rlnOpticsGroup", "9", "Optics group 9 in row 3, column rlnOpticsGroup"),
        ("rlnImageName", "x@particles.mrcs", "'x@particles.mrcs' in row 3, column rlnImageName"),
        ("rlnImageName", "0@particles.mrcs", "has no image number from 1"),
        ("rlnImageName", "7@particles.mrcs", "Image 7 in row 3"),
        ("rlnImageName", "1@gone.mrcs", "Stack gone.mrcs, named in"),
        ("rlnImageName", "particles.mrcs", "holds 6 images or a volume"),
    ],
)
def test_bad_cells(column, value, text, write_particles, tmp_path):
    path = write_particles(tmp_path)
    cells = StarFile.read(path).particles.text(column)
    cells[2] = value
    assert text in refusal(write_particles(tmp_path, particles={column: cells}))


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("rlnImagePixelSize", -3.0, "-3 Angstrom in row 1, column rlnImagePixelSize, of data_optics"),
        ("rlnImagePixelSize", 0.0, "0 Angstrom in row 1"),
        ("rlnVoltage", 300_000.0, "300000 kV in row 1, column rlnVoltage"),
        ("rlnAmplitudeContrast", 10.0, "10 in row 1, column rlnAmplitudeContrast"),
        ("rlnImageDimensionality", 3, "are volumes, or stacks of tilt images (rlnImageDimensionality 3)"),
        ("rlnCtfDataAreCtfPremultiplied", 2, "2 in row 1, column rlnCtfDataAreCtfPremultiplied"),
        ("rlnMagMat00", 0.3, "magnification matrix 0.3, 0, 0, 1"),
        ("rlnMagMat11", -1.0, "magnification matrix 1, 0, 0, -1"),
        ("rlnEvenZernike", "[1,2,x]", "'[1,2,x]', column rlnEvenZernike of"),
        ("rlnCtfDataArePhaseFlipped", 2, "2 in row 1, column rlnCtfDataArePhaseFlipped"),
        ("rlnImageSize", 32, "has rlnImageSize 32, but its images have 16 px"),
    ],
)
def test_bad_optics(column, value, text, write_particles, tmp_path):
    assert text in refusal(write_particles(tmp_path, optics={column: [value]}))


def test_name_of_a_group_in_the_place_of_its_number(write_particles, tmp_path):
    named = {"rlnOpticsGroup": [3], "rlnOpticsGroupName": ["grid2"]}
    path = write_particles(tmp_path, particles={"rlnOpticsGroup": ["3", "grid2", "3", "3", "3", "3"]}, optics=named)
    said = refusal(path)
    assert "'grid2' in row 2, column rlnOpticsGroup" in said
    assert "write its number, which is 3 in data_optics" in said


def test_several_groups_need_a_group_for_each_particle(write_particles, tmp_path):
    two = {name: [value, value] for name, value in (("rlnVoltage", 300.0), ("rlnSphericalAberration", 2.7))}
    path = write_particles(
        tmp_path,
        particles={"rlnOpticsGroup": REMOVED},
        optics={
            **two,
            "rlnOpticsGroup": [1, 2],
            "rlnOpticsGroupName": ["a", "b"],
            "rlnAmplitudeContrast": [0.1, 0.1],
            "rlnImagePixelSize": [3.0, 3.0],
            "rlnImageSize": [16, 16],
            "rlnImageDimensionality": [2, 2],
        },
    )
    assert "column rlnOpticsGroup is missing from data_particles" in refusal(path)


def test_no_particles(write_particles, tmp_path):
    path = write_particles(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-6]) + "\n")
    assert "has no particles: data_particles has no rows" in refusal(path)


def test_cut_short_list(write_particles, tmp_path):
    path = write_particles(tmp_path)
    path.write_text(path.read_text()[:-30])
    assert "Row 6 of data_particles" in refusal(path)


def test_groups_of_different_box(write_particles, images, tmp_path):
    names = [f"{row}@particles.mrcs" for row in range(1, 6)] + ["1@other.mrcs"]
    changes = {"particles": {"rlnImageName": names}, "optics": {"rlnImageSize": REMOVED}}
    path = write_particles(tmp_path, images, **changes)
    with StackWriter(tmp_path / "other.mrcs", 3.0) as stack:
        stack.append(images[:1, :12, :12])
    text = refusal(path)
    assert "differ in box" in text and "particles.mrcs has 16 px" in text and "other.mrcs has 12 px" in text


def test_truncated_stack_is_refused_before_any_image_is_read(write_particles, tmp_path):
    path = write_particles(tmp_path)
    stack = tmp_path / "particles.mrcs"
    stack.write_bytes(stack.read_bytes()[: 1024 + 3 * 16 * 16 * 4 + 100])
    with pytest.raises(UserError, match="announces 6 images, but the file ends within image 4"):
        ParticleStack.from_star(path)


def test_stack_that_shrinks_or_goes_away_later(write_particles, tmp_path):
    stack = ParticleStack.from_star(write_particles(tmp_path))
    content = (tmp_path / "particles.mrcs").read_bytes()
    (tmp_path / "particles.mrcs").write_bytes(content[: 1024 + 2 * 16 * 16 * 4 + 8])
    assert stack.images([0, 1]).shape[0] == 2
    with pytest.raises(UserError, match="particles.mrcs is truncated: it ends within image 3"):
        stack.images([0, 1, 2, 3])
    stack = ParticleStack.from_star(write_particles(tmp_path))
    (tmp_path / "particles.mrcs").unlink()
    with pytest.raises(UserError, match="particles.mrcs cannot be opened"):
        stack.images([0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.nan, "has NaN or infinite values"),
        (np.inf, "has NaN or infinite values"),
        (2.5, r"is constant \(2.5\)"),
    ],
)
def test_bad_images_are_named(value, text, write_particles, images, tmp_path):
    images[4] = value
    stack = ParticleStack.from_star(write_particles(tmp_path, images))
    assert stack.images([0, 1, 2, 3, 5]).shape[0] == 5
    with pytest.raises(UserError, match=f"Image 5 of .*particles.mrcs {text}"):
        stack.images([5, 4])


def test_one_bad_pixel_is_enough(write_particles, images, tmp_path):
    images[2, 7, 7] = np.nan
    assert "Image 3 of" in refusal(write_particles(tmp_path, images))


def test_unsuitable_stacks(write_particles, images, tmp_path):
    path = write_particles(tmp_path)
    stack = tmp_path / "particles.mrcs"
    with StackWriter(stack, 3.0) as writer:
        writer.append(images[:, :, :12])
    assert "are not square (12 x 16 px)" in refusal(path)
    with mrcfile.new(stack, overwrite=True) as mrc:
        mrc.set_data(images.astype(np.complex64))
    assert "complex transform" in refusal(path)
    with mrcfile.new(stack, overwrite=True) as mrc:
        mrc.set_data(np.broadcast_to(images, (2, 6, 16, 16)).copy())
    assert "is a stack of volumes" in refusal(path)
    stack.write_bytes(b"text")
    assert "is not an MRC file" in refusal(path)


def test_images_given_instead_of_their_list(write_particles, tmp_path):
    write_particles(tmp_path)
    assert "is an MRC file: give the STAR file" in refusal(tmp_path / "particles.mrcs")


# ---------------------------------------------------------------- pixel size of list and header


def with_header_pixel_size(folder, size):
    with mrcfile.open(folder / "particles.mrcs", mode="r+") as mrc:
        mrc.voxel_size = size


@pytest.mark.parametrize(("header", "level"), [(0, None), (1, None), (3.02, None), (3.1, "WARNING"), (2.75, "WARNING")])
def test_headers_that_are_not_believed_or_nearly_agree(write_particles, tmp_path, caplog, header, level):
    path = write_particles(tmp_path, pixel_size=3.0)
    with_header_pixel_size(tmp_path, header)
    assert ParticleStack.from_star(path).pixel_size == 3
    assert [record.levelname for record in caplog.records] == ([level] if level else [])


@pytest.mark.parametrize("header", [0.35, 0.6, 1.8, 2.6, 3.4, 3.9, 5.5, 7.8, 25.5, 30.0])
def test_a_header_that_may_be_out_of_date_is_told(write_particles, tmp_path, caplog, header):
    path = write_particles(tmp_path, pixel_size=3.0)
    with_header_pixel_size(tmp_path, header)
    if header == 0.6:  # 5 times finer: another stack agrees with the list
        in_two_stacks(path, other_header=3.0)
    assert ParticleStack.from_star(path).pixel_size == 3
    assert f"is 3 Angstrom in {path}, but {header:g} in the header of" in caplog.text
    assert "that of the list is used; if it is wrong, so are transfer functions" in caplog.text


@pytest.mark.parametrize("header", [0.375, 1.5, 2.0, 4.5, 6.02, 7.5, 24.0])
def test_a_header_as_of_another_binning_is_refused_unless_another_stack_agrees(
    write_particles, tmp_path, caplog, header
):
    path = write_particles(tmp_path, pixel_size=3.0)
    with_header_pixel_size(tmp_path, header)
    text = rf"is 3 Angstrom in .*particles.star, but {header:g} in the header of .*mrcs, as before or after binning"
    with pytest.raises(UserError, match=text):
        ParticleStack.from_star(path)
    in_two_stacks(path, other_header=0)  # one that does not know
    with pytest.raises(UserError, match=text):
        ParticleStack.from_star(path)
    in_two_stacks(path, other_header=3.2)
    assert ParticleStack.from_star(path).pixel_size == 3
    assert f"but {header:g} in the header of" in caplog.text


def in_two_stacks(path, other_header):
    """Let the second half of the images be in a copy of their stack with another header."""
    shutil.copy(path.parent / "particles.mrcs", path.parent / "others.mrcs")
    with mrcfile.open(path.parent / "others.mrcs", mode="r+") as mrc:
        mrc.voxel_size = other_header
    star = StarFile.read(path)
    names = star.particles.text("rlnImageName")
    half = len(names) // 2
    names = [*names[:half], *(name.replace("particles.mrcs", "others.mrcs") for name in names[half:])]
    star.replace(star.particles, star.particles.with_columns({"rlnImageName": names})).write(path)


def test_a_header_with_too_few_images_is_named_as_the_cause(write_particles, tmp_path):
    """The file is long enough: it is not the stack that is another, but its header was not brought up to date."""
    path = write_particles(tmp_path)
    stack = tmp_path / "particles.mrcs"
    content = bytearray(stack.read_bytes())
    content[8:12] = np.int32(4).tobytes()
    stack.write_bytes(content)
    text = r"Image 5 in row 5, .*particles.mrcs announces 4 images in its header, but is long enough for 6; correct"
    with pytest.raises(UserError, match=text):
        ParticleStack.from_star(path)
    stack.write_bytes(content[: 1024 + 4 * 16 * 16 * 4])
    with pytest.raises(UserError, match="has 4 images; give the stack that belongs to the list"):
        ParticleStack.from_star(path)


def test_bytes_of_imod_are_unsigned(write_particles, tmp_path):
    path = write_particles(tmp_path)
    values = np.random.default_rng(0).integers(0, 256, (6, 16, 16)).astype(np.uint8)
    with mrcfile.new(tmp_path / "particles.mrcs", overwrite=True) as mrc:
        mrc.set_data(values.view(np.int8))
        mrc.set_image_stack()
    for flags, expected in ((0, values), (1, values.view(np.int8))):
        with open(tmp_path / "particles.mrcs", "r+b") as stream:
            stream.seek(152)
            stream.write(np.array([1146047817, flags], dtype="<i4").tobytes())
        np.testing.assert_array_equal(ParticleStack.from_star(path).images(slice(None)), expected.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_values_that_only_unsigned_ones_reach_are_unsigned(dtype, write_particles, tmp_path):
    path, top = write_particles(tmp_path), np.iinfo(dtype).max
    values = np.random.default_rng(0).integers(0, top + 1, (6, 16, 16)).astype(dtype)
    signed = values.view(f"i{values.itemsize}")
    with mrcfile.new(tmp_path / "particles.mrcs", overwrite=True) as mrc:
        mrc.set_data(signed)
        mrc.set_image_stack()
    for lowest, highest, expected in ((0, top, values), (signed.min(), signed.max(), signed), (0, 10 * top, signed)):
        with open(tmp_path / "particles.mrcs", "r+b") as stream:
            stream.seek(76)
            stream.write(np.array([lowest, highest], dtype="<f4").tobytes())
        np.testing.assert_array_equal(ParticleStack.from_star(path).images(slice(None)), expected.astype(np.float32))


def test_volumes_of_one_section_are_images(write_particles, tmp_path):
    path = write_particles(tmp_path)
    for sections in (1, 2):
        with open(tmp_path / "particles.mrcs", "r+b") as stream:
            stream.seek(88)
            stream.write(np.int32(401).tobytes())
            stream.seek(36)
            stream.write(np.int32(sections).tobytes())
        if sections == 1:
            assert len(ParticleStack.from_star(path)) == 6
        else:
            with pytest.raises(UserError, match="a stack of volumes"):
                ParticleStack.from_star(path)
