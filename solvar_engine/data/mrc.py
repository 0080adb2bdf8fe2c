"""MRC files: headers as they are in the field, and files of our own (MRC2014, Cheng et al. 2015).

The library mrcfile opens one file well; a particle set may name 100,000 of them, so headers are read here
with one small read each, and images by position (see `stacks`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import atomic_path
from solvar_engine.contract.words import counted

HEADER_BYTES = 1024
_FORMAT_VERSION = 20140
# mode 0 is signed, as MRC2014 says and RELION reads it
_DTYPES = {0: np.int8, 1: np.int16, 2: np.float32, 6: np.uint16, 12: np.float16}
_UNSIGNED: dict[int, type[np.uint8] | type[np.uint16]] = {0: np.uint8, 1: np.uint16}
_IMOD_STAMP = 1146047817
_COMPLEX_MODES = (3, 4)
_KNOWN_MODES = (*_DTYPES, *_COMPLEX_MODES, 101)
_LARGEST_EDGE = 1 << 20
_SPACE_GROUP_IMAGES, _SPACE_GROUP_VOLUME, _SPACE_GROUP_VOLUME_STACK = 0, 1, 401

_HEADER = np.dtype(
    [
        ("size", "i4", 3),
        ("mode", "i4"),
        ("start", "i4", 3),
        ("sampling", "i4", 3),
        ("cell", "f4", 3),
        ("angles", "f4", 3),
        ("axes", "i4", 3),
        ("minimum", "f4"),
        ("maximum", "f4"),
        ("mean", "f4"),
        ("space_group", "i4"),
        ("extended_bytes", "i4"),
        ("extra1", "V8"),
        ("extended_type", "S4"),
        ("version", "i4"),
        ("extra2", "V40"),
        ("imod_stamp", "i4"),
        ("imod_flags", "i4"),
        ("extra3", "V36"),
        ("origin", "f4", 3),
        ("map", "S4"),
        ("machine_stamp", "u1", 4),
        ("rms", "f4"),
        ("label_count", "i4"),
        ("labels", "S80", 10),
    ]
)


@dataclass(frozen=True)
class MrcHeader:
    """What the header of an MRC file says, checked.

    Attributes
    ----------
    shape : tuple of int
        (sections, rows, columns), normally (z, y, x).
    dtype : numpy.dtype
        Of the values in the file, with its byte order.
    data_offset : int
        Bytes before the first value.
    file_bytes : int
        Size of the file.
    voxel_size : tuple of float
        Along (x, y, z) in Angstrom; 0 where the header does not say.
    axes : tuple of int
        Which of x (1), y (2), z (3) columns, rows and sections are.
    is_volume_stack : bool
        Several volumes one after the other.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    data_offset: int
    file_bytes: int
    voxel_size: tuple[float, float, float]
    axes: tuple[int, int, int]
    is_volume_stack: bool

    @property
    def section_bytes(self) -> int:
        """Size of one section (one image of a stack)."""
        return self.shape[1] * self.shape[2] * self.dtype.itemsize

    @property
    def whole_sections(self) -> int:
        """Number of sections that are in the file from beginning to end."""
        return min(self.shape[0], self.room)

    @property
    def room(self) -> int:
        """Number of sections that the file is long enough for, whatever the header announces."""
        return max(0, self.file_bytes - self.data_offset) // self.section_bytes


def read_header(path: str | os.PathLike[str]) -> MrcHeader:
    """Read and check the header of an MRC file of either byte order.

    Parameters
    ----------
    path : path

    Returns
    -------
    MrcHeader

    Raises
    ------
    UserError
        If the file cannot be read, is not an MRC file, or holds values of a kind that is not read: complex
        transforms and 4-bit images.

    Examples
    --------
    >>> read_header("particles.mrcs").shape  # doctest: +SKIP
    (10000, 64, 64)
    """
    try:
        with open(path, "rb") as stream:
            content = stream.read(HEADER_BYTES)
            file_bytes = os.fstat(stream.fileno()).st_size
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (PermissionError, IsADirectoryError) as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    if len(content) < HEADER_BYTES:
        raise UserError(f"{path} is not an MRC file: it has only {len(content)} bytes.")
    # the byte order that the machine stamp names, or the other one if only that makes sense
    stamped_big = content[212] == 0x11
    for is_big_endian in (stamped_big, not stamped_big):
        header = np.frombuffer(content, dtype=_HEADER.newbyteorder(">" if is_big_endian else "<"))[0]
        if _makes_sense(header):
            return _checked(header, is_big_endian, path, file_bytes)
    raise UserError(f"{path} is not an MRC file: its header makes no sense in either byte order.")


