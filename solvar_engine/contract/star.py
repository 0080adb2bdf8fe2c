"""RELION's STAR files, read and written so that every cell that is not changed survives to the letter.

A row stays the line of text that it was; columns are parsed when asked for, and writing splices changed cells
into the old lines. That keeps `0001` and `3.1e-09` as they are, needs less than 1 kB per particle, and reads
a million rows in seconds.
"""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Sequence

import numpy as np

from solvar_engine.contract.angles import relion_to_rotation, rotation_to_relion
from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import atomic_path

__all__ = ["StarFile", "StarTable", "relion_to_rotation", "rotation_to_relion"]

_ROWS_PER_CHUNK = 8192
_IMAGE_NAME, _GROUP, _OPTICS, _PARTICLES = "rlnImageName", "rlnOpticsGroup", "optics", "particles"
# a quoted cell ends at a quote before a blank, so that 5'-end needs no quotes; a cell in quotes loses them
_CELL = re.compile(r"""'(?:[^']|'(?=\S))*'(?=\s|$)|"(?:[^"]|"(?=\S))*"(?=\s|$)|\S+""", re.ASCII)
# names of cells survive whatever bytes they hold
_ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}


@dataclass(frozen=True)
class StarTable:
    """One block of a STAR file: a loop, or a list of names with one value each (then it has one row).

    Attributes
    ----------
    name : str
        ``particles`` for ``data_particles``.
    columns : tuple of str
        Names without the leading underscore.
    rows : sequence of str
        The lines, each of one row.
    header : tuple of str
        The lines from the end of the previous block to the last column name.
    is_loop : bool
    source : str
        File for error messages.
    """

    name: str
    columns: tuple[str, ...]
    rows: Sequence[str]
    header: tuple[str, ...]
    is_loop: bool = True
    source: str = ""

    @classmethod
    def create(cls, name: str, columns: Mapping[str, Sequence[Any]]) -> StarTable:
        """Make a loop from values.

        Parameters
        ----------
        name : str
            ``particles`` for ``data_particles``.
        columns : mapping of str to sequence
            Values by column name, all of one length; floats are written with nine significant digits.

        Examples
        --------
        >>> StarTable.create("optics", {"rlnOpticsGroup": [1], "rlnVoltage": [300.0]}).rows
        ['1 300']
        """
        cells = [_format_all(values) for values in columns.values()]
        labels = [f"_{column} #{number}" for number, column in enumerate(columns, start=1)]
        header = ("", "# version 30001", "", f"data_{name}", "", "loop_", *labels)
        return cls(name, tuple(columns), [" ".join(row) for row in zip(*cells)], header)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, column: object) -> bool:
        return column in self.columns

    def text(self, column: str) -> list[str]:
        """Return one column as text, without quotes.

        Raises
        ------
        UserError
            If the column is absent or a row has too few or too many cells.
        """
        return list(self.cells(column))

    def cells(self, column: str) -> Iterator[str]:
        """Yield the cells of one column as `text` returns them, without holding them all."""
        position = self._position(column)
        for chunk in self._chunks():
            for cells in chunk:
                yield cells[position]

    def numbers(self, *columns: str) -> dict[str, np.ndarray]:
        """Return columns as numbers, in one pass over the rows.

        Returns
        -------
        dict of str to ndarray, shape (rows,), float64

        Raises
        ------
        UserError
            If a column is absent, a row has too few or too many cells, or a cell is not a finite number; row,
            column and value are named.
        """
        positions = {column: self._position(column) for column in columns}
        result = {column: np.empty(len(self)) for column in columns}
        start = 0
        for chunk in self._chunks():
            for column, position in positions.items():
                cells = [row[position] for row in chunk]
                result[column][start : start + len(chunk)] = self._parse(cells, column, start)
            start += len(chunk)
        return result

    def integers(self, column: str) -> np.ndarray:
        """Return a column as whole numbers, shape (rows,), int64; otherwise as `numbers`."""
        values = self.numbers(column)[column]
        fractional = np.flatnonzero(values != np.round(values))
        if len(fractional):
            raise self._bad_cell(int(fractional[0]), column, f"{values[fractional[0]]:g}", "a whole number")
        return values.astype(np.int64)

    def with_columns(self, columns: Mapping[str, Sequence[Any]]) -> StarTable:
        """Return a table with columns replaced or, at the right, added; every other cell keeps its text.

        Parameters
        ----------
        columns : mapping of str to sequence of length rows
            Numbers or text; floats are written with nine significant digits.

        Raises
        ------
        ValueError
            If a column has another length than the table.
        """
        for column, values in columns.items():
            if len(values) != len(self):
                raise ValueError(f"column {column} has {len(values)} values for {len(self)} rows")
        added = [column for column in columns if column not in self]
        changed = {self.columns.index(column): columns[column] for column in columns if column in self}
        rows = []
        for start in range(0, len(self), _ROWS_PER_CHUNK):
            chunk = slice(start, start + _ROWS_PER_CHUNK)
            new_cells = {position: _format_all(values[chunk]) for position, values in changed.items()}
            tails = list(zip(*(_format_all(columns[column][chunk]) for column in added)))
            for index, line in enumerate(self.rows[chunk]):
                if "#" in line:
                    line = self._line_without_comment(line)
                here = {position: cells[index] for position, cells in new_cells.items()}
                line = _splice(line, here) if here else line
                rows.append(" ".join((line.rstrip(), *tails[index])) if tails else line)
        return dataclasses.replace(
            self,
            columns=self.columns + tuple(added),
            header=self.header + self._new_labels(added),
            rows=rows,
        )

    def without(self, columns: Iterable[str]) -> StarTable:
        """Return a table that lacks some columns, whether it had them or not; every other cell keeps its text."""
        gone = set(columns) & set(self.columns)
        if not gone:
            return self
        kept = tuple(column for column in self.columns if column not in gone)
        places = [self.columns.index(column) for column in kept]
        rows = [" ".join(cells[place] for place in places) for cells in map(_cells_with_quotes, self.rows)]
        labels = tuple(f"_{column} #{number} " for number, column in enumerate(kept, start=1)) if self.is_loop else ()
        header = (*(line for line in self.header if not line.startswith("_")), *labels)
        return dataclasses.replace(self, columns=kept, rows=rows, header=header)

    def only(self, rows: Iterable[int]) -> StarTable:
        """Return a table of some rows, from 0, in the given order."""
        return dataclasses.replace(self, rows=[self.rows[row] for row in rows])

    def lines(self) -> Iterator[str]:
        """Yield the lines of the block as they are written."""
        yield from self.header
        if self.is_loop:
            yield from self.rows
        else:
            for column, cell in zip(self.columns, _cells_with_quotes(" ".join(self.rows))):
                yield f"_{column} {cell}"

    def place(self, row: int, column: str) -> str:
        """Name a cell in a sentence, by row from 1, column, table and file."""
        return f"row {row + 1}, column {column}, of data_{self.name} in {self.source}"

    def _position(self, column: str) -> int:
        if column not in self.columns:
            raise UserError(f"Column {column} is missing from data_{self.name} in {self.source}.")
        return self.columns.index(column)

    def _chunks(self) -> Iterator[list[list[str]]]:
        """Yield the cells of some thousand rows at a time: all at once would take ten times the memory."""
        for start in range(0, len(self), _ROWS_PER_CHUNK):
            chunk = [_split(line) for line in self.rows[start : start + _ROWS_PER_CHUNK]]
            for index, cells in enumerate(chunk):
                if len(cells) != len(self.columns):
                    chunk[index] = self._without_comment(cells, start + index)
            yield chunk

    def _without_comment(self, cells: list[str], row: int) -> list[str]:
        count = len(self.columns)
        if len(cells) > count and cells[count].startswith("#"):
            return cells[:count]
        raise UserError(
            f"Row {row + 1} of data_{self.name} in {self.source} has {len(cells)} cells for {count} columns:"
            " the file is damaged or was cut short."
        )

    def _line_without_comment(self, line: str) -> str:
        """Cut off what stands behind the last cell: cells that are added there must not be part of a comment."""
        for position, match in enumerate(_CELL.finditer(line)):
            if position == len(self.columns):
                return line[: match.start()] if match.group().startswith("#") else line
        return line

    def _parse(self, cells: list[str], column: str, start: int) -> np.ndarray:
        try:
            values = np.array(cells, dtype=np.float64)
        except ValueError:
            wrong = [index for index, cell in enumerate(cells) if not _is_number(cell)]
            if not wrong:
                raise
            is_column = len(wrong) == len(cells) > 1
            raise self._bad_cell(start + wrong[0], column, cells[wrong[0]], "a number", is_column) from None
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise self._bad_cell(start + int(bad[0]), column, cells[bad[0]], "a finite number")
        return values

    def _bad_cell(self, row: int, column: str, cell: str, expected: str, is_column: bool = False) -> UserError:
        remedy = "correct the column, all of it is so" if is_column else "correct the cell or leave out the row"
        return UserError(f"{cell!r} in {self.place(row, column)} is not {expected}: {remedy}.")

    def _new_labels(self, added: list[str]) -> tuple[str, ...]:
        if not self.is_loop:
            return ()
        is_numbered = bool(self.header) and re.search(r"#\d+\s*$", self.header[-1]) is not None
        first = len(self.columns) + 1
        return tuple(
            f"_{column} #{number} " if is_numbered else f"_{column}"
            for number, column in enumerate(added, start=first)
        )


