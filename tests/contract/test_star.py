# ruff: noqa: W291, W293
from __future__ import annotations

import numpy as np
import pytest
import starfile

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarFile, StarTable

RELION_31 = """
# version 30001

data_optics

loop_ 
_rlnOpticsGroup #1 
_rlnOpticsGroupName #2 
_rlnVoltage #3 
           1 opticsGroup1   300.000000 
           2 'optics group 2'   200.000000 
 

# version 30001

data_particles

loop_ 
_rlnImageName #1 
_rlnAngleRot #2 
_rlnNote #3 
_rlnOpticsGroup #4 
0001@a.mrcs   3.1e-09  "it's here" 1 
0002@a.mrcs  -170.250   5'-end   2 
 
"""


def read(tmp_path, text: str) -> StarFile:
    path = tmp_path / "input.star"
    path.write_text(text)
    return StarFile.read(path)


def test_unchanged_file_is_written_to_the_letter(tmp_path):
    read(tmp_path, RELION_31).write(tmp_path / "output.star")
    assert (tmp_path / "output.star").read_text() == RELION_31


def test_tables_columns_and_cells(tmp_path):
    star = read(tmp_path, RELION_31)
    assert [table.name for table in star.tables] == ["optics", "particles"]
    assert star.optics.text("rlnOpticsGroupName") == ["opticsGroup1", "optics group 2"]
    assert star.particles.text("rlnImageName") == ["0001@a.mrcs", "0002@a.mrcs"]
    assert star.particles.text("rlnNote") == ["it's here", "5'-end"]
    np.testing.assert_array_equal(star.particles.numbers("rlnAngleRot")["rlnAngleRot"], [3.1e-9, -170.25])
    np.testing.assert_array_equal(star.particles.integers("rlnOpticsGroup"), [1, 2])


def test_changed_and_added_columns_leave_every_other_cell_alone(tmp_path):
    star = read(tmp_path, RELION_31)
    table = star.particles.with_columns({"rlnAngleRot": np.array([1.5, -2.0]), "solvarContrast": [1.25, 0.5]})
    star.replace(star.particles, table).write(tmp_path / "output.star")
    lines = (tmp_path / "output.star").read_text().splitlines()
    assert "0001@a.mrcs   1.5  \"it's here\" 1 1.25" in lines
    assert "0002@a.mrcs  -2   5'-end   2 0.5" in lines
    assert "_solvarContrast #5 " in lines
    again = StarFile.read(tmp_path / "output.star").particles
    np.testing.assert_array_equal(again.numbers("solvarContrast")["solvarContrast"], [1.25, 0.5])
    # the table that was read has not changed
    assert "solvarContrast" not in star.particles
    assert star.particles.text("rlnAngleRot") == ["3.1e-09", "-170.250"]


def test_chunks_join_seamlessly(tmp_path):
    count = 20_000
    table = StarTable.create("particles", {"rlnImageName": [f"{row}@a" for row in range(count)]})
    table = table.with_columns({"value": np.arange(count)}).with_columns({"value": np.arange(count)[::-1]})
    StarFile((table,)).write(tmp_path / "output.star")
    again = StarFile.read(tmp_path / "output.star").particles
    np.testing.assert_array_equal(again.integers("value"), np.arange(count)[::-1])
    assert again.text("rlnImageName")[12_345] == "12345@a"


def test_single_precision_survives_the_round_trip(tmp_path):
    values = np.random.default_rng(0).normal(size=100).astype(np.float32) * 1e5
    table = StarTable.create("particles", {"rlnImageName": ["1@a"] * 100, "value": values})
    StarFile((table,)).write(tmp_path / "output.star")
    again = StarFile.read(tmp_path / "output.star").particles.numbers("value")["value"]
    np.testing.assert_array_equal(again.astype(np.float32), values)


