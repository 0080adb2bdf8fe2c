"""What FlexHub loads of the plugin, driven as HAX's server drives it: a class from a file, points in a text file."""

from __future__ import annotations

import ast
import importlib.util
import io
import sys

import mrcfile
import numpy as np
import pytest

from tests.conftest import REPOSITORY

SOURCE = REPOSITORY / "solvar_plugin" / "flexhub_interface.py"


def test_volumes_of_points_are_those_of_numpy(analysed, tmp_path) -> None:
    run, arrays = analysed
    spec = importlib.util.spec_from_file_location("loaded_module", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    template = str(tmp_path / "decoded_map_class_{:02d}.mrc")
    options = {"solvar_run": str(run.path), "mode": "SOLVAR", "z_space": "z.txt"}
    interface = module.HeterogeneityProgramInterface(_path_template=template, _program_loading_params=options)
    np.savetxt(tmp_path / "z.txt", arrays.z[:3])
    interface.decode_state_from_latent(latent=np.loadtxt(tmp_path / "z.txt"))
    for row in range(3):
        expected = arrays.mean + np.tensordot(arrays.z[row], arrays.eigenvolumes, 1)
        with mrcfile.open(template.format(row + 1)) as volume:
            assert np.abs(volume.data - expected).max() < 1e-5 * expected.max()
            assert volume.voxel_size.x == pytest.approx(3.0)
            assert float(volume.header.dmax) == pytest.approx(expected.max(), rel=1e-5)
        assert mrcfile.validate(template.format(row + 1), io.StringIO())
    interface.decode_state_from_latent(arrays.z[5])
    with mrcfile.open(template.format(1)) as volume:
        assert np.allclose(volume.data, arrays.mean + np.tensordot(arrays.z[5], arrays.eigenvolumes, 1), atol=1e-5)
    with pytest.raises(ValueError, match="3 coordinates, but the run 4 components"):
        interface.decode_state_from_latent([1, 2, 3])


def test_it_needs_nothing_but_numpy() -> None:
    imports = [node for node in ast.walk(ast.parse(SOURCE.read_text(encoding="utf-8")))
               if isinstance(node, (ast.Import, ast.ImportFrom))]  # fmt: skip
    names = {alias.name for node in imports for alias in node.names if isinstance(node, ast.Import)}
    names |= {node.module for node in imports if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= {"numpy", *sys.stdlib_module_names}
