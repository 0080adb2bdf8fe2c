from __future__ import annotations

import mrcfile
import numpy as np
import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.data.mrc import StackWriter, read_header, write_map

DTYPES = {0: np.int8, 1: np.int16, 2: np.float32, 6: np.uint16, 12: np.float16}


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 20, size=(3, 8, 8))


def write_with_mrcfile(path, values: np.ndarray, extended: bytes = b"") -> None:
    with mrcfile.new(path) as mrc:
        mrc.set_data(values)
        mrc.set_image_stack()
        mrc.voxel_size = 1.5
        if extended:
            mrc.set_extended_header(np.frombuffer(extended, dtype="V1"))


@pytest.mark.parametrize("mode", DTYPES)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("extended", [b"", b"metadata" * 20])
def test_headers_of_mrcfile_are_understood(mode, order, extended, images, tmp_path):
    path = tmp_path / "stack.mrcs"
    values = np.abs(images).astype(np.dtype(DTYPES[mode]).newbyteorder(order))
    write_with_mrcfile(path, values, extended)
    header = read_header(path)
    assert header.shape == (3, 8, 8) and header.whole_sections == 3
    assert header.data_offset == 1024 + len(extended)
    assert header.voxel_size[:2] == (1.5, 1.5)
    read = np.fromfile(path, dtype=header.dtype, offset=header.data_offset).reshape(header.shape)
    np.testing.assert_array_equal(read, values)


def test_header_without_machine_stamp(shared_data):
    header = read_header(shared_data / "metadata" / "relion31.mrcs")
    assert header.shape == (5, 256, 256) and header.dtype == np.dtype("<f4")


@pytest.mark.parametrize("order", ["<", ">"])
def test_wrong_machine_stamp_gives_way_to_sense(order, images, tmp_path):
    path = tmp_path / "stack.mrcs"
    write_with_mrcfile(path, images.astype(f"{order}f4"))
    content = bytearray(path.read_bytes())
    content[212:214] = b"\x11\x11" if order == "<" else b"\x44\x44"
    path.write_bytes(content)
    assert read_header(path).shape == (3, 8, 8)


def test_our_stack_is_a_valid_mrc_file(images, tmp_path):
    path = tmp_path / "stack.mrcs"
    with StackWriter(path, pixel_size=2.5) as stack:
        stack.append(images[:2])
        assert not path.exists()
        stack.append(images[2:])
    assert mrcfile.validate(path)
    with mrcfile.open(path) as mrc:
        assert mrc.is_image_stack() and mrc.header.mode == 2
        np.testing.assert_array_equal(mrc.data, images.astype(np.float32))
        assert float(mrc.voxel_size.x) == 2.5
        np.testing.assert_allclose(mrc.header.rms, images.std(), rtol=1e-5)
        np.testing.assert_allclose(mrc.header.dmean, images.mean(), rtol=1e-5)


def test_our_map_is_a_valid_mrc_file_with_the_same_bytes_each_time(images, tmp_path):
    volume = np.random.default_rng(1).normal(size=(9, 9, 9))
    write_map(tmp_path / "a.mrc", volume, 1.75)
    write_map(tmp_path / "b.mrc", volume, 1.75)
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrc").read_bytes()
    assert mrcfile.validate(tmp_path / "a.mrc")
    with mrcfile.open(tmp_path / "a.mrc") as mrc:
        assert mrc.is_volume() and mrc.data.shape == (9, 9, 9)
        np.testing.assert_allclose(mrc.voxel_size.tolist(), 1.75)


def test_interrupted_stack_leaves_nothing(images, tmp_path):
    with pytest.raises(RuntimeError):
        with StackWriter(tmp_path / "stack.mrcs", pixel_size=1.0) as stack:
            stack.append(images)
            raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_stack_has_one_box(images, tmp_path):
    with pytest.raises(ValueError, match="do not fit"):
        with StackWriter(tmp_path / "stack.mrcs", pixel_size=1.0) as stack:
            stack.append(images)
            stack.append(images[:, :4, :4])


@pytest.mark.parametrize(("mode", "text"), [(4, "complex transform"), (3, "complex"), (101, "MRC mode 101")])
def test_values_that_are_not_read(mode, text, images, tmp_path):
    path = tmp_path / "stack.mrcs"
    write_with_mrcfile(path, images.astype("<f4"))
    content = bytearray(path.read_bytes())
    content[12:16] = mode.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UserError, match=text):
        read_header(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "stack.mrcs"
    with pytest.raises(UserError, match="does not exist"):
        read_header(path)
    path.write_bytes(b"short")
    with pytest.raises(UserError, match="not an MRC file: it has only 5 bytes"):
        read_header(path)
    path.write_bytes(b"loop_ and text " * 100)
    with pytest.raises(UserError, match="not an MRC file: its header"):
        read_header(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_header(tmp_path)
