from __future__ import annotations

import fcntl
import json
import os
import threading

import numpy as np
import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import file_digest
from solvar_engine.contract.results import Latents, write_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.selections import (
    PARTICLES,
    PATH,
    POINTS,
    Selection,
    check_name,
    read_selection,
    selection_names,
    write_selection,
)


@pytest.fixture
def run(tmp_path) -> RunDir:
    folder = RunDir(tmp_path / "run")
    folder.path.mkdir()
    write_latents(folder.latents, Latents(np.zeros((9, 2)), np.zeros((9, 2, 2)), np.ones(9)))
    return folder


def stored(run: RunDir, name: str, kind: str, values: object, **made_with: object) -> None:
    write_selection(run, Selection(name, kind, np.array(values), file_digest(run.latents), made_with))


def test_particles_come_back_as_they_were_stored(run) -> None:
    stored(run, "right arm", PARTICLES, [0, 3, 8], tool="lasso", axes=["z_1", "umap_2"], polygon=[0.5, 1, 2])
    found = read_selection(run, "right arm")
    assert (found.kind, found.values.tolist()) == (PARTICLES, [0, 3, 8])
    assert found.made_with == {"tool": "lasso", "axes": ["z_1", "umap_2"], "polygon": [0.5, 1, 2]}
    assert run.selection_table("right arm").read_text() == "row\n0\n3\n8\n"
    header = json.loads(run.selection("right arm").read_text())
    assert header["latents_sha256"] == file_digest(run.latents)
    assert (header["version"], header["count"]) == (1, 3)


def test_table_of_points_is_one_that_reconstruct_reads(run) -> None:
    stored(run, "way", PATH, [[0.25, -1.5], [1.0, 2.0]])
    assert run.selection_table("way").read_text() == "z_1,z_2\n0.25,-1.5\n1.0,2.0\n"
    assert read_selection(run, "way", (POINTS, PATH)).values.tolist() == [[0.25, -1.5], [1.0, 2.0]]


def test_names_are_listed_by_kind(run) -> None:
    assert selection_names(run) == []
    stored(run, "b", PARTICLES, [1])
    stored(run, "a", PATH, [[0.0, 0.0]])
    stored(run, "c", POINTS, [[0.0, 0.0]])
    assert selection_names(run) == ["a", "b", "c"]
    assert selection_names(run, (PATH, POINTS)) == ["a", "c"]


def test_same_name_replaces_what_was_stored(run) -> None:
    stored(run, "a", PATH, [[0.0, 0.0]])
    stored(run, "a", PARTICLES, [4])
    assert read_selection(run, "a").values.tolist() == [4]
    assert sorted(path.name for path in run.selections.iterdir()) == ["a.csv", "a.json"]


def test_selection_of_another_run_is_refused(run) -> None:
    stored(run, "a", PARTICLES, [1])
    write_latents(run.latents, Latents(np.ones((9, 2)), np.zeros((9, 2, 2)), np.ones(9)))
    with pytest.raises(
        UserError, match="The selection a was made on the latents of another run than those in"
    ):
        read_selection(run, "a")


@pytest.mark.parametrize(
    ("kind", "damage", "sentence"),
    [
        (PARTICLES, ("csv", "row\n1\n"), "has 1 rows, but .* says 2"),
        (PARTICLES, ("csv", "row\n1\n2.5\n"), "no whole number"),
        (PARTICLES, ("csv", "row\n1\n-2\n"), "no whole number"),
        (PARTICLES, ("csv", "line\n1\n2\n"), "has no column row"),
        (PARTICLES, ("json", "{}"), "is not a selection"),
        (PARTICLES, ("json", "[1"), "not valid JSON"),
        (PARTICLES, ("csv", "row\n1\n1e300\n"), "no whole number"),
        (PARTICLES, ("csv", "row\n"), "holds nothing"),
        (PARTICLES, ("csv", "row\n1\n9\n"), "has row 9, but the run has 9"),
        (PARTICLES, ("json", "[" * 100_000), "not valid JSON"),
        (PARTICLES, ("json", '{"version": "1", "kind": "particles", "count": 2, "latents_sha256": ""}'), "not a sel"),
        (PARTICLES, ("json", '{"version": 1, "kind": ["particles"], "count": 2, "latents_sha256": ""}'), "not a sel"),
        (POINTS, ("csv", "x\n1\n2\n"), "has no column z_1"),
        (POINTS, ("csv", "z_2,z_1\n1,2\n3,4\n"), "in this order"),
        (POINTS, ("csv", "z_1,z_2\n1,\n3,4\n"), "something else than the numbers"),
        (POINTS, ("csv", "z_1,z_2\n1,a\n3,4\n"), "something else than the numbers"),
    ],
)
def test_damaged_selection_is_one_sentence(run, kind, damage, sentence) -> None:
    stored(run, "a", kind, [1, 2] if kind == PARTICLES else [[1.0, 2.0], [3.0, 4.0]])
    suffix, text = damage
    (run.selections / f"a.{suffix}").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_selection(run, "a", particles=9)