@dataclass(frozen=True)
class StarFile:
    """A STAR file as a sequence of tables.

    Attributes
    ----------
    tables : tuple of StarTable
        In the order of the file.
    source : str
        Where it was read from.
    trailer : tuple of str
        Lines after the last table.

    Examples
    --------
    >>> star = StarFile.read("particles.star")  # doctest: +SKIP
    >>> star.particles.numbers("rlnAngleRot")["rlnAngleRot"]  # doctest: +SKIP
    """

    tables: tuple[StarTable, ...]
    source: str = ""
    trailer: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> StarFile:
        """Read a STAR file: loops and lists, comments, columns with or without numbers, quoted cells.

        Tables of particles in several blocks of the same columns, as after ``cat`` or with a block for each micrograph,
        are joined, and so are repeated tables of optics groups.

        Raises
        ------
        UserError
            If the file is absent, empty or not a STAR file.
        """
        source = os.fspath(path)
        _refuse_other_formats(source)
        with open(source, **_ENCODING) as stream:  # type: ignore[call-overload]
            return cls.parse(stream, source)

    @classmethod
    def parse(cls, lines: Iterable[str], source: str) -> StarFile:
        """Read the lines of a STAR file from anywhere; `source` names the place in error messages.

        Raises
        ------
        UserError
            If the lines are not those of a STAR file.
        """
        parser = _Parser(source)
        parser.feed(lines)
        star = parser.finish()
        return dataclasses.replace(star, tables=_joined(star.tables, source))

    def get(self, name: str) -> StarTable | None:
        """Return the table of that name, None if there is none."""
        return next((table for table in self.tables if table.name == name), None)

    @property
    def optics(self) -> StarTable | None:
        """Table of optics groups (RELION 3.1 and later)."""
        return self.get("optics")

    @property
    def particles(self) -> StarTable:
        """Table of particles: ``data_particles``, or the one with image names in older files.

        Raises
        ------
        UserError
            If there is none.
        """
        candidates = [table for table in self.tables if _IMAGE_NAME in table]
        if len(candidates) == 1:
            return candidates[0]
        names = ", ".join(f"data_{table.name}" for table in self.tables)
        if any(column.startswith("cisTEM") for table in self.tables for column in table.columns):
            raise UserError(
                f"{self.source} is a list of cisTEM, whose columns are others: export the refinement in the format of"
                " RELION, and give the STAR file that has rlnImageName."
            )
        raise UserError(
            f"{self.source} is not a list of particles: column rlnImageName is missing from all its tables"
            f" ({names}); give the particles of a 3-D refinement."
        )

    def replace(self, old: StarTable, new: StarTable) -> StarFile:
        """Return a file with one table replaced by another."""
        tables = tuple(new if table is old else table for table in self.tables)
        return dataclasses.replace(self, tables=tables)

    def text(self) -> str:
        """Return the text of the file; bytes of names that are no text are surrogates."""
        return "".join(line + "\n" for line in self._lines())

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file atomically."""
        with atomic_path(path) as temporary:
            with open(temporary, "w", newline="\n", **_ENCODING) as stream:  # type: ignore[call-overload]
                stream.writelines(line + "\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        """Yield all lines; the library starfile takes a comment behind a loop without rows for a row."""
        is_empty = False
        for lines, ends_empty in (
            *((table.lines(), table.is_loop and not len(table)) for table in self.tables),
            (iter(self.trailer), False),
        ):
            is_before_name = is_empty
            for line in lines:
                is_before_name = is_before_name and not line.startswith("data_")
                if not (is_before_name and line.startswith("#")):
                    yield line
            is_empty = ends_empty


class _Parser:
    """Reads lines one at a time, so that the text of a large file exists only once."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tables: list[StarTable] = []
        self.skipped: list[str] = []  # blank lines and comments since the last line of meaning
        self.header: list[str] = []
        self.columns: list[str] = []
        self.rows: list[str] = []
        self.name: str | None = None
        self.is_loop = False

    def feed(self, lines: Iterable[str]) -> None:
        for number, line in enumerate(lines, start=1):
            line = line.rstrip("\r\n")
            if number == 1:
                line = line.lstrip("\ufeff")
            self._line(line, line.split(None, 2), number)

    def finish(self) -> StarFile:
        if self.name is None:
            raise UserError(f"{self.source} is not a STAR file: it has no line that begins with data_.")
        self._end_table()
        return StarFile(tuple(self.tables), self.source, tuple(self.skipped))

    def _line(self, line: str, start: list[str], number: int) -> None:
        if not start or start[0].startswith("#"):
            self.skipped.append(line)
        elif start[0].startswith("data_") and _is_alone(start):
            self._begin_table(start[0][5:], line)
        elif self.name is None:
            raise UserError(f"{self.source} is not a STAR file: line {number} comes before any data_ block.")
        elif start[0] == "loop_" and _is_alone(start):
            self._begin_loop(line, number)
        elif start[0].startswith("_") and not self.rows and self.is_loop:
            self._add_column(start[0][1:], line)
        elif self.is_loop:
            self._add_row(line, number)
        else:
            self._add_pair(line, number)

    def _begin_table(self, name: str, line: str) -> None:
        if self.name is not None:
            self._end_table()
        self.header = [*self.skipped, line]
        self.skipped, self.columns, self.rows = [], [], []
        self.name, self.is_loop = name, False

    def _begin_loop(self, line: str, number: int) -> None:
        if self.is_loop or self.columns:
            raise UserError(
                f"{self.source} has two loops in one block (line {number}), which RELION does not write."
            )
        self.is_loop = True
        self._keep_in_header(line)

    def _add_column(self, column: str, line: str) -> None:
        if column in self.columns:
            raise UserError(f"Column {column} appears twice in data_{self.name} of {self.source}: leave one out.")
        self.columns.append(column)
        self._keep_in_header(line)

    def _add_row(self, line: str, number: int) -> None:
        if not self.columns:
            raise UserError(f"{self.source} has a row before any column name (line {number}).")
        self.skipped.clear()
        self.rows.append(line)

    def _add_pair(self, line: str, number: int) -> None:
        cells = _cells_with_quotes(line)
        if len(cells) < 2 or not cells[0].startswith("_"):
            raise UserError(f"{self.source} is not a STAR file: line {number} is not a name and its value.")
        if cells[0][1:] in self.columns:
            raise UserError(f"Column {cells[0][1:]} appears twice in data_{self.name} of {self.source}: leave one out.")
        if not self.columns:
            self.header += self.skipped
        self.skipped.clear()
        self.columns.append(cells[0][1:])
        self.rows = [" ".join((*self.rows, cells[1]))]

    def _keep_in_header(self, line: str) -> None:
        self.header += [*self.skipped, line]
        self.skipped.clear()

    def _end_table(self) -> None:
        assert self.name is not None
        columns, header = tuple(self.columns), tuple(self.header)
        self.tables.append(StarTable(self.name, columns, self.rows, header, self.is_loop, self.source))