def _makes_sense(header: np.void) -> bool:
    columns, rows, sections = header["size"]
    has_size = 0 < columns <= _LARGEST_EDGE and 0 < rows <= _LARGEST_EDGE and sections > 0
    return bool(has_size and header["mode"] in _KNOWN_MODES and header["extended_bytes"] >= 0)


def _checked(
    header: np.void, is_big_endian: bool, path: str | os.PathLike[str], file_bytes: int
) -> MrcHeader:
    mode = int(header["mode"])
    if mode in _COMPLEX_MODES:
        raise UserError(f"{path} holds a complex transform (MRC mode {mode}): give images in real space.")
    if mode not in _DTYPES:
        raise UserError(f"{path} has MRC mode {mode}, but only modes 0, 1, 2, 6 and 12 are read: convert it.")
    is_unsigned = mode == 0 and _has_unsigned_bytes(header) or _is_beyond_signed(header, mode)
    dtype = np.dtype(_UNSIGNED[mode] if is_unsigned else _DTYPES[mode])
    columns, rows, sections = (int(edge) for edge in header["size"])
    x, y, z = (_spacing(float(header["cell"][axis]), int(header["sampling"][axis])) for axis in range(3))
    axes = tuple(int(axis) for axis in header["axes"])
    return MrcHeader(
        shape=(sections, rows, columns),
        dtype=dtype.newbyteorder(">" if is_big_endian else "<"),
        data_offset=HEADER_BYTES + int(header["extended_bytes"]),
        file_bytes=file_bytes,
        voxel_size=(x, y, z),
        # programs that leave the axes empty mean the usual ones
        axes=(axes[0], axes[1], axes[2]) if sorted(axes) == [1, 2, 3] else (1, 2, 3),
        # volumes of one section each are images
        is_volume_stack=int(header["space_group"]) == _SPACE_GROUP_VOLUME_STACK and int(header["sampling"][2]) > 1,
    )


def _has_unsigned_bytes(header: np.void) -> bool:
    """Whether IMOD wrote the file, and does not say that its bytes are signed."""
    return int(header["imod_stamp"]) == _IMOD_STAMP and not int(header["imod_flags"]) & 1