def test_columns_that_are_taken_out_leave_every_other_cell_alone(tmp_path):
    lines = ["data_particles", "", "loop_", "_rlnImageName #1", "_solvarOutlier #2", "_rlnAngleRot #3"]
    path = tmp_path / "list.star"
    path.write_text("\n".join([*lines, "'1@a b.mrcs' 1 1.50", "2@c.mrcs 0 -0.10 # end", ""]))
    star = StarFile.read(path)
    left = star.particles.without(["solvarOutlier", "rlnClassNumber"])
    star.replace(star.particles, left).write(tmp_path / "left.star")
    table = StarFile.read(tmp_path / "left.star").particles
    assert table.columns == ("rlnImageName", "rlnAngleRot")
    assert table.text("rlnImageName") == ["1@a b.mrcs", "2@c.mrcs"]
    assert [row.split()[-1] for row in table.rows] == ["1.50", "-0.10"]
    assert [line.split() for line in left.header if line.startswith("_")] == [
        ["_rlnImageName", "#1"], ["_rlnAngleRot", "#2"],
    ]  # fmt: skip
    assert star.particles.without(["rlnClassNumber"]) is star.particles


def test_lists_comments_and_columns_without_numbers(tmp_path):
    star = read(
        tmp_path,
        "# Created by hand\ndata_general # settings\n_rlnA 5\n# a comment\n_rlnB 'two words'\n\n"
        "data_\nloop_\n_rlnImageName\n_rlnAngleRot\n# between\n1@x.mrcs 1 # first\n\n2@x.mrcs 2\n",
    )
    general = star.get("general")
    assert len(general) == 1 and general.text("rlnB") == ["two words"]
    assert general.numbers("rlnA")["rlnA"].tolist() == [5.0]
    assert star.particles.name == "" and star.particles.text("rlnAngleRot") == ["1", "2"]
    star.write(tmp_path / "output.star")
    again = StarFile.read(tmp_path / "output.star")
    assert again.get("general").text("rlnB") == ["two words"] and len(again.particles) == 2
    added = star.particles.with_columns({"new": [3, 4]})
    assert added.header[-1] == "_new"


def test_a_cell_may_begin_like_a_block(tmp_path):
    star = read(tmp_path, "data_particles\nloop_\n_rlnMicrographName\n_rlnImageName\ndata_2/m.mrc 1@a.mrcs\n")
    assert star.particles.text("rlnMicrographName") == ["data_2/m.mrc"]


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    path = tmp_path / "input.star"
    path.write_bytes(b"\xef\xbb\xbfdata_particles\r\nloop_\r\n_rlnImageName\r\n1@\xff.mrcs\r\n")
    table = StarFile.read(path).particles
    StarFile.read(path).write(tmp_path / "output.star")
    assert len(table) == 1
    assert b"1@\xff.mrcs\n" in (tmp_path / "output.star").read_bytes()


def test_older_files_name_their_particles_otherwise(tmp_path):
    assert read(tmp_path, "data_images\nloop_\n_rlnImageName\n1@a\n").particles.name == "images"