def _joined(tables: Sequence[StarTable], source: str) -> tuple[StarTable, ...]:
    """Join tables that are one: all with image names, and all of optics groups.

    Raises
    ------
    UserError
        If they do not have the same columns, or one number stands for two optics groups.
    """
    particles = [table for table in tables if _IMAGE_NAME in table]
    optics = [table for table in tables if table.name == _OPTICS]
    replaced: dict[int, StarTable | None] = {}
    for parts, distinct in ((particles, False), (optics, True)):
        if len(parts) > 1:
            replaced.update({id(table): None for table in parts[1:]})
            replaced[id(parts[0])] = _one_of(parts, distinct, source, has_optics=bool(optics))
    kept = [replaced.get(id(table), table) for table in tables]
    for table in kept:
        if table is not None and table.name == _OPTICS:
            _refuse_repeated_groups(table)
    return tuple(table for table in kept if table is not None)


def _one_of(parts: Sequence[StarTable], distinct: bool, source: str, has_optics: bool) -> StarTable:
    """Put tables of the same columns behind each other, without repeating equal rows of optics groups."""
    first = parts[0]
    rows: list[str] = []
    for part in parts:
        if set(part.columns) != set(first.columns):
            column = sorted(set(part.columns) ^ set(first.columns))[0]
            raise UserError(
                f"{source} holds {len(parts)} tables that should be one, data_{first.name} and data_{part.name}, but"
                f" column {column} is only in one of them: join the files with relion_star_handler --combine."
            )
        rows += part.rows if part.columns == first.columns else _reordered(part, first.columns)
    if distinct:
        by_cells: dict[tuple[str, ...], str] = {}
        for row in rows:
            by_cells.setdefault(tuple(_split(row)[: len(first.columns)]), row)
        rows = list(by_cells.values())
    name, header = first.name, first.header
    if not distinct and has_optics:
        # what other programs look for beside optics groups
        name = _PARTICLES
        header = tuple(f"data_{name}" if line.split()[:1] == [f"data_{first.name}"] else line for line in header)
    joined = dataclasses.replace(first, name=name, rows=rows, header=header)
    if not first.is_loop and len(rows) > 1:
        labels = (f"_{column} #{number}" for number, column in enumerate(first.columns, start=1))
        joined = dataclasses.replace(joined, header=("", f"data_{name}", "", "loop_", *labels), is_loop=True)
    return joined


