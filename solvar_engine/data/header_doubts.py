"""Headers of MRC files that contradict what is in the file: kind of the values, and where the first one is.

A header is believed unless the length of the file, or its values, cannot be as it says. What the file tells instead is
taken where that is sure, and is always said.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from solvar_engine.contract.words import counted
from solvar_engine.data.mrc import MrcHeader

_OTHER_SIGN = {"i1": "u1", "u1": "i1", "i2": "u2", "u2": "i2"}
_UNWRAPPED = 0.5  # of the deviation, at most, that values have which were read with the wrong sign
_LARGEST_OF_MEDIAN = 1e4  # of absolute values; bits that are no floating-point numbers have any exponent
_ALIKE = 0.5  # of values, that are one and the same, or beyond those of images: no pixels
_OTHER_DISTRIBUTION = 0.2  # distance of Kolmogorov and Smirnov; of low and high bits of numbers of both signs 0.25
_MOST_BYTES = 1 << 20  # that are looked at


def settled_header(path: str | os.PathLike[str], header: MrcHeader) -> tuple[MrcHeader, str]:
    """Compare a header with its file.

    Parameters
    ----------
    path : path
    header : MrcHeader
        Of that file, which holds at least one section.

    Returns
    -------
    header : MrcHeader
        As the file tells where it is surely wrong.
    doubt : str
        What is wrong, and what was done, as the end of a sentence that begins with the path; empty if nothing is.
    """
    if not header.room:
        return header, ""
    header, doubt = _with_length(path, header)
    return (header, doubt) if doubt else _with_sign(path, header)


def sentences_of_doubts(paths: Sequence[str | os.PathLike[str]], doubts: Sequence[str]) -> list[str]:
    """One sentence for each kind of doubt, with the first file that has it and the number of the others."""
    of_kind: dict[str, list[str]] = {}
    for path, doubt in zip(paths, doubts, strict=True):
        if doubt:
            of_kind.setdefault(doubt, []).append(os.fspath(path))
    return [
        names[0] + (f" (and {counted(len(names) - 1, 'other stack')})" if len(names) > 1 else "") + f" {doubt}"
        for doubt, names in of_kind.items()
    ]


def _with_length(path: str | os.PathLike[str], header: MrcHeader) -> tuple[MrcHeader, str]:
    """Look at files that are longer than announced, by what is neither padding nor whole sections."""
    announced = header.shape[0] * header.section_bytes
    surplus = header.file_bytes - header.data_offset - announced
    if surplus <= 0:
        return header, ""
    as_real = replace(header, dtype=np.dtype(header.dtype.str[0].replace("|", "<") + "f4"))
    is_as_long = announced + surplus == as_real.section_bytes * header.shape[0]
    if is_as_long and _are_halves(_values(path, header)) and _are_real(_values(path, as_real)):
        bits = 8 * header.dtype.itemsize
        return as_real, (
            f"holds {bits}-bit values by its header, but is as long as 32-bit ones are and holds such: they are read as"
            " that; correct the mode in the header (2)"
        )
    if surplus % header.section_bytes == 0 or not any(_bytes_at(path, header.data_offset + announced, surplus)):
        return header, ""
    inside = _values(path, header, min(header.room, header.shape[0]) // 2)
    for extended in (surplus, surplus % header.section_bytes):
        if extended % header.dtype.itemsize == 0 and _are_no_pixels(path, header, extended, inside):
            return replace(header, data_offset=header.data_offset + extended), (
                f"is {surplus} bytes longer than its header says, and begins with {extended} that are no pixels: they"
                " are taken as an extended header, which should be announced (nsymbt)"
            )
    return header, (
        f"is {surplus} bytes longer than its header says: the images are taken to follow the header; if others do, an"
        " extended one, it should be announced (nsymbt)"
    )


def _with_sign(path: str | os.PathLike[str], header: MrcHeader) -> tuple[MrcHeader, str]:
    """Look at integers, whose largest and smallest ones lie side by side if they were written with the other sign."""
    kind = header.dtype.str[1:]
    if kind not in _OTHER_SIGN:
        return header, ""
    values = _values(path, header)
    other = np.dtype(header.dtype.str[0] + _OTHER_SIGN[kind])
    if not values.view(other).astype(float).std() < _UNWRAPPED * values.astype(float).std():
        return header, ""
    said, found = ("unsigned", "signed") if kind[0] == "u" else ("signed", "unsigned")
    return replace(header, dtype=other), (
        f"holds {said} values by its header, which jump from the lowest ones to the highest as {found} ones do when"
        f" they are read like that: they are read as {found}; correct the mode in the header"
    )


def _are_halves(values: NDArray[np.generic]) -> bool:
    """Whether the first and last of neighbouring values, which make up 32 bits, are of different distributions."""
    parts = values.view(f"u{values.dtype.itemsize}").reshape(-1, 4 // values.dtype.itemsize)
    return bool(ks_2samp(parts[:, 0], parts[:, -1]).statistic > _OTHER_DISTRIBUTION)


def _are_real(values: NDArray[np.generic]) -> bool:
    """Whether values are floating-point numbers, and not the bits of others."""
    size = np.abs(values.astype(float))
    return bool(np.isfinite(size).all()) and 0 < size.max() <= _LARGEST_OF_MEDIAN * float(np.median(size))


def _are_no_pixels(
    path: str | os.PathLike[str], header: MrcHeader, extended: int, inside: NDArray[np.generic]
) -> bool:
    """Whether what stands before the images, if so many bytes do, is unlike the pixels of an image (m,) to its end."""
    content = _bytes_at(path, header.data_offset, extended)
    values = np.frombuffer(content, dtype=header.dtype).astype(float)
    lowest, highest = float(inside.min()), float(inside.max())

    def is_other(some: NDArray[np.float64]) -> bool:
        is_beyond = ~np.isfinite(some) | (some < lowest) | (some > highest)
        # the bits of small integers and of text are tiny numbers, or huge ones
        usual = np.abs(inside.astype(float))
        is_tiny = (np.abs(some) < np.median(usual) / _LARGEST_OF_MEDIAN) & (header.dtype.kind == "f")
        return float((is_beyond | is_tiny).mean()) > _ALIKE

    last = values[-max(1, len(values) // 4) :]
    is_constant = np.unique(last, return_counts=True)[1].max() > _ALIKE * len(last)
    few = np.unique(inside, return_counts=True)[1].max() <= _ALIKE * inside.size
    return is_other(values) and is_other(last) or bool(is_constant and few)


def _values(path: str | os.PathLike[str], header: MrcHeader, section: int = 0) -> NDArray[np.generic]:
    content = _bytes_at(path, header.data_offset + section * header.section_bytes, header.section_bytes)
    return np.frombuffer(content[: len(content) // header.dtype.itemsize * header.dtype.itemsize], dtype=header.dtype)


def _bytes_at(path: str | os.PathLike[str], offset: int, count: int) -> bytes:
    with open(path, "rb") as stream:
        stream.seek(offset)
        return stream.read(min(count, _MOST_BYTES))