def _is_beyond_signed(header: np.void, mode: int) -> bool:
    """Whether the header names a minimum and a maximum that only unsigned values have, as older programs do."""
    if mode not in _UNSIGNED:
        return False
    highest = float(np.iinfo(_UNSIGNED[mode]).max // 2)
    return 0 <= float(header["minimum"]) and highest < float(header["maximum"]) <= 2 * highest + 1


def _spacing(cell: float, samples: int) -> float:
    return cell / samples if samples > 0 and cell > 0 and np.isfinite(cell) else 0.0


def write_map(path: str | os.PathLike[str], data: np.ndarray, pixel_size: float) -> None:
    """Write a map atomically as MRC mode 2; the same map gives the same bytes.

    Parameters
    ----------
    path : path
    data : ndarray, shape (z, y, x)
    pixel_size : float
        Angstrom.
    """
    values = np.ascontiguousarray(data, dtype="<f4")
    summary = _Summary()
    summary.add(values)
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        stream.write(_encode(values.shape, values.shape[0], pixel_size, _SPACE_GROUP_VOLUME, summary))
        stream.write(values.data)


class StackWriter:
    """Writes an image stack piece by piece, atomically, as MRC mode 2.

    Parameters
    ----------
    path : path
        Appears only when the writer is closed without an error.
    pixel_size : float
        Angstrom.

    Examples
    --------
    >>> with StackWriter("particles.mrcs", pixel_size=3.0) as stack:  # doctest: +SKIP
    ...     for images in batches:
    ...         stack.append(images)
    """

    def __init__(self, path: str | os.PathLike[str], pixel_size: float) -> None:
        self._atomic = atomic_path(path)
        self._pixel_size = pixel_size
        self._shape = (0, 0, 0)
        self._summary = _Summary()

    def __enter__(self) -> StackWriter:
        self._stream = open(self._atomic.__enter__(), "wb")
        self._stream.write(bytes(HEADER_BYTES))
        return self

    def append(self, images: np.ndarray) -> None:
        """Append images, shape (n, y, x), all calls with the same box.

        Raises
        ------
        ValueError
            If the box differs from that of the images before.
        """
        values = np.ascontiguousarray(images, dtype="<f4")
        if values.ndim != 3 or (self._shape[0] and values.shape[1:] != self._shape[1:]):
            raise ValueError(f"images of shape {values.shape} do not fit a stack of shape {self._shape}")
        self._stream.write(values.data)
        self._summary.add(values)
        self._shape = (self._shape[0] + values.shape[0], values.shape[1], values.shape[2])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._stream.seek(0)
                self._stream.write(
                    _encode(self._shape, 1, self._pixel_size, _SPACE_GROUP_IMAGES, self._summary)
                )
        except BaseException as failure:
            self._atomic.__exit__(type(failure), failure, failure.__traceback__)
            raise
        finally:
            self._stream.close()
        self._atomic.__exit__(kind, error, traceback)


class _Summary:
    """Running minimum, maximum, mean and standard deviation."""

    def __init__(self) -> None:
        self._minimum, self._maximum = np.inf, -np.inf
        self._count, self._sum, self._sum_of_squares = 0, 0.0, 0.0

    def add(self, values: np.ndarray) -> None:
        if values.size:
            self._minimum = min(self._minimum, float(values.min()))
            self._maximum = max(self._maximum, float(values.max()))
            self._count += values.size
            self._sum += float(values.sum(dtype=np.float64))
            flat = values.reshape(-1)
            self._sum_of_squares += float(np.einsum("i,i->", flat, flat, dtype=np.float64))

    def fields(self) -> dict[str, float]:
        if not self._count:
            return {}
        mean = self._sum / self._count
        variance = max(0.0, self._sum_of_squares / self._count - mean**2)
        return {"minimum": self._minimum, "maximum": self._maximum, "mean": mean, "rms": variance**0.5}


def _encode(
    shape: tuple[int, ...], sampled_sections: int, pixel_size: float, space_group: int, summary: _Summary
) -> bytes:
    """Header of a little-endian file; no time stamp, so that equal data give equal files."""
    sections, rows, columns = shape
    header = np.zeros((), dtype=_HEADER.newbyteorder("<"))
    header["size"] = (columns, rows, sections)
    header["mode"] = 2
    header["sampling"] = (columns, rows, sampled_sections)
    header["cell"] = np.multiply((columns, rows, sampled_sections), pixel_size)
    header["angles"] = 90
    header["axes"] = (1, 2, 3)
    header["space_group"] = space_group
    header["version"] = _FORMAT_VERSION
    header["map"] = b"MAP "
    header["machine_stamp"] = (0x44, 0x44, 0, 0)
    for name, value in summary.fields().items():
        header[name] = value
    header["label_count"] = 1
    header["labels"][0] = b"solvar-engine"
    return header.tobytes()


def describe_shortfall(path: str | os.PathLike[str], header: MrcHeader) -> str:
    """Say in a sentence how a truncated file falls short; images are numbered from 1."""
    return (
        f"{Path(path)} is truncated: its header announces {counted(header.shape[0], 'image')}, but the file ends within"
        f" image {header.whole_sections + 1}; copy or extract it again."
    )