def _reordered(part: StarTable, columns: Sequence[str]) -> list[str]:
    order = [part.columns.index(column) for column in columns]
    return [" ".join(cells[position] for position in order) for cells in map(_cells_with_quotes, part.rows)]


def _refuse_repeated_groups(optics: StarTable) -> None:
    if _GROUP not in optics:
        return
    seen: dict[str, int] = {}
    for row, number in enumerate(optics.cells(_GROUP)):
        if number in seen:
            raise UserError(
                f"Optics group {number} is in rows {seen[number] + 1} and {row + 1} of data_optics in {optics.source}:"
                " if files were put behind each other, join them with relion_star_handler --combine; otherwise correct"
                " the numbers, of particles, too."
            )
        seen[number] = row


def _refuse_other_formats(source: str) -> None:
    path = Path(source)
    if not path.exists():
        raise UserError(f"{source} does not exist.")
    if not path.is_file():
        raise UserError(f"{source} is not a file: give a STAR file.")
    with open(path, "rb") as stream:
        start = stream.read(4096)
    if start.startswith(b"\x93NUMPY"):
        raise UserError(f"{source} is a cryoSPARC file, but a STAR file is needed here.")
    if start[208:212] in (b"MAP ", b"MAP\0"):
        raise UserError(f"{source} is an MRC file: give the STAR file that lists its images.")
    if b"\0" in start:
        raise UserError(f"{source} is a binary file, not a STAR file.")
    if not start.strip():
        raise UserError(f"{source} is empty: give the STAR file of a 3-D refinement.")


