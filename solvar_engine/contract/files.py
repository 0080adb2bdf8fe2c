"""Writing files so that a reader never sees half of one, and plain tables."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Sequence

import numpy as np

from solvar_engine.contract.errors import UserError

_TEMPORARY_SUFFIX = ".tmp"
_BLOCK_BYTES = 1 << 20
# names keep whatever bytes they hold
_ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}


class FileIn:
    """A file of a folder, as an attribute of a class whose instances have the folder as `path`.

    Parameters
    ----------
    name : str
        Of the file, or of a folder, below that folder.
    text : str
        What it holds; becomes the documentation of the attribute.

    Examples
    --------
    >>> class Results:
    ...     path = Path("results")
    ...     mean = FileIn("mean.mrc", "Mean volume.")
    >>> Results().mean.as_posix()
    'results/mean.mrc'
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.__doc__ = text

    def __get__(self, folder: Any, kind: type | None = None) -> Path:
        return Path(folder.path, self.name)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`, renamed to `path` on success and removed on failure.

    Raises
    ------
    UserError
        If the folder of `path` does not exist.

    Examples
    --------
    >>> with atomic_path("mean.mrc") as temporary:  # doctest: +SKIP
    ...     temporary.write_bytes(content)
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise UserError(f"{target} cannot be written: the folder {target.parent} does not exist.")
    temporary = target.with_name(f".{target.name}.{os.getpid()}{_TEMPORARY_SUFFIX}")
    if temporary.is_symlink():  # would be followed
        temporary.unlink()
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        if temporary.exists():
            temporary.unlink()
        raise


def is_temporary(path: Path) -> bool:
    """Whether a file is what `atomic_path` leaves behind when its program is killed."""
    return path.name.startswith(".") and path.name.endswith(_TEMPORARY_SUFFIX)


def prepare_output_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder for results, with its parents, and refuse one that is not empty.

    Raises
    ------
    UserError
        If `path` is a file, or a folder that holds anything.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give a folder for --output.")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty: give a new or empty folder for --output.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{folder} cannot be made because a part of its path is a file.") from error
    return folder


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write JSON atomically; numbers that JSON does not know (NaN, infinity) become null."""
    text = json.dumps(_jsonable(content), indent=2, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    UserError
        If the file is absent or does not hold a JSON object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object.")
    return content


def printable(text: str) -> str:
    """Return text in which bytes of a name that are not UTF-8 have become question marks, for pages and figures."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content.

    Raises
    ------
    UserError
        If the file is absent.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            for block in iter(lambda: stream.read(_BLOCK_BYTES), b""):
                digest.update(block)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    return digest.hexdigest()


def write_csv(path: str | os.PathLike[str], columns: Mapping[str, Any]) -> None:
    """Write a table atomically: comma-separated, one header line; None and NaN become empty cells.

    Parameters
    ----------
    path : path
    columns : mapping of str to sequence
        Values by column name, all of one length, in the order of the columns.

    Raises
    ------
    ValueError
        If the columns differ in length.
    """
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns of a table differ in length: {lengths}")
    cells = ([_cell(value) for value in values] for values in columns.values())
    with atomic_path(path) as temporary, open(temporary, "w", newline="", **_ENCODING) as stream:  # type: ignore[call-overload]
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*cells))


def append_csv(path: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
    """Append one row to a table, with the header if the file is new.

    A last line that was cut short, because the program that wrote it was killed, is removed first.

    Raises
    ------
    ValueError
        If the file has other columns than `row`.
    """
    table = Path(path)
    header = _csv_line(row)
    existing = table.read_bytes() if table.exists() else b""
    kept = existing[: existing.rfind(b"\n") + 1]
    with open(table, "r+b" if existing else "wb") as stream:
        stream.truncate(len(kept))
        stream.seek(len(kept))
        if not kept:
            stream.write(header)
        elif not kept.startswith(header):
            raise ValueError(f"{table} has other columns than {', '.join(row)}")
        stream.write(_csv_line(_cell(value) for value in row.values()))


def read_csv(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a table with a header line.

    Returns
    -------
    dict of str to ndarray, shape (rows,)
        float64 for a column of numbers, in which an empty cell is NaN, otherwise text.

    Raises
    ------
    UserError
        If the file is absent, empty, or has a row with another number of cells than the header.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a table of comma-separated values.") from error
    if any("\0" in cell for cell in (rows[0] if rows else ())):
        raise UserError(f"{path} is not a table of comma-separated values.")
    if not rows:
        raise UserError(f"{path} is empty: a header line with the names of the columns is needed.")
    header = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise UserError(f"Row {number} of {path} has {len(row)} cells, its header {len(header)}.")
    cells = list(zip(*rows[1:])) or [()] * len(header)
    return {name: _as_numbers(values) for name, values in zip(header, cells)}


def as_text(values: np.ndarray) -> np.ndarray:
    """Turn a column of `read_csv` back into text that was read as numbers because all its cells are numbers or empty.

    Examples
    --------
    >>> as_text(np.array([1.0, np.nan])).tolist()
    ['1', '']
    """
    if values.dtype.kind != "f":
        return values.astype(str)
    return np.array(["" if np.isnan(value) else f"{value:g}" for value in values], dtype=str)


def _cell(value: Any) -> str:
    """Shortest text from which a number is read back as it was."""
    if value is None or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return ""
    # str of a NumPy float32 has the digits that float32 needs; of a Python float, those of float64
    return str(value)


def _csv_line(cells: Iterable[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().encode(**_ENCODING)


def _as_numbers(values: Sequence[str]) -> np.ndarray:
    try:
        return np.array([float(value) if value.strip() else np.nan for value in values], dtype=np.float64)
    except ValueError:
        return np.array(values, dtype=str)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _jsonable(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, np.generic):
        return _jsonable(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
