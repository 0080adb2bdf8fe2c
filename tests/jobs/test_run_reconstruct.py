"""`reconstruct` writes mean + sum of z_j times eigenvolume j per state, and refuses what does not fit."""

from __future__ import annotations

import os
import re
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from solvar_engine import __version__
from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_csv
from solvar_engine.contract.params import ReconstructParams
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import read_status, status_path
from solvar_engine.jobs import run_reconstruct as reconstruct
from tests.reports.synthetic_run import PIXEL_SIZE, write_mrc, write_synthetic_run


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A finished run with four components, and its arrays."""
    return write_synthetic_run(tmp_path_factory.mktemp("jobs") / "run")


def linear(**options) -> ReconstructParams:
    """Options of the method that needs no images; points may be anywhere."""
    anywhere = "points" in options or "trajectory" in options
    return ReconstructParams(method="linear", **{"allow_extrapolation": anywhere, **options})


def table_at(path: Path, text: str) -> str:
    """Write a table and return its path."""
    path.write_text(text, encoding="utf-8")
    return str(path)


def check_volumes(folder: Path, arrays, points: np.ndarray) -> None:
    """Compare all volumes of a folder with the formula."""
    assert sorted(path.name for path in folder.glob("*.mrc")) == [
        f"state_{number:03d}.mrc" for number in range(1, len(points) + 1)
    ]
    for number, point in enumerate(points, start=1):
        with mrcfile.open(folder / f"state_{number:03d}.mrc") as mrc:
            expected = arrays.mean + np.tensordot(point, arrays.eigenvolumes, axes=1)
            np.testing.assert_allclose(mrc.data, expected, atol=1e-5)
            assert mrc.voxel_size.x == pytest.approx(PIXEL_SIZE)


def test_points_with_a_header_in_any_order(fitted, tmp_path):
    run, arrays = fitted
    points = table_at(tmp_path / "points.csv", "name,z_2,z_1,z_3,z_4\na,2,1,0,0\nb,-3.5,1e1,0.5,0\n")
    reconstruct.run(linear(run=str(run.path), output=str(tmp_path / "out"), points=points))
    expected = np.array([[1, 2, 0, 0], [10, -3.5, 0.5, 0]])
    check_volumes(tmp_path / "out", arrays, expected)
    states = read_csv(tmp_path / "out" / "states.csv")
    assert list(states) == ["state", "z_1", "z_2", "z_3", "z_4", "images_used", "resolution", "extrapolated"]
    np.testing.assert_array_equal(np.stack([states[f"z_{axis}"] for axis in (1, 2, 3, 4)], axis=1), expected)
    assert np.isnan(states["resolution"]).all()
    distance = np.linalg.norm(arrays.z[:, None, :2] - expected[None, :, :2], axis=2)
    good = StarFile.read(run.particles).particles.integers("solvarOutlier") == 0  # the others count for none
    np.testing.assert_array_equal(states["images_used"], np.bincount(distance.argmin(axis=1)[good], minlength=2))
    assert states["extrapolated"].tolist() == [0, 1]


def test_points_without_a_header(fitted, tmp_path):
    run, arrays = fitted
    points = table_at(tmp_path / "points.csv", "0,0,0,0\n1,2,3,4\n")
    reconstruct.run(linear(run=str(run.path), output=str(tmp_path / "out"), points=points))
    check_volumes(tmp_path / "out", arrays, np.array([[0, 0, 0, 0], [1, 2, 3, 4]]))


def test_clusters_are_those_of_analyze(fitted, tmp_path):
    run, arrays = fitted
    reconstruct.run(linear(run=str(run.path), output=str(tmp_path / "out"), clusters=3, seed=2))
    states = read_csv(tmp_path / "out" / "states.csv")
    centres = np.stack([states[f"z_{axis}"] for axis in (1, 2, 3, 4)], axis=1)
    check_volumes(tmp_path / "out", arrays, centres)
    good = np.flatnonzero(StarFile.read(run.particles).particles.integers("solvarOutlier") == 0)
    assert states["images_used"].sum() == len(good) < 300 and np.all(np.diff(centres[:, 0]) > 0)
    # Each centre is the mean of the particles nearest to it in the reproducible components.
    nearest = np.linalg.norm(arrays.z[:, None, :2] - centres[None, :, :2], axis=2).argmin(axis=1)
    table = read_csv(tmp_path / "out" / "particles.csv")
    np.testing.assert_array_equal(table["row"], good)
    np.testing.assert_array_equal(table["state"], nearest[good] + 1)
    for index, centre in enumerate(centres):
        np.testing.assert_allclose(centre, arrays.z[good][nearest[good] == index].mean(axis=0), rtol=1e-4, atol=1e-5)


def test_trajectory_is_resampled_at_equal_steps(fitted, tmp_path):
    run, arrays = fitted
    path = table_at(tmp_path / "path.csv", "z_1,z_2,z_3,z_4\n-4,0,0,0\n0,0,0,0\n0,4,0,0\n")
    output = str(tmp_path / "out")
    reconstruct.run(linear(run=str(run.path), output=output, trajectory=path, path="straight", frames=5))
    expected = np.array([[-4, 0, 0, 0], [-2, 0, 0, 0], [0, 0, 0, 0], [0, 2, 0, 0], [0, 4, 0, 0]])
    check_volumes(tmp_path / "out", arrays, expected)


FAR = "z_1,z_2,z_3,z_4\n0,0,0,0\n0,0,90,0\n"


@pytest.mark.parametrize("kind", ["points", "trajectory"])
def test_points_far_from_all_particles_are_refused_or_marked(fitted, tmp_path, kind):
    """Along any component of the linear method, since its volumes follow all of them."""
    run, arrays = fitted
    straight = {"path": "straight"} if kind == "trajectory" else {}
    points = table_at(tmp_path / "points.csv", FAR)
    call = {**straight, "run": str(run.path), "output": str(tmp_path / "out"), kind: points}
    lowest, highest = arrays.z[:, 2].min(), arrays.z[:, 2].max()
    expected = f"Row 2 of {points} (z_1 = 0, z_2 = 0, z_3 = 90, z_4 = 0) is far from all particles; the particles"
    expected += f" reach from {lowest:.4g} to {highest:.4g} along z_3: correct it, or accept an extrapolation"
    with pytest.raises(UserError, match=re.escape(expected)):
        reconstruct.run(linear(**call, allow_extrapolation=False))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["status.json"]
    reconstruct.run(linear(**call))
    states = read_csv(tmp_path / "out" / "states.csv")
    assert states["extrapolated"][0] == 0 and states["extrapolated"][-1] == 1


def test_points_among_the_particles_need_no_leave(fitted, tmp_path):
    run, arrays = fitted
    rows = "\n".join(",".join(map(str, z)) for z in arrays.z[:20])
    points = table_at(tmp_path / "points.csv", rows)
    reconstruct.run(linear(run=str(run.path), output=str(tmp_path / "out"), points=points, allow_extrapolation=False))
    assert not read_csv(tmp_path / "out" / "states.csv")["extrapolated"].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("z_1,z_2,z_3,z_4\n1,2,3,4\n1,2,3\n", r"Row 2 of .*points.csv has 3 values, but 4 are needed"),
        ("1,2,3,4,5\n", r"Row 1 of .*points.csv has 5 values, but 4 are needed"),
        ("1,2,3,4\n1,2,x,4\n", r"Row 2 of .*points.csv has 'x' in column z_3, which is not a finite number"),
        ("a,2,3,4\n", r"Row 1 of .*points.csv has 'a' in column z_1"),
        ("z_1,z_2,z_3,z_4\n1,nan,3,4\n", r"Row 1 of .*points.csv has 'nan' in column z_2"),
        ("z_1,z_2,z_3,z_4\n1,,3,4\n", r"Row 1 of .*points.csv has '' in column z_2"),
        ("z_1,z_2,z_3\n1,2,3\n", r"no column z_4, but the run has 4 components"),
        ("z_1,z_2,z_3,z_4,z_5\n1,2,3,4,5\n", r"a column z_5, but the run has only 4 components"),
        ("z_1,z_1,z_2,z_3,z_4\n1,2,3,4,5\n", r"names the column z_1 twice"),
        ("z_1,z_2,z_3,z_4\n", r"has a header but no rows"),
        ("\n", r"is empty"),
    ],
)
def test_bad_tables_are_named_and_nothing_else_is_written(fitted, tmp_path, text, message):
    points = table_at(tmp_path / "points.csv", text)
    with pytest.raises(UserError, match=message):
        reconstruct.run(
            linear(run=str(fitted[0].path), output=str(tmp_path / "out"), points=points)
        )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["status.json"]
    status = read_status(status_path(tmp_path / "out"))
    assert (status.command, status.state) == ("reconstruct", "failed")
    assert re.search(message, status.message)


def test_tables_that_cannot_be_read_are_named(fitted, tmp_path):
    run, output = str(fitted[0].path), str(tmp_path / "out")
    with pytest.raises(UserError, match="absent.csv does not exist"):
        reconstruct.run(linear(run=run, output=output, points=str(tmp_path / "absent.csv")))
    with pytest.raises(UserError, match="is a folder"):
        reconstruct.run(linear(run=run, output=output, points=str(tmp_path)))
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match="not a table of comma-separated values"):
        reconstruct.run(linear(run=run, output=output, points=str(tmp_path / "binary.csv")))
    path = table_at(tmp_path / "path.csv", "1,1,1,1\n1,1,1,1\n")
    with pytest.raises(UserError, match="path.csv is not a path: .*no length"):
        reconstruct.run(linear(run=run, output=output, trajectory=path))


def test_runs_that_cannot_be_used_are_refused(tmp_path):
    output = str(tmp_path / "out")
    unfinished, _ = write_synthetic_run(tmp_path / "unfinished", state="running")
    with pytest.raises(UserError, match="is not finished"):
        reconstruct.run(linear(run=str(unfinished.path), output=output, clusters=2))
    empty, _ = write_synthetic_run(tmp_path / "empty", rank=0)
    with pytest.raises(UserError, match="kept no component"):
        reconstruct.run(linear(run=str(empty.path), output=output, clusters=2))
    damaged, _ = write_synthetic_run(tmp_path / "damaged")
    damaged.eigenvolume(2).unlink()
    write_mrc(damaged.eigenvolume(2), np.zeros((8, 8, 8)))
    with pytest.raises(UserError, match="eigenvolume_002.mrc and .*mean.mrc differ in box"):
        reconstruct.run(linear(run=str(damaged.path), output=output, clusters=2))
    assert [path.name for path in Path(output).iterdir()] == ["status.json"]


def test_folder_of_a_call_that_failed_at_once_is_used_by_the_next(fitted, tmp_path):
    run, arrays = fitted
    out = tmp_path / "out"
    for text in ("1,2,3\n", "1,2,3,x\n"):
        with pytest.raises(UserError, match="Row 1"):
            points = table_at(tmp_path / "points.csv", text)
            reconstruct.run(linear(run=str(run.path), output=str(out), points=points))
    points = table_at(tmp_path / "points.csv", "1,2,3,4\n5,6,7,8\n")
    reconstruct.run(linear(run=str(run.path), output=str(out), points=points))
    check_volumes(out, arrays, np.array([[1, 2, 3, 4], [5, 6, 7, 8]]))
    summary = "Mind: Far from all particles, and so extrapolated: states 1, 2 of 2. 2 volumes"
    status = read_status(status_path(out))
    assert (status.state, status.step, status.steps, status.message) == ("finished", 2, 2, summary)
    assert status.pid == os.getpid() and status.version == __version__ and status.peak_memory_mb > 0


def test_output_that_is_not_empty_is_refused_untouched(fitted, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "state_001.mrc").write_bytes(b"precious")
    with pytest.raises(UserError, match="is not empty"):
        reconstruct.run(linear(run=str(fitted[0].path), output=str(output), clusters=2))
    assert [path.read_bytes() for path in output.iterdir()] == [b"precious"]


def test_exactly_one_kind_of_states_is_needed(fitted, tmp_path):
    run: RunDir = fitted[0]
    with pytest.raises(UserError, match="exactly one"):
        reconstruct.run(linear(run=str(run.path), output=str(tmp_path / "out")))