def test_starfile_reads_what_we_write_and_the_reverse(tmp_path):
    columns = {
        "rlnImageName": ["1@a.mrcs", "2@a b.mrcs"],
        "rlnAngleRot": [1.5, -2.25],
        "rlnRandomSubset": [1, 2],
    }
    optics = StarTable.create("optics", {"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["g"]})
    StarFile((optics, StarTable.create("particles", columns))).write(tmp_path / "ours.star")
    theirs = starfile.read(tmp_path / "ours.star", always_dict=True)
    assert theirs["particles"]["rlnImageName"].tolist() == columns["rlnImageName"]
    assert theirs["particles"]["rlnAngleRot"].tolist() == columns["rlnAngleRot"]

    starfile.write(theirs, tmp_path / "theirs.star")
    ours = StarFile.read(tmp_path / "theirs.star")
    assert ours.particles.text("rlnImageName") == columns["rlnImageName"]
    assert ours.particles.integers("rlnRandomSubset").tolist() == [1, 2]
    assert ours.optics.text("rlnOpticsGroupName") == ["g"]


@pytest.mark.parametrize(
    "name",
    [
        "FinalRefinement-OriginalParticles-PfCRT.star",
        "empiar_10076_7.star",
        "relion31.6opticsgroups.star",
        "relion31.star",
        "relion5.star",
    ],
)
def test_real_files_survive_and_agree_with_starfile(name, shared_data, tmp_path):
    source = shared_data / "metadata" / name
    star = StarFile.read(source)
    star.write(tmp_path / name)
    assert (tmp_path / name).read_bytes() == source.read_bytes()
    theirs = starfile.read(source, always_dict=True)
    assert sorted(theirs) == sorted(table.name for table in star.tables)
    for table in star.tables:
        frame = theirs[table.name]
        assert list(frame.columns) == list(table.columns)
        for column in table.columns:
            if frame[column].dtype.kind in "if":
                np.testing.assert_array_equal(table.numbers(column)[column], frame[column])
            else:
                assert table.text(column) == frame[column].astype(str).tolist()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty"),
        (b"  \n\n", "is empty"),
        (b"hello\nworld\n", "is not a STAR file: line 1"),
        (b"# only a comment\n", "is not a STAR file: it has no line that begins with data_"),
        (b"data_x\njust words\n", "is not a STAR file: line 2"),
        (b"\x93NUMPY\x01\x00v\x00", "is a cryoSPARC file"),
        (bytes(208) + b"MAP " + bytes(812), "is an MRC file"),
        (b"\x00\x01\x02", "is a binary file"),
        (b"data_a\nloop_\n1 2\n", "a row before any column name"),
        (b"data_a\nloop_\n_x\n1\nloop_\n_y\n", "has two loops in one block"),
        (b"data_a\nloop_\n_x\n_x\n1 1\n", "Column x appears twice"),
    ],
)
def test_other_files_are_refused(content, text, tmp_path):
    path = tmp_path / "input.star"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        StarFile.read(path)
    assert text in str(error.value) and str(path) in str(error.value)


def test_absent_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        StarFile.read(tmp_path / "no.star")
    with pytest.raises(UserError, match="is not a file"):
        StarFile.read(tmp_path)


def test_cryosparc_file_is_recognised(shared_data):
    with pytest.raises(UserError, match="is a cryoSPARC file"):
        StarFile.read(shared_data / "metadata" / "empiar_10076_7.cs")


def test_file_without_image_names(tmp_path):
    star = read(tmp_path, "data_micrographs\nloop_\n_rlnMicrographName\nm.mrc\n")
    with pytest.raises(UserError, match=r"column rlnImageName is missing .*data_micrographs"):
        star.particles  # noqa: B018


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("abc", "'abc' in row 2, column x, of data_particles in .* is not a number: correct the cell or"),
        ("nan", "'nan' in row 2, column x, of .* is not a finite number"),
        ("inf", "is not a finite number"),
        ("2 3", "Row 2 of data_particles in .* has 3 cells for 2 columns"),
        ("", "Row 2 of data_particles in .* has 1 cells for 2 columns"),
    ],
)
def test_bad_cells_are_named(cell, text, tmp_path):
    star = read(tmp_path, f"data_particles\nloop_\n_rlnImageName\n_x\n1@a 1\n2@a {cell}\n")
    with pytest.raises(UserError, match=text):
        star.particles.numbers("x")


def test_columns_of_words_are_named_as_a_whole(tmp_path):
    star = read(tmp_path, "data_particles\nloop_\n_rlnImageName\n_x\n1@a one\n2@a two\n")
    with pytest.raises(UserError, match="'one' in row 1, column x, .* is not a number: correct the column, all of it"):
        star.particles.numbers("x")


def test_bad_requests_are_named(tmp_path):
    table = read(tmp_path, RELION_31).particles
    with pytest.raises(UserError, match="Column rlnX is missing from data_particles"):
        table.numbers("rlnX")
    with pytest.raises(UserError, match="'-170.25' in row 2.* is not a whole number|'3.1e-09' in row 1"):
        table.integers("rlnAngleRot")
    with pytest.raises(ValueError, match="1 values for 2 rows"):
        table.with_columns({"new": [1]})