def _is_alone(start: list[str]) -> bool:
    """Whether a word stands alone on its line: a first cell, too, may begin with data_."""
    return len(start) == 1 or start[1].startswith("#")


def _split(line: str) -> list[str]:
    """Cells of a row without their quotes."""
    # other blanks, such as one that does not break, belong to a name
    if "'" not in line and '"' not in line and line.isascii():
        return line.split()
    return [_unquoted(cell) for cell in _CELL.findall(line)]


def _cells_with_quotes(line: str) -> list[str]:
    return _CELL.findall(line)


def _unquoted(cell: str) -> str:
    return cell[1:-1] if len(cell) > 1 and cell[0] in "'\"" and cell[0] == cell[-1] else cell


def _splice(line: str, new_cells: Mapping[int, str]) -> str:
    """Replace cells by their position, leaving all that is between and beside them as it is."""
    pieces = []
    end = 0
    for position, match in enumerate(_CELL.finditer(line)):
        if position in new_cells:
            pieces += [line[end : match.start()], new_cells[position]]
            end = match.end()
    return "".join((*pieces, line[end:]))


def _format_all(values: Sequence[Any]) -> list[str]:
    array = np.asarray(values)
    if array.dtype.kind == "f":
        return [f"{value:.9g}" for value in array.tolist()]
    if array.dtype.kind in "biu":
        return [str(int(value)) for value in array.tolist()]
    return [_quoted_if_needed(str(value)) for value in values]


def _quoted_if_needed(text: str) -> str:
    is_plain = text and not re.search(r"\s", text, re.ASCII) and text[0] not in "'\"#_;"
    if is_plain and not text.startswith(("data_", "loop_")):
        return text
    return f'"{text}"' if '"' not in text else f"'{text}'"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
