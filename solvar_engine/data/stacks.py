"""Images read by their place in many stacks, with few files open at a time."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.data.mrc import MrcHeader

MAX_OPEN_FILES = 64
# a run of images is read in pieces of this size, so that memory stays close to that of the result
_PIECE_BYTES = 1 << 25


class StackReader:
    """Reads images of one box size from any number of MRC stacks.

    Files are read at a position rather than mapped: a stack that shrinks or goes away while it is used gives
    an error that names it, not a crash. One reader may be shared by threads.

    Parameters
    ----------
    paths : sequence of Path
    headers : sequence of MrcHeader
        One per path.
    """

    def __init__(self, paths: Sequence[Path], headers: Sequence[MrcHeader]) -> None:
        self._paths = paths
        self._headers = headers
        self._open: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._open)

    def read(self, stack: np.ndarray, image: np.ndarray) -> np.ndarray:
        """Read images; those that follow one another in a stack are read in one go.

        Parameters
        ----------
        stack : ndarray of int, shape (n,)
            Position in `paths`.
        image : ndarray of int, shape (n,)
            Place in the stack, from 0.

        Returns
        -------
        ndarray, shape (n, y, x), float32
            In the order asked for.

        Raises
        ------
        UserError
            If a file cannot be read, or an image is cut off, constant, or has values that are not finite;
            file and image (from 1) are named.
        """
        images, faults = self.read_with_faults(stack, image)
        if faults:
            place = min(faults)
            where = f"Image {image[place] + 1} of {self._paths[stack[place]]}"
            raise UserError(f"{where} {faults[place]}: leave it out or extract it again.")
        return images

    def read_with_faults(self, stack: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        """Read images as `read`; those without content are zero, with their fault in words by their place.

        Returns
        -------
        images : ndarray, shape (n, y, x), float32
        faults : dict of int to str

        Raises
        ------
        UserError
            If a file cannot be read, or has become shorter.
        """
        rows, columns = self._headers[int(stack[0])].shape[1:] if len(stack) else (0, 0)
        images = np.zeros((len(stack), rows, columns), dtype=np.float32)
        whole = np.array([header.whole_sections for header in self._headers])
        is_whole = image < whole[stack]
        order = np.lexsort((image, stack))
        order = order[is_whole[order]]
        with self._lock:
            for places in _runs(order, stack, image, _PIECE_BYTES // max(1, 4 * rows * columns)):
                first = places[0]
                images[places] = self._read_run(int(stack[first]), int(image[first]), len(places))
        faults = _faults_of(images)
        faults.update({int(place): "is cut off" for place in np.flatnonzero(~is_whole)})
        images[list(faults)] = 0
        return images, faults

    def _read_run(self, stack: int, first: int, count: int) -> np.ndarray:
        header = self._headers[stack]
        values = np.empty((count, *header.shape[1:]), dtype=header.dtype)
        missing = memoryview(values.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        offset = header.data_offset + first * header.section_bytes
        descriptor = self._descriptor(stack)
        while missing:
            try:
                done = os.preadv(descriptor, [missing], offset)
            except OSError as error:
                raise UserError(f"{self._paths[stack]} cannot be read ({error.strerror}).") from error
            if done == 0:
                image = (offset - header.data_offset) // header.section_bytes + 1
                raise UserError(f"{self._paths[stack]} is truncated: it ends within image {image}.")
            missing, offset = missing[done:], offset + done
        return values

    def _descriptor(self, stack: int) -> int:
        """File descriptor of a stack; the one that was not used for the longest time makes room for it."""
        if stack in self._open:
            self._open.move_to_end(stack)
            return self._open[stack]
        if len(self._open) >= MAX_OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        try:
            self._open[stack] = os.open(self._paths[stack], os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UserError(f"{self._paths[stack]} cannot be opened ({error.strerror}).") from error
        return self._open[stack]


def _faults_of(images: np.ndarray) -> dict[int, str]:
    """Fault in words of images without content, by place."""
    flat = images.reshape(len(images), -1)
    if flat.size == 0:
        return {}
    # NaN passes through minimum and maximum
    lowest, highest = flat.min(axis=1), flat.max(axis=1)
    is_finite = np.isfinite(lowest) & np.isfinite(highest)
    return {
        int(place): f"is constant ({lowest[place]:g})" if is_finite[place] else "has NaN or infinite values"
        for place in np.flatnonzero(~is_finite | (lowest == highest))
    }


def _runs(order: np.ndarray, stack: np.ndarray, image: np.ndarray, longest: int) -> Iterator[np.ndarray]:
    """Split sorted places where stack or image does not go on, or a run gets too long."""
    if len(order) == 0:
        return
    follows = (np.diff(stack[order]) == 0) & (np.diff(image[order]) == 1)
    for run in np.split(order, np.flatnonzero(~follows) + 1):
        for start in range(0, len(run), max(1, longest)):
            yield run[start : start + max(1, longest)]


def _close_all(descriptors: OrderedDict[int, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])
