"""Round trips of STAR files as programs and people write them: blanks, quotes, comments, lists, several blocks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import starfile

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarFile

COLUMNS = ("rlnImageName", "rlnMicrographName", "rlnAngleRot", "rlnOpticsGroup")
OPTICS = ("rlnOpticsGroup", "rlnOpticsGroupName", "rlnVoltage")
LINE_ENDS = ("\n", "\r\n")


@dataclasses.dataclass
class Variant:
    """A STAR file in some layout, with what it says."""

    text: str
    cells: list[list[str]]
    optics: list[list[str]]


def variant(seed: int) -> Variant:
    """Write ten particles in a layout that the seed chooses."""
    random = np.random.default_rng(seed)
    names = ("mic 01.mrc", "mic_2.mrc", "5'-end", "a\u00a0b", "Zoë.mrc", "data_3")
    cells = [
        [f"{row + 1:06d}@a.mrcs", str(random.choice(names)), f"{random.normal():.6f}", str(random.integers(1, 3))]
        for row in range(10)
    ]
    optics = [["1", "opticsGroup1", "300.00"], ["2", "group two", "2e2"]]
    end = str(random.choice(LINE_ENDS))

    def quoted(cell: str) -> str:
        must = " " in cell or "'" in cell
        mark = '"' if "'" in cell else str(random.choice(["'", '"']))
        return f"{mark}{cell}{mark}" if must or random.random() < 0.2 else cell

    def row_of(row: list[str], comments: bool) -> str:
        line = str(random.choice(["", "  "])) + str(random.choice([" ", "\t", "   "])).join(map(quoted, row))
        line += str(random.choice(["", " ", "\t  "]))
        if comments and random.random() < 0.3:
            line += str(random.choice(["  # from the second session", " # 'left open", ' #x "']))
        return line

    def block(name: str, columns: tuple[str, ...], rows: list[list[str]]) -> list[str]:
        numbered, trailing = random.random() < 0.7, str(random.choice(["", " "]))
        labels = [f"_{column}{f' #{n}' if numbered else ''}{trailing}" for n, column in enumerate(columns, start=1)]
        body = [row_of(row, True) for row in rows]
        if body and random.random() < 0.5:
            body[3:3] = ["# a comment between rows", ""] if len(body) > 3 else []
        return ["", "# version 30001", "", f"data_{name}", "", "loop_ ", *labels, *body, ""]

    as_list = random.random() < 0.3
    if as_list:
        optics = optics[:1]
        for row in cells:
            row[3] = "1"
        values = zip(OPTICS, optics[0], strict=True)
        first = ["data_optics", "", *(f"_{column}\t\t{quoted(cell)}  # a unit" for column, cell in values), ""]
    else:
        first = block("optics", OPTICS, optics)
    last = block("particles", COLUMNS, cells)
    empty = block("selection", ("rlnNothing", "rlnMore"), [])
    parts = [first, last, empty]
    lines = sum((parts[place] for place in random.permutation(3)), [])
    return Variant(end.join(lines) + end * int(random.integers(0, 3)), cells, optics)


def rows_of(table) -> list[list[str]]:
    return [list(row) for row in zip(*(table.text(column) for column in table.columns), strict=True)]


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_read_is_written_so_that_all_can_read_it(seed, tmp_path):
    expected = variant(seed)
    (tmp_path / "in.star").write_bytes(expected.text.encode())
    star = StarFile.read(tmp_path / "in.star")
    assert rows_of(star.particles) == expected.cells and star.optics is not None
    assert rows_of(star.optics) == expected.optics
    added = {"solvarOutlier": np.arange(10) % 2, "solvarContrast": np.linspace(0.5, 1.5, 10)}
    added["rlnAngleRot"] = np.arange(10.0)
    star.replace(star.particles, star.particles.with_columns(added)).write(tmp_path / "out.star")
    again = StarFile.read(tmp_path / "out.star")
    cells = rows_of(again.particles)
    changed = [[*row[:2], f"{number}", row[3]] for number, row in enumerate(expected.cells)]
    assert [row[:4] for row in cells] == changed and rows_of(again.optics) == expected.optics
    assert [float(row[4]) for row in cells] == (np.arange(10) % 2).tolist()
    np.testing.assert_allclose([float(row[5]) for row in cells], added["solvarContrast"])
    # and once more, so that nothing is added behind a comment that was kept
    more = again.particles.with_columns({"solvarMore": np.arange(10)})
    again.replace(again.particles, more).write(tmp_path / "2.star")
    assert StarFile.read(tmp_path / "2.star").particles.integers("solvarMore").tolist() == list(range(10))


@pytest.mark.parametrize("seed", range(20))
def test_the_library_starfile_reads_what_is_written(seed, tmp_path):
    expected = variant(seed)
    (tmp_path / "in.star").write_bytes(expected.text.replace("\u00a0", "_").encode())
    star = StarFile.read(tmp_path / "in.star")
    more = star.particles.with_columns({"solvarOutlier": np.arange(10)})
    star.replace(star.particles, more).write(tmp_path / "out.star")
    tables = starfile.read(tmp_path / "out.star", always_dict=True)
    assert tables["particles"]["solvarOutlier"].tolist() == list(range(10))
    assert tables["particles"]["rlnImageName"].tolist() == [row[0] for row in expected.cells]
    np.testing.assert_allclose(tables["particles"]["rlnAngleRot"], [float(row[2]) for row in expected.cells])


def loop(name: str, columns: dict[str, list[object]]) -> str:
    rows = zip(*columns.values(), strict=True)
    lines = [f"data_{name}", "loop_", *(f"_{column}" for column in columns), *(" ".join(map(str, row)) for row in rows)]
    return "\n".join(lines) + "\n\n"


def particles(first: int, count: int = 2, **more: list[object]) -> dict[str, list[object]]:
    return {"rlnImageName": [f"{first + row}@a" for row in range(count)], "rlnOpticsGroup": [1] * count, **more}


GROUP = {"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["g"], "rlnVoltage": [300]}


def parse(*blocks: str) -> StarFile:
    return StarFile.parse("".join(blocks).splitlines(), "joined.star")


@pytest.mark.parametrize("names",
    [("particles",) * 3, ("", "", ""), ("mic_1", "mic_2", "mic_3"), ("particles", "", "x")],
)
@pytest.mark.parametrize("optics", [0, 1, 3])
def test_blocks_of_one_table_are_joined(names, optics, tmp_path):
    blocks = [loop("optics", GROUP)] * optics + [loop(name, particles(3 * n)) for n, name in enumerate(names)]
    star = parse(*blocks)
    assert star.particles.text("rlnImageName") == ["0@a", "1@a", "3@a", "4@a", "6@a", "7@a"]
    assert (star.optics is None) == (optics == 0) and (star.optics is None or len(star.optics) == 1)
    star.write(tmp_path / "out.star")
    again = StarFile.read(tmp_path / "out.star")
    assert len(again.tables) == 1 + (optics > 0) and len(again.particles) == 6
    if optics:
        assert again.particles.name == "particles"


def test_columns_in_another_order_are_joined():
    turned = dict(reversed(particles(5, rlnMicrographName=["'a b'", "c"]).items()))
    star = parse(loop("particles", particles(1, rlnMicrographName=["x", "y"])), loop("particles", turned))
    assert star.particles.text("rlnMicrographName") == ["x", "y", "a b", "c"]
    assert star.particles.text("rlnImageName") == ["1@a", "2@a", "5@a", "6@a"]


def test_optics_groups_of_both_files_are_kept():
    second = {"rlnOpticsGroup": [2], "rlnOpticsGroupName": ["h"], "rlnVoltage": [200]}
    star = parse(loop("optics", GROUP), loop("particles", particles(1)), loop("optics", second), loop("optics", GROUP))
    assert star.optics is not None and star.optics.integers("rlnVoltage").tolist() == [300, 200]


def test_repeated_lists_of_optics_become_one():
    listed = "data_optics\n_rlnOpticsGroup 1\n_rlnVoltage 300\n\n"
    star = parse(listed, loop("particles", particles(1)), listed, loop("particles", particles(3)))
    assert len(star.optics) == 1 and len(star.particles) == 4
    other = parse(listed, listed.replace("Group 1", "Group 2"), loop("particles", particles(1)))
    assert other.optics.integers("rlnOpticsGroup").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("blocks", "text"),
    [
        (
            [loop("particles", particles(1)), loop("particles", particles(3, rlnMicrographName=["m", "m"]))],
            "2 tables that should be one, .* but column rlnMicrographName is only in one",
        ),
        (
            [loop("optics", GROUP), loop("optics", {**GROUP, "rlnVoltage": [200]}), loop("particles", particles(1))],
            "Optics group 1 is in rows 1 and 2 of data_optics",
        ),
        ([loop("optics", {"rlnOpticsGroup": [3, 3], "rlnVoltage": [1, 2]})], "Optics group 3 is in rows 1 and 2"),
        (["data_optics\n_rlnVoltage 300\n_rlnVoltage 200\n"], "Column rlnVoltage appears twice in data_optics"),
        (["data_particles\nloop_\n_rlnImageName\n_rlnImageName\n1 1\n"], "Column rlnImageName appears twice"),
    ],
)
def test_what_cannot_be_one_table_is_refused(blocks, text):
    with pytest.raises(UserError, match=text):
        parse(*blocks)
