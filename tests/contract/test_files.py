from __future__ import annotations

import json
import os

import numpy as np
import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import (
    append_csv,
    atomic_path,
    is_temporary,
    prepare_output_folder,
    read_csv,
    read_json,
    write_csv,
    write_json,
)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "mean.mrc"
    target.write_text("old")
    with pytest.raises(RuntimeError):
        with atomic_path(target) as temporary:
            assert is_temporary(temporary) and temporary.parent == target.parent
            temporary.write_text("half")
            raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["mean.mrc"]


def test_temporary_file_is_no_link_to_another(tmp_path):
    (tmp_path / "other").write_text("kept")
    (tmp_path / f".a.json.{os.getpid()}.tmp").symlink_to(tmp_path / "other")
    write_json(tmp_path / "a.json", {"a": 1})
    assert (tmp_path / "other").read_text() == "kept" and read_json(tmp_path / "a.json") == {"a": 1}


def test_absent_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="the folder .*nowhere does not exist"):
        write_json(tmp_path / "nowhere" / "numbers.json", {})


def test_output_folder_is_made_and_must_be_empty(tmp_path):
    folder = prepare_output_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert prepare_output_folder(folder) == folder
    (folder / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        prepare_output_folder(folder)
    with pytest.raises(UserError, match="is a file"):
        prepare_output_folder(folder / "note.txt")
    with pytest.raises(UserError, match="part of its path is a file"):
        prepare_output_folder(folder / "note.txt" / "below")


def test_json_knows_numpy_and_has_no_nan(tmp_path):
    path = tmp_path / "numbers.json"
    content = {"a": np.float32(0.5), "b": np.nan, "c": np.arange(2), "d": (1, None), "e": np.bool_(True)}
    write_json(path, content)
    assert read_json(path) == {"a": 0.5, "b": None, "c": [0, 1], "d": [1, None], "e": True}
    path.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(path)
    path.write_text(json.dumps([1]))
    with pytest.raises(UserError, match="JSON object"):
        read_json(path)


def test_csv_round_trip_is_exact(tmp_path):
    path = tmp_path / "table.csv"
    numbers = np.array([0.1, np.nan, 1e-300])
    singles = np.array([0.1, 2.0, 3e8], dtype=np.float32)
    write_csv(path, {"row": [0, 1, 2], "x": numbers, "y": singles, "label": ["a, b", 'say "c"', ""]})
    table = read_csv(path)
    assert list(table) == ["row", "x", "y", "label"]
    np.testing.assert_array_equal(table["x"], numbers)
    np.testing.assert_array_equal(table["y"].astype(np.float32), singles)
    assert path.read_text().splitlines()[1].startswith("0,0.1,0.1,")
    assert table["label"].tolist() == ["a, b", 'say "c"', ""]


def test_csv_without_rows(tmp_path):
    write_csv(tmp_path / "empty.csv", {"component": [], "label": []})
    table = read_csv(tmp_path / "empty.csv")
    assert list(table) == ["component", "label"] and len(table["component"]) == 0


def test_bad_tables_are_named(tmp_path):
    path = tmp_path / "points.csv"
    with pytest.raises(UserError, match="does not exist"):
        read_csv(path)
    path.write_text("")
    with pytest.raises(UserError, match="empty"):
        read_csv(path)
    path.write_text("z_1,z_2\n1,2\n3\n")
    with pytest.raises(UserError, match=r"Row 2 of .*points.csv has 1 cells, its header 2"):
        read_csv(path)
    with pytest.raises(ValueError, match="differ in length"):
        write_csv(path, {"a": [1], "b": [1, 2]})


def test_append_repairs_a_line_cut_short(tmp_path):
    path = tmp_path / "metrics.csv"
    append_csv(path, {"iteration": 1, "stage": "mean", "seconds": 0.5})
    append_csv(path, {"iteration": 2, "stage": "mean", "seconds": None})
    with open(path, "a") as stream:
        stream.write("3,me")
    append_csv(path, {"iteration": 3, "stage": "covariance", "seconds": 1.5})
    table = read_csv(path)
    assert table["iteration"].tolist() == [1, 2, 3]
    assert table["stage"].tolist() == ["mean", "mean", "covariance"]
    assert np.isnan(table["seconds"][1])
    with pytest.raises(ValueError, match="other columns"):
        append_csv(path, {"iteration": 4})
