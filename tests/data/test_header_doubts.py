"""Headers that contradict their files: what the file tells is taken, and said; padded and grown files are as before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from solvar_engine.data.header_doubts import sentences_of_doubts, settled_header
from solvar_engine.data.mrc import StackWriter, read_header

BOX, IMAGES, HEAD = 16, 6, 1024
NOISE = np.random.default_rng(0).normal(size=(IMAGES, BOX, BOX))
TEXT = b"pixel size 1.06, dose 40.0, stage tilt 0.0; " * 100


@dataclass
class Stack:
    path: Path

    def write(self, values: np.ndarray, mode: int, before: bytes = b"", after: bytes = b"", sections=IMAGES) -> None:
        """Values behind the header of a stack of floats whose mode, and number of sections, are as given."""
        with StackWriter(self.path, pixel_size=2.0) as stack:
            stack.append(NOISE)
        head = bytearray(self.path.read_bytes()[:HEAD])
        head[8:12], head[12:16] = np.int32(sections).tobytes(), np.int32(mode).tobytes()
        head[76:88] = bytes(12)  # minimum, maximum and mean, which writers of other numbers leave out
        self.path.write_bytes(bytes(head) + before + values.tobytes() + after)

    def read(self) -> tuple[np.ndarray, str]:
        header, doubt = settled_header(self.path, read_header(self.path))
        values = np.fromfile(self.path, dtype=header.dtype, offset=header.data_offset, count=IMAGES * BOX**2)
        return values.reshape(IMAGES, BOX, BOX), doubt


@pytest.fixture
def stack(tmp_path) -> Stack:
    return Stack(tmp_path / "stack.mrcs")


@pytest.mark.parametrize("mode", [0, 1, 12])
def test_real_numbers_that_are_called_others(stack, mode):
    values = (37 * NOISE + 200).astype("<f4")
    stack.write(values, mode)
    read, doubt = stack.read()
    np.testing.assert_array_equal(read, values)
    assert "as long as 32-bit ones" in doubt


@pytest.mark.parametrize("mode", [1, 6])
def test_integers_of_twice_the_images_stay_integers(stack, mode):
    """The header was not updated after as many images were added: bits of integers are no real numbers."""
    values = (300 * np.concatenate([NOISE, NOISE[::-1]]) + 2000).astype("<i2")
    stack.write(values, mode)
    read, doubt = stack.read()
    np.testing.assert_array_equal(read, values[:IMAGES])
    assert not doubt


@pytest.mark.parametrize(("kind", "mode"), [("<i2", 6), ("<u2", 1), ("u1", 0)])
def test_integers_of_the_other_sign(stack, kind, mode):
    """Values on both sides of where the other reading jumps: 0 of signed ones, 128 or 32768 of unsigned ones."""
    middle = 0 if kind == "<i2" else 128 if kind == "u1" else 32768
    values = np.round(30 * NOISE + middle).clip(0 if kind[-2] == "u" else None).astype(kind)
    stack.write(values, mode)
    read, doubt = stack.read()
    np.testing.assert_array_equal(read, values)
    assert doubt.startswith(f"holds {'signed' if mode != 6 else 'unsigned'} values by its header, which jump")


@pytest.mark.parametrize(
    ("kind", "mode", "middle", "spread"),
    [("<i2", 1, 0, 9000), ("<u2", 6, 32768, 9000), ("i1", 0, 0, 35), ("<u2", 6, 3, 1)],
)
def test_integers_over_their_whole_range_are_as_they_are_called(stack, kind, mode, middle, spread):
    limits = np.iinfo(kind)
    values = np.round(spread * NOISE + middle).clip(limits.min, limits.max).astype(kind)
    stack.write(values, mode)
    read, doubt = stack.read()
    np.testing.assert_array_equal(read, values)
    assert not doubt


@pytest.mark.parametrize(
    "extended", [bytes(1024), TEXT[:1024], np.arange(640, dtype="<i4").tobytes(), TEXT + bytes(1696)]
)
@pytest.mark.parametrize(("kind", "mode"), [("<f4", 2), ("<i2", 1)])
def test_extended_header_that_is_not_announced(stack, extended, kind, mode):
    """Shorter than an image (of 512 or 1024 bytes) or longer; zeros, text, or numbers of another kind."""
    extended = extended + bytes(4)  # no whole sections
    values = (50 * NOISE).astype(kind)
    stack.write(values, mode, before=extended)
    read, doubt = stack.read()
    if kind == "<i2" and extended[:4] != bytes(4):  # text and small numbers may be pixels: it is only said
        assert doubt
        return
    np.testing.assert_array_equal(read, values)
    assert f"is {len(extended)} bytes longer than its header says, and begins with {len(extended)}" in doubt


def test_what_follows_the_images(stack):
    """Padding and whole sections are nothing to speak of; what may be either is said, and the header believed."""
    values = NOISE.astype("<f4")
    for after, is_said in ((bytes(500), False), (values[:2].tobytes(), False), (values[0].tobytes()[:500], True)):
        stack.write(values, 2, after=after)
        read, doubt = stack.read()
        np.testing.assert_array_equal(read, values)
        assert ("bytes longer than its header says: the images are taken to follow" in doubt) == is_said


def test_file_without_images(stack):
    stack.write(NOISE[:0].astype("<f4"), 2)
    header = read_header(stack.path)
    assert settled_header(stack.path, header) == (header, "")
    assert settled_header(stack.path, replace(header, file_bytes=HEAD + 10))[1] == ""


def test_one_sentence_for_each_kind():
    assert sentences_of_doubts(["a", "b", "c", "d"], ["", "is long", "is odd", "is long"]) == [
        "b (and 1 other stack) is long",
        "c is odd",
    ]
