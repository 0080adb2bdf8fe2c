"""Image names of two lists whose stacks have other paths: which stack of the one is which of the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

_START = ">"  # of a path within its project, as cryoSPARC marks it; here of all, so that whole paths are most alike


@dataclass(frozen=True)
class ImageKeys:
    """Keys of images, equal where two lists mean the same one.

    Attributes
    ----------
    wanted : list of str
        Of the first list; empty for an image whose stack is not in the second one.
    given : list of str
        Of the second list.
    unclear : tuple of a str and a list of str, or None
        A stack of the first list that may be several of the second, and these.
    """

    wanted: list[str]
    given: list[str]
    unclear: tuple[str, list[str]] | None


def keys_by_stacks(wanted: Sequence[str], given: Sequence[str]) -> ImageKeys:
    """Compare images by their numbers, without leading zeros, and stacks by as many last folders as they share.

    A stack is that of the other list whose path has the longest end in common with its own, the file name at least. So
    folders count only where stacks of several have one name. An image that images of several stacks would be is that of
    the stack whose path is most like its own.

    Parameters
    ----------
    wanted, given : sequence of str
        Image names, as 000001@folder/name.mrcs.

    Returns
    -------
    ImageKeys

    Examples
    --------
    >>> keys_by_stacks(["000001@a/x.mrcs", "1@b/x.mrcs"], ["1@new/b/x.mrcs", "1@new/a/x.mrcs"]).wanted
    ['1@new/a/x.mrcs', '1@new/b/x.mrcs']
    """
    first, second = ([_number_and_stack(name) for name in names] for names in (wanted, given))
    there, back = (_by_ends(dict.fromkeys(stack for _, stack in images)) for images in (second, first))
    alike = {stack: _most_alike(stack, there) for _, stack in first}
    is_given = set(second)
    candidates = [[other for other in alike[stack] if (number, other) in is_given] for number, stack in first]
    asking: dict[tuple[str, str], set[str]] = defaultdict(set)
    for (number, stack), found in zip(first, candidates, strict=True):
        if len(found) == 1:
            asking[number, found[0]].add(stack)
    contested = {stack for (_, stack), by in asking.items() if len(by) > 1}
    return ImageKeys(
        [
            f"{number}@{found[0]}"
            if len(found) == 1 and (found[0] not in contested or _most_alike(found[0], back) == [stack])
            else ""
            for (number, stack), found in zip(first, candidates, strict=True)
        ],
        [f"{number}@{stack}" for number, stack in second],
        next(((stack, found) for (_, stack), found in zip(first, candidates, strict=True) if len(found) > 1), None),
    )


def _number_and_stack(name: str) -> tuple[str, str]:
    """Parts of an image name; the only image of a file has no number."""
    number, _, stack = name.rpartition("@")
    return number.lstrip("0"), stack


def _ends(stack: str) -> Iterator[tuple[str, ...]]:
    """Ends of a path, the longest first."""
    parts = (_START, *PurePath(stack.removeprefix(_START)).parts)
    return (parts[first:] for first in range(len(parts)))


def _by_ends(stacks: Iterable[str]) -> dict[tuple[str, ...], list[str]]:
    found = defaultdict(list)
    for stack in stacks:
        for end in _ends(stack):
            found[end].append(stack)
    return found


def _most_alike(stack: str, stacks: dict[tuple[str, ...], list[str]]) -> list[str]:
    """Those with the longest end in common, none without the file name."""
    return next((stacks[end] for end in _ends(stack) if end in stacks), [])