def test_names_that_differ_in_capitals_only_are_refused(run) -> None:
    stored(run, "Left", PARTICLES, [1])
    stored(run, "Left", PARTICLES, [2])
    with pytest.raises(UserError, match="There is a selection Left already"):
        stored(run, "left", PARTICLES, [3])
    assert selection_names(run) == ["Left"]


def test_newer_format_wrong_kind_unknown_name_and_nothing_are_refused(run) -> None:
    stored(run, "a", PATH, [[0.0, 0.0]])
    with pytest.raises(UserError, match="holds path, but particles are needed"):
        read_selection(run, "a", (PARTICLES,))
    with pytest.raises(UserError, match="has no selection 'b'; there are: a"):
        read_selection(run, "b")
    with pytest.raises(UserError, match="holds nothing"):
        stored(run, "c", PARTICLES, [])
    header = json.loads(run.selection("a").read_text())
    run.selection("a").write_text(json.dumps({**header, "version": 2}))
    with pytest.raises(UserError, match="has format 2"):
        read_selection(run, "a")


@pytest.mark.parametrize("name", ["a", "A 1_b-c", "x.y", "9", "a" * 64, "console"])
def test_names_that_files_can_have(name) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../a",
        "a/b",
        "a\\b",
        ".a",
        "-a",
        " a",
        "a ",
        "a.",
        "a..b",
        "a\n",
        "a\0",
        "é",
        "a" * 65,
        "CON",
        "nul.x",
        None,
    ],
)
def test_names_that_files_cannot_have(run, name) -> None:
    with pytest.raises(UserError, match="cannot be the name of a selection"):
        check_name(name)


@pytest.mark.parametrize("folder", ["analysis", "analysis/selections"])
def test_nothing_is_made_behind_a_link(run, tmp_path, folder) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = run.path / folder
    link.parent.mkdir(exist_ok=True)
    for target in ("elsewhere", "nowhere"):
        link.symlink_to(tmp_path / target)
        with pytest.raises(UserError, match="is a link, which is not followed"):
            stored(run, "a", PARTICLES, [1])
        link.unlink()
    assert list((tmp_path / "elsewhere").iterdir()) == [] and not (tmp_path / "nowhere").exists()


def test_links_are_not_followed(run, tmp_path) -> None:
    stored(run, "a", PARTICLES, [1, 2])
    secret = tmp_path / "secret.csv"
    secret.write_text("row\n1\n2\n")
    run.selection_table("a").unlink()
    run.selection_table("a").symlink_to(secret)
    with pytest.raises(UserError, match="no selection 'a'"):
        read_selection(run, "a")
    stored(run, "a", PARTICLES, [5])  # takes the place of the link, not of what it leads to
    assert secret.read_text() == "row\n1\n2\n"
    run.selections.rename(tmp_path / "elsewhere")
    run.selections.symlink_to(tmp_path / "elsewhere")
    assert selection_names(run) == []
    with pytest.raises(UserError, match="is a link"):
        stored(run, "b", PARTICLES, [5])


def test_two_programs_that_store_at_once_take_turns(run) -> None:
    stored(run, "arm", PARTICLES, [1, 2])
    other = os.open(run.selections, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    writer = threading.Thread(target=stored, args=(run, "arm", PARTICLES, [3]), daemon=True)
    writer.start()
    writer.join(0.2)
    assert writer.is_alive() and read_selection(run, "arm").values.tolist() == [1, 2]
    os.close(other)
    writer.join(10)
    assert read_selection(run, "arm").values.tolist() == [3]
