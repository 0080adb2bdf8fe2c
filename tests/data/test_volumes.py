from __future__ import annotations

import mrcfile
import numpy as np
import pytest
import torch

from solvar_engine.contract.errors import UserError
from solvar_engine.data.mrc import StackWriter, write_map
from solvar_engine.data.volumes import read_volume, write_volume
from solvar_engine.imaging.types import Volume


@pytest.fixture
def data() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(6, 6, 6)).astype(np.float32))


def test_round_trip(data, tmp_path):
    write_volume(tmp_path / "map.mrc", Volume(data, 1.234))
    volume = read_volume(tmp_path / "map.mrc")
    assert torch.equal(volume.data, data)
    assert volume.pixel_size == pytest.approx(1.234, rel=1e-6)


def test_axes_are_z_y_x_whatever_the_order_in_the_file(data, tmp_path):
    path = tmp_path / "map.mrc"
    with mrcfile.new(path) as mrc:
        # columns along z, rows along x, sections along y: the file holds (y, x, z)
        mrc.set_data(np.ascontiguousarray(data.numpy().transpose(1, 2, 0)))
        mrc.header.mapc, mrc.header.mapr, mrc.header.maps = 3, 1, 2
        mrc.voxel_size = 2.0
    assert torch.equal(read_volume(path).data, data)


@pytest.mark.parametrize("dtype", ["i1", ">i2", "<u2", "<f2", ">f4"])
def test_all_modes_become_single_precision(dtype, data, tmp_path):
    values = (data.numpy() * 20).clip(0).astype(dtype)
    with mrcfile.new(tmp_path / "mask.mrc") as mrc:
        mrc.set_data(values)
        mrc.voxel_size = 3.0
    volume = read_volume(tmp_path / "mask.mrc")
    assert volume.data.dtype == torch.float32
    np.testing.assert_array_equal(volume.data.numpy(), values.astype(np.float32))


def test_real_map_agrees_with_mrcfile(shared_data):
    path = shared_data / "3j9g_potential_64px_4.4A.mrc"
    volume = read_volume(path)
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(volume.data.numpy(), mrc.data)
        assert volume.pixel_size == pytest.approx(float(mrc.voxel_size.x))


def test_pixel_size_that_the_header_does_not_know(data, tmp_path):
    write_map(tmp_path / "map.mrc", data.numpy(), 0.0)
    with pytest.raises(UserError, match="no pixel size in its header"):
        read_volume(tmp_path / "map.mrc")
    assert read_volume(tmp_path / "map.mrc", pixel_size=2.0).pixel_size == 2.0


def test_unsuitable_files_are_refused(data, tmp_path):
    path = tmp_path / "map.mrc"
    write_map(path, data[:4].numpy(), 1.0)
    with pytest.raises(UserError, match=r"not a cube \(6 x 6 x 4\)"):
        read_volume(path)
    with StackWriter(path, 1.0) as stack:
        stack.append(data[:1].numpy())
    with pytest.raises(UserError, match="stack of images or not a cube"):
        read_volume(path)
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(data.numpy())
        mrc.voxel_size = (1.0, 1.0, 1.5)
    with pytest.raises(UserError, match=r"not cubic \(1 x 1 x 1.5 Angstrom\)"):
        read_volume(path)
    damaged = data.clone()
    damaged[1, 2, 3] = torch.nan
    write_map(path, damaged.numpy(), 1.0)
    with pytest.raises(UserError, match="NaN or infinite"):
        read_volume(path)
    write_map(path, data.numpy(), 1.0)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="truncated"):
        read_volume(path)
    with pytest.raises(UserError, match="does not exist"):
        read_volume(tmp_path / "no.mrc")
